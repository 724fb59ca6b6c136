"""The ends that the conformance suite runs against: the one list of transports.

Each entry of ENDS is a context manager that yields a `Connector`, which opens any number of links
to that kind of remote and closes what is left of them.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import itertools
import os
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import sbe
import sbe.testing
from examples.own_remote import Simulator
from sbe.kernel.remoteproc import RemoteProcessor
from sbe.link.rings import Geometry
from sbe.remotes.boards import QemuBoard
from sbe.remotes.carveout import CarveoutConfig
from sbe.serve.places import WindowPlace
from sbe.serve.service import Service
from sbe.testing.conformance import parts
from sbe.testing.conformance.services import PYTHON_SERVICES
from tests.caches import build
from tests.caches.remote import cached_remotes
from tests.rigs.boards import require_board
from tests.rigs.kernel import parts as rig

START_S = 20.0  # for a daemon on a busy machine


@dataclass
class Connector(parts.Connector):
    """Opens links to one of this project's remotes."""

    firmware: bool = True  # the remote is sbe-remote or its like
    here: bool = False  # it is a thread of this process, and kept to the end of the test
    board: QemuBoard | None = None  # that the test starts, and nobody else


@contextlib.contextmanager
def loopback() -> Iterator[Connector]:
    """sbe-remote as a child of this process."""
    yield Connector("loopback", lambda **how: sbe.connect("loopback:", **how))


@contextlib.contextmanager
def testing() -> Iterator[Connector]:
    """A remote of Python functions in a thread of this process."""
    with contextlib.ExitStack() as remotes:

        def connect(
            timeout: float = 10.0, slots: int = 256, slot_size: int = 1024
        ) -> sbe.Connection:
            remote = remotes.enter_context(sbe.testing.Remote(PYTHON_SERVICES, areas=4096))
            return remote.link(timeout=timeout, geometry=Geometry(slots, slot_size))

        yield Connector(
            "testing",
            connect,
            firmware=False,
            here=True,
            services=frozenset(PYTHON_SERVICES),
            tells_written=False,
        )


@contextlib.contextmanager
def linux() -> Iterator[Connector]:
    """Linux as the remote: Python functions behind a window of RAM and a stream, no descriptors."""
    with contextlib.ExitStack() as services, tempfile.TemporaryDirectory(prefix="sbe") as name:
        places = (Path(name) / str(number) for number in itertools.count())

        def connect(**how: Any) -> sbe.Connection:
            place = next(places)
            place.mkdir()
            with (place / "ram").open("wb") as ram:
                ram.truncate(80 << 20)
            window = CarveoutConfig(str(place / "ram"), f"listen:{place / 'bell'}")
            served = Service(PYTHON_SERVICES, WindowPlace(window, "services"))
            services.enter_context(served)
            configuration = place / "link.toml"
            configuration.write_text(
                f'memory = "{window.memory}"\ndoorbell = "unix:{place / "bell"}"\n'
            )
            return sbe.connect(f"carveout:{configuration}", **how)

        yield Connector(
            "linux",
            connect,
            firmware=False,
            here=True,
            services=frozenset(PYTHON_SERVICES),
            tells_written=False,
        )


@contextlib.contextmanager
def own() -> Iterator[Connector]:
    """The remote of examples/, as somebody who adds one writes it."""
    yield Connector("own", lambda **how: sbe.connect(Simulator(), **how), firmware=True)


@contextlib.contextmanager
def cached(line: int) -> Iterator[Connector]:
    """sbe-remote over memory that both ends see through caches, in lines of so many bytes."""
    seed = int(os.environ.get("SBE_CACHE_SEED", line))
    with cached_remotes(build.programs(), line, seed) as make:
        yield Connector(
            f"cached-{line}",
            lambda **how: sbe.connect(make(), **how),
            coherent=False,
            coherent_heap="memfd",
        )


QUOTA = "[policy.default]\nareas = 2000\npower = true\n"
RESTART = "[link.restart]\ninitial_seconds = 0.01\nmax_seconds = 0.1\n"
LOOPBACK = f"[[link]]\nname = 'loopback'\n{RESTART}{QUOTA}"


@contextlib.contextmanager
def daemon() -> Iterator[Connector]:
    """sbe-remote under a daemon process with a socket of its own."""
    with daemon_process(LOOPBACK) as uri:
        yield Connector("unix", lambda **how: sbe.connect(uri, **how))


@contextlib.contextmanager
def daemon_process(configuration: str) -> Iterator[str]:
    """A daemon; the URI of its socket."""
    if importlib.util.find_spec("sbe.daemon") is None:
        pytest.skip("sbe.daemon can't be imported: there is no daemon in this checkout")
    # A unix socket's address has 107 bytes, less than some tmp_path.
    with tempfile.TemporaryDirectory(prefix="sbe") as name:
        place = Path(name)
        (place / "sbe.toml").write_text(configuration)
        command = [sys.executable, "-m", "sbe.daemon", "--config", str(place / "sbe.toml")]
        with (
            open(place / "log", "wb") as log,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
        ):
            notify.bind(str(place / "notify"))
            process = subprocess.Popen(
                [*command, "--socket", str(place / "s")],
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "NOTIFY_SOCKET": str(place / "notify")},
            )
            try:
                wait_until_ready(process, notify, place / "log")
                yield f"unix:{place / 's'}"
            finally:
                process.terminate()
                try:
                    process.wait(timeout=10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], notify: socket.socket, log: Path) -> None:
    """Until the daemon says READY=1 as service managers are told, or ends."""
    pidfd = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(notify, select.POLLIN)
        poll.register(pidfd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll(START_S * 1000)}
            if notify.fileno() in ready:
                if b"READY=1" in notify.recv(4096):
                    return
            else:
                pytest.fail(f"no daemon: {log.read_text(errors='replace')}")
    finally:
        os.close(pidfd)


def board(name: str) -> Callable[[], contextlib.AbstractContextManager[Connector]]:
    """The firmware on an emulated board, a process of QEMU for each link."""

    @contextlib.contextmanager
    def emulated() -> Iterator[Connector]:
        require_board(name)
        yield Connector(
            name,
            lambda **how: sbe.connect(f"qemu:{name}", **how),
            large_bytes=8 << 20,  # half of all the RAM it shares
            rings_bytes=16 << 20,
        )

    return emulated


@contextlib.contextmanager
def board_daemon(name: str) -> Iterator[Connector]:
    """A board that a daemon shares RAM and a stream with, nothing else."""
    require_board(name)
    with tempfile.TemporaryDirectory(prefix="sbe") as folder:
        machine = QemuBoard(name, directory=folder)
        machine.start()
        link = f"""
[[link]]
transport = "carveout"
memory = "{machine.ram}"
doorbell = "unix:{machine.directory / "db"}"
trust_clients = true
"""
        with contextlib.closing(machine), daemon_process(link + RESTART + QUOTA) as uri:
            yield Connector(
                f"{name}-unix",
                lambda **how: sbe.connect(uri, **how),
                large_bytes=8 << 20,
                rings_bytes=16 << 20,
                board=machine,
            )


# The guest has 384 MiB, and coherent memory of at most 4 MiB in a piece.
# The remote's clock is calibrated in 10 ms, on a machine that may be busy.
IN_KERNEL: dict[str, Any] = {
    "large_bytes": 8 << 20,
    "rings_bytes": 4 << 20,
    "clock_error": 0.1,
}


@contextlib.contextmanager
def processor_running() -> Iterator[RemoteProcessor]:
    with (
        tempfile.TemporaryDirectory(prefix="sbe") as name,
        rig.running(Path(name), leave=True) as processor,
    ):
        yield processor


def connect_frugally(uri: str, **how: Any) -> sbe.Connection:
    """Coherent memory is scarce, and rings are mapped as long as a test's frames show them."""
    gc.collect()
    return sbe.connect(uri, **how)


@contextlib.contextmanager
def rpmsg(name: str, suffix: str = "") -> Iterator[Connector]:
    """A remote processor of the rig's kernel, linked to this process over rpmsg."""
    with processor_running() as processor:
        uri = f"rpmsg:{processor.name}{suffix}"
        slot_bytes = 448 if suffix else 16384
        yield Connector(name, partial(connect_frugally, uri), slot_bytes=slot_bytes, **IN_KERNEL)


@contextlib.contextmanager
def rpmsg_daemon(name: str, keys: str = "") -> Iterator[Connector]:
    """The same under a daemon."""
    with processor_running() as processor:
        link = f"[[link]]\ntransport = 'rpmsg'\nprocessor = '{processor.name}'\n{keys}"
        with daemon_process(link + QUOTA) as uri:
            slot_bytes = 448 if keys else 16384
            yield Connector(
                name, partial(connect_frugally, uri), slot_bytes=slot_bytes, **IN_KERNEL
            )


ENDS: dict[str, Callable[[], contextlib.AbstractContextManager[Connector]]] = {
    "loopback": loopback,
    "testing": testing,
    "linux": linux,
    "own": own,
    "cached-16": partial(cached, 16),
    "cached-64": partial(cached, 64),
    "cached-256": partial(cached, 256),
    "unix": daemon,
    "mps2-an521": board("mps2-an521"),
    "mps2-an385": board("mps2-an385"),
    "mps2-an521-unix": partial(board_daemon, "mps2-an521"),
    "rpmsg": partial(rpmsg, "rpmsg"),
    "rpmsg-unix": partial(rpmsg_daemon, "rpmsg-unix"),
    "messages": partial(rpmsg, "messages", ",messages"),
    "messages-unix": partial(rpmsg_daemon, "messages-unix", "rings = 'messages'\n"),
}
_DATA = ("test_batch", "test_buffers", "test_calls", "test_services")
DATA_ONLY = {"cached-16": _DATA, "cached-64": _DATA}
"""Those that run some files only: they differ from another end in nothing else."""
DAEMONS = ("unix", "mps2-an521-unix")
"""Those that every test of a run may share."""
KERNEL = ("rpmsg", "rpmsg-unix", "messages", "messages-unix")
"""Those that run in the rig's kernel."""
