"""9P2000.L on the wire: numbers of messages and flags, and packing and unpacking of fields.

A format is a letter for each field: B, H, I and Q are unsigned, of 1, 2, 4 and 8 bytes, little
endian; s is a string, bytes behind their count of 2; q is a qid, (type, version, path).
"""

from __future__ import annotations

import errno
import struct
from enum import IntEnum

from sbe.errors import Error
from sbe.sdk.ninep_wire import HEADER

__all__ = [
    "ATTRIBUTES",
    "DT",
    "NOFID",
    "QID",
    "WALK_MAX",
    "T",
    "malformed",
    "message",
    "pack",
    "unpack",
]


class T(IntEnum):
    """Requests; an answer's number is one more."""

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


NOFID = 0xFFFFFFFF
WALK_MAX = 16
ATTRIBUTES = 0x7FF
"""What Rgetattr has: all that stat() shows."""


class QID(IntEnum):
    """Kinds of files in a qid."""

    FILE = 0
    LINK = 0x02
    DIR = 0x80


class DT(IntEnum):
    """Kinds of files in a directory's entry."""

    DIR = 4
    FILE = 8
    LINK = 10


_SIZES = {"B": 1, "H": 2, "I": 4, "Q": 8}


def malformed(why: str) -> Error:
    """The error of what is no message of the protocol."""
    return Error(why, errno.EBADMSG)


def pack(form: str, *values: object) -> bytes:
    """The bytes of these fields."""
    parts = []
    for kind, value in zip(form, values, strict=True):
        if kind == "s":
            assert isinstance(value, bytes)
            parts.append(struct.pack("<H", len(value)) + value)
        elif kind == "q":
            assert isinstance(value, tuple)
            parts.append(struct.pack("<BIQ", *value))
        else:
            parts.append(struct.pack("<" + kind, value))
    return b"".join(parts)


def unpack(form: str, data: memoryview) -> tuple[list[int], list[bytes], memoryview]:
    """Numbers, strings, and what follows them. Raises `sbe.Error` where it is too short."""
    numbers: list[int] = []
    texts: list[bytes] = []
    for kind in form:
        size = _SIZES.get(kind, 2)
        if len(data) < size:
            raise malformed("a 9P message is shorter than its fields")
        number = int.from_bytes(data[:size], "little")
        data = data[size:]
        if kind != "s":
            numbers.append(number)
            continue
        if len(data) < number:
            raise malformed("a 9P message is shorter than its strings")
        texts.append(bytes(data[:number]))
        data = data[number:]
    return numbers, texts, data


def message(kind: int, tag: int, body: bytes, elsewhere: int = 0) -> bytes:
    """A message; so many bytes of its end are elsewhere, in a buffer."""
    return struct.pack("<IBH", HEADER + len(body) + elsewhere, kind, tag) + body
