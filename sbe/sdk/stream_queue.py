"""StreamQueue: a stream whose memory are blocks that the application queues."""

from __future__ import annotations

import contextlib
import errno
import threading
import weakref
from collections import deque
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from sbe import _native
from sbe.errors import (
    BadArgument,
    Error,
    LinkClosed,
    LinkError,
    ProtocolError,
    StreamError,
    WouldBlock,
    from_status,
)
from sbe.sdk.ownership import not_copied
from sbe.sdk.staging import lies_in_area
from sbe.sdk.stream import Stream
from sbe.sdk.stream_wire import Op, State, block_answer_of, request
from sbe.sdk.timeouts import DEFAULT_TIMEOUT_S

if TYPE_CHECKING:
    import asyncio

    from sbe.sdk.aio import Pump

__all__ = ["BlockDone", "QueuedBlock", "StreamQueue"]


class BlockDone(NamedTuple):
    """What became of a block. Where blocks lie apart in position, bytes were lost between them."""

    sequence: int
    """Of this run's blocks, from 1 on, as they were queued."""
    position_bytes: int
    """Of its first byte, in this run."""
    used_bytes: int
    """Played or captured, from its beginning on."""
    clock_ns: int
    """The remote's clock when it had measured that."""
    error: bool
    """It came back before it was used whole: the stream was stopped or prepared anew."""


class QueuedBlock:
    """A block that the remote has, a future: `result()`, `done()`, `cancel()`; it may be awaited.

    Its memory is the application's again once it has ended. Any thread may wait for it.
    """

    def __init__(self, stream: StreamQueue, call: _native.Call, size: int, place: int) -> None:
        self._stream = stream
        self._call = call
        self._run = stream._generation
        self._place = place  # among this run's blocks
        self.size_bytes = size

    def result(self, timeout: float | None = DEFAULT_TIMEOUT_S) -> BlockDone:
        """Waits until it has been played, or filled; starts a stream that is prepared.

        Raises Timeout (it stays queued), StreamError in a state in which nothing is queued,
        Cancelled, RemoteRestarted with how far the stream had come, ProtocolError.
        """
        if timeout != 0:
            self._stream._start_for(self._call)
        with self._stream._ends():
            reply = self._call.result(timeout)
        return self._stream._done(self, reply.payload)

    def __await__(self) -> Generator[Any, None, BlockDone]:
        """As `result()`; cancelling the task takes the block back."""
        return self._awaited().__await__()

    async def _awaited(self) -> BlockDone:
        import asyncio

        self._stream._start_for(self._call)
        with self._stream._ends():
            reply = await self._stream._pump(asyncio.get_running_loop()).wait(self._call, None)
        return self._stream._done(self, reply.payload)

    def done(self) -> bool:
        """It has ended, well or not."""
        if not self._call.done():
            with contextlib.suppress(Error):  # its own error tells
                self._stream._channel.poll()
        return self._call.done()

    def cancel(self) -> bool:
        """Takes it out of the queue; its memory is held until the remote has answered.

        False if it had ended. The blocks after it move up.
        """
        return self._call.cancel()

    def __reduce__(self) -> NoReturn:
        not_copied(self)

    def __repr__(self) -> str:
        state = "ended" if self._call.done() else "queued"
        return f"<sbe.QueuedBlock {self._place} of {self._stream.name}: {state}>"


class StreamQueue(Stream):
    """Frames that flow at their rate through blocks of several areas: `Connection.open_queue()`.

    `queue()` hands a block to the remote, which plays or fills them in that order. With no block
    left while it runs there is an xrun. `stop()` brings back what is queued, `drain()` waits until
    it is played. Everything else is as in `Stream`, but for its ring of frames: `next()`, `read()`,
    `write()` and `async for` raise BadArgument.

    Threads: any may queue and wait for blocks. The rest is as in `Stream`.
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._places = 0  # of this run's blocks
        self._queueing = threading.RLock()
        self._calls: deque[_native.Call] = deque()  # of blocks that were not seen to end
        self._pumps: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Pump] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def block_frames(self) -> int:
        """Frames of a block at most."""
        return self.period_frames

    @property
    def blocks(self) -> int:
        """How many may be queued at a time."""
        return self.buffer_frames // self.period_frames

    def queue(self, memory: Any) -> QueuedBlock:
        """Queues a block: an area, a slice of one or a numpy array that lies in one.

        For playback the remote reads it, for capture it writes to it, whole frames, `block_frames`
        at most. Raises WouldBlock when `blocks` are queued, BadArgument, LinkError; what the remote
        says of it comes with its result.
        """
        if self._open is None:
            raise LinkClosed(f"stream {self.name!r} is closed")
        buffer = _native.In(memory) if self.playback else _native.Out(memory)
        size = memoryview(buffer).nbytes
        self._check_size(size)
        if not lies_in_area(self._core.table, buffer):
            raise BadArgument(
                "a block lies in an area, one of allocate(), and what the remote writes in whole "
                f"cache lines of {self._core.table.line_bytes} bytes"
            )
        # A handler of a signal that queues in the middle of this would take its place.
        with self._queueing, _native.SignalsHeld():
            return self._queued(buffer, size)

    def _queued(self, buffer: _native.Buffer, size: int) -> QueuedBlock:
        self._forget_ended()
        if len(self._calls) >= self.blocks:
            raise WouldBlock(f"{self.blocks} blocks are queued, no more may be: wait for one")
        self._application += size  # before the remote can be at it
        try:
            with self._ends():
                asked = request(Op.QUEUE_BLOCK, self._id)
                call = self._channel.submit(self._service, (buffer,), asked)
        except BaseException:
            self._application -= size
            raise
        self._places += 1
        self._calls.append(call)
        return QueuedBlock(self, call, size, self._places)

    def prepare(self) -> None:
        """Position 0 of a new run; blocks that are queued come back."""
        with self._queueing:
            super().prepare()
            self._places = 0

    def _settle(self) -> None:
        """Its channel is another than that of the stream which starts it: blocks overtake no START
        that comes by that one."""
        self._ask(Op.QUERY)

    # -- blocks -----------------------------------------------------------------------------

    def _check_size(self, size: int) -> None:
        frame = self.format.frame_bytes
        if size == 0 or size % frame:
            raise BadArgument(f"{size} bytes are no whole frames of {frame} bytes")
        if size > self._settings.period_bytes:
            raise BadArgument(
                f"{size} bytes are more than a block has: {self._settings.period_bytes}"
            )

    def _forget_ended(self) -> None:
        """Those that nobody waits for are kept until here, or dropping one would cancel it."""
        with self._ends():
            self._channel.poll()
        self._calls = deque(call for call in self._calls if not call.done())

    def _start_for(self, call: _native.Call) -> None:
        if not call.done() and self.state is State.PREPARED:
            self._start_once()

    @contextlib.contextmanager
    def _ends(self) -> Iterator[None]:
        """How far the stream had come is in what ends it."""
        try:
            yield
        except LinkError as error:
            raise self._ended(error) from None

    def _pump(self, loop: asyncio.AbstractEventLoop) -> Pump:
        from sbe.sdk.aio import Pump

        return Pump.of(self._core, self._channel, loop, self._pumps, set())

    def _done(self, block: QueuedBlock, payload: bytes) -> BlockDone:
        """What an answer says, if it can be."""
        try:
            answer = block_answer_of(payload)
            if answer.result == -errno.EPERM:
                raise StreamError(
                    f"queue: stream {self.name!r} is {answer.state}", state=str(answer.state)
                )
            if answer.result not in (0, -errno.ECANCELED):
                raise from_status(answer.result, f"queue: stream {self.name!r}", remote=True)
            used, size = answer.used_bytes, block.size_bytes
            whole = used == size if answer.result == 0 else used < size
            of = (answer.stream, answer.generation, answer.sequence)
            if not whole or used % self.format.frame_bytes:
                raise ProtocolError(f"a block of {size} bytes, of which {used} were used")
            if of != (self._id, block._run, block._place):
                raise ProtocolError(
                    f"an answer about block {of[2]} of run {of[1]} of stream {of[0]}, not "
                    f"{block._place} of {block._run} of {self._id}"
                )
        except ProtocolError as error:
            self._channel.fail(error)
            raise
        return BlockDone(
            answer.sequence, answer.position, used, answer.clock_ns, answer.result != 0
        )

    # -- what differs from a ring -----------------------------------------------------------

    def _available_bytes(self) -> int:
        """That may be queued now."""
        queued = self._application - self._shown.position_bytes
        return min(max(0, self._settings.buffer_bytes - queued), self._settings.buffer_bytes)

    def _all_is_played(self) -> bool:
        """An xrun is one because no block was left."""
        return self.position().state is State.XRUN

    def _ready(self, most: int | None = None) -> NoReturn:
        raise BadArgument(f"stream {self.name!r} takes blocks: queue() them")
