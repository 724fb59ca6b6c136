"""Staging: large data that does not lie in an area is copied through one.

Small foreign data rides inside the frame; large is copied into an area from a pool, and results
are copied back. It costs what it costs, which `reply.cost.copied_bytes` shows; data that was
allocated with `Connection.allocate()` is never copied.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from sbe import _native
from sbe.errors import BadArgument
from sbe.sdk.ownership import not_copied

if TYPE_CHECKING:
    from sbe.sdk.area import Area

__all__ = ["StagedCall", "Stager"]

_ALIGN = 64  # bytes: staged buffers share no cache line
_SMALLEST = 1 << 16  # bytes: pool areas are powers of two from here


class Stager:
    """A pool of areas for staged data. Thread-safe."""

    def __init__(self, allocate: weakref.WeakMethod[Callable[[int], Area]]) -> None:
        self._allocate = allocate
        self._lock = threading.RLock()  # a signal handler or a finaliser may stage in the middle
        self._given: deque[Area] = deque()  # back, not yet looked at; a finalizer may add any time
        self._free: list[Area] = []
        self._held: list[Area] = []  # quarantined by calls that were given up

    def take(self, size_bytes: int) -> Area:
        """An area of at least this size, from the pool or new."""
        with self._lock:
            for _ in range(len(self._given)):
                self._held.append(self._given.popleft())
            waiting, self._held = self._held, []
            for area in waiting:
                (self._held if area.holds else self._free).append(area)
            for area in sorted(self._free, key=lambda area: area.size):
                if area.size >= size_bytes:
                    with contextlib.suppress(ValueError):  # one of those has taken it
                        self._free.remove(area)
                        return area
        allocate = self._allocate()
        assert allocate is not None, "the connection makes the call"
        return allocate(max(_SMALLEST, 1 << (size_bytes - 1).bit_length()))

    def give(self, area: Area) -> None:
        """Back to the pool; quarantined ones wait until the remote has answered."""
        if not area.freed:
            self._given.append(area)


class _Staged:
    """One buffer of a staged call: where the caller's data is and where its copy."""

    def __init__(self, buffer: _native.Buffer, index: int, copy: _native.Slice) -> None:
        self.target = memoryview(buffer)
        self.given = bool(buffer.direction & _native.DIR_IN)  # copied there, not only back
        self.index = index  # among the buffers the remote writes, -1 if it only reads
        self.copy = copy


class StagedCall:
    """A call whose data was staged: a future like `Call`, which copies results home.

    Any thread may wait for it; the copy is made once, by the first that sees the end.
    """

    def __init__(
        self, stager: Stager, table: _native.Table, buffers: tuple[_native.Buffer, ...]
    ) -> None:
        self._stager = stager
        self._staged: list[_Staged] = []
        self._lock = threading.RLock()  # as the stager's
        self._home = False
        places: list[tuple[_native.Buffer, int]] = []
        total = 0
        for buffer in buffers:
            if not _lies_in_area(table, buffer):
                size = memoryview(buffer).nbytes
                places.append((buffer, total))
                total += -(-size // _ALIGN) * _ALIGN
        self._area = stager.take(max(total, 1))
        try:
            self.buffers = self._stage(buffers, dict(places))
        except BaseException:
            stager.give(self._area)
            raise
        self.call: _native.Call

    def _stage(
        self, buffers: tuple[_native.Buffer, ...], places: dict[_native.Buffer, int]
    ) -> tuple[_native.Buffer, ...]:
        staged, written = [], 0
        for buffer in buffers:
            writes = buffer.direction != _native.DIR_IN
            if buffer in places:
                if buffer.direction == _native.DIR_SHARED:
                    raise BadArgument("Shared memory must be an area of the link")
                start = places[buffer]
                copy = self._area[start : start + memoryview(buffer).nbytes]
                if buffer.direction & _native.DIR_IN:
                    copy[:] = buffer
                self._staged.append(_Staged(buffer, written if writes else -1, copy))
                buffer = type(buffer)(copy)
            written += writes
            staged.append(buffer)
        return tuple(staged)

    def begin(self, call: _native.Call) -> StagedCall:
        """The call was sent with `buffers`."""
        self.call = call
        call.charge(sum(len(item.copy) for item in self._staged if item.given))
        call.add_done_callback(self._ended)  # also when nobody waits
        return self

    def abort(self) -> None:
        """The call was never sent."""
        self._stager.give(self._area)

    def result(self, timeout: float | None = None) -> _native.Reply:
        """Waits for the reply, seconds; results are in the caller's memory when it returns."""
        reply = self.call.result(timeout)
        self._finish(reply.written)
        return reply

    def _ended(self, call: _native.Call) -> None:
        written: tuple[int, ...] = ()
        with contextlib.suppress(Exception):
            written = call.result(0).written
        self._finish(written)

    def _finish(self, written: tuple[int, ...]) -> None:
        with self._lock:
            if self._home:
                return
            self._home = True
            for item in self._staged:
                if item.index >= 0 and item.index < len(written):
                    size = written[item.index]
                    item.target[:size] = memoryview(item.copy)[:size]
                    self.call.charge(size)
            self._staged.clear()
            self._stager.give(self._area)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Waits; what went wrong, or None."""
        error = self.call.exception(timeout)
        if error is None:
            self.result()
        return error

    def done(self) -> bool:
        """True when it has ended, well or not."""
        if not self.call.done():
            return False
        self._ended(self.call)
        return True

    def cancel(self) -> bool:
        """Gives it up; the staged copy stays quarantined until the remote answers."""
        return self.call.cancel()

    def add_done_callback(self, callback: Callable[[StagedCall], object]) -> None:
        """callback(self) once ended, in the thread that noticed."""
        self.call.add_done_callback(lambda _: callback(self))

    def expire(self) -> None:
        """Its deadline has passed."""
        self.call.expire()

    def __reduce__(self) -> NoReturn:
        not_copied(self)

    @property
    def in_flight(self) -> bool:
        """The remote has not answered."""
        return self.call.in_flight


def _lies_in_area(table: _native.Table, buffer: _native.Buffer) -> bool:
    if isinstance(buffer.target, (_native.Memory, _native.Slice)):
        return True
    return table.locate(buffer.target) is not None
