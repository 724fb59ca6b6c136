"""Messages of 9P2000.L, as far as whoever passes them on has to know them."""

from __future__ import annotations

import enum
import socket
import struct
from typing import NamedTuple

from sbe.errors import ProtocolError

__all__ = [
    "CODE_MAX",
    "HEADER",
    "MESSAGE",
    "MSIZE_LEAST",
    "MSIZE_MAX",
    "NOTAG",
    "OPEN",
    "READ_HEAD",
    "VERSION",
    "WRITE_HEAD",
    "Header",
    "Incoming",
    "Kind",
    "asked",
    "check_answer",
    "data_count",
    "flushed",
    "message",
    "refusal",
    "version",
    "version_msize",
    "with_count",
]

HEADER = 7
"""Bytes of size, type and tag."""
READ_HEAD = 11
"""Bytes before the data of Rread and Rreaddir."""
WRITE_HEAD = 23
"""Bytes before the data of Twrite."""
NOTAG = 0xFFFF
MSIZE_LEAST = 512
"""Bytes of a message that can be asked for."""
MSIZE_MAX = (1 << 20) + 24
"""Bytes of a message at most, 1 MiB of data and what stands before it."""
VERSION = b"9P2000.L"
CODE_MAX = 4095
"""Of an error, as the kernel has them."""

OPEN = 1
MESSAGE = 2
"""Operations of the service, docs/spec/9p.md."""

_FIRST = struct.Struct("<IBH")
_RANGE = struct.Struct("<IQI")  # fid, offset, count
_READ_SIZE = HEADER + _RANGE.size
_PART = 4096  # bytes taken from the socket at a time, unless they are data


class Kind(enum.IntEnum):
    """Types of requests, and Rlerror's; the answer's is one more."""

    RLERROR = 7
    STATFS = 8
    LOPEN = 12
    LCREATE = 14
    READLINK = 22
    GETATTR = 24
    SETATTR = 26
    READDIR = 40
    FSYNC = 50
    MKDIR = 72
    RENAMEAT = 74
    UNLINKAT = 76
    VERSION = 100
    ATTACH = 104
    FLUSH = 108
    WALK = 110
    READ = 116
    WRITE = 118
    CLUNK = 120


class Header(NamedTuple):
    """What every message begins with."""

    size: int
    kind: int
    tag: int


def asked(operation: int, session: int, message: bytes = b"") -> bytes:
    """The payload of a call of the service."""
    return struct.pack("<II", operation, session) + message


def message(kind: int, tag: int, body: bytes, elsewhere: int = 0) -> bytes:
    """A message; so many bytes of its end are elsewhere, in a buffer."""
    return _FIRST.pack(HEADER + len(body) + elsewhere, kind, tag) + body


def refusal(tag: int, code: int) -> bytes:
    """An Rlerror."""
    return message(Kind.RLERROR, tag, struct.pack("<I", code))


def version(msize: int, name: bytes = VERSION) -> bytes:
    """A Tversion."""
    body = struct.pack("<IH", msize, len(name)) + name
    return message(Kind.VERSION, NOTAG, body)


def version_msize(answer: bytes, tag: int, most: int) -> int:
    """What an Rversion agreed to, at most what was asked for, 0 nothing. Raises ProtocolError for
    anything else: more would not fit the memory that was found for it."""
    if len(answer) >= HEADER:
        size, got, its = _FIRST.unpack_from(answer)
        if its == tag and size == len(answer):
            if got == Kind.RLERROR and size == HEADER + 4:
                return 0
            if got == Kind.VERSION + 1 and size >= HEADER + 6:
                (msize,) = struct.unpack_from("<I", answer, HEADER)
                if answer[HEADER + 6 :] != VERSION:
                    return 0
                if MSIZE_LEAST <= msize <= most:
                    return int(msize)
    raise ProtocolError("what answers as the service of 9P files answered no Tversion")


def data_count(kind: int, message: bytes | bytearray) -> int | None:
    """How many bytes a Tread, Treaddir or Twrite is about; None: it is none, or is malformed."""
    size, _, _ = _FIRST.unpack_from(message)
    if kind == Kind.WRITE:
        if len(message) < WRITE_HEAD:
            return None
        count: int = _RANGE.unpack_from(message, HEADER)[2]
        return count if count == size - WRITE_HEAD else None
    if kind not in (Kind.READ, Kind.READDIR) or size != _READ_SIZE:
        return None
    return int(_RANGE.unpack_from(message, HEADER)[2])


def flushed(kind: int, message: bytes) -> int | None:
    """The tag that a Tflush is about; None: it is none, or is malformed."""
    if kind != Kind.FLUSH or len(message) != HEADER + 2:
        return None
    return int.from_bytes(message[HEADER:], "little")


def with_count(message: bytes, count: int) -> bytes:
    """A Tread or Treaddir that asks for so many bytes."""
    return message[: _READ_SIZE - 4] + struct.pack("<I", count)


def check_answer(
    answer: bytes, written: int, kind: int, tag: int, most: int | None, msize: int
) -> None:
    """Raises ProtocolError unless this answers that message: with data of `written` bytes behind
    it, which were to be at most `most`, and all of it at most what was agreed."""
    lie = _lie(answer, written, kind, tag, most, msize)
    if lie is not None:
        raise ProtocolError(f"the remote answered a 9P message of type {kind} with {lie}")


def _lie(
    answer: bytes, written: int, kind: int, tag: int, most: int | None, msize: int
) -> str | None:
    came = len(answer) + written
    if len(answer) < HEADER:
        return f"{came} bytes, of which none are a header"
    size, got, its = _FIRST.unpack_from(answer)
    if its != tag:
        return f"tag {its}, which was {tag}"
    if size != came:
        return f"{came} bytes that say they are {size}"
    if size > msize:
        return f"{size} bytes, more than the {msize} that were agreed"
    if got == Kind.RLERROR:
        return _lie_of_error(answer, size)
    if got != kind + 1:
        return f"type {got}"
    return None if most is None else _lie_of_data(answer, size, most)


def _lie_of_error(answer: bytes, size: int) -> str | None:
    if not size == len(answer) == HEADER + 4:
        return f"an error of {size} bytes"
    (code,) = struct.unpack_from("<I", answer, HEADER)
    return None if 0 < code <= CODE_MAX else f"the error {code}, which is none"


def _lie_of_data(answer: bytes, size: int, most: int) -> str | None:
    if len(answer) < READ_HEAD:
        return f"{size} bytes, too few for data"
    (count,) = struct.unpack_from("<I", answer, HEADER)
    if count != size - READ_HEAD:
        return f"{size - READ_HEAD} bytes of data that say they are {count}"
    return f"{count} bytes of data, where {most} were asked for" if count > most else None


class Incoming:
    """What comes by a stream socket. One thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray(_PART)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0

    def _fill(self, needed: int) -> bool:
        """So many bytes are there, at most as many as are taken at a time. False: the end."""
        have = self._end - self._start
        if have < needed and self._start + needed > _PART:
            self._buffer[:have] = self._buffer[self._start : self._end]
            self._start, self._end = 0, have
        while self._end - self._start < needed:
            got = self._socket.recv_into(self._view[self._end :])
            if got == 0:
                return False
            self._end += got
        return True

    def header(self) -> Header | None:
        """The next message's, which is not taken yet. None: the end. ProtocolError in between."""
        if self._start == self._end:
            self._start = self._end = 0
        if not self._fill(HEADER):
            if self._start != self._end:
                raise ProtocolError("the 9P client left in the middle of a message")
            return None
        return Header(*_FIRST.unpack_from(self._buffer, self._start))

    def take(self, size: int) -> bytes:
        """So many bytes. ProtocolError: it left."""
        if size <= _PART:
            if not self._fill(size):
                raise ProtocolError("the 9P client left in the middle of a message")
            self._start += size
            return bytes(self._view[self._start - size : self._start])
        data = bytearray(size)
        self.take_into(memoryview(data))
        return bytes(data)

    def take_into(self, place: memoryview) -> None:
        """As many bytes as it has, past all buffers but for what came with their header."""
        done = min(self._end - self._start, len(place))
        place[:done] = self._view[self._start : self._start + done]
        self._start += done
        while done < len(place):
            got = self._socket.recv_into(place[done:])
            if got == 0:
                raise ProtocolError("the 9P client left in the middle of a message")
            done += got

    def skip(self, size: int) -> None:
        """Takes so many bytes and forgets them."""
        while size > 0:
            part = min(size, _PART)
            self.take(part)
            size -= part
