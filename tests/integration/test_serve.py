"""`sbe serve`: a process that is the remote, hosts that come, go and die, and hosts that lie."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

import sbe
from sbe import _native
from sbe.errors import LinkError
from sbe.remotes.process import RemoteProcess
from sbe.serve.places import SocketPlace
from sbe.serve.service import Service
from sbe.transports.seqpacket import SeqpacketTransport
from tests.unit.session_pair import End, Recorder, count_fds

LIMIT_S = 30.0
SERVICES = """
import time
def double(payload):
    return payload * 2
def invert(payload, data):
    data[:] = bytes(byte ^ 255 for byte in data)
def wait(payload):
    print("waiting", flush=True)
    time.sleep(3600)
"""
HOST = """
import sys, sbe
with sbe.connect(sys.argv[1]) as link:
    print(link.call("double", payload=b"ab").payload, flush=True)
    sys.stdin.read()
"""


class Served:
    """The process, and the URI by which hosts reach it."""

    def __init__(self, folder: Path, by: str, services: str = SERVICES, **how: Any) -> None:
        self.folder = folder
        (folder / "services.py").write_text(services)
        if by == "socket":
            self.uri = f"socket:{folder / 'bell'}"
            self._words = ["--socket", str(folder / "bell")]
        else:
            (folder / "ram").write_bytes(bytes(1 << 20))
            memory = f'memory = "{folder / "ram"}"\n'
            (folder / "remote.toml").write_text(f'{memory}doorbell = "listen:{folder / "bell"}"\n')
            (folder / "host.toml").write_text(f'{memory}doorbell = "unix:{folder / "bell"}"\n')
            self.uri = f"carveout:{folder / 'host.toml'}"
            self._words = ["--carveout", str(folder / "remote.toml")]
        self.process = self.start(**how)

    def start(self, **how: Any) -> subprocess.Popen[str]:
        """Returns when it serves."""
        command = [sys.executable, "-m", "sbe", "serve", str(self.folder / "services.py")]
        self.process = subprocess.Popen(
            [*command, *self._words], stdout=subprocess.PIPE, text=True, **how
        )
        assert self.hears("double, invert, wait")
        return self.process

    def hears(self, beginning: str) -> str:
        """The next line, which begins like that."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith(beginning), line
        return line.strip()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(params=["socket", "carveout"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    with contextlib.closing(Served(tmp_path, request.param)) as running:
        yield running


def test_hosts_come_and_go(served: Served) -> None:
    epochs = set()
    for _ in range(3):
        with sbe.connect(served.uri) as link:
            assert link.call("double", payload=b"ab").payload == b"abab"
            area = link.allocate(4096)
            np.frombuffer(area, np.uint8)[:] = 1
            link.call("invert", sbe.InOut(area))
            assert bytes(area[:3]) == b"\xfe\xfe\xfe"
            assert [entry.name for entry in link.services()] == ["double", "invert", "wait"]
            epochs.add(link.epoch)
        served.hears("a host is here: sbe")
        served.hears("the host is gone: ")
    assert len(epochs) == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_it_ends_by_a_signal(served: Served, number: int, code: int) -> None:
    with sbe.connect(served.uri) as link:
        call = link.submit("double", payload=b"ab")
        assert call.result(LIMIT_S).payload == b"abab"
        served.process.send_signal(number)
        assert served.process.wait(LIMIT_S) == code
        with pytest.raises(LinkError):
            link.call("double", payload=b"ab", timeout=0.5)
    assert not (served.folder / "bell").exists()


def test_a_second_signal_ends_a_handler_that_hangs(served: Served) -> None:
    with sbe.connect(served.uri) as link:
        served.hears("a host is here")
        call = link.submit("wait", timeout=None)
        served.hears("waiting")
        for _ in range(2):
            served.process.send_signal(signal.SIGTERM)
            time.sleep(0.05)  # two at once are one
        assert served.process.wait(LIMIT_S) == -signal.SIGTERM
        assert isinstance(call.exception(LIMIT_S), LinkError)


def test_it_is_killed_in_the_middle(served: Served) -> None:
    with sbe.connect(served.uri) as link:
        area = link.allocate(4096)
        call = link.submit("wait", timeout=None)
        served.hears("a host is here")
        served.hears("waiting")
        served.process.kill()
        served.process.wait()
        assert isinstance(call.exception(LIMIT_S), LinkError)
        served.close()
        served.start()
        link.call("invert", sbe.InOut(area), timeout=LIMIT_S)
        assert bytes(area[:3]) == b"\xff\xff\xff"


def test_its_host_is_killed(served: Served) -> None:
    for _ in range(3):
        command = [sys.executable, "-c", HOST, served.uri]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as host:
            assert host.stdout is not None
            assert host.stdout.readline() == "b'abab'\n"
            host.kill()
        served.hears("a host is here: sbe")
        served.hears("the host is gone: ")
    works(served.uri)


def test_one_host_at_a_time(tmp_path: Path) -> None:
    uri = f"socket:{tmp_path / 's'}"
    with Service({"echo": lambda payload: payload}, SocketPlace(tmp_path / "s")):
        with sbe.connect(uri), pytest.raises(sbe.Timeout, match="it may have another host"):
            sbe.connect(uri, timeout=0.2)
        with sbe.connect(uri) as link:
            assert link.call("echo", payload=b"next").payload == b"next"
        with pytest.raises(sbe.Busy, match="somebody listens there"):
            SocketPlace(tmp_path / "s")
    with (
        mock.patch.object(socket.socket, "bind", side_effect=PermissionError(13, "denied")),
        pytest.raises(sbe.PermissionDenied, match=": denied"),
    ):
        SocketPlace(tmp_path / "denied")
    (tmp_path / "file").touch()
    with pytest.raises(sbe.Error, match="listening at"):
        SocketPlace(tmp_path / "nothing" / "s")
    with pytest.raises(sbe.Busy):
        SocketPlace(tmp_path / "file")
    stale = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stale.bind(str(tmp_path / "stale"))
    stale.close()
    SocketPlace(tmp_path / "stale").close()
    assert not (tmp_path / "stale").exists()
    assert (tmp_path / "file").exists()


def test_a_file_is_not_taken_for_a_stale_socket(tmp_path: Path) -> None:
    """Connecting to any file is refused as by a socket that nobody listens at."""
    precious = tmp_path / "file"
    precious.write_text("precious")
    command = [str(RemoteProcess().path), "--socket", str(precious)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode != 0
    assert "Address already in use" in done.stderr
    assert precious.read_text() == "precious"


# -- a host that lies ----------------------------------------------------------------------------


class Host(Recorder):
    """Any control messages, with any descriptors beside them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(LIMIT_S)
        sock.connect(str(path))
        self.sock = sock.dup()
        self.sock.settimeout(LIMIT_S)
        self.transport = SeqpacketTransport(sock)
        self.fds: list[int] = []
        self.end = End(_native.ROLE_HOST, handler=self)
        self.end.session.start(1)
        while self.end.session.state != _native.SESSION_CONNECTED:
            self.take()
        self.asks(self.end.session.create_context, 1)

    def send(self, message: bytes) -> None:
        self.sent.append(message)
        self.transport.send(message, self.fds)

    def take(self) -> None:
        message = self.sock.recv(4096)
        assert message
        self.end.session.receive(message, 0)

    def asks(self, what: Callable[..., None], *values: Any, fds: tuple[int, ...] = ()) -> int:
        """The status of the answer; 1: none came, but that to a question behind it did."""
        token, behind = object(), object()
        self.fds = list(fds)
        what(*values, token)
        self.fds = []
        self.end.session.ping(7, behind)
        count = len(self.replies)
        while not any(reply[0] is behind for reply in self.replies[count:]):
            self.take()
        return next((status for each, status, _ in self.replies[count:] if each is token), 1)

    def map_area(self, number: int, size: int, *fds: int, flags: int = 0, **how: Any) -> int:
        handles, segments = how.get("handles", len(fds)), how.get("segments", [])
        area = 1 << 16 | number
        ask = self.end.session.map_area
        return self.asks(ask, area, 1, flags, size, handles, segments, fds=fds)

    def open_channel(self, number: int, area: int, *fds: int, slots: int = 4) -> int:
        size = _native.ring_size(slots, 256, 64)
        rest = (slots, 256, 64, 0, size, 0, 2)
        return self.asks(self.end.session.open_channel, number, 1, 1 << 16 | area, *rest, fds=fds)

    def close(self) -> None:
        self.transport.close()
        self.sock.close()


def memfd(size: int, *, sealed: bool = True) -> int:
    import fcntl

    fd = os.memfd_create("host", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    if sealed:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    return fd


def works(uri: str) -> None:
    with sbe.connect(uri) as link:
        assert link.call("double", payload=b"ab").payload == b"abab"


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Path]:
    """A service's socket; whatever hosts did, it has what it had, and serves."""
    path = tmp_path / "s"
    with Service({"double": lambda payload: payload * 2}, SocketPlace(path)):
        before = count_fds()
        yield path
        works(f"socket:{path}")  # its end is not kept by a variable here
        deadline = time.monotonic() + LIMIT_S
        while count_fds() != before:
            assert time.monotonic() < deadline


def test_memory_that_can_not_be(listening: Path) -> None:
    good, open_, small = memfd(65536), memfd(65536, sealed=False), memfd(4096)
    pipe = os.pipe()
    try:
        with contextlib.closing(Host(listening)) as host:
            assert host.map_area(1, 65536, good) == 0
            assert host.map_area(2, 65536, open_) < 0  # it may shrink under us
            assert host.map_area(2, 65536, small) < 0
            assert host.map_area(2, 65536, pipe[0]) < 0
            assert host.map_area(2, 1 << 62, good) < 0
            assert host.map_area(2, 65536) < 0
            assert host.map_area(2, 65536, segments=[(0x1000, 65536)]) < 0
            assert host.map_area(2, 65536, good, good, handles=1) == 1  # not as said
            assert host.map_area(2, 65536, handles=1) == 1
            assert host.map_area(1, 65536, good) < 0  # there is one of that id
            assert host.map_area(2, 65536, good) == 0
    finally:
        for fd in (good, open_, small, *pipe):
            os.close(fd)


def test_channels_that_can_not_be(listening: Path) -> None:
    rings, bells, pipe = memfd(65536), [os.eventfd(0) for _ in range(2)], os.pipe()
    try:
        with contextlib.closing(Host(listening)) as host:
            assert host.map_area(1, 65536, rings, flags=_native.AREA_RING) == 0
            assert host.map_area(2, 65536, rings) == 0
            assert host.open_channel(1, 1) == 1  # other descriptors than it says
            assert host.open_channel(1, 1, bells[0]) == 1
            assert host.open_channel(1, 2, *bells) < 0  # no ring memory
            assert host.open_channel(1, 3, *bells) < 0  # no area
            assert host.open_channel(1, 1, *bells, slots=4096) < 0
            assert host.open_channel(1, 1, *pipe) < 0
            assert host.open_channel(1, 1, *bells) == 0
            assert host.open_channel(1, 1, *bells) < 0
    finally:
        for fd in (rings, *bells, *pipe):
            os.close(fd)


def test_rings_full_of_noise(listening: Path) -> None:
    chance = random.Random(1)
    with contextlib.closing(Host(listening)) as host:
        for number in range(1, 30):
            rings, bells = memfd(65536), [os.eventfd(0) for _ in range(2)]
            try:
                assert host.map_area(number, 65536, rings, flags=_native.AREA_RING) == 0
                assert host.open_channel(number, number, *bells) == 0
                for _ in range(5):
                    os.pwrite(rings, chance.randbytes(8192), 0)
                    os.eventfd_write(bells[0], 1)
                assert host.asks(host.end.session.ping, number) == 0
            finally:
                for fd in (rings, *bells):
                    os.close(fd)


def test_messages_of_noise(listening: Path) -> None:
    chance = random.Random(2)
    with contextlib.closing(Host(listening)) as host:
        for size in [0, 1, *(chance.randrange(1, 497) for _ in range(200)), 4000]:
            with contextlib.suppress(OSError):
                host.sock.send(chance.randbytes(size))
        with contextlib.suppress(AssertionError, OSError):  # a goodbye may be among them
            host.asks(host.end.session.ping, 1)


def test_a_host_that_reads_nothing(listening: Path) -> None:
    with contextlib.closing(Host(listening)) as host:
        host.end.session.ping(1, "token")
        ping = host.sent[-1]
        host.sock.settimeout(0.2)
        with contextlib.suppress(OSError):
            for _ in range(100_000):  # ends when the other end has given us up, or waits for us
                host.sock.send(ping)
