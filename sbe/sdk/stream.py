"""Stream: data that flows between an application and a remote, by reference."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, NoReturn, Self

from sbe import _native
from sbe.errors import (
    BadArgument,
    Error,
    LinkClosed,
    LinkError,
    OutOfResources,
    ProtocolError,
    StreamError,
    Timeout,
    fresh_copy,
    from_status,
)
from sbe.sdk import arrays
from sbe.sdk.area import Area
from sbe.sdk.core import Core
from sbe.sdk.ownership import not_copied
from sbe.sdk.stream_block import Block
from sbe.sdk.stream_format import StreamFormat, flat, whole
from sbe.sdk.stream_times import ClockPair, StreamStat, WakeUps
from sbe.sdk.stream_wire import (
    Answer,
    Direction,
    Event,
    Mode,
    Op,
    Settings,
    State,
    StreamStatus,
    answer_of,
    event_of,
    request,
    status_of,
    stopped,
)
from sbe.sdk.timeouts import DEFAULT_TIMEOUT_S, ends_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Stream"]

_EVENTS_KEPT = 256  # for `event()`; an application that never asks does not fill memory
_MOVING = {State.RUNNING, State.DRAINING}
_FURTHEST = 1 << 63  # byte: thousands of years at the highest rate
_BACKSTOP_S = 0.25  # a lost doorbell, or an event without room, costs this much


class Stream:
    """Frames that flow at their rate, from `Connection.open_stream()`.

    It is prepared when it is opened: write to it or read from it, and it starts by itself, or
    `start()` it, several of them at one moment. Positions are what the remote has measured, never
    an estimate. An xrun, frames that did not come or go in time, stops it (StreamError; `prepare()`
    begins anew) or is counted, as `on_xrun` said.

    Threads: one at a time may move frames and wait for events; `position()`, `start()` to `stop()`
    and `close()` may be called from any.
    """

    def __init__(
        self,
        core: Core,
        name: str,
        service: int,
        number: int,
        settings: Settings,
        channel: _native.Channel,
        area: Area,
        stride: int,
    ) -> None:
        """Takes over a channel and memory; applications use `Connection.open_stream()`."""
        self.name = name
        self.format: StreamFormat = settings.format
        self.playback = settings.direction is Direction.PLAYBACK
        self._core = core
        self._service = service
        self._id = number
        self._settings = settings
        self._channel = channel
        self._area = area
        self._block = _native.StreamBlock(area, stride)
        self._start = stride * _native.STREAM_BLOCK_RECORDS
        self._generation = 0
        self._application = 0  # bytes
        self._shown = status_of((0, 0, 0, 0, 0, 0, 0, 0, 0))
        self._looking = threading.RLock()  # what is shown, and how far we are
        self._lost = 0  # bytes that were overwritten before they were read
        self._unread = b""  # of a read() that raised
        self._events: deque[Event] = deque(maxlen=_EVENTS_KEPT)
        self._event_count = 0
        self._wakeups = WakeUps()
        self._open: _native.Call | None = None

    # -- facts ------------------------------------------------------------------------------

    @property
    def buffer_frames(self) -> int:
        """Frames of the whole buffer."""
        return self._settings.buffer_bytes // self.format.frame_bytes

    @property
    def period_frames(self) -> int:
        """Frames from one event to the next; 0: there are none."""
        return self._settings.period_bytes // self.format.frame_bytes

    @property
    def state(self) -> State:
        """Where it is, as the remote shows it; disconnected when the link or the stream is gone."""
        self._core.notice(self._channel)
        if self._open is None or self._open.done():
            return State.DISCONNECTED
        return self.position().state

    @property
    def closed(self) -> bool:
        """close() has been called, or the link was lost."""
        self._core.notice(self._channel)
        return self._open is None or self._channel.error is not None

    def position(self) -> StreamStatus:
        """What the remote shows at this moment, in one piece; after the end, what it showed last.

        Raises ProtocolError for positions that can't be.
        """
        if self._channel.error is None and self._open is not None:
            self._look()
        return self._shown

    def available(self) -> int:
        """Frames that can be read, or written, now."""
        self._look()
        return self._available_bytes() // self.format.frame_bytes

    def fileno(self) -> int:
        """A descriptor that is readable when there may be news.

        Ask `event(0)` until it gives None, then sleep on it; after any other call, which may have
        taken the doorbell with its answer, ask again first.
        """
        return self._channel.fileno()

    def stat(self) -> StreamStat:
        """Counters: xruns, lost bytes, events, and how soon they woke the application."""
        shown = self.position()
        return {
            "xruns": shown.xruns,
            "lost_bytes": max(self._lost, 0 if self._settings.overwrites else shown.lost_bytes),
            "events": self._event_count,
            "events_skipped": shown.skipped,
            "doorbells": self._channel.counters()["doorbells"],
            "wakeups": self._wakeups.count,
            "wakeup_ns": self._wakeups.histogram(),
        }

    def clock(self, timeout: float | None = DEFAULT_TIMEOUT_S) -> ClockPair:
        """Both clocks and the position at one moment: the remote measures when it is asked."""
        before = time.monotonic_ns()
        answer = self._ask(Op.QUERY, timeout)
        after = time.monotonic_ns()
        host = (before + after) // 2
        shown = answer.status
        pair = ClockPair(host, shown.clock_ns, shown.position_bytes, (after - before + 1) // 2)
        self._wakeups.compare(pair)
        return pair

    # -- what the remote is asked -----------------------------------------------------------

    def _begin(self, timeout: float | None) -> None:
        """Opens it at the remote; what is wrong with that is raised."""
        data = self._area[self._start :]  # blocks that are queued bring theirs
        wrap: type[_native.Buffer] = _native.In if self.playback else _native.Out
        self._open = self._channel.submit(
            self._service,
            (_native.InOut(self._area[: self._start]), *((wrap(data),) if len(data) else ())),
            request(Op.OPEN, self._id, more=self._settings.pack()),
        )
        try:
            self.clock(timeout)
        except Error:
            if self._open.done():
                self._open.result(0)  # says why
            raise

    def _ask(
        self, op: Op, timeout: float | None = DEFAULT_TIMEOUT_S, *, more: bytes = b""
    ) -> Answer:
        generation = self._generation if op is Op.PREPARE else 0
        if self._open is None:
            raise LinkClosed(f"stream {self.name!r} is closed")
        message = request(op, self._id, generation, more=more)
        try:
            reply = self._channel.call(self._service, (), message, timeout)
        except LinkError as error:
            raise self._ended(error) from None
        answer = answer_of(reply.payload)
        if answer.stream != self._id:
            raise ProtocolError(f"an answer about stream {answer.stream}, not {self._id}")
        if answer.result == -errno.EPERM:
            raise StreamError(
                f"{op.name.lower()}: stream {self.name!r} is {answer.status.state}",
                state=str(answer.status.state),
            )
        if answer.result < 0:
            raise from_status(
                answer.result, f"{op.name.lower()}: stream {self.name!r}", remote=True
            )
        return answer

    def _ended(self, error: LinkError) -> BaseException:
        """The same, with how far the stream had come."""
        end = fresh_copy(error)
        if isinstance(end, LinkError):
            moved = self._shown.position_bytes
            return type(end)(f"{error}; stream {self.name!r} had moved {moved} bytes", end.code)
        return end

    def prepare(self) -> None:
        """Position 0 of a new run; what was written and not played is gone."""
        state = self.state
        if state in _MOVING or state is State.PAUSED:
            # Not even asked: the remote looks at our position, which is to be 0 before it is.
            raise StreamError(f"prepare: stream {self.name!r} is {state}", state=str(state))
        if self._channel.error is not None:
            self._check_state()  # raises how far it had come, which is set to 0 below
        with self._looking:
            before = self._generation, self._application, self._lost, self._shown
            self._generation = self._generation % 0xFFFFFFFF + 1
            self._application = self._lost = 0
            self._shown = self._shown._replace(generation=self._generation, position_bytes=0)
            self._block.show(0)  # before the remote looks for it
        try:
            self._ask(Op.PREPARE)
        except BaseException:
            with self._looking:
                self._generation, self._application, self._lost, self._shown = before
                self._block.show(self._application)
            raise
        self._events.clear()
        self._unread = b""
        self._look()

    def start(self, *others: Stream) -> None:
        """Starts it, and others of the same connection at the same moment: all or none."""
        for each in others:
            if not isinstance(each, Stream):
                raise TypeError(f"a stream is started with others, not with {each!r}")
        ids = b"".join(each._id.to_bytes(4, "little") for each in others)
        if any(each._core is not self._core for each in others):
            raise BadArgument("streams of one connection start together")
        for each in others:
            each._settle()
        self._ask(Op.START, more=ids)

    def _start_once(self) -> None:
        """Starts it unless another thread has meanwhile; who waits sees what it came to."""
        with contextlib.suppress(StreamError):
            self.start()

    def _settle(self) -> None:
        """What was handed over is known to the remote, whoever asks it next, by any channel."""

    def pause(self) -> None:
        """Stops where it is; `resume()` goes on."""
        self._ask(Op.PAUSE)

    def resume(self) -> None:
        """Goes on after `pause()`, or where the remote was suspended; it has to be awake."""
        self._ask(Op.RESUME)

    def stop(self) -> None:
        """Stops at once; what was not played is dropped."""
        self._ask(Op.STOP)

    def drain(self, timeout: float | None = DEFAULT_TIMEOUT_S) -> None:
        """Waits until all that was written is played. Raises Timeout; it goes on draining."""
        until = ends_at(timeout)
        state = self.state
        if state is State.PREPARED:
            self._start_once()
        if state is State.SUSPENDED:
            self._check_state()  # the remote would not answer
        if state is not State.DRAINING and not self._all_is_played():
            try:
                self._ask(Op.DRAIN)
            except StreamError:
                if not self._all_is_played():
                    raise
        while self.state in _MOVING:
            self._wait(until)
        if self._all_is_played():
            self.stop()
        self._check_state()

    def _all_is_played(self) -> bool:
        """An xrun only because there was no more."""
        shown = self.position()
        return shown.state is State.XRUN and shown.position_bytes == self._application

    # -- frames -----------------------------------------------------------------------------

    def next(self, timeout: float | None = DEFAULT_TIMEOUT_S) -> Block:
        """The next frames, in place: to the end of a period, fewer only of a stream that stands.

        `with stream.next() as frames:` gives a numpy array of shape (frames, channels), which is
        to be filled or read; they are handed over at the end of the block, none if it raises.
        A prepared stream starts by itself, for playback once the buffer is full.
        Raises Timeout, StreamError after an xrun, RemoteRestarted with how far it had come.
        """
        until = ends_at(timeout)
        if self._shown.state is State.PREPARED:
            with contextlib.suppress(OutOfResources):  # its users see so themselves
                arrays.numpy("Block.array()")  # before it starts: to load it takes a buffer's time
        while True:
            block = self._ready()
            if block is not None:
                return block
            self._wait(until)

    def give(self, block: Block) -> bool:
        """Hands a block of `next()` over, as the end of its `with` does: it was filled, or read.

        False: it was late, and is among the lost bytes, by silence or overwritten, or it is of a
        run that is over, or was given before. BadArgument for another stream's.
        """
        if block._stream is not self:
            raise BadArgument(f"a block of stream {block._stream.name!r}: give it to that")
        size = block.size_bytes
        self._core.check_process()
        if self.playback:
            self._block.sync(self._start + block._offset, size, True)
        else:
            self._look()
        with self._looking:
            if not block.is_next():
                return False  # what the remote did meanwhile has moved us on already
            self._application += size
            self._block.show(self._application)
            return True

    def read(self, frames: int, timeout: float | None = DEFAULT_TIMEOUT_S) -> bytes:
        """So many frames, copied: `numpy.frombuffer(data, dtype)`. Raises as `next()`; those that
        had come by then are the first of the next `read()` of this run.
        """
        wanted = whole("frames", frames, 0, _FURTHEST) * self.format.frame_bytes
        self._check_direction(playback=False)
        until = ends_at(timeout)
        run, pieces, got = self._generation, [self._unread], len(self._unread)
        self._unread = b""
        try:
            while got < wanted:
                block = self._ready(wanted - got)
                if block is None:
                    self._wait(until)
                    continue
                piece = bytes(block.data)
                if self.give(block):  # else it was overwritten while it was read
                    pieces.append(piece)
                    got += len(piece)
        except BaseException:
            wanted = 0
            raise
        finally:
            data = b"".join(pieces)
            if self._generation == run:
                self._unread = data[wanted:] + self._unread
        return data[:wanted]

    def write(self, data: Any, timeout: float | None = DEFAULT_TIMEOUT_S) -> None:
        """Frames, copied: bytes or an array of the dtype. Waits for room. Raises as `next()`."""
        self._check_direction(playback=True)
        until = ends_at(timeout)
        left = flat(self.format, data)
        while len(left) > 0:
            block = self._ready(len(left))
            if block is None:
                self._wait(until)
                continue
            block.data[:] = left[: block.size_bytes]
            if self.give(block):  # else its time was over, and it goes where it is heard
                left = left[block.size_bytes :]

    def __aiter__(self) -> AsyncIterator[Block]:
        return self

    async def __anext__(self) -> Block:
        """The next block; the loop goes on meanwhile. Ends when the stream does."""
        while True:
            try:
                block = self._ready()
            except LinkClosed:
                raise StopAsyncIteration from None
            if block is not None:
                return block
            await self._awaited()

    def event(self, timeout: float | None = DEFAULT_TIMEOUT_S) -> Event | None:
        """The next event of this run, or None at the timeout; 0 does not wait."""
        until = ends_at(timeout)
        while not self._events:
            if not self._take_event(max(0.0, until - time.monotonic())) and self._is_quiet():
                return None
        return self._events.popleft()

    # -- the end ----------------------------------------------------------------------------

    def close(self) -> None:
        """Ends it at once. The remote touches no memory of it when this returns. Idempotent."""
        if self._open is None:
            return
        self._open = None
        with contextlib.suppress(LinkError):
            # Its channel takes the stream along, and waits for no remote that is suspended.
            self._core.close_another(self._channel)
            self._core.free(self._area)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """As `close()`, for asyncio: the loop goes on meanwhile."""
        import asyncio

        await asyncio.shield(asyncio.to_thread(self.close))

    def __del__(self) -> None:
        # Nothing is waited for: the collector runs in any thread and in the middle of anything.
        with contextlib.suppress(Exception):
            self._core.give_up_another(self._channel)

    def __reduce__(self) -> NoReturn:
        not_copied(self)

    def __repr__(self) -> str:
        way = "playback" if self.playback else "capture"
        state = "closed" if self.closed else str(self._shown.state)
        moved = f"{self._shown.position_bytes} bytes"
        return f"<sbe.{type(self).__name__} {self.name}: {way}, {state}, {moved}>"

    # -- looking ----------------------------------------------------------------------------

    def _look(self) -> None:
        """Takes what the remote shows, if it can be."""
        self._core.check_process()
        with self._looking:
            before = self._shown  # a handler of a signal may look in the middle of this
            try:
                shown = status_of(self._block.status())
            except ProtocolError as error:
                self._channel.fail(error)
                raise
            if shown.generation != self._generation:
                return  # of a run that is over, or before the first
            self._check_shown(before, shown)
            self._shown = shown
            if self.playback:
                # Silence was played in the place of what had not come.
                behind = max(0, shown.position_bytes - self._application)
            else:
                behind = max(0, shown.application_bytes - self._application)
            if behind and self._settings.goes_on and self._settings.mode is Mode.CYCLIC:
                self._application += behind
                self._lost += behind

    def _check_shown(self, shown_before: StreamStatus, shown: StreamStatus) -> None:
        """Positions only grow, and nobody moves what the other end has not handed over."""
        before, now = shown_before.position_bytes, shown.position_bytes
        furthest = _FURTHEST
        if not self._settings.endless and not self._settings.goes_on:
            ring = not self.playback and self._settings.mode is Mode.CYCLIC
            furthest = self._application + (self._settings.buffer_bytes if ring else 0)
        frame = self.format.frame_bytes
        # Where an overwrite has put us; a queue has the end of its blocks there.
        ring = not self.playback and self._settings.mode is not Mode.QUEUE
        ours = shown.application_bytes if ring else 0
        if before <= now <= furthest and now % frame == 0 and ours <= now and ours % frame == 0:
            return
        error = ProtocolError(
            f"the remote shows stream {self.name!r} at byte {now} after {before}, with this end "
            f"at {self._application}: the stream is given up"
        )
        self._channel.fail(error)
        raise error

    def _available_bytes(self) -> int:
        moved = self._shown.position_bytes
        if self.playback:
            return max(0, self._settings.buffer_bytes - (self._application - moved))
        return min(max(0, moved - self._application), self._settings.buffer_bytes)

    def _check_state(self) -> None:
        """Raises what keeps frames from ever coming."""
        if self._shown.state not in _MOVING:
            self._core.notice(self._channel)
        if self._channel.error is not None:
            error = self._channel.error
            raise self._ended(error) if isinstance(error, LinkError) else fresh_copy(error)
        state = self._shown.state
        if state in (State.XRUN, State.SUSPENDED):
            raise stopped(self.name, self._shown, self.playback)

    def _ready(self, most: int | None = None) -> Block | None:
        """The next block if there are frames: whole periods, unless fewer are wanted."""
        if self._open is None:
            raise LinkClosed(f"stream {self.name!r} is closed")
        if self._channel.error is None:
            self._look()
        size = self._available_bytes() if self._channel.error is None else 0
        place = self._application % self._settings.buffer_bytes
        size = min(size, self._settings.buffer_bytes - place)
        if self._settings.period_bytes:
            in_period = self._application % self._settings.period_bytes
            size = min(size, self._settings.period_bytes - in_period)
            if most is None and size < self._settings.period_bytes - in_period:
                # The event that tells of its rest comes at its end: until then it is half of one.
                size = 0 if self._shown.state is State.RUNNING else size
        if most is not None:
            size = min(size, most)
        size -= size % self.format.frame_bytes
        if size > 0:
            if not self.playback:
                self._block.sync(self._start + place, size, False)
            return Block(self, place, size)
        self._check_state()
        state = self._shown.state
        if state is State.PREPARED:
            self._start_once()
        elif state is State.DISCONNECTED:
            raise LinkClosed(f"stream {self.name!r} is closed")
        elif state not in _MOVING and state is not State.PAUSED:
            raise StreamError(f"stream {self.name!r} is {state}: no frames move", state=str(state))
        return None

    def _bytes(self, offset: int, size: int) -> memoryview:
        view = memoryview(self._area)[self._start + offset : self._start + offset + size]
        return view if self.playback else view.toreadonly()

    def _array(self, data: memoryview) -> NDArray[Any]:
        np = arrays.numpy("Block.array()")
        made: NDArray[Any] = np.frombuffer(data, np.dtype(self.format.dtype).newbyteorder("<"))
        return made.reshape(-1, self.format.channels)

    def _check_direction(self, *, playback: bool) -> None:
        if self.playback is not playback:
            verb = "written to" if playback else "read from"
            raise BadArgument(f"stream {self.name!r} can't be {verb}")

    # -- waiting ----------------------------------------------------------------------------

    def _wait(self, until: float) -> None:
        """Waits for the next event, or a while; then the status says more. Raises Timeout."""
        if self._settings.period_bytes == 0:
            raise BadArgument(
                f"stream {self.name!r} has no periods, so nothing tells of frames: read "
                "position(), or open it with a period"
            )
        left = until - time.monotonic()
        if left <= 0:
            raise Timeout(
                f"stream {self.name!r}: no frames until the deadline; it is {self._shown.state} "
                f"at byte {self._shown.position_bytes}"
            )
        self._take_event(min(left, _BACKSTOP_S))

    def _is_quiet(self) -> bool:
        """Nothing is left: from now on fileno() is readable only once there is more."""
        try:
            return self._channel.poll()
        except LinkError as error:
            raise self._ended(error) from None

    def _take_event(self, timeout: float) -> bool:
        """False: there was none in time."""
        self._core.check_process()
        try:
            taken, woken = self._channel.next_request(0), self._wakeups.waited
            self._wakeups.waited = False
            if taken is None and timeout > 0:
                taken, woken = self._channel.next_request(min(timeout, 1e9)), True
        except LinkError as error:
            raise self._ended(error) from None
        if taken is None:
            return False
        if taken.type != _native.FRAME_EVENT:
            taken.respond(status=-errno.ENOENT)
            return True
        told = event_of(taken.payload)
        if told is not None and told[0] == self._id and told[1].generation == self._generation:
            self._event_count += 1
            if woken:
                self._wakeups.woken(told[1])
            self._events.append(told[1])
        return True

    async def _awaited(self) -> None:
        """The same for asyncio: returns when there may be news."""
        import asyncio

        if self._take_event(0):
            return
        if self._channel.error is not None or not self._is_quiet():
            return
        loop = asyncio.get_running_loop()
        rung = asyncio.Event()
        watched = os.dup(self._channel.fileno())
        try:
            loop.add_reader(watched, rung.set)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_BACKSTOP_S):  # wait_for() of 3.11 loses cancellations
                    await rung.wait()
                    self._wakeups.waited = True
        finally:
            loop.remove_reader(watched)
            os.close(watched)
