"""`sbe serve`: this machine as the remote, with Python functions as its services."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from socket import socketpair
from types import FrameType
from typing import TYPE_CHECKING

import click

from sbe import errors
from sbe.cli import exit_codes, signals
from sbe.cli.session import Session
from sbe.host.streams import OutputError

if TYPE_CHECKING:
    from sbe.serve.places import Place
    from sbe.serve.service import Service

__all__ = ["serve"]


@click.command()
@click.argument("module")
@click.option("--socket", metavar="PATH", help="Listen here, for hosts of this machine and user.")
@click.option(
    "--carveout",
    metavar="FILE.toml",
    type=click.Path(exists=True, dir_okay=False),
    help="Be the remote in the window of shared RAM that FILE.toml names.",
)
@click.option("--name", default="sbe.serve", show_default=True, help="What hosts are told.")
@click.pass_obj
def serve(
    session: Session, module: str, socket: str | None, carveout: str | None, name: str
) -> int:
    """Serve the functions of MODULE to a host, until Ctrl-C, SIGTERM or SIGHUP.

    MODULE is a file FILE.py, a module that can be imported, or an entry point of the group
    sbe.services. Its SERVICES are handlers by name; without that all its public functions are
    services: def name(payload, *buffers), which returns bytes or None.

    Hosts are one at a time, and handlers run one at a time.
    """
    from sbe.serve.modules import load_services
    from sbe.serve.service import Service

    if (socket is None) == (carveout is None):
        raise click.UsageError("say where hosts come: --socket PATH or --carveout FILE.toml")
    screen = session.screen()
    services = load_services(module)
    place, words = _place(socket, carveout, os.path.basename(module))

    def tell(line: str) -> None:
        with contextlib.suppress(OutputError):  # hosts are served whether or not somebody reads
            screen.line(line)

    with contextlib.ExitStack() as stack:
        stack.callback(place.close)
        service = Service(services, place, name=name, tell=tell)
        stack.callback(service.close)
        ended = stack.enter_context(_ends(service))
        screen.line(f"{', '.join(services)}: {words}")
        service.run()
    screen.result(True, services=list(services))
    return exit_codes.INTERRUPTED if signal.SIGINT in ended else exit_codes.OK


def _place(socket: str | None, carveout: str | None, image: str) -> tuple[Place, str]:
    from sbe.remotes.carveout import CarveoutConfig
    from sbe.serve.places import SocketPlace, WindowPlace

    if carveout is not None:
        config = CarveoutConfig.load(carveout)
        return WindowPlace(config, image), f"in the shared RAM {config.memory}"
    if not socket:
        raise click.UsageError("--socket takes the path of a socket")
    path = os.path.abspath(socket)
    return SocketPlace(path), f"connect to socket:{path}"


@contextlib.contextmanager
def _ends(service: Service) -> Iterator[list[int]]:
    """Signals that came: the first one stops the service, a second one a handler that hangs.

    One that the caller ignores still is. A signal may reach any thread, and does not wake the one
    that waits for hosts: a thread does, which hears of each.
    """
    came: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.signal(number, signal.SIG_DFL)
        service.stop()

    def hear() -> None:
        while numbers := heard.recv(64):
            if handled.intersection(numbers):
                service.stop()

    handled = frozenset(signals.ending())
    with errors.resources("what hears of signals"):
        heard, told = socketpair()
        told.setblocking(False)
    signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=hear, name="sbe-signals", daemon=True).start()
    for number in handled:
        signal.signal(number, stop)
    try:
        yield came
    finally:
        signal.set_wakeup_fd(-1)
        told.close()
