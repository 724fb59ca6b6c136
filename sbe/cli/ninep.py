"""`sbe 9p`: files of the co-processor in this machine's tree, and of this machine there."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING

import click

import sbe
from sbe.cli import signals
from sbe.cli.ninep_export import export
from sbe.cli.session import Session, common_options
from sbe.sdk.ninep_wire import MSIZE_MAX

if TYPE_CHECKING:
    from sbe.sdk.ninep_bridge import Bridge

__all__ = ["ninep"]


@click.group("9p")
def ninep() -> None:
    """Files of the co-processor, and files for it, by 9P2000.L."""


ninep.add_command(export)


@ninep.command()
@click.argument("link")
@click.argument("mountpoint", type=click.Path(exists=True, file_okay=False))
@click.option("--service", default="9p", show_default=True, help="The service that has the files.")
@click.option(
    "--msize",
    type=click.IntRange(4096, MSIZE_MAX),
    default=MSIZE_MAX,
    show_default=True,
    help="Bytes of a message at most.",
)
@click.option(
    "--cache",
    type=click.Choice(["none", "mmap"]),
    default="none",
    show_default=True,
    help="mmap: for programs that map files.",
)
@click.option(
    "-W",
    "--timeout",
    type=click.FloatRange(min=0.001),
    default=30.0,
    show_default=True,
    help="Seconds that the remote has to answer a message in.",
)
@common_options
@click.pass_obj
def mount(
    session: Session,
    link: str,
    mountpoint: str,
    service: str,
    msize: int,
    cache: str,
    timeout: float,
) -> int:
    """Mount the files of LINK, a URI as of --uri, at MOUNTPOINT, until Ctrl-C.

    It needs the privilege to mount, and a kernel with 9P. When the remote is lost, programs that
    use its files get errors, and it is unmounted.
    """
    session.uri = link
    with session.connect() as connection:
        ours, theirs = socket.socketpair()
        with ours:
            try:
                bridge = connection.bridge_9p(theirs, service, msize=msize, timeout=timeout)
            except BaseException:
                theirs.close()
                raise
            _serve(session, bridge, ours, mountpoint, msize, cache)
    session.screen().result(True, mountpoint=os.path.abspath(mountpoint))
    return 0


class _Running(threading.Thread):
    """The bridge, and what ended it."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__(name="sbe-9p", daemon=True)
        self.bridge = bridge
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.bridge.run()
        except BaseException as error:
            self.error = error


def _serve(
    session: Session, bridge: Bridge, ours: socket.socket, place: str, msize: int, cache: str
) -> None:
    from sbe.kernel import mounts

    running = _Running(bridge)
    running.start()
    before = _device(place)
    for each in signals.ending():
        signal.signal(each, signal.default_int_handler)
    try:
        mounts.mount_9p(ours, place, msize=msize, cache=cache)
    except BaseException as error:
        if _device(place) != before:  # interrupted just behind it
            _unmount(place)
        bridge.close()
        running.join()
        if isinstance(error, sbe.LinkError) and running.error is not None:
            raise running.error from None
        raise
    try:
        ours.close()  # the kernel has it
        session.screen().line(f"mounted at {place}; Ctrl-C unmounts it")
        running.join()
    finally:
        _unmount(place)
        bridge.close()
        running.join()
    if running.error is not None:
        raise running.error


def _device(place: str) -> int:
    """Which file system is there; -1: one that can't say, as that of a remote which is gone."""
    try:
        return os.stat(place).st_dev
    except OSError:
        return -1


def _unmount(place: str) -> None:
    """It is gone from the tree, also where it is in use or was unmounted by others."""
    from sbe.kernel import mounts

    try:
        mounts.unmount(place)
    except sbe.Busy:
        click.echo(f"sbe: {place} is in use; what is open there gets errors from now on", err=True)
        with contextlib.suppress(OSError):
            mounts.unmount(place, detach=True)
    except OSError:
        pass
