"""`sbe serve` under applications that misbehave, signals, and others at the same window."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

import pytest

import sbe
from sbe import _native
from sbe.errors import Busy, LinkError, RemoteError
from sbe.remotes.carveout import Carveout, CarveoutConfig
from sbe.serve.places import WindowPlace
from sbe.serve.service import Service
from sbe.transports.carveout import CarveoutTransport
from tests.integration import test_serve
from tests.integration.test_serve import LIMIT_S, Served
from tests.unit.session_pair import End, Recorder

LOOK = b"\x83"  # the token which says that a block has changed

SERVICES = (
    test_serve.SERVICES
    + """
import os, signal, sys, threading
def fork(payload):
    child = os.fork()
    if child == 0:
        if payload == b"exit":
            sys.exit(3)
        if payload == b"raise":
            raise ValueError
        return b"child"
    return b"%d" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
def shut(payload):
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            if payload.decode() in os.readlink(f"/proc/self/fd/{fd}"):
                os.close(fd)
        except OSError:
            pass
def leave(payload):
    raise SystemExit
kept = []
def keep(payload, data):
    kept.append(data)
def nonsense(payload):
    return [1, "text", object(), {}, -1, payload * 10000][int(payload)]
def listen():
    for line in sys.stdin:  # the thread that waits for hosts is not disturbed
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
threading.Thread(target=listen, daemon=True).start()
SERVICES = {
    each.__name__: each for each in (double, invert, wait, fork, shut, leave, keep, nonsense)
}
"""
)


@pytest.fixture(params=["socket", "carveout"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path, request.param, SERVICES, stdin=subprocess.PIPE)
    with contextlib.closing(made) as running:
        yield running
        assert running.process.stdin is not None
        running.process.stdin.close()


# -- applications ----------------------------------------------------------------------------------


def test_a_process_that_a_handler_forks_ends_with_it(served: Served) -> None:
    with sbe.connect(served.uri) as link:
        for how, status in ((b"return", b"0"), (b"exit", b"3"), (b"raise", b"1")):
            assert link.call("fork", payload=how).payload == status
        assert link.call("double", payload=b"ab").payload == b"abab"


def test_handlers_that_answer_nonsense(served: Served) -> None:
    with sbe.connect(served.uri) as link:
        for which in range(6):
            with pytest.raises(RemoteError):
                link.call("nonsense", payload=b"%d" % which)
        with pytest.raises(RemoteError):
            link.call("leave")
        assert link.call("double", payload=b"ab").payload == b"abab"


def test_a_buffer_that_a_handler_keeps(served: Served) -> None:
    for _ in range(3):
        with sbe.connect(served.uri) as link:
            area = link.allocate(4096)
            link.call("keep", sbe.InOut(area))
            area.free()
            assert link.call("double", payload=b"ab").payload == b"abab"


@pytest.mark.parametrize("what", ["eventfd", "socket", "eventpoll"])
def test_a_handler_that_closes_descriptors(served: Served, what: str) -> None:
    """The process ends in words, or serves the next host; it does not spin."""
    with contextlib.suppress(LinkError, sbe.Timeout), sbe.connect(served.uri, timeout=2.0) as link:
        link.call("shut", payload=what.encode(), timeout=2.0)
    before = cpu_s(served.process)
    with contextlib.suppress(subprocess.TimeoutExpired):
        served.process.wait(1.0)
    assert cpu_s(served.process) - before < 0.5
    served.process.send_signal(signal.SIGTERM)
    served.process.wait(LIMIT_S)


def cpu_s(process: subprocess.Popen[str]) -> float:
    if process.poll() is not None:
        return 0.0
    return sum(map(int, Path(f"/proc/{process.pid}/stat").read_text().split()[13:15])) / 100


# -- signals and streams ---------------------------------------------------------------------------


def test_a_signal_at_another_thread(served: Served) -> None:
    assert served.process.stdin is not None
    served.process.stdin.write("now\n")
    served.process.stdin.flush()
    assert served.process.wait(LIMIT_S) == 0
    assert not (served.folder / "bell").exists()


def test_it_ends_by_a_hangup_unless_ignored(served: Served) -> None:
    served.process.send_signal(signal.SIGHUP)
    assert served.process.wait(LIMIT_S) == 0
    assert not (served.folder / "bell").exists()
    served.close()
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    served.start(stdin=subprocess.PIPE, **ignoring)
    served.process.send_signal(signal.SIGHUP)
    test_serve.works(served.uri)


def test_nobody_reads_what_it_says(served: Served) -> None:
    assert served.process.stdout is not None
    served.process.stdout.close()
    for _ in range(2):
        test_serve.works(served.uri)
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(LIMIT_S) == 0


# -- a window that is not as it should be ----------------------------------------------------------


class Stream:
    """A window, and a unix socket at which its doorbell's other end listens."""

    def __init__(self, folder: Path) -> None:
        self.ram = folder / "ram"
        self.ram.write_bytes(bytes(1 << 20))
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(LIMIT_S)
        self.sock.bind(str(folder / "bell"))
        self.sock.listen()
        self.config = CarveoutConfig(str(self.ram), f"unix:{folder / 'bell'}")

    def takes(self, count: int) -> list[socket.socket]:
        """So many connections."""
        return [self.sock.accept()[0] for _ in range(count)]

    def block(self, *, version: int = _native.CARVEOUT_VERSION) -> None:
        """A host's, of a generation that is nobody's."""
        with self.ram.open("r+b") as ram:
            magic = 0
            while magic == 0:  # the remote has not shown itself yet
                (magic,) = struct.unpack("=I", os.pread(ram.fileno(), 4, 128))
            os.pwrite(ram.fileno(), struct.pack("=4I", magic, version, 7, ~7 & 0xFFFFFFFF), 0)


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[Stream]:
    made = Stream(tmp_path)
    with made.sock:
        yield made


def test_a_stream_that_ends_at_once_is_not_asked_for_again_at_once(stream: Stream) -> None:
    with Service({"f": bytes}, WindowPlace(stream.config, "test")):
        begun = time.monotonic()
        for _ in range(3):
            stream.takes(1)[0].close()
        assert time.monotonic() - begun > 0.9


def test_a_host_of_another_version(stream: Stream, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    said: list[str] = []
    with Service({"f": bytes}, WindowPlace(stream.config, "test"), tell=said.append):
        ends = stream.takes(1)
        stream.block(version=99)
        ends[0].send(LOOK)
        ends += stream.takes(3)
    for end in ends:
        end.close()
    assert [line for line in said if "version 99" in line] == said
    assert len(said) == 1
    assert sum("version 99" in each.message for each in caplog.records) == 1


# -- two of the same role --------------------------------------------------------------------------


def test_two_remotes_in_one_window(stream: Stream) -> None:
    """One of them has it, the later one unless the first looks while that begins; the other ends,
    in words, and does not take it back."""
    with contextlib.ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor())
        running = set()
        for name in ("first", "second"):
            service = Service({"f": bytes}, WindowPlace(stream.config, name))
            stack.enter_context(contextlib.closing(service))
            running.add(threads.submit(service.run))
            (bell,) = stream.takes(1)
            stack.enter_context(bell)
        ended, running = wait(running, LIMIT_S, FIRST_COMPLETED)
        assert (len(ended), len(running)) == (1, 1)
        with pytest.raises(Busy, match="another process is the remote in the shared RAM"):
            ended.pop().result()


def negotiate(transport: CarveoutTransport) -> None:
    """Returns when the remote's session has answered."""
    host = Recorder()
    end = End(_native.ROLE_HOST, handler=host)
    end.session.start(1)
    transport.send(host.sent[0])
    while transport.receive() is None:
        select.select([transport], [], [], LIMIT_S)


def test_a_host_that_comes_before_the_former_ones_stream_has_ended(tmp_path: Path) -> None:
    """It has met this life of the remote by then, and must not see another one begin."""
    with contextlib.closing(Served(tmp_path, "carveout")) as served:
        former = Carveout(CarveoutConfig.load(tmp_path / "host.toml"))
        with contextlib.closing(former), contextlib.closing(former.connect()) as old:
            negotiate(old)
            latter = Carveout(CarveoutConfig.load(tmp_path / "host.toml"))
            with contextlib.closing(latter), contextlib.closing(latter.connect()) as new:
                old._doorbells.send(_native.TOKEN_BLOCK)  # that end looks, and it is another host
                served.hears("the host is gone: the host restarted")
                while not new.met:
                    select.select([new], [], [], LIMIT_S)
                    new.receive()
                old.close()
                negotiate(new)


def receive_for_ever(transport: CarveoutTransport) -> None:
    while True:
        select.select([transport], [], [], LIMIT_S)
        transport.receive()


@pytest.mark.parametrize("late", [False, True])
def test_two_hosts_in_one_window(tmp_path: Path, late: bool) -> None:
    """The later one has it, and the first one is told; also late, when its stream has ended."""
    with contextlib.closing(Served(tmp_path, "carveout")) as served:
        first = Carveout(CarveoutConfig.load(tmp_path / "host.toml"))
        with contextlib.closing(first), contextlib.closing(first.connect()) as transport:
            while not transport.met:
                select.select([transport], [], [], LIMIT_S)
                transport.receive()
            with ThreadPoolExecutor() as threads:
                connecting = threads.submit(sbe.connect, served.uri, timeout=LIMIT_S)
                while late and not connecting.done():
                    transport._doorbells.send(_native.TOKEN_BLOCK)  # the remote looks
                    time.sleep(0.002)
                with pytest.raises(LinkError, match="another process is the host in the shared"):
                    receive_for_ever(transport)
                transport.close()
                with connecting.result() as second:
                    assert second.call("double", payload=b"ab").payload == b"abab"
