"""SeqpacketTransport against an honest and a hostile peer; RemoteProcess with programs that die."""

import array
import contextlib
import errno
import gc
import os
import resource
import select
import socket
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sbe import _native, errors
from sbe.remotes.process import RemoteProcess
from sbe.transports.carveout import CarveoutTransport
from sbe.transports.deathwatch import Deathwatch
from sbe.transports.doorbell import open_unix
from sbe.transports.seqpacket import SeqpacketTransport
from sbe.transports.window import Window
from tests.unit.session_pair import count_fds

LONGEST = _native.CONTROL_MAX
LIMIT_S = 20.0


@pytest.fixture(autouse=True)
def flat_fds() -> Iterator[None]:
    gc.collect()  # what an earlier test of this process left behind
    before = count_fds()
    yield
    assert count_fds() == before


@pytest.fixture
def pair(flat_fds: None) -> Iterator[tuple[SeqpacketTransport, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    transport = SeqpacketTransport(ours)
    with theirs:
        yield transport, theirs
    transport.close()


def rights(fds: list[int]) -> list[tuple[int, int, bytes]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes())]


def test_messages_keep_borders_order_and_descriptors(
    pair: tuple[SeqpacketTransport, socket.socket],
):
    transport, sock = pair
    peer = SeqpacketTransport(sock.dup())
    with open(os.devnull) as null:
        transport.send(b"one")
        transport.send(b"2" * LONGEST, [null.fileno(), null.fileno()])
        assert peer.receive() == (b"one", [])
        got = peer.receive()
        assert got is not None
        message, fds = got
        assert message == b"2" * LONGEST
        assert len(fds) == 2
        for fd in fds:
            assert os.path.sameopenfile(fd, null.fileno())
            assert not os.get_inheritable(fd)
            os.close(fd)
    assert peer.receive() is None
    peer.close()


@pytest.mark.parametrize(("size", "fds"), [(0, 0), (LONGEST + 1, 0), (1, 3)])
def test_what_no_message_may_be_is_not_sent(
    size: int, fds: int, pair: tuple[SeqpacketTransport, socket.socket]
):
    with pytest.raises(errors.MessageTooLarge):
        pair[0].send(bytes(size), [0] * fds)


def test_a_full_socket_queues_and_flushes_in_order(
    pair: tuple[SeqpacketTransport, socket.socket],
):
    transport, sock = pair
    reader, writer = os.pipe()
    count = 0
    while not transport.wants_write:
        transport.send(count.to_bytes(4, "little"))
        count += 1
    transport.send(b"with", [writer])
    os.close(writer)  # the transport has its own
    for number in range(count):
        assert sock.recv(100) == number.to_bytes(4, "little")
        transport.flush()
    peer = SeqpacketTransport(sock.dup())
    got = peer.receive()
    assert got is not None
    assert got[0] == b"with"
    assert not transport.wants_write
    os.write(got[1][0], b"alive")
    assert os.read(reader, 9) == b"alive"
    os.close(got[1][0])
    os.close(reader)
    peer.close()


def test_the_queue_is_bounded(pair: tuple[SeqpacketTransport, socket.socket]):
    transport = SeqpacketTransport(socket.socket(fileno=os.dup(pair[0].fileno())), queue_max=5)
    while not transport.wants_write:
        transport.send(b"x", [0])
    for _ in range(4):
        transport.send(b"x", [0])
    before = count_fds()
    with pytest.raises(errors.WouldBlock, match="5 control messages unread"):
        transport.send(b"x", [0])
    assert count_fds() == before
    transport.close()
    assert count_fds() == before - 6  # five that waited, and its own
    transport.close()


def test_descriptors_that_are_not_open(pair: tuple[SeqpacketTransport, socket.socket]):
    transport, _ = pair
    with pytest.raises(errors.BadArgument, match="not open"):
        transport.send(b"x", [999_999])
    while not transport.wants_write:
        transport.send(b"x")
    with pytest.raises(errors.BadArgument, match="not open"):
        transport.send(b"x", [0, 999_999])


def test_the_end_of_the_connection(pair: tuple[SeqpacketTransport, socket.socket]):
    transport, sock = pair
    sock.sendmsg([b"last"])
    sock.close()
    assert transport.receive() == (b"last", [])
    with pytest.raises(errors.LinkError, match="the other end is gone") as caught:
        transport.receive()
    assert not isinstance(caught.value, errors.ProtocolError)
    with pytest.raises(errors.LinkError):
        transport.send(b"x")
    transport.close()
    with pytest.raises(errors.LinkError):
        transport.receive()
    with pytest.raises(errors.LinkError):
        transport.send(b"x")
    assert transport.fileno() == -1


def test_a_flush_into_a_closed_connection(pair: tuple[SeqpacketTransport, socket.socket]):
    transport, sock = pair
    while not transport.wants_write:
        transport.send(b"x", [0])
    sock.close()
    with pytest.raises(errors.LinkError):
        transport.flush()


def test_too_many_descriptors_are_closed_and_the_message_refused(
    pair: tuple[SeqpacketTransport, socket.socket],
):
    transport, sock = pair
    before = count_fds()
    for count in (17, 200, 253):
        sock.sendmsg([b"flood"], rights([0] * count))
        with pytest.raises(errors.ProtocolError, match="more descriptors"):
            transport.receive()
        assert count_fds() == before
    sock.sendmsg([b"a few"], rights([0] * 3))  # arrive, so that the session can refuse them
    got = transport.receive()
    assert got is not None
    assert len(got[1]) == 3
    for fd in got[1]:
        os.close(fd)


def test_descriptors_beyond_this_process_limit(pair: tuple[SeqpacketTransport, socket.socket]):
    transport, sock = pair
    sock.sendmsg([b"two"], rights([0, 0]))
    before = count_fds()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, hard))  # room for one of the two
    try:
        with pytest.raises(errors.ProtocolError):
            transport.receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert count_fds() == before


@pytest.mark.parametrize("fds", [[], [0, 0]])
@pytest.mark.parametrize("message", [b"", b"x" * (LONGEST + 1), b"x" * 5000])
def test_empty_and_long_messages_are_refused_and_the_next_is_read(
    message: bytes, fds: list[int], pair: tuple[SeqpacketTransport, socket.socket]
):
    transport, sock = pair
    sock.sendmsg([message], rights(fds) if fds else [])
    sock.send(b"next")
    before = count_fds()
    with pytest.raises(errors.ProtocolError):
        transport.receive()
    assert count_fds() == before
    assert transport.receive() == (b"next", [])


# RemoteProcess


def program(tmp_path: Path, body: str) -> Path:
    path = tmp_path / "sbe-remote"
    shell = "/bin/sh" if not body.startswith("import") else sys.executable
    path.write_text(f"#!{shell}\n{body}\n")
    path.chmod(0o755)
    return path


def lost(transport: SeqpacketTransport) -> str:
    """Wait for the end of the connection, return what the user is told."""
    try:
        while True:  # not told before it is known
            assert select.select([transport.fileno()], [], [], LIMIT_S)[0]
            assert transport.receive() is None
    except errors.LinkError as error:
        return str(error)
    finally:
        transport.close()


def test_missing_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SBE_REMOTE", str(tmp_path / "nowhere"))
    remote = RemoteProcess()
    words = r"missing: SBE_REMOTE='.*nowhere' names no file; unset it for .* `make build` makes"
    with pytest.raises(errors.LinkError, match=words) as caught:
        remote.connect()
    assert caught.value.code == errno.ENOENT
    assert not remote.alive
    assert remote.pid is None
    assert remote.exit_description is None
    remote.close()


def test_program_that_can_not_be_executed(tmp_path: Path):
    path = program(tmp_path, "")
    path.chmod(stat.S_IRUSR)
    with pytest.raises(errors.LinkError, match="can't be started"):
        RemoteProcess(path).connect()
    path.chmod(0o755)
    path.write_text("#!/nonexistent/interpreter\n")
    with pytest.raises(errors.LinkError, match="can't be started"):
        RemoteProcess(path).connect()


def test_no_descriptor_left_for_the_program(tmp_path: Path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    remote = RemoteProcess(program(tmp_path, "exit 0"))
    for spare in range(5):
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + spare, hard))
        try:
            with pytest.raises(errors.OutOfResources, match="started: Too many open files"):
                remote.connect()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_program_that_dies_at_once_is_quoted(tmp_path: Path):
    path = program(tmp_path, "echo first >&2; echo 'sbe-remote: no such option' >&2; exit 3")
    with RemoteProcess(path) as remote:
        told = lost(remote.connect())
        assert "exited with status 3" in told
        assert told.endswith(": sbe-remote: no such option")
        assert str(remote.pid) in told
        assert remote.exit_description == "exited with status 3"
        assert not remote.alive


def test_killed_program(tmp_path: Path):
    with RemoteProcess(program(tmp_path, "kill -9 $$")) as remote:
        assert "killed by signal 9 (SIGKILL)" in lost(remote.connect())
        assert remote.exit_description == "killed by signal 9 (SIGKILL)"


def test_program_that_hangs_up_and_stays_is_killed(tmp_path: Path):
    body = "import os, sys, time\nos.close(int(sys.argv[2]))\ntime.sleep(1000)"
    with RemoteProcess(program(tmp_path, body)) as remote:
        assert "went on; killed by signal 9" in lost(remote.connect())
        assert not remote.alive


def test_nothing_waits_for_a_program_that_hangs_up_and_stays(tmp_path: Path):
    body = "import os, sys, time\nos.close(int(sys.argv[2]))\ntime.sleep(1000)"
    with RemoteProcess(program(tmp_path, body)) as remote:
        transport = remote.connect()
        assert select.select([transport.fileno()], [], [], LIMIT_S)[0]
        for _ in range(3):
            assert transport.receive() is None  # it may still end by itself
            transport.send(b"what nobody reads any more")
            transport.flush()
            assert not transport.wants_write
        assert remote.alive
        assert "went on; killed by signal 9" in lost(transport)


def test_what_a_program_said_before_its_end_is_read_first(tmp_path: Path):
    body = """import socket, sys
with socket.socket(fileno=int(sys.argv[2])) as sock:
    sock.send(b"last words")"""
    with RemoteProcess(program(tmp_path, body)) as remote:
        transport = remote.connect()
        while remote.alive:
            pass
        transport.send(b"nobody reads this")
        assert transport.receive() == (b"last words", [])
        assert "exited with status 0" in lost(transport)


def test_no_descriptor_left_to_look_with(tmp_path: Path):
    body = "import os, sys, time\nos.close(int(sys.argv[2]))\ntime.sleep(1000)"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with RemoteProcess(program(tmp_path, body)) as remote:
        transport = remote.connect()
        assert select.select([transport.fileno()], [], [], LIMIT_S)[0]
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            with pytest.raises(errors.LinkError, match="the other end is gone"):
                transport.receive()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        transport.close()


# Deathwatch, and the transport of boards


class Ending:
    """An end that is known when the test says so."""

    def __init__(self) -> None:
        self.words: str | None = None
        self.late: list[bool] = []

    def ask(self, late: bool) -> str | None:
        self.late.append(late)
        return self.words


def test_an_end_is_looked_for_until_it_is_known():
    ending = Ending()
    watch = Deathwatch(ending.ask, patience_s=0.02)
    while not (ending.late and ending.late[-1]):
        assert watch.look() is None
        assert select.select([watch.fileno()], [], [], LIMIT_S)[0]
    assert ending.late[0] is False
    ending.words = "it died"
    assert watch.look() == "it died"
    watch.close()
    watch.close()
    assert watch.fileno() == -1


def test_a_carve_out_waits_for_no_process(tmp_path: Path):
    path = tmp_path / "ram"
    path.write_bytes(b"")
    os.truncate(path, _native.CARVEOUT_WINDOW_MIN)
    ending = Ending()
    near, far = socket.socketpair()
    with contextlib.closing(Window(path)) as window:
        transport = CarveoutTransport(window, near.detach(), end=ending.ask)
        far.close()
        stream = transport.fileno()
        while not ending.late:
            assert select.select([transport.fileno()], [], [], LIMIT_S)[0]
            assert transport.receive() is None
        assert transport.fileno() != stream  # which stays readable
        ending.words = "the board died"
        with pytest.raises(errors.LinkError, match="the board died"):
            transport.receive()
        transport.close()
        assert transport.fileno() == -1


@pytest.mark.timeout(30)
def test_a_doorbell_that_nobody_accepts():
    with tempfile.TemporaryDirectory(prefix="sbe") as folder, contextlib.ExitStack() as opened:
        path = os.path.join(folder, "db")
        listener = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.bind(path)
        listener.listen(0)

        def open_many() -> None:
            for _ in range(10):
                opened.callback(os.close, open_unix(path))

        with pytest.raises(errors.LinkError, match=r"db .*: Resource temporarily unavailable"):
            open_many()


def test_stubborn_program_is_killed_and_reaped(tmp_path: Path):
    body = "trap '' TERM; echo ready >&2; while :; do sleep 0.05; done"
    remote = RemoteProcess(program(tmp_path, body))
    transport = remote.connect()
    while not remote.read_log():  # the trap is set
        pass
    pid = remote.pid
    assert pid is not None
    assert remote.alive
    transport.close()
    remote.close()
    assert remote.exit_description == "killed by signal 9 (SIGKILL)"
    with pytest.raises(ChildProcessError):  # no zombie
        os.waitpid(pid, os.WNOHANG)
    remote.close()


def test_a_chatty_program_never_waits_for_its_log(tmp_path: Path):
    body = """import socket, sys
try:
    sys.stderr.write("x" * 300_000)
    sys.stderr.flush()
except BlockingIOError:
    pass
socket.socket(fileno=int(sys.argv[2])).send(b"went on")
sys.stdin.read()"""
    with RemoteProcess(program(tmp_path, body)) as remote:
        transport = remote.connect()
        poll = select.poll()
        poll.register(transport.fileno(), select.POLLIN)
        assert poll.poll(20_000)
        assert transport.receive() == (b"went on", [])
        assert remote.read_log() == "x" * 65536
        transport.close()


def test_arguments_and_the_thread_that_starts(tmp_path: Path):
    body = 'echo "$@" >&2'
    with RemoteProcess(program(tmp_path, body), arguments=["--areas", "7"]) as remote:
        assert lost(remote.connect()).endswith(f"--die-with-parent={os.getpid()} --areas 7")
        told: list[str] = []
        thread = threading.Thread(target=lambda: told.append(lost(remote.connect())))
        thread.start()
        thread.join()
        # It would die with the thread.
        assert "--die-with-parent" not in told[0]
    with RemoteProcess(program(tmp_path, body), die_with_parent=False) as remote:
        assert "--die-with-parent" not in lost(remote.connect())


def test_it_runs_in_a_session_of_its_own(tmp_path: Path):
    with RemoteProcess(program(tmp_path, "exec sleep 1000")) as remote:
        transport = remote.connect()
        assert remote.pid is not None
        assert os.getsid(remote.pid) == remote.pid
        transport.close()


def test_the_default_program_lies_in_the_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SBE_REMOTE", raising=False)
    assert RemoteProcess().path == Path(_native.__file__).parent / "sbe-remote"
