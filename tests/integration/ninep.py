"""A 9P2000.L client of its own, and a served link for it: what the tests of 9P share."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import sbe

LIMIT_S = 30.0
NOFID = 0xFFFFFFFF
NOTAG = 0xFFFF
RLERROR = 7
STATFS, LOPEN, LCREATE, RENAME, GETATTR, SETATTR, READDIR = 8, 12, 14, 20, 24, 26, 40
FSYNC, MKDIR, RENAMEAT, UNLINKAT = 50, 72, 74, 76
VERSION, ATTACH, FLUSH, WALK, READ, WRITE, CLUNK, REMOVE = 100, 104, 108, 110, 116, 118, 120, 122


def wait_until(condition: Callable[[], bool]) -> None:
    """For something of which only a look tells."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def text(value: str | bytes) -> bytes:
    """A string of a message."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<H", len(data)) + data


def message(kind: int, tag: int, body: bytes = b"", size: int | None = None) -> bytes:
    """A message, with another size than its own if one is given."""
    return struct.pack("<IBH", 7 + len(body) if size is None else size, kind, tag) + body


class Entry(NamedTuple):
    """Of a directory."""

    name: str
    is_dir: bool
    next: int


def unpack_entries(data: bytes) -> list[Entry]:
    """What is in an Rreaddir."""
    found, at = [], 0
    while at < len(data):
        kind, _, _, following, sort, size = struct.unpack_from("<BIQQBH", data, at)
        name = data[at + 24 : at + 24 + size].decode()
        assert (kind == 0x80) == (sort == 4)
        found.append(Entry(name, kind == 0x80, following))
        at += 24 + size
    return found


class Attributes(NamedTuple):
    """Of a file."""

    mode: int
    uid: int
    gid: int
    size: int
    mtime_s: int


class Client:
    """Speaks 9P2000.L over a socket; one thread. Errors of the server are OSErrors."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._fids = itertools.count(1)
        self._tags = itertools.cycle(range(NOTAG))
        self.msize = 0

    # -- messages ---------------------------------------------------------------------------

    def send(self, kind: int, body: bytes = b"", tag: int | None = None) -> int:
        """Sends a message; its tag."""
        tag = next(self._tags) if tag is None else tag
        self.socket.sendall(message(kind, tag, body))
        return tag

    def take(self, size: int) -> bytes:
        """So many bytes. EOFError: the other end left."""
        data = bytearray()
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise EOFError(bytes(data))
            data += part
        return bytes(data)

    def receive(self) -> tuple[int, int, bytes]:
        """The next answer: type, tag, body."""
        size, kind, tag = struct.unpack("<IBH", self.take(7))
        assert 7 <= size <= max(self.msize, 8192)
        return kind, tag, self.take(size - 7)

    def answer(self, kind: int, tag: int) -> bytes:
        """The next answer, which is to that message."""
        got, its, body = self.receive()
        assert its == tag
        if got == RLERROR:
            (code,) = struct.unpack("<I", body)
            raise OSError(code, os.strerror(code))
        assert got == kind + 1
        return body

    def ask(self, kind: int, body: bytes = b"", tag: int | None = None) -> bytes:
        """One message and its answer."""
        return self.answer(kind, self.send(kind, body, tag))

    # -- what files are asked for -----------------------------------------------------------

    def version(self, msize: int, name: str = "9P2000.L") -> str:
        """Agrees on a size; the version that came back."""
        body = self.ask(VERSION, struct.pack("<I", msize) + text(name), NOTAG)
        (self.msize,) = struct.unpack_from("<I", body)
        return body[6:].decode()

    def attach(self, fid: int = 0, where: str = "", uid: int = 0) -> None:
        self.ask(
            ATTACH,
            struct.pack("<II", fid, NOFID) + text("root") + text(where) + struct.pack("<I", uid),
        )

    def walk(self, path: str, fid: int = 0) -> int:
        """A new fid for a path."""
        new = next(self._fids)
        names = [name for name in path.split("/") if name]
        for start in range(0, max(len(names), 1), 16):
            part = names[start : start + 16]
            body = struct.pack("<IIH", fid if start == 0 else new, new, len(part))
            got = self.ask(WALK, body + b"".join(map(text, part)))
            if struct.unpack_from("<H", got)[0] < len(part):
                if start:
                    self.clunk(new)
                raise FileNotFoundError(errno.ENOENT, "a part of the walk", path)
        return new

    def clunk(self, fid: int) -> None:
        self.ask(CLUNK, struct.pack("<I", fid))

    @contextlib.contextmanager
    def fid(self, path: str) -> Iterator[int]:
        """A fid for a path, clunked at the end."""
        fid = self.walk(path)
        try:
            yield fid
        finally:
            self.clunk(fid)

    @contextlib.contextmanager
    def opened(self, path: str, flags: int = 0) -> Iterator[int]:
        """A fid that is open."""
        with self.fid(path) as fid:
            self.ask(LOPEN, struct.pack("<II", fid, flags))
            yield fid

    def read_at(self, fid: int, offset: int, count: int) -> bytes:
        body = self.ask(READ, struct.pack("<IQI", fid, offset, count))
        assert struct.unpack_from("<I", body)[0] == len(body) - 4 <= count
        return body[4:]

    def write_at(self, fid: int, offset: int, data: bytes) -> int:
        body = self.ask(WRITE, struct.pack("<IQI", fid, offset, len(data)) + data)
        return int(struct.unpack("<I", body)[0])

    def read(self, path: str) -> bytes:
        """All of a file."""
        data = bytearray()
        with self.opened(path) as fid:
            while part := self.read_at(fid, len(data), self.msize - 24):
                data += part
        return bytes(data)

    def create(self, path: str, flags: int = os.O_RDWR, mode: int = 0o644, gid: int = 0) -> int:
        """A new file's fid, open."""
        folder, _, name = path.rpartition("/")
        fid = self.walk(folder)
        try:
            self.ask(
                LCREATE,
                struct.pack("<I", fid) + text(name) + struct.pack("<III", flags, mode, gid),
            )
        except OSError:
            self.clunk(fid)
            raise
        return fid

    def write_all(self, fid: int, data: bytes) -> None:
        done = 0
        while done < len(data):
            done += self.write_at(fid, done, data[done : done + self.msize - 24])

    def write(self, path: str, data: bytes) -> None:
        """A new file with this content."""
        fid = self.create(path)
        self.write_all(fid, data)
        self.clunk(fid)

    def put(self, path: str, data: bytes) -> None:
        """Writes to a file that is there."""
        with self.opened(path, os.O_WRONLY | os.O_TRUNC) as fid:
            self.write_all(fid, data)

    def mkdir(self, path: str, mode: int = 0o755) -> None:
        folder, _, name = path.rpartition("/")
        with self.fid(folder) as fid:
            self.ask(MKDIR, struct.pack("<I", fid) + text(name) + struct.pack("<II", mode, 0))

    def unlink(self, path: str, flags: int = 0) -> None:
        folder, _, name = path.rpartition("/")
        with self.fid(folder) as fid:
            self.ask(UNLINKAT, struct.pack("<I", fid) + text(name) + struct.pack("<I", flags))

    def rmdir(self, path: str) -> None:
        self.unlink(path, 0x200)

    def rename(self, old: str, new: str) -> None:
        (old_folder, _, old_name), (new_folder, _, name) = old.rpartition("/"), new.rpartition("/")
        with self.fid(old_folder) as one, self.fid(new_folder) as other:
            body = struct.pack("<I", one) + text(old_name) + struct.pack("<I", other) + text(name)
            self.ask(RENAMEAT, body)

    def entries(self, path: str, count: int = 4096) -> list[Entry]:
        """All of a directory, . and .. too."""
        found: list[Entry] = []
        with self.opened(path) as fid:
            while True:
                start = found[-1].next if found else 0
                body = self.ask(READDIR, struct.pack("<IQI", fid, start, count))
                if len(body) == 4:
                    return found
                found += unpack_entries(body[4:])

    def names(self, path: str) -> set[str]:
        return {entry.name for entry in self.entries(path)} - {".", ".."}

    def attributes(self, path: str) -> Attributes:
        with self.fid(path) as fid:
            return self.attributes_of(fid)

    def attributes_of(self, fid: int) -> Attributes:
        body = self.ask(GETATTR, struct.pack("<IQ", fid, 0x7FF))
        mode, uid, gid, _, _, size = struct.unpack_from("<IIIQQQ", body, 8 + 13)
        (mtime_s,) = struct.unpack_from("<Q", body, 8 + 13 + 12 + 5 * 8 + 16)
        return Attributes(mode, uid, gid, size, mtime_s)

    def set_attributes(self, path: str, valid: int, **values: int) -> None:
        names = ("mode", "uid", "gid", "size", "atime_s", "atime_ns", "mtime_s", "mtime_ns")
        numbers = [values.get(name, 0) for name in names]
        with self.fid(path) as fid:
            self.ask(SETATTR, struct.pack("<IIIIIQQQQQ", fid, valid, *numbers))

    def truncate(self, path: str, size: int) -> None:
        self.set_attributes(path, 8, size=size)

    def free(self) -> tuple[int, int]:
        """Blocks and files that are free."""
        with self.fid("") as fid:
            body = self.ask(STATFS, struct.pack("<I", fid))
        _, _, _, blocks, _, _, files, _, _ = struct.unpack("<IIQQQQQQI", body)
        return blocks, files


class Served:
    """A bridge that runs in a thread, and the client's end of its socket."""

    def __init__(self, link: sbe.Connection, **how: Any) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(LIMIT_S)
        self.client = Client(ours)
        self.error: BaseException | None = None
        try:
            self.bridge = link.bridge_9p(theirs, **{"timeout": LIMIT_S, **how})
        except BaseException:
            ours.close()
            theirs.close()
            raise
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.bridge.run()
        except BaseException as error:
            self.error = error

    def ended(self) -> BaseException | None:
        """Waits for the bridge's own end; what it raised."""
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()
        return self.error

    def close(self) -> None:
        """The client leaves."""
        self.client.socket.close()
        self.ended()


@contextlib.contextmanager
def served(link: sbe.Connection, msize: int = 1 << 17, **how: Any) -> Iterator[Client]:
    """A client that has agreed and attached fid 0. The bridge has to end without an error."""
    session = Served(link, **how)
    try:
        assert session.client.version(msize) == "9P2000.L"
        session.client.attach()
        yield session.client
    finally:
        session.close()
    if session.error is not None:
        raise session.error
