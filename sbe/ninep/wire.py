"""9P2000.L on the wire: what files are called, and packing and unpacking of fields.

A format is a letter for each field: B, H, I and Q are unsigned, of 1, 2, 4 and 8 bytes, little
endian; s is a string, bytes behind their count of 2; q is a qid, (type, version, path).
"""

from __future__ import annotations

import errno
import struct
from enum import IntEnum

from sbe.errors import Error

__all__ = [
    "ATTRIBUTES",
    "DT",
    "NOFID",
    "QID",
    "WALK_MAX",
    "malformed",
    "pack",
    "unpack",
]


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
