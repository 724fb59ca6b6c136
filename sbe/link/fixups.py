"""Fixups: what an outgoing message of foreign firmware needs to know of buffers, and where.

The application says which bytes are what; the numbers come from whoever knows device addresses.
"""
# No `from __future__ import annotations`: asyncvarlink reads these annotations as types.

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sbe.errors import BadArgument, OutOfRange

__all__ = ["Field", "Fixup", "Run", "check", "cut", "fields", "patch", "read_field", "write_field"]

Run = tuple[int, int]
"""Device address and bytes."""

_WIDTHS = (16, 32, 64)
_ORDERS = ("little", "big", "hex", "HEX")
_KINDS = ("address", "end", "size", "segments", "count")
_SHIFT_MAX = 63


@dataclass(frozen=True)
class Field:
    """A number in a message: byte position, width in bits (16, 32 or 64), order.

    order: "little" or "big" endian; "hex" or "HEX": ASCII digits, lower or upper case, one for each
    4 bits of the width and with leading zeros.
    """

    position: int
    width: int
    order: str = "little"

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return self.width // (8 if self.order in ("little", "big") else 4)


@dataclass(frozen=True)
class Fixup:
    """What is written at a position, of the buffer with this index.

    kind: "address", "end" (the first address behind it), "size", "count" (of its contiguous runs)
    or "segments" (address and size of each run, entries of them at most; the rest is zeros).
    shift: addresses, or a size, are divided by 1 << shift, and refused if that leaves a rest.
    """

    kind: str
    position: int
    width: int
    order: str = "little"
    buffer: int = 0
    shift: int = 0
    entries: int = 1


def fields(fixup: Fixup) -> list[Field]:
    """The numbers that it writes, in order."""
    return [_field(fixup, i) for i in range(_count(fixup))]


def _count(fixup: Fixup) -> int:
    return 2 * fixup.entries if fixup.kind == "segments" else 1


def _field(fixup: Fixup, index: int) -> Field:
    first = Field(fixup.position, fixup.width, fixup.order)
    return Field(first.position + index * first.size, first.width, first.order)


def _numbers(fixup: Fixup, runs: Sequence[Run]) -> list[int]:
    """What it writes for a buffer of these runs, one for each field. Raises BadArgument."""
    if fixup.kind == "count":
        return [len(runs)]
    if fixup.kind == "size":
        return [_shifted(fixup, sum(size for _, size in runs))]
    if fixup.kind == "segments":
        if len(runs) > fixup.entries:
            raise BadArgument(
                f"buffer {fixup.buffer} lies in {len(runs)} pieces, and this message has room for "
                f"{fixup.entries}: allocate it from a heap whose memory is contiguous, or use a "
                "smaller one"
            )
        listed = [number for run in runs for number in (_shifted(fixup, run[0]), run[1])]
        return listed + [0] * (2 * fixup.entries - len(listed))
    if len(runs) != 1:
        raise BadArgument(
            f"buffer {fixup.buffer} lies in {len(runs)} pieces, and one address can't say so: "
            "allocate it from a heap whose memory is contiguous, or list it with SegmentsOf"
        )
    address, size = runs[0]
    return [_shifted(fixup, address if fixup.kind == "address" else address + size)]


def _shifted(fixup: Fixup, number: int) -> int:
    if number & ((1 << fixup.shift) - 1):
        raise BadArgument(
            f"the {fixup.kind} of buffer {fixup.buffer} is {number:#x}, which is no multiple of "
            f"{1 << fixup.shift}"
        )
    return number >> fixup.shift


def _check_field(name: str, field: Field, size: int) -> None:
    if field.order not in _ORDERS:
        raise BadArgument(f"{name}: order {field.order!r:.40} is none of {', '.join(_ORDERS)}")
    if field.width not in _WIDTHS:
        raise BadArgument(f"{name}: a width of {field.width!s:.40} bits; 16, 32 or 64 are possible")
    if field.position < 0 or field.position > size - field.size:
        raise OutOfRange(
            f"{name}: {field.size} bytes at {field.position!s:.40} leave the message of {size}"
        )


def check(size: int, fixups: Sequence[Fixup], buffers: int, identity: Field | None = None) -> None:
    """Checks what can be known without addresses, for a template of `size` bytes.

    `identity` is where an id of ours goes. Raises BadArgument, which names the fixup.
    """
    taken: list[tuple[int, int, str]] = []
    if identity is not None:
        _check_field("the id", identity, size)
        taken.append((identity.position, identity.position + identity.size, "the id"))
    for i, fixup in enumerate(fixups):
        name = f"fixup {i}"
        if fixup.kind not in _KINDS:
            raise BadArgument(f"{name}: {fixup.kind!r:.40} is none of {', '.join(_KINDS)}")
        if not 0 <= fixup.buffer < buffers:
            raise BadArgument(f"{name}: there is no buffer {fixup.buffer!s:.40} of {buffers}")
        if not 0 <= fixup.shift <= _SHIFT_MAX:
            raise BadArgument(f"{name}: a shift of {fixup.shift!s:.40}; 0 to {_SHIFT_MAX}")
        if not 1 <= fixup.entries <= size:
            raise BadArgument(f"{name}: {fixup.entries!s:.40} entries in a message of {size} bytes")
        _check_field(name, _field(fixup, 0), size)
        last = _field(fixup, _count(fixup) - 1)
        _check_field(name, last, size)
        taken.append((fixup.position, last.position + last.size, name))
    for (_, end, name), (start, _, other) in pairwise(sorted(taken)):
        if start < end:
            raise BadArgument(f"{name} and {other} write the same bytes, from {start} on")


def cut(segments: Sequence[Run], offset: int, size: int) -> list[Run]:
    """The runs of a range of memory that lies in these segments; neighbours are one."""
    runs: list[Run] = []
    for address, length in segments:
        if offset >= length:
            offset -= length
            continue
        part = min(length - offset, size)
        if runs and sum(runs[-1]) == address + offset:
            runs[-1] = (runs[-1][0], runs[-1][1] + part)
        else:
            runs.append((address + offset, part))
        size -= part
        offset = 0
        if size == 0:
            return runs
    raise OutOfRange("the range leaves the device addresses of its area")


def write_field(message: bytearray, field: Field, number: int, subject: str) -> None:
    """Writes a number. Raises BadArgument if it does not fit: it is never cut off."""
    if number < 0 or number >> field.width:
        raise BadArgument(
            f"{subject} is {number:#x}, which does not fit the {field.width} bits at "
            f"{field.position}"
        )
    if field.order == "little":
        data = number.to_bytes(field.size, "little")
    elif field.order == "big":
        data = number.to_bytes(field.size, "big")
    else:
        data = f"{number:0{field.size}{'x' if field.order == 'hex' else 'X'}}".encode()
    message[field.position : field.position + field.size] = data


_DIGITS = frozenset(b"0123456789abcdefABCDEF")


def read_field(message: bytes, field: Field) -> int | None:
    """The number in a message that came; None: it is too short, or there are no digits."""
    data = message[field.position : field.position + field.size]
    if len(data) < field.size:
        return None
    if field.order == "little":
        return int.from_bytes(data, "little")
    if field.order == "big":
        return int.from_bytes(data, "big")
    return int(data, 16) if _DIGITS.issuperset(data) else None


def patch(template: bytes, fixups: Sequence[Fixup], buffers: Sequence[Sequence[Run]]) -> bytearray:
    """The message: a checked template with every fixup applied. Raises BadArgument."""
    message = bytearray(template)
    for i, fixup in enumerate(fixups):
        numbers = _numbers(fixup, buffers[fixup.buffer])
        subject = f"fixup {i}: the {fixup.kind} of buffer {fixup.buffer}"
        for field, number in zip(fields(fixup), numbers, strict=True):
            write_field(message, field, number, subject)
    return message
