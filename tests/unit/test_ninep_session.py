"""A folder served by 9P: all that is in it, nothing outside, whatever the client says."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sbe
from sbe.ninep import Quota
from sbe.ninep.folder import Folder
from sbe.ninep.session import Session
from sbe.sdk.ninep_wire import Incoming
from tests.integration import ninep
from tests.integration.ninep import LIMIT_S, NOFID, Client, message, text
from tests.integration.test_ninep import refused

SECRET = b"outside"


class Served:
    """A session of a folder and a client of it, at the ends of a socket pair."""

    def __init__(self, path: Path, *, writable: bool = False, quota: Quota | None = None) -> None:
        self.path = path
        self.quota = quota or Quota()
        self._folder = Folder(path)
        self.session = Session(self._folder, self.quota, writable=writable)
        ours, self._socket = socket.socketpair()
        ours.settimeout(LIMIT_S)
        self.client = Client(ours)
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        incoming = Incoming(self._socket)
        try:
            while (header := incoming.header()) is not None:
                self._socket.sendall(self.session.answer(incoming.take(header.size)))
        except BaseException as error:
            self.error = error
        finally:
            self._socket.close()

    def close(self) -> None:
        self.client.socket.close()
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()
        self.session.close()
        self._folder.close()
        if self.error is not None:
            raise self.error


Serve = Callable[..., Served]


def opened_below(path: Path) -> int:
    """Descriptors of this process that name it or something in it."""
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{fd}").startswith(os.fspath(path))
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder beside what must not be reached, with links that lead there."""
    made = tmp_path / "exported"
    (made / "sub" / "deep").mkdir(parents=True)
    (made / "file").write_bytes(b"content" * 1000)
    (made / "sub" / "deep" / "leaf").write_bytes(b"leaf")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file").write_bytes(SECRET)
    (made / "inside").symlink_to("sub/deep/leaf")
    (made / "sub" / "up").symlink_to("../file")
    (made / "away").symlink_to(tmp_path / "secret" / "file")
    (made / "above").symlink_to("../secret/file")
    (made / "aside").symlink_to("../secret")
    (made / "magic").symlink_to(f"/proc/self/cwd{tmp_path}/secret/file")
    (made / "broken").symlink_to("nowhere")
    (made / "circle").symlink_to("circle")
    os.mkfifo(made / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.fspath(made / "socket"))
    return made


@pytest.fixture
def serve(folder: Path) -> Iterator[Serve]:
    """Serves the folder to a client that has attached fid 0; nothing stays open."""
    running: list[Served] = []

    def begin(**how: object) -> Served:
        served = Served(folder, **how)  # type: ignore[arg-type]
        running.append(served)
        assert served.client.version(8192) == "9P2000.L"
        served.client.attach()
        return served

    yield begin
    for served in running:
        served.close()
    assert opened_below(folder) == 0


def test_what_is_there(serve: Serve, folder: Path) -> None:
    client = serve().client
    shown = {"file", "sub", "inside", "away", "above", "aside", "magic", "broken", "circle"}
    listed = client.entries("", count=200)  # several messages
    assert {entry.name for entry in listed} == shown | {".", ".."}
    assert {entry.name for entry in listed if entry.is_dir} == {".", "..", "sub"}
    assert client.read("file") == b"content" * 1000
    assert client.read("sub/deep/leaf") == b"leaf"
    found = (folder / "file").stat()
    attributes = client.attributes("file")
    assert (attributes.mode, attributes.size) == (found.st_mode, found.st_size)
    assert attributes.mtime_s == int(found.st_mtime)
    blocks, files = client.free()
    assert blocks > 0 or files >= 0
    with client.opened("file") as fid:
        assert client.read_at(fid, 6998, 100) == b"nt"
        assert client.read_at(fid, 7000, 100) == b""
        assert client.read_at(fid, 1 << 62, 100) == b""
        with refused(errno.EINVAL):
            client.read_at(fid, (1 << 64) - 1, 100)
    with refused(errno.ENOENT):
        client.read("nothing")
    with refused(errno.ENOENT):
        client.walk("sub/nothing/more")
    with client.fid("file") as fid, refused(errno.ENOTDIR):
        client.walk("deeper", fid)


def test_links_inside_are_followed(serve: Serve) -> None:
    client = serve().client
    assert client.read("inside") == b"leaf"
    assert client.read("sub/up") == b"content" * 1000
    with client.fid("inside") as fid:
        assert client.attributes_of(fid).mode & 0o170000 == 0o120000  # the link itself
        assert client.ask(22, struct.pack("<I", fid)) == text("sub/deep/leaf")
    with client.fid("file") as fid, refused(errno.EINVAL):
        client.ask(22, struct.pack("<I", fid))


def test_an_answer_is_no_longer_than_was_agreed(folder: Path, serve: Serve) -> None:
    (folder / "far").symlink_to("x/" * 400)
    client = serve().client
    client.version(512)
    client.attach()
    with client.fid("far") as fid, refused(errno.EMSGSIZE):
        client.ask(22, struct.pack("<I", fid))


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("away", errno.EXDEV),
        ("above", errno.EXDEV),
        ("magic", errno.EXDEV),
        ("aside/file", errno.ENOENT),
        ("broken", errno.ENOENT),
        ("circle", errno.ELOOP),
        ("fifo", errno.EPERM),
        ("socket", errno.EPERM),
    ],
)
def test_nothing_outside_is_opened(serve: Serve, name: str, code: int) -> None:
    with refused(code):
        serve().client.read(name)


def test_up_stays_inside(serve: Serve) -> None:
    client = serve().client
    top = client.ask(ninep.WALK, struct.pack("<IIH", 0, 90, 0))
    assert top == b"\0\0"
    names = b"".join(map(text, ["sub", "..", "..", "..", "sub", "deep"]))
    client.ask(ninep.WALK, struct.pack("<IIH", 0, 91, 6) + names)
    with refused(errno.ENOENT):
        client.walk("../../secret")
    with client.fid("aside") as fid, refused(errno.EXDEV):
        client.walk("file", fid)


def test_what_is_exchanged_for_a_link_meanwhile(serve: Serve, folder: Path) -> None:
    """Whichever it is when a message comes: what is outside is never read."""
    (folder / "turn").mkdir()
    (folder / "turn" / "file").write_bytes(b"inside")
    (folder / "link").symlink_to("../secret")
    client = serve().client
    over = threading.Event()

    def exchange() -> None:
        while not over.is_set():
            os.rename(folder / "turn", folder / "was")
            os.rename(folder / "link", folder / "turn")
            os.rename(folder / "turn", folder / "link")
            os.rename(folder / "was", folder / "turn")

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        for _ in range(500):
            with contextlib.suppress(OSError):
                assert client.read("turn/file") == b"inside"
    finally:
        over.set()
        thread.join(LIMIT_S)


def changes(client: Client) -> dict[str, Callable[[], object]]:
    """Everything that would change the folder."""
    return {
        "create": lambda: client.create("new"),
        "mkdir": lambda: client.mkdir("sub/new"),
        "unlink": lambda: client.unlink("file"),
        "rmdir": lambda: client.rmdir("sub/deep"),
        "rename": lambda: client.rename("file", "sub/file"),
        "put": lambda: client.put("file", b"other"),
        "open": lambda: client.opened("file", os.O_RDWR).__enter__(),
        "truncate": lambda: client.opened("file", 0o1000).__enter__(),
        "setattr": lambda: client.truncate("file", 0),
    }


def test_read_only(serve: Serve, folder: Path) -> None:
    client = serve().client
    before = sorted((path, path.lstat()) for path in folder.rglob("*"))
    for change in changes(client).values():
        with refused(errno.EROFS):
            change()
    with client.opened("file") as fid, refused(errno.EROFS):
        client.write_at(fid, 0, b"other")
    after = sorted((path, path.lstat()) for path in folder.rglob("*"))
    assert [path for path, _ in before] == [path for path, _ in after]
    assert [stat.st_mtime_ns for _, stat in before] == [stat.st_mtime_ns for _, stat in after]


def test_writable(serve: Serve, folder: Path) -> None:
    client = serve(writable=True).client
    data = random.Random(1).randbytes(50_000)
    client.write("sub/new", data)
    assert (folder / "sub" / "new").read_bytes() == data == client.read("sub/new")
    with refused(errno.EEXIST):
        client.create("sub/new")
    client.mkdir("made", 0o700)
    assert (folder / "made").stat().st_mode & 0o777 == 0o700
    with client.opened("sub/new") as fid:
        client.rename("sub", "made/moved")
        assert client.read_at(fid, 0, 10) == data[:10]
    assert (folder / "made" / "moved" / "new").read_bytes() == data
    with client.fid("made/moved") as fid:
        client.rename("made", "again")
        client.clunk(client.walk("deep/leaf", fid))  # it goes with what it names
    client.truncate("again/moved/new", 10)
    client.set_attributes("file", 0x1 | 0x20 | 0x100, mode=0o4640, mtime_s=1000, mtime_ns=5)
    found = (folder / "file").stat()
    assert (found.st_mode & 0o7777, found.st_mtime_ns) == (0o640, 1_000_000_000_005)
    with client.opened("file", os.O_RDWR) as fid:
        client.ask(ninep.FSYNC, struct.pack("<II", fid, 0))
    with refused(errno.EPERM):
        client.set_attributes("file", 0x2, uid=found.st_uid + 1)
    with refused(errno.EPERM):
        client.set_attributes("away", 0x8, size=0)
    with refused(errno.ENOTEMPTY):
        client.rmdir("again")
    client.unlink("away")  # the link, not what it leads to
    client.unlink("again/moved/new")
    with refused(errno.EXDEV):
        client.put("above", b"other")
    assert (folder.parent / "secret" / "file").read_bytes() == SECRET


def test_changes_through_a_link_that_leads_out(serve: Serve, folder: Path) -> None:
    client = serve(writable=True).client
    for change in (
        lambda: client.create("aside/new"),
        lambda: client.mkdir("aside/new"),
        lambda: client.unlink("aside/file"),
        lambda: client.rename("aside/file", "stolen"),
        lambda: client.rename("file", "aside/file"),
    ):
        with refused(errno.EXDEV):
            change()
    assert [path.name for path in (folder.parent / "secret").iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../new", "nul\0", "n" * 256])
def test_names_that_are_none(serve: Serve, folder: Path, name: str) -> None:
    client = serve(writable=True).client
    before = sorted(folder.parent.rglob("*"))
    code = errno.ENAMETOOLONG if len(name) > 255 else errno.EINVAL
    data = text(name)
    new = struct.pack("<I", 0) + data
    for kind, body in (
        (ninep.LCREATE, new + struct.pack("<III", 2, 0o644, 0)),
        (ninep.MKDIR, new + struct.pack("<II", 0o755, 0)),
        (ninep.UNLINKAT, new + struct.pack("<I", 0)),
        (ninep.RENAMEAT, struct.pack("<I", 0) + text("file") + struct.pack("<I", 0) + data),
        (ninep.RENAMEAT, new + struct.pack("<I", 0) + text("stolen")),
    ):
        with refused(code):
            client.ask(kind, body)
    if name != "..":
        with refused(code):
            client.ask(ninep.WALK, struct.pack("<IIH", 0, 9, 1) + data)
    assert sorted(folder.parent.rglob("*")) == before


def test_quotas(serve: Serve) -> None:
    served = serve(writable=True, quota=Quota(fids=5, open_files=2, written_bytes=20_000))
    client = served.client
    fids = [client.walk("file") for _ in range(4)]
    with refused(errno.ENFILE):
        client.walk("file")
    for fid in fids[:2]:
        client.ask(ninep.LOPEN, struct.pack("<II", fid, 0))
    with refused(errno.ENFILE):
        client.ask(ninep.LOPEN, struct.pack("<II", fids[2], 0))
    for fid in fids:
        client.clunk(fid)
    client.write("new", bytes(10_000))  # and 4,096 for the file itself
    with client.opened("new", os.O_RDWR) as fid:
        assert client.write_at(fid, 0, bytes(8000)) == 8000  # it does not grow by that
        with refused(errno.EDQUOT):
            client.write_at(fid, 100_000, b"x")
        with refused(errno.EDQUOT):
            client.write_at(fid, 10_000, bytes(6000))
    for size in (100_000, 1 << 62):
        with refused(errno.EDQUOT):
            client.truncate("new", size)
    with refused(errno.EFBIG):
        client.truncate("new", 1 << 63)
    client.mkdir("one")
    with refused(errno.EDQUOT):
        client.mkdir("two")
    with refused(errno.EDQUOT):
        client.create("three")
    served.session.close()
    assert (served.quota.fids, served.quota.open_files) == (5, 2)


def test_a_version_begins_anew(serve: Serve) -> None:
    served = serve()
    fid = served.client.walk("file")
    served.client.ask(ninep.LOPEN, struct.pack("<II", fid, 0))
    assert served.client.version(4096) == "9P2000.L"
    assert served.quota.fids == Quota().fids
    with refused(errno.EBADF):
        served.client.read_at(fid, 0, 10)
    assert served.client.version(4096, "9P2000.u") == "unknown"
    with refused(errno.EPROTO):
        served.client.attach()
    with refused(errno.EINVAL):
        served.client.version(511)
    served.client.version(0xFFFFFFFF)
    assert served.client.msize == (1 << 20) + 24


def test_fids_that_lie(serve: Serve) -> None:
    client = serve(writable=True).client
    walk = struct.Struct("<IIH")
    fid = client.walk("file")
    with refused(errno.EINVAL):
        client.ask(ninep.WALK, walk.pack(0, fid, 0))  # in use
    with refused(errno.EINVAL):
        client.ask(ninep.WALK, walk.pack(0, NOFID, 0))
    with refused(errno.EBADF):
        client.ask(ninep.WALK, walk.pack(77, 78, 0))
    with refused(errno.EINVAL):
        client.attach(0)
    with refused(errno.ENOENT):
        client.attach(5, "sub")
    with refused(errno.EBADF):
        client.read_at(fid, 0, 10)  # not open
    with refused(errno.EBADF):
        client.ask(ninep.CLUNK, struct.pack("<I", 77))
    client.ask(ninep.LOPEN, struct.pack("<II", fid, 0))
    with refused(errno.EINVAL):
        client.ask(ninep.LOPEN, struct.pack("<II", fid, 0))
    with refused(errno.EINVAL):
        client.ask(ninep.WALK, walk.pack(fid, fid, 0))  # open
    with refused(errno.EBADF):
        client.write_at(fid, 0, b"x")  # open to be read
    with refused(errno.ENOTDIR):
        client.ask(ninep.READDIR, struct.pack("<IQI", fid, 0, 100))
    with client.opened("") as root:
        with refused(errno.EISDIR):
            client.read_at(root, 0, 10)
        with refused(errno.EINVAL):
            client.ask(ninep.READDIR, struct.pack("<IQI", root, 0, 3))  # no room for an entry
        with refused(errno.EINVAL):
            client.ask(ninep.READDIR, struct.pack("<IQI", root, (1 << 64) - 1, 100))
    with refused(errno.EOPNOTSUPP):
        client.ask(16, struct.pack("<I", 0))  # Tsymlink
    assert client.ask(ninep.FLUSH, struct.pack("<H", 3)) == b""


def answer(served: Served, data: bytes) -> bytes | None:
    """What the session makes of these bytes; None: that they are no message."""
    try:
        return served.session.answer(data)
    except sbe.Error as error:
        if error.code != errno.EBADMSG:
            raise
        return None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 6,
        message(ninep.STATFS, 1, b"\0\0\0\0", size=7),
        message(ninep.STATFS, 1, b"\0\0\0\0", size=0xFFFFFFFF),
        message(ninep.STATFS, 1, b"\0\0\0"),
        message(ninep.WALK, 1, struct.pack("<IIH", 0, 1, 17) + text("a") * 17),
        message(ninep.WALK, 1, struct.pack("<IIH", 0, 1, 2) + text("file")),
        message(ninep.WALK, 1, struct.pack("<IIH", 0, 1, 1) + b"\xff\xffx"),
        message(ninep.WRITE, 1, struct.pack("<IQI", 0, 0, 5) + b"four"),
        message(ninep.WRITE, 1, struct.pack("<IQI", 0, 0, 0xFFFFFFFF) + b"four"),
        message(ninep.READ, 1, bytes(9000)),  # more than was agreed
    ],
)
def test_what_is_no_message(serve: Serve, data: bytes) -> None:
    served = serve(writable=True)
    assert answer(served, data) is None
    assert served.client.read("file") == b"content" * 1000


def test_answers_fit_what_was_agreed(serve: Serve) -> None:
    client = serve().client
    client.version(512)
    client.attach()
    assert len(client.entries("")) == 11
    with client.opened("file") as fid:
        assert len(client.read_at(fid, 0, 0xFFFFFFFF)) == 512 - 11


@pytest.mark.parametrize("seed", range(8))
def test_random_messages(serve: Serve, folder: Path, seed: int) -> None:
    """Whatever comes: an answer or EBADMSG, nothing outside, and all is given back."""
    chance = random.Random(seed)
    served = serve(writable=True, quota=Quota(fids=20, open_files=5, written_bytes=100_000))
    kinds = [8, 12, 14, 20, 22, 24, 26, 40, 50, 72, 74, 76, 104, 108, 110, 110, 116, 118, 120, 122]
    names = ["file", "sub", "deep", "..", ".", "aside", "away", "circle", "new", "", "a/b", "\0"]

    def field() -> bytes:
        match chance.randrange(6):
            case 0 | 1:
                return struct.pack("<I", chance.choice([0, 1, 2, 3, 4, NOFID]))
            case 2:
                return text(chance.choice(names))
            case 3:
                return struct.pack("<H", chance.choice([0, 1, 2, 16, 0xFFFF]))
            case 4:
                return struct.pack("<Q", chance.choice([0, 1, 1 << 31, 1 << 63, (1 << 64) - 1]))
            case _:
                return chance.randbytes(chance.randrange(20))

    for _ in range(4000):
        kind = chance.choice(kinds) if chance.random() < 0.97 else chance.randrange(256)
        body = b"".join(field() for _ in range(chance.randrange(6)))
        if kind == ninep.WALK and chance.random() < 0.8:
            steps = [chance.choice(names) for _ in range(chance.randrange(4))]
            ends = struct.pack("<IIH", chance.randrange(6), chance.randrange(6), len(steps))
            body = ends + b"".join(map(text, steps))
        elif kind == ninep.LOPEN and chance.random() < 0.8:
            body = struct.pack("<II", chance.randrange(6), chance.choice([0, 1, 2, 3, 0o1002]))
        got = answer(served, message(kind, chance.randrange(1 << 16), body))
        assert got is None or len(got) == struct.unpack_from("<I", got)[0] <= 8192
        assert got is None or SECRET not in got
    assert (folder.parent / "secret" / "file").read_bytes() == SECRET
    assert sorted(path.name for path in folder.parent.iterdir()) == ["exported", "secret"]


def test_data_in_a_buffer(serve: Serve) -> None:
    served = serve(writable=True)
    client, session = served.client, served.session
    fid = client.create("new")
    data = bytearray(b"by reference")
    head = struct.pack("<IBHIQI", 23 + len(data), ninep.WRITE, 7, fid, 0, len(data))
    written = session.answer(head, memoryview(data))
    assert written == message(ninep.WRITE + 1, 7, struct.pack("<I", len(data)))
    room = memoryview(bytearray(100))
    got = session.answer(message(ninep.READ, 7, struct.pack("<IQI", fid, 3, 1 << 20)), None, room)
    assert got == struct.pack("<IBHI", 11 + 9, ninep.READ + 1, 7, 9)
    assert bytes(room[:10]) == b"reference\0"
    root = client.walk("")
    client.ask(ninep.LOPEN, struct.pack("<II", root, 0))
    got = session.answer(message(ninep.READDIR, 7, struct.pack("<IQI", root, 0, 100)), None, room)
    (size, count) = struct.unpack("<I3xI", got)
    assert 0 < count <= 100
    assert size == 11 + count


def test_a_huge_folder_is_listed_in_pieces(serve: Serve, folder: Path) -> None:
    """None takes longer than some hundred entries do, nothing is kept, and any place is found."""
    (folder / "huge").mkdir()
    names = {f"{number}" for number in range(8000)}
    for name in names:
        os.mknod(folder / "huge" / name)
    client = serve().client
    client.version(1 << 20)
    client.attach()
    found: list[ninep.Entry] = []
    with client.opened("huge") as fid:

        def listed(place: int) -> list[ninep.Entry]:
            body = client.ask(ninep.READDIR, struct.pack("<IQI", fid, place, 1 << 20))
            return ninep.unpack_entries(body[4:])

        while part := listed(found[-1].next if found else 0):
            assert len(part) < 1000
            found += part
        assert listed(found[5000].next)[0] == found[5001]
    assert len(found) == len(names) + 2
    assert {entry.name for entry in found} == names | {".", ".."}


def test_folders_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "nothing"):
        with pytest.raises(sbe.BadArgument, match="can't be exported"):
            Folder(path)


def test_a_kernel_that_can_not_confine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sbe.ninep.folder._OPENAT2", 100_000)  # no system call
    with pytest.raises(sbe.Error, match=r"openat2.*Linux 5\.6") as caught:
        Folder(tmp_path)
    assert caught.value.code == errno.ENOSYS
