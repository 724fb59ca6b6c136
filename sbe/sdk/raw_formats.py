"""What an application says of foreign messages: where addresses go, what is an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sbe.link.fixups import Field, Fixup
from sbe.link.raw import RawMatch

__all__ = [
    "AddressOf",
    "ById",
    "CountOf",
    "EndOf",
    "InOrder",
    "PageOf",
    "Predicate",
    "SegmentsOf",
    "SizeOf",
    "wire_match",
]

Order = Literal["little", "big", "hex", "HEX"]
Predicate = Callable[[bytes, bytes], bool]


def AddressOf(
    position: int, width: int = 32, buffer: int = 0, *, order: Order = "little", shift: int = 0
) -> Fixup:
    """The device address of a buffer goes there; `shift=1`: in words of 16 bits."""
    return Fixup("address", position, width, order, buffer, shift)


def EndOf(
    position: int, width: int = 32, buffer: int = 0, *, order: Order = "little", shift: int = 0
) -> Fixup:
    """The first device address behind a buffer goes there."""
    return Fixup("end", position, width, order, buffer, shift)


def PageOf(
    position: int, width: int = 32, buffer: int = 0, *, order: Order = "little", shift: int = 12
) -> Fixup:
    """The number of the page at which a buffer begins goes there: a shifted address."""
    return Fixup("address", position, width, order, buffer, shift)


def SizeOf(
    position: int, width: int = 32, buffer: int = 0, *, order: Order = "little", shift: int = 0
) -> Fixup:
    """The bytes of a buffer go there, or their number of units of 1 << shift."""
    return Fixup("size", position, width, order, buffer, shift)


def SegmentsOf(
    position: int,
    entries: int,
    width: int = 32,
    buffer: int = 0,
    *,
    order: Order = "little",
    shift: int = 0,
) -> Fixup:
    """A list of the contiguous runs of a buffer goes there: address and size of each, both of this
    width, `entries` at most; what is not needed is zero. `shift` as for an address.
    """
    return Fixup("segments", position, width, order, buffer, shift, entries)


def CountOf(position: int, width: int = 32, buffer: int = 0, *, order: Order = "little") -> Fixup:
    """How many contiguous runs a buffer has goes there, for `SegmentsOf()`."""
    return Fixup("count", position, width, order, buffer)


@dataclass(frozen=True)
class ById:
    """Answers repeat an id, which this end puts into each message: at `position`, `width` bits (16,
    32 or 64), in the answer at `answer_position` and of `answer_width`, by default the same.
    """

    position: int
    width: int = 32
    order: Order = "little"
    answer_position: int | None = None
    answer_width: int | None = None


@dataclass(frozen=True)
class InOrder:
    """The firmware answers every message, one after the other.

    After a call that has timed out, others are refused with Busy until its answer has come: the
    next message would be taken for it, or the other way round.
    """


def wire_match(match: ById | InOrder | Predicate | None) -> RawMatch:
    """As the link takes it. Raises TypeError."""
    if isinstance(match, ById):
        there = match.position if match.answer_position is None else match.answer_position
        width = match.width if match.answer_width is None else match.answer_width
        return RawMatch(
            "id", Field(match.position, match.width, match.order), Field(there, width, match.order)
        )
    if isinstance(match, InOrder):
        return RawMatch("order")
    if match is None or (callable(match) and not isinstance(match, type)):
        return RawMatch("caller")
    raise TypeError(f"match: ById, InOrder or a function (sent, came) -> bool, not {match!r:.80}")
