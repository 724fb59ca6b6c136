"""Staging: large data that does not lie in an area is copied through one.

Small foreign data rides inside the frame; large is copied into an area from a pool, and results
are copied back. It costs what it costs, which `reply.cost.copied_bytes` shows; data that was
allocated with `Connection.allocate()` is never copied.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from sbe import _native
from sbe.errors import BadArgument, Error, OutOfResources, PermissionDenied
from sbe.sdk.area import Area
from sbe.sdk.core import Core
from sbe.sdk.ownership import not_copied
from sbe.sdk.timeouts import in_thread

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["IDLE_S", "StagedCall", "Stager", "stage", "stage_async"]

IDLE_S = 10.0
"""An area of the pool that was not used for so long is freed, soon."""

_ALIGN = 64  # bytes, or a longer line: staged buffers share no cache line
_SMALLEST = 1 << 16  # bytes: pool areas are powers of two from here
_WASTE = 8  # times what is needed, at most


class Stager:
    """A pool of areas for staged data. Thread-safe; nothing here but `take()` and `grow()` waits
    for the remote.

    What was not used for `IDLE_S` is freed, by a thread that runs only while the pool has areas,
    and all that lies idle when memory is refused. An area is not used for less than an eighth of
    its size, so that small data does not keep what large data once needed.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        # Re-entrant: a signal handler or a finaliser may come in the middle, and stage. What it
        # finds is whole; an area is whose who has removed it from a list.
        self._lock = threading.RLock()
        # Back, not yet looked at, and since when; a finalizer may add any time.
        self._given: deque[tuple[float, Area]] = deque()
        self._free: list[tuple[float, Area]] = []
        self._held: list[tuple[float, Area]] = []  # quarantined by calls that were given up
        self._count = 0  # areas in all, those in use included
        self._keeper: threading.Thread | None = None

    def take(self, size_bytes: int, until: float) -> Area:
        """An area of at least this size, from the pool or new. Timeout after `until`."""
        return self.take_free(size_bytes) or self._allocate(size_bytes, until)

    def take_free(self, size_bytes: int) -> Area | None:
        """One from the pool, None if there is none that fits."""
        most = max(_SMALLEST, _rounded(size_bytes) * _WASTE)
        with self._lock:
            self._collect()
            fitting = [entry for entry in self._free if size_bytes <= entry[1].size <= most]
            for entry in sorted(fitting, key=lambda entry: entry[1].size):
                with contextlib.suppress(ValueError):  # taken meanwhile
                    self._free.remove(entry)
                    return entry[1]
            return None

    def grow(self, size_bytes: int, until: float) -> None:
        """Puts a new area of at least this size into the pool. Timeout after `until`."""
        self.give(self._allocate(size_bytes, until))

    def give(self, area: Area) -> None:
        """Back to the pool; quarantined ones wait until the remote has answered."""
        if not area.freed:
            self._given.append((time.monotonic(), area))

    def shrink(self, idle_s: float = 0.0) -> bool:
        """Frees what was not used for so long. True: there was some. Raises as `Area.free()`."""
        before = time.monotonic() - idle_s
        with self._lock:
            self._collect()
            idle = []
            for entry in [entry for entry in self._free if entry[0] <= before]:
                with contextlib.suppress(ValueError):
                    self._free.remove(entry)
                    idle.append(entry)
        for i, (_, area) in enumerate(idle):
            try:
                area.free()
            except BaseException:
                self._given.extend(idle[i:])
                raise
            with self._lock:
                self._count -= 1
        return bool(idle)

    def allocate(self, size_bytes: int, heap: str | None = None, until: float = math.inf) -> Area:
        """An area that is not of the pool, which gives back what it keeps if there is none else."""
        try:
            return self._core.allocate(size_bytes, heap, until)
        except (PermissionDenied, OutOfResources):
            if not self.shrink():
                raise
        return self._core.allocate(size_bytes, heap, until)

    def _collect(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._held.append(self._given.popleft())
        waiting, self._held = self._held, []
        for entry in waiting:
            (self._held if entry[1].holds else self._free).append(entry)

    def _allocate(self, size_bytes: int, until: float) -> Area:
        area = self.allocate(_rounded(size_bytes), until=until)
        with self._lock:
            self._count += 1
            if self._keeper is None:
                keeper = threading.Thread(
                    target=_run_keeper,
                    args=(weakref.ref(self), self._core.closing),
                    name="sbe-staging",
                    daemon=True,
                )
                with contextlib.suppress(RuntimeError):  # no more threads: the next one tries again
                    keeper.start()
                    self._keeper = keeper
        return area

    def tend(self) -> bool:
        """Frees what is idle. False: there is nothing left to look after."""
        if self._core.closed:
            return False
        if self._core.channel.error is None:  # bringing a lost link back is for who calls
            try:
                self.shrink(IDLE_S)
            except Error as error:  # as good as not yet idle
                import logging

                logging.getLogger(__name__).debug("the pool of staged data: %s", error)
        with self._lock:
            if self._count:
                return True
            self._keeper = None
            return False


def _rounded(size_bytes: int) -> int:
    return max(_SMALLEST, 1 << (size_bytes - 1).bit_length())


def _run_keeper(reference: weakref.ref[Stager], closing: threading.Event) -> None:
    while not closing.wait(IDLE_S):
        stager = reference()
        if stager is None or not stager.tend():
            return
        del stager


class _Staged:
    """One buffer of a staged call: where the caller's data is and where its copy."""

    def __init__(self, buffer: _native.Buffer, index: int, copy: _native.Slice) -> None:
        self.target = memoryview(buffer)
        self.given = bool(buffer.direction & _native.DIR_IN)  # copied there, not only back
        self.index = index  # among the buffers the remote writes, -1 if it only reads
        self.copy = copy


class Plan(NamedTuple):
    """Where each foreign buffer goes, and how many bytes that takes in all."""

    places: dict[_native.Buffer, int]
    size_bytes: int
    align: int

    def padded(self, size_bytes: int) -> int:
        """Bytes that a buffer of this size takes: nothing else shares its lines."""
        return -(-size_bytes // self.align) * self.align

    @classmethod
    def of(cls, table: _native.Table, buffers: tuple[_native.Buffer, ...]) -> Plan:
        """Of the buffers that do not lie in areas, or not so that the remote may write them."""
        places: dict[_native.Buffer, int] = {}
        plan = cls(places, 0, max(_ALIGN, table.line_bytes))
        total = 0
        for buffer in buffers:
            if not lies_in_area(table, buffer):
                places[buffer] = total
                total += plan.padded(memoryview(buffer).nbytes)
        return plan._replace(size_bytes=max(total, 1))


class StagedCall:
    """A call whose data was staged: a future like `Call`, which copies results home.

    Any thread may wait for it; the copy is made once, by the first that sees the end.
    """

    def __init__(
        self, stager: Stager, area: Area, buffers: tuple[_native.Buffer, ...], plan: Plan
    ) -> None:
        self._stager = stager
        self._staged: list[_Staged] = []
        self._lock = threading.RLock()  # as the stager's
        self._home = False
        self._area = area
        try:
            self.buffers = self._stage(buffers, plan)
        except BaseException:
            stager.give(self._area)
            raise
        self.call: _native.Call

    def _stage(self, buffers: tuple[_native.Buffer, ...], plan: Plan) -> tuple[_native.Buffer, ...]:
        staged, written = [], 0
        for buffer in buffers:
            writes = buffer.direction != _native.DIR_IN
            if buffer in plan.places:
                if buffer.direction == _native.DIR_SHARED:
                    raise BadArgument("Shared memory must be an area of the link")
                start = plan.places[buffer]
                size = memoryview(buffer).nbytes
                copy = self._area[start : start + plan.padded(size)]._first(size)
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
        call._charge(sum(len(item.copy) for item in self._staged if item.given))
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
        # A handler of a signal that raises in the middle would leave some of it behind.
        with self._lock, _native.SignalsHeld():
            if self._home:
                return
            self._home = True
            for item in self._staged:
                if item.index >= 0 and item.index < len(written):
                    size = written[item.index]
                    item.target[:size] = memoryview(item.copy)[:size]
                    self.call._charge(size)
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
        if not callable(callback):
            raise BadArgument(f"{callback!r} can't be called at the end of a call")
        self.call.add_done_callback(lambda _: callback(self))

    def __await__(self) -> Generator[Any, None, _native.Reply]:
        """As `result()`, in an asyncio loop. Cancelling the task cancels the call."""
        yield from self.call.__await__()
        return self.result(0)

    def future(self) -> Future[_native.Reply]:
        """The same as a future of concurrent.futures; cancelling that one cancels the call."""
        return self.call.future()  # of what is called at the end, the copy home comes first

    def __repr__(self) -> str:
        return f"<staged {self.call!r}>"

    def _expire(self) -> None:
        """Its deadline has passed."""
        self.call._expire()

    def __reduce__(self) -> NoReturn:
        not_copied(self)

    @property
    def in_flight(self) -> bool:
        """The remote has not answered."""
        return self.call.in_flight


def lies_in_area(table: _native.Table, buffer: _native.Buffer) -> bool:
    """It goes by reference; what the remote writes has cache lines of its own."""
    place = buffer.target
    if isinstance(place, _native.Memory):
        return True
    if not isinstance(place, _native.Slice):
        place = table.locate(place)
    return place is not None and (buffer.direction == _native.DIR_IN or place.stands_alone)


def stage(
    stager: Stager, table: _native.Table, buffers: tuple[_native.Buffer, ...], until: float
) -> StagedCall:
    """A call not yet sent, what goes out copied. May wait for the remote, for a new area, until
    `until`, `time.monotonic()`."""
    plan = Plan.of(table, buffers)
    return StagedCall(stager, stager.take(plan.size_bytes, until), buffers, plan)


async def stage_async(
    stager: Stager, table: _native.Table, buffers: tuple[_native.Buffer, ...], until: float
) -> StagedCall:
    """The same for a loop, which does not wait: a new area comes by way of the pool."""
    plan = Plan.of(table, buffers)
    while (area := stager.take_free(plan.size_bytes)) is None:
        await in_thread(until, stager.grow, plan.size_bytes, until)
    return StagedCall(stager, area, buffers, plan)
