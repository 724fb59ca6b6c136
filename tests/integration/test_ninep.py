"""Files of the remote by 9P2000.L: what a client may do, and what it is told when it may not."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

import sbe
from tests.integration import ninep
from tests.integration.ninep import Client, Served, served

DEFAULT = (1 << 20) + 24


@pytest.fixture
def link() -> Iterator[sbe.Connection]:
    with sbe.connect("loopback:") as connection:
        yield connection


@pytest.fixture
def client(link: sbe.Connection) -> Iterator[Client]:
    with served(link) as found:
        yield found


@contextlib.contextmanager
def refused(code: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        got = error.errno
    else:
        got = 0
    assert got == code, os.strerror(got or 0)


def test_what_is_there(client: Client) -> None:
    assert client.names("") == {"log", "counters", "crash", "config", "ram"}
    assert client.read("crash") == b""
    assert client.attributes("").mode == 0o40755
    assert client.attributes("ram").mode == 0o41777
    assert client.attributes("log").mode == 0o100444
    assert client.attributes("config/read_only").mode == 0o100644
    assert client.names("ram") == set()
    with refused(errno.ENOENT):
        client.read("nothing")
    with refused(errno.ENOENT):
        client.walk("log/deeper")
    with client.fid("log") as fid, refused(errno.ENOTDIR):
        client.walk("deeper", fid)


@pytest.mark.parametrize("msize", [512, 8192, 65536, 1 << 20, DEFAULT, 1 << 30])
@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 300_001])
def test_content_of_every_size(link: sbe.Connection, msize: int, size: int) -> None:
    data = random.Random(size).randbytes(size)
    with served(link, msize) as client:
        assert client.msize == min(msize, DEFAULT)
        client.write("ram/file", data)
        assert client.read("ram/file") == data
        assert client.attributes("ram/file").size == size


def test_places_within_a_file(client: Client) -> None:
    fid = client.create("ram/file")
    assert client.write_at(fid, 10_000, b"end") == 3  # what lies before it is zero
    assert client.read_at(fid, 0, 20_000) == bytes(10_000) + b"end"
    assert client.read_at(fid, 10_001, 1) == b"n"
    assert client.read_at(fid, 10_003, 10) == client.read_at(fid, 1 << 63, 10) == b""
    assert client.read_at(fid, (1 << 64) - 1, 5000) == b""
    client.truncate("ram/file", 5)
    client.truncate("ram/file", 10_003)
    assert client.read_at(fid, 0, 20_000) == bytes(10_003)
    client.clunk(fid)


def test_append_and_truncate(client: Client) -> None:
    client.write("ram/file", b"one")
    with client.opened("ram/file", os.O_WRONLY | os.O_APPEND) as fid:
        assert client.write_at(fid, 0, b"two" * 3000) == 9000
    assert client.read("ram/file") == b"one" + b"two" * 3000
    client.put("ram/file", b"x")
    assert client.read("ram/file") == b"x"


def test_what_a_fid_was_opened_for(client: Client) -> None:
    client.write("ram/file", b"abc")
    with client.opened("ram/file") as fid, refused(errno.EBADF):
        client.write_at(fid, 0, b"x")
    with client.opened("ram/file", os.O_WRONLY) as fid, refused(errno.EBADF):
        client.read_at(fid, 0, 1)
    with client.fid("ram/file") as fid, refused(errno.EBADF):
        client.read_at(fid, 0, 1)
    with client.opened("ram") as fid, refused(errno.EISDIR):
        client.read_at(fid, 0, 1)
    with refused(errno.EISDIR), client.opened("ram", os.O_RDWR):
        pass
    with refused(errno.ENOTDIR), client.opened("ram/file", os.O_DIRECTORY):
        pass
    with refused(errno.EACCES), client.opened("log", os.O_WRONLY):
        pass


def test_directories(client: Client) -> None:
    client.mkdir("ram/a", 0o700)
    client.mkdir("ram/a/b")
    client.write("ram/a/b/file", b"x")
    assert client.attributes("ram/a").mode == 0o40700
    assert client.names("ram/a/b") == {"file"}
    with client.fid("ram/a/b/../../a/b/file") as fid:
        assert client.attributes_of(fid).size == 1
    assert client.attributes("../../..").mode == 0o40755
    with refused(errno.ENOTEMPTY):
        client.rmdir("ram/a")
    with refused(errno.EISDIR):
        client.unlink("ram/a")
    with refused(errno.ENOTDIR):
        client.rmdir("ram/a/b/file")
    with refused(errno.EEXIST):
        client.mkdir("ram/a/b")
    client.unlink("ram/a/b/file")
    client.rmdir("ram/a/b")
    client.rmdir("ram/a")
    assert client.names("ram") == set()


@pytest.mark.parametrize("count", [60, 200, 4096, 100_000])
def test_a_directory_is_read_in_parts_while_it_changes(client: Client, count: int) -> None:
    names = {f"file{number}" for number in range(100)}
    for name in names:
        client.write(f"ram/{name}", b"")
    assert client.names("ram") == {entry.name for entry in client.entries("ram", count)} - {
        ".",
        "..",
    }
    seen = set()
    with client.opened("ram") as fid:
        at = 0
        while True:  # each that is found is removed at once
            body = client.ask(ninep.READDIR, struct.pack("<IQI", fid, at, count))
            if len(body) == 4:
                break
            place = 4
            while place < len(body):
                at, _, size = struct.unpack_from("<QBH", body, place + 13)
                name = body[place + 24 : place + 24 + size].decode()
                place += 24 + size
                if name not in (".", ".."):
                    seen.add(name)
                    client.unlink(f"ram/{name}")
    assert seen == names
    with client.opened("ram") as fid, refused(errno.EINVAL):
        client.ask(ninep.READDIR, struct.pack("<IQI", fid, 0, 10))


def test_renaming(client: Client) -> None:
    client.mkdir("ram/a")
    client.mkdir("ram/b")
    client.write("ram/a/file", b"1")
    client.rename("ram/a/file", "ram/b/other")
    assert client.names("ram/a") == set()
    assert client.read("ram/b/other") == b"1"
    client.write("ram/file", b"2")
    client.rename("ram/file", "ram/b/other")  # in the place of what was there
    assert client.read("ram/b/other") == b"2"
    with refused(errno.EINVAL):
        client.rename("ram/b", "ram/b/below")
    with refused(errno.ENOTDIR):
        client.rename("ram/a", "ram/b/other")
    with refused(errno.EISDIR):
        client.rename("ram/b/other", "ram/a")
    with refused(errno.ENOTEMPTY):
        client.rename("ram/a", "ram/b")
    with refused(errno.EPERM):
        client.rename("ram/a", "moved")
    with refused(errno.EPERM):
        client.rename("ram", "ram/b/ram")
    with client.fid("ram/b/other") as fid, client.fid("ram") as folder:
        client.ask(ninep.RENAME, struct.pack("<II", fid, folder) + ninep.text("third"))
    assert client.names("ram") == {"a", "b", "third"}


def test_a_file_without_a_name_lives_until_its_last_fid(client: Client) -> None:
    free = client.free()
    fid = client.create("ram/file")
    client.write_all(fid, b"x" * 100_000)
    client.unlink("ram/file")
    client.write("ram/file", b"new")
    assert client.read_at(fid, 99_999, 10) == b"x"
    assert client.write_at(fid, 100_000, b"y") == 1
    client.clunk(fid)
    client.unlink("ram/file")
    assert client.free() == free
    client.mkdir("ram/folder")
    with client.fid("ram/folder") as fid:
        client.rmdir("ram/folder")
        with refused(errno.ENOENT):
            client.ask(
                ninep.LCREATE,
                struct.pack("<I", fid) + ninep.text("x") + struct.pack("<III", 2, 0, 0),
            )
    assert client.free() == free


def test_remove_ends_the_fid_in_any_case(client: Client) -> None:
    client.write("ram/file", b"")
    client.ask(ninep.REMOVE, struct.pack("<I", client.walk("ram/file")))
    assert client.names("ram") == set()
    fid = client.walk("log")
    with refused(errno.EPERM):
        client.ask(ninep.REMOVE, struct.pack("<I", fid))
    with refused(errno.EBADF):
        client.clunk(fid)


def test_attributes_are_set(client: Client) -> None:
    client.write("ram/file", b"abc")
    client.set_attributes("ram/file", 1 | 2 | 4, mode=0o4640, uid=1000, gid=100)
    client.set_attributes("ram/file", 0x20 | 0x100, mtime_s=1_700_000_000)
    assert client.attributes("ram/file") == (0o104640, 1000, 100, 3, 1_700_000_000)
    with client.fid("ram/file") as fid:
        client.ask(ninep.FSYNC, struct.pack("<II", fid, 0))
        client.ask(ninep.FSYNC, struct.pack("<I", fid))
    with refused(errno.EPERM):
        client.set_attributes("log", 1, mode=0o777)
    with refused(errno.EISDIR):
        client.truncate("ram", 0)


def test_no_room(client: Client) -> None:
    blocks, files = client.free()
    fid = client.create("ram/file")
    with refused(errno.EFBIG):
        client.write_at(fid, 1 << 62, b"x")
    with refused(errno.EFBIG):
        client.truncate("ram/file", (1 << 64) - 1)
    client.truncate("ram/file", (blocks - 1) * 4096)  # in many pieces
    assert client.free()[0] == 1
    assert client.write_at(fid, (blocks - 1) * 4096, b"x" * 8192) == 4096
    with refused(errno.ENOSPC):
        client.write_at(fid, blocks * 4096, b"x")
    client.truncate("ram/file", 0)
    client.clunk(fid)
    for number in range(files - 1):
        client.clunk(client.create(f"ram/{number}"))
    with refused(errno.ENOSPC):
        client.create("ram/more")
    for number in range(files - 1):
        client.unlink(f"ram/{number}")
    client.unlink("ram/file")
    assert client.free() == (blocks, files)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (b"2", errno.ERANGE),
        (b"-1", errno.ERANGE),
        (b"", errno.EINVAL),
        (b"\n", errno.EINVAL),
        (b"-", errno.EINVAL),
        (b"1 ", errno.EINVAL),
        (b"yes", errno.EINVAL),
        (b"99999999999999999999", errno.EINVAL),
        (b"1" * 5000, errno.EINVAL),
    ],
)
def test_a_setting_is_checked(client: Client, value: bytes, code: int) -> None:
    with client.opened("config/read_only", os.O_RDWR) as fid:
        with refused(code):
            client.write_at(fid, 0, value)
        with refused(errno.EINVAL):
            client.write_at(fid, 1, b"1")
    assert client.read("config/read_only") == b"0\n"


def test_a_setting_has_its_effect_and_is_logged(client: Client) -> None:
    client.write("ram/file", b"abc")
    client.put("config/read_only", b"1\n")
    assert client.read("config/read_only") == b"1\n"
    changes: list[Callable[[], object]] = [
        lambda: client.put("ram/file", b"x"),
        lambda: client.create("ram/other"),
        lambda: client.mkdir("ram/folder"),
        lambda: client.unlink("ram/file"),
        lambda: client.rename("ram/file", "ram/other"),
        lambda: client.truncate("ram/file", 0),
    ]
    for change in changes:
        with refused(errno.EROFS):
            change()
    client.put("config/read_only", b"0")
    client.unlink("ram/file")
    assert b"the file system is read-only" in client.read("log")
    assert client.attributes("log").size == len(client.read("log"))


def test_counters_count(client: Client) -> None:
    def counters() -> dict[str, int]:
        lines = client.read("counters").decode().splitlines()
        return {name: int(value) for name, value in map(str.split, lines)}

    before = counters()
    client.write("ram/file", b"x" * 10_000)
    with refused(errno.ENOENT):
        client.walk("nothing")
    after = counters()
    assert after["written_bytes"] - before["written_bytes"] == 10_000
    assert after["errors"] - before["errors"] == 1
    assert before["free_blocks"] - after["free_blocks"] == 3
    assert client.attributes("counters").size == len(client.read("counters"))


def test_many_messages_at_once(client: Client) -> None:
    """More than there are places for data, reads and writes, long and short."""
    source = random.Random(1)
    data = bytearray(source.randbytes(1 << 20))
    fid = client.create("ram/file")
    client.write_all(fid, bytes(data))
    for _ in range(5):
        expected: dict[int, bytes | int] = {}
        messages = bytearray()
        for tag in range(64):  # the server takes them in this order
            offset, count = source.randrange(1 << 19), source.choice([1, 500, 5000, 60_000])
            head = struct.pack("<IQI", fid, offset, count)
            if source.random() < 0.5:
                new = source.randbytes(count)
                data[offset : offset + count] = new
                messages += ninep.message(ninep.WRITE, tag, head + new)
                expected[tag] = count
            else:
                messages += ninep.message(ninep.READ, tag, head)
                expected[tag] = bytes(data[offset : offset + count])
        sender = threading.Thread(target=client.socket.sendall, args=(messages,))
        sender.start()
        while expected:
            kind, tag, body = client.receive()
            wanted = expected.pop(tag)
            if isinstance(wanted, int):
                assert (kind, struct.unpack("<I", body)[0]) == (ninep.WRITE + 1, wanted)
            else:
                assert kind == ninep.READ + 1
                assert body[4:] == wanted
        sender.join()
    assert client.read("ram/file") == data
    client.clunk(fid)


def test_flush_is_answered_after_what_it_flushes(client: Client) -> None:
    with client.opened("counters") as fid:
        client.send(ninep.READ, struct.pack("<IQI", fid, 0, 5000), 5)
        client.send(ninep.FLUSH, struct.pack("<H", 5), 6)
        client.send(ninep.FLUSH, struct.pack("<H", 999), 7)  # nothing of that tag
        assert [client.receive()[1] for _ in range(3)] == [5, 6, 7]
        client.read_at(fid, 0, 10)


def test_a_second_version_begins_anew(client: Client) -> None:
    fid = client.create("ram/file")
    client.unlink("ram/file")
    assert client.version(4096) == "9P2000.L"
    assert client.msize == 4096
    with refused(errno.EBADF):
        client.clunk(fid)
    client.attach()
    client.write("ram/file", b"x" * 10_000)
    assert client.read("ram/file") == b"x" * 10_000


def test_sessions_are_apart(link: sbe.Connection) -> None:
    with sbe.connect("loopback:") as other:  # another remote, for its own connection
        assert other.context
    with served(link) as one, served(link) as two:
        fid = one.create("ram/file")
        with refused(errno.EBADF):
            two.read_at(fid, 0, 1)
        one.write_all(fid, b"abc")
        assert two.read("ram/file") == b"abc"  # the files are for all
        one.unlink("ram/file")


def test_a_session_that_ends_lets_go_of_all(link: sbe.Connection) -> None:
    with served(link) as client:
        free = client.free()
    for _ in range(10):
        with served(link) as client:
            client.write_all(client.create("ram/file"), b"x" * 10_000)
            client.unlink("ram/file")
    with served(link) as client:
        assert client.free() == free


def test_a_context_has_its_share_of_sessions(link: sbe.Connection) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(served(link))
        with pytest.raises(sbe.Error) as raised:
            Served(link)
        assert raised.value.code == errno.EBUSY
    with served(link) as client:
        client.names("")


def test_as_many_fids_as_there_are(client: Client) -> None:
    fids = []
    with refused(errno.ENFILE):
        for _ in range(2000):
            fids.append(client.walk("ram"))
    assert len(fids) >= 1000
    for fid in fids:
        client.clunk(fid)


def test_what_is_no_service_of_files(link: sbe.Connection) -> None:
    with pytest.raises(sbe.UnknownService):
        Served(link, service="nothing")
    with pytest.raises(sbe.Error):
        Served(link, service="echo")


def test_the_remote_is_lost(link: sbe.Connection) -> None:
    session = Served(link)
    session.client.version(8192)
    session.client.attach()
    (remote,) = link.list()["links"]
    os.kill(remote["pid"], 9)
    with contextlib.suppress(EOFError, OSError):  # with EIO, or it had ended before
        while True:
            session.client.walk("ram")
    assert isinstance(session.ended(), sbe.LinkError)
    with served(link) as client:  # and a new one serves anew
        assert client.names("ram") == set()
    session.close()


def test_the_next_life_tells_how_the_last_one_ended(link: sbe.Connection) -> None:
    """Unless that was asked for."""
    (remote,) = link.list()["links"]
    os.kill(remote["pid"], signal.SIGKILL)
    with contextlib.suppress(sbe.LinkError):
        link.call("echo")
    with served(link) as client:
        said = client.read("crash").decode()
    assert said == f"sbe-remote (process {remote['pid']}) killed by signal 9 (SIGKILL)\n"
    with sbe.connect("loopback:") as other, served(other) as client:
        assert client.read("crash") == b""


def test_the_remote_does_not_answer(link: sbe.Connection) -> None:
    session = Served(link, timeout=0.2)
    session.client.version(8192)
    session.client.attach()
    (remote,) = link.list()["links"]
    os.kill(remote["pid"], 19)
    try:
        tags = [session.client.send(ninep.STATFS, struct.pack("<I", 0)) for _ in range(5)]
        answers = [session.client.receive() for _ in tags]
        assert [tag for _, tag, _ in answers] == tags
        assert {(kind, body) for kind, _, body in answers} == {(7, struct.pack("<I", errno.EIO))}
        assert session.client.socket.recv(1) == b""
        assert isinstance(session.ended(), sbe.Timeout)
    finally:
        os.kill(remote["pid"], 18)
    session.close()


def test_closing_ends_it(link: sbe.Connection) -> None:
    session = Served(link)
    session.client.version(8192)
    session.bridge.close()
    assert session.ended() is None
    assert session.client.socket.recv(1) == b""
    session.close()
    ours, theirs = socket.socketpair()
    with ours, link.bridge_9p(theirs):
        pass  # one that never ran
    assert ours.fileno() == -1
    with served(link) as client:
        client.names("")


def test_closing_in_the_middle_of_messages(link: sbe.Connection) -> None:
    for size in [8, 2000] * 20:  # in one that comes, and in those that the remote has
        session = Served(link)
        session.client.version(8192)
        session.client.attach()
        session.client.socket.sendall(
            b"".join(ninep.message(ninep.STATFS, tag, bytes(4)) for tag in range(8))
        )
        session.client.socket.sendall(ninep.message(ninep.WRITE, 8, bytes(size), 8000))
        session.bridge.close()
        assert session.ended() is None
        session.client.socket.close()


def test_a_forked_child_does_not_end_it(link: sbe.Connection) -> None:
    session = Served(link)
    session.client.version(8192)
    session.client.attach()
    child = os.fork()
    if child == 0:
        try:
            session.bridge.close()
            session.bridge.run()
        except sbe.LinkError:
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    session.client.names("")
    session.close()
    assert session.error is None


def test_closed_before_it_runs(link: sbe.Connection) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        bridge = link.bridge_9p(theirs)
        bridge.close()
        bridge.run()
        assert ours.recv(1) == b""


@pytest.mark.parametrize("timeout", [1e10, 1e30, float("inf")])
def test_a_timeout_that_is_never_over(link: sbe.Connection, timeout: float) -> None:
    with served(link, timeout=timeout) as client:
        client.names("")


def test_a_socket_that_is_closed(link: sbe.Connection) -> None:
    for _ in range(40):  # more than there are sessions: each lets go of its own
        ours, theirs = socket.socketpair()
        bridge = link.bridge_9p(theirs)
        ours.close()
        theirs.close()
        bridge.run()


def test_it_serves_in_a_loop(link: sbe.Connection) -> None:
    async def program() -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(ninep.LIMIT_S)
        task = asyncio.ensure_future(link.bridge_9p(theirs).arun())
        client = Client(ours)
        assert await asyncio.to_thread(client.version, 8192) == "9P2000.L"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(ours.recv, 1) == b""
        ours.close()

    asyncio.run(program())
