"""Pool: pieces of one area, handed out and taken back without asking anybody."""

from __future__ import annotations

import contextlib
import operator
import threading
from typing import NoReturn

from sbe import _native
from sbe.errors import BadArgument, OutOfResources
from sbe.sdk.area import Area
from sbe.sdk.ownership import not_copied

__all__ = ["Pool"]

_SMALLEST = 64  # bytes, or a longer line: two pieces share none, and their owners may differ


class Pool:
    """Hands out pieces of an area, which calls take like any slice of it.

    An area costs a message to the remote when it is allocated and again when it is freed; a piece
    costs neither. Sizes are rounded up to powers of two from 64 bytes, or from a longer cache line,
    and a piece keeps its rounded size for the next one who needs it. Any thread may use it, and so
    may a signal handler or a finaliser.

    A piece must not be freed while a call that names it is unanswered: the remote may still write
    it. After a `Timeout` or a cancellation that is so until the call's `in_flight` is False.
    """

    def __init__(self, area: Area) -> None:
        """The area is the pool's from now on; freeing it remains its owner's business."""
        if not isinstance(area, Area):
            raise TypeError(f"area: what allocate() returned, not {area!r}")
        self._area = area
        self._size = area.size
        # Re-entrant, for a signal handler or a finaliser may come in the middle. What they see is
        # whole: pieces change hands by one operation of a list or dict each.
        self._lock = threading.RLock()
        self._unused = 0  # bytes from here on were never handed out
        self._free: dict[int, list[int]] = {}  # offsets by rounded size
        self._taken: dict[int, int] = {}  # rounded size by offset

    def allocate(self, size_bytes: int) -> _native.Slice:
        """A piece of `size_bytes`, with whatever bytes it held before.

        Raises BadArgument for a size that can't be, OutOfResources when the pool has no room.
        """
        size_bytes = operator.index(size_bytes)
        if not 0 < size_bytes <= self._area.size:
            raise BadArgument(f"a piece of {size_bytes} bytes of {self._area!r}")
        rounded = max(_SMALLEST, self._area.line_bytes, 1 << (size_bytes - 1).bit_length())
        with self._lock:
            offset = self._allocate(rounded)
            self._taken[offset] = rounded
        return self._area[offset : offset + rounded]._first(size_bytes)

    def _allocate(self, rounded: int) -> int:
        with contextlib.suppress(KeyError, IndexError):
            return self._free[rounded].pop()
        # Without a call between reading and writing nothing comes between in this thread.
        offset = self._unused
        if offset + rounded <= self._size:
            self._unused = offset + rounded
            return offset
        raise OutOfResources(
            f"the pool over {self._area!r} has no room for a piece of {rounded} bytes: "
            f"{len(self._taken)} pieces are in use"
        )

    def free(self, piece: _native.Slice) -> None:
        """Gives a piece back. Raises BadArgument if it is not one that the pool handed out."""
        with self._lock:
            rounded = self._taken.pop(piece.offset, None) if piece.area is self._area else None
            if rounded is None:
                raise BadArgument(f"{piece!r} is not in use here: it was freed, or never allocated")
            self._free.setdefault(rounded, []).append(piece.offset)

    def __reduce__(self) -> NoReturn:
        not_copied(self)

    def __repr__(self) -> str:
        return f"<sbe.Pool: {len(self._taken)} pieces of {self._area!r} in use>"
