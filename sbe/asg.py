"""Byte streams as the Address Space Graphics library has them, bytewise compatible with it.

A region of shared memory holds three pages of rings and, behind them, a transfer buffer; a doorbell
wakes the server. The other end may be the original library, gfxstream's host or Mesa's guest
driver. What SBE itself sends, `sbe.connect()`, has nothing of this.

    client = asg.Client(region, 1 << 20, doorbell, step=4096)  # step: and lays the region out
    client.write(b"hello")
    client.flush()

    server = asg.Server(region, 1 << 20, doorbell)
    server.read_exactly(5)
    server.reply(b"hello yourself")

Where the original spins for ever, waits here sleep and end with `sbe.Timeout`; what a peer writes
into the region is checked, and ends in an `sbe.Error`. The layout is in `firmware/asg/layout.h`.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias

from sbe import _native
from sbe.errors import BadArgument, LinkClosed, LinkError, Timeout
from sbe.sdk.timeouts import DEFAULT_TIMEOUT_S, ends_at, time_left

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["STORAGE_BYTES", "Client", "Server"]

STORAGE_BYTES = _native.ASG_STORAGE
"""Bytes of a region before its transfer buffer."""

Doorbell: TypeAlias = int | Callable[[], object]
"""An eventfd or a byte stream to write to, by descriptor, or a function that rings."""
Wait: TypeAlias = int | Callable[[float | None], object]
"""The same to wait on, or a function of the seconds left (None: no end) that may return early."""

_LOOKS = 30  # before it sleeps: the original's figure
_NAP_S, _NAP_MAX_S = 20e-6, 1e-3  # a client has no doorbell, and so looks again
_SLICE_S = 0.25  # after which a waiting server notices that it was closed by another thread
_BELL = (1).to_bytes(8, "little")  # what an eventfd takes


class _Patience:
    """Looks for a while, then naps longer and longer, and ends with Timeout."""

    def __init__(self, until: float, awaited: str) -> None:
        self._until, self._awaited = until, awaited
        self._looks, self._nap_s = 0, _NAP_S

    def left(self) -> float | None:
        """Seconds; None for no end. Raises Timeout."""
        left = time_left(self._until)
        if left == 0.0:
            raise Timeout(f"{self._awaited} was not there at the deadline")
        return left

    def looks_again(self) -> bool:
        """At once; False: it has looked often enough to sleep."""
        self._looks += 1
        if self._looks >= _LOOKS:
            return False
        os.sched_yield()
        return True

    def nap(self) -> None:
        """As long as it has slept before."""
        left = self.left()
        time.sleep(self._nap_s if left is None else min(self._nap_s, left))
        self._nap_s = min(self._nap_s * 2, _NAP_MAX_S)


class _End:
    """What client and server share. Threads: one at a time; a second one waits for its turn."""

    def __init__(self, region: WriteableBuffer, timeout: float | None) -> None:
        self._memory = memoryview(region).cast("B")
        self._timeout = timeout
        self._turn = threading.Lock()
        self._closed = False

    @contextlib.contextmanager
    def _operation(self, timeout: float | None, awaited: str) -> Iterator[_Patience]:
        until = ends_at(self._timeout if timeout is None else timeout)
        patience = _Patience(until, awaited)
        left = patience.left()
        if not self._turn.acquire(timeout=-1 if left is None else left):
            raise Timeout(f"{awaited}: another thread was at work on this end at the deadline")
        try:
            self._check_open()
            yield patience
        finally:
            self._turn.release()

    def _check_open(self) -> None:
        if self._closed:
            raise LinkClosed("this end of the ASG stream is closed")

    def close(self) -> None:
        """Ends this end. Memory that `alloc()` gave out stays valid until it is dropped."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Client(_End):
    """The end that writes and reads replies ("guest"). Threads: one at a time.

    Bytes of both directions go through one buffer, so they take turns: what is left of a reply when
    the client writes again is kept, at most a buffer of it.
    """

    def __init__(
        self,
        region: WriteableBuffer,
        size: int,
        doorbell: Doorbell,
        *,
        step: int | None = None,
        timeout: float | None = DEFAULT_TIMEOUT_S,
    ) -> None:
        """Attaches to `region`: STORAGE_BYTES and a transfer buffer of `size` bytes.

        `step`, bytes: the region is ours, and is laid out with this flush interval, whatever was
        there. Without it somebody has done that, and nothing is reset. `timeout` is for each
        operation that is not given its own, seconds; None: no end. Raises BadArgument, or
        ProtocolError for a region that was laid out for another size.
        """
        super().__init__(region, timeout)
        self._native = _native.AsgClient(region, size, step or 0)
        self._doorbell = doorbell
        self._backlog = bytearray()  # of replies
        self._large: bytearray | None = None  # allocated, and too large for a step
        self._last = 0  # bytes of the last alloc() of a step

    @property
    def step(self) -> int:
        """Bytes that go out as one record; more goes through the whole buffer."""
        return self._native.step

    def write(self, data: ReadableBuffer, *, timeout: float | None = None) -> None:
        """Sends bytes, which go out when a step is full or with `flush()`; more than a step at
        once. Returns when they may be changed. Raises Timeout, after which how much of them the
        server has is not known, LinkError when it has gone, ProtocolError when it gave up.
        """
        view = memoryview(data).cast("B")
        with self._operation(timeout, "room for what is written") as patience:
            if view.nbytes > self.step:
                self._commit(patience)
                self._send(view, patience, True)
            elif view.nbytes:
                at = self._alloc(view.nbytes, patience)
                self._memory[at : at + view.nbytes] = view

    def send(self, data: ReadableBuffer, *, timeout: float | None = None) -> None:
        """Sends bytes of any number at once, and returns when they are in the buffer: before the
        server has taken them, as far as they fit it.
        """
        view = memoryview(data).cast("B")
        with self._operation(timeout, "room for what is sent") as patience:
            self._commit(patience)
            self._send(view, patience, False)

    def alloc(self, size: int, *, timeout: float | None = None) -> memoryview:
        """`size` bytes to be filled before the next operation: of the transfer buffer, or of memory
        that is copied through it if they are more than a step.
        """
        with self._operation(timeout, "room for what is written") as patience:
            if not 0 <= size <= _native.ASG_BUFFER_MAX:
                raise BadArgument(f"alloc() of {size} bytes")
            if size > self.step:
                self._commit(patience)
                self._large = bytearray(size)
                return memoryview(self._large)
            at = self._alloc(size, patience) if size else 0
            return self._memory[at : at + size]

    def commit(self, size: int | None = None, *, timeout: float | None = None) -> None:
        """Sends what was allocated; of the last alloc() only the first `size` bytes."""
        with self._operation(timeout, "room for what is sent") as patience:
            last = self._last if self._large is None else len(self._large)
            if size is not None and not 0 <= size <= last:
                raise BadArgument(f"commit({size}) of {last} bytes that were allocated")
            self._commit(patience, last if size is None else size)

    def flush(self, *, timeout: float | None = None) -> None:
        """Sends what was written or allocated."""
        self.commit(timeout=timeout)

    def read(self, size: int, *, timeout: float | None = None) -> bytes:
        """Sends what was written, then waits for a reply: 1 to `size` bytes of it."""
        if size <= 0:
            return b""
        with self._operation(timeout, "a reply") as patience:
            self._commit(patience)
            most = min(size, self._memory.nbytes)
            return bytes(self._read(bytearray(most), patience))

    def read_exactly(self, size: int, *, timeout: float | None = None) -> bytes:
        """The same for so many bytes. After a Timeout the next call begins with those that came."""
        reply = bytearray(max(size, 0))
        got = 0
        with self._operation(timeout, f"a reply of {size} bytes") as patience:
            self._commit(patience)
            try:
                while got < size:
                    got += len(self._read(memoryview(reply)[got:], patience))
            except Timeout:
                self._backlog[:0] = reply[:got]
                raise
        return bytes(reply)

    # -- one operation holds the turn -----------------------------------------------------------

    def _alloc(self, size: int, patience: _Patience) -> int:
        self._commit_large(patience)
        self._last = 0
        at = self._waited(lambda: self._with_room(lambda: self._native.alloc(size)), patience)
        self._last = size
        return at

    def _commit_large(self, patience: _Patience, size: int | None = None) -> bool:
        large = self._large
        if large is None:
            return False
        self._large = None
        self._send(memoryview(large)[:size], patience, True)
        return True

    def _commit(self, patience: _Patience, size: int | None = None) -> None:
        if self._commit_large(patience, size):
            return
        if size is not None and size < self._last:
            self._native.give_back(self._last - size)
        self._last = 0
        self._waited(self._native.flush, patience)

    def _send(self, data: memoryview, patience: _Patience, wait: bool) -> None:
        sent = 0

        def go_on() -> bool:
            nonlocal sent
            sent, finished = self._native.send(part, sent, wait)
            return finished

        for at in range(0, data.nbytes, _native.ASG_BUFFER_MAX):  # a transfer's size has 32 bits
            part, sent = data[at : at + _native.ASG_BUFFER_MAX], 0
            self._waited(lambda: self._with_room(go_on), patience)

    def _read(self, target: bytearray | memoryview, patience: _Patience) -> memoryview:
        view = memoryview(target)
        if self._backlog:
            size = min(len(view), len(self._backlog))
            view[:size] = self._backlog[:size]
            del self._backlog[:size]
            return view[:size]
        return view[: self._waited(lambda: self._native.read(view), patience)]

    def _with_room(self, look: Callable[[], int]) -> int:
        """With a reply out of the way that nobody has read: it lies where bytes are to go."""
        unread = self._native.unread
        if unread:
            rest = bytearray(unread)
            self._backlog += memoryview(rest)[: self._native.read(rest)]
        return 0 if self._native.unread else look()

    def _waited(self, look: Callable[[], int], patience: _Patience) -> int:
        """What look() gives once that is not 0; it is interrupted between looks only."""
        while True:
            found = look()
            if self._native.doorbell():
                _ring(self._doorbell)
            if found:
                return found
            self._check_open()
            if not patience.looks_again():
                patience.nap()
                self._remind()

    def _remind(self) -> None:
        """A server that sleeps over bytes may have missed their doorbell."""
        self._native.remind()


def _ring(doorbell: Doorbell) -> None:
    if callable(doorbell):
        doorbell()
        return
    try:
        os.write(doorbell, _BELL)
    except BlockingIOError:
        pass  # full: it rings already
    except OSError as error:
        raise LinkError(f"the doorbell of the ASG stream: {error.strerror}") from error


class Server(_End):
    """The end that reads and replies ("host"). Threads: one at a time; `close()` by any.

    It attaches to a region that the client, or whoever owns it, has laid out, and resets nothing.
    """

    def __init__(
        self,
        region: WriteableBuffer,
        size: int,
        wait: Wait,
        *,
        timeout: float | None = DEFAULT_TIMEOUT_S,
    ) -> None:
        """Attaches to `region`: STORAGE_BYTES and a transfer buffer of `size` bytes.

        `wait` is what the client's doorbell rings. `timeout` as for `Client`.
        """
        super().__init__(region, timeout)
        self._native = _native.AsgServer(region, size)
        self._wait = wait
        self._rest = b""  # of a record of which a part was read

    def read(self, size: int, *, timeout: float | None = None) -> bytes:
        """Waits for what the client sends: 1 to `size` bytes, of one record at most.

        Raises Timeout, or ProtocolError when the client wrote what no client writes; it is told.
        """
        if size <= 0:
            return b""
        with self._operation(timeout, "what the client sends") as patience:
            return self._read(size, patience)

    def read_exactly(self, size: int, *, timeout: float | None = None) -> bytes:
        """The same for so many bytes. After a Timeout the next call begins with those that came."""
        parts, got = [], 0
        with self._operation(timeout, f"{size} bytes of the client") as patience:
            try:
                while got < size:
                    parts.append(self._read(size - got, patience))
                    got += len(parts[-1])
            except Timeout:
                self._rest = b"".join(parts) + self._rest
                raise
        return b"".join(parts)

    def reply(self, data: ReadableBuffer, *, timeout: float | None = None) -> None:
        """Sends bytes back; returns when all are in the buffer. Raises Busy when the client's own
        are there: they are to be read first.
        """
        view = memoryview(data).cast("B")
        with self._operation(timeout, "room for the reply") as patience:
            while view:
                sent = self._native.reply(view)
                view = view[sent:]
                if view and not sent and not patience.looks_again():
                    patience.nap()
                self._check_open()

    def close(self) -> None:
        """Tells the client that nobody reads any more. Ends what another thread waits for here."""
        if not self._closed:
            super().close()
            self._native.close(False)

    def _read(self, size: int, patience: _Patience) -> bytes:
        if not self._rest:
            # A record is taken whole: a reply to its first bytes may come over the others.
            found = bytearray(max(size, self._find(patience)))
            read = self._native.read(found)
            self._rest = bytes(memoryview(found)[:read])
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken

    def _find(self, patience: _Patience) -> int:
        while True:
            self._check_open()
            found = self._native.available()
            if found:
                return found
            if not patience.looks_again() and self._native.may_sleep():
                self._sleep(patience.left())

    def _sleep(self, left: float | None) -> None:
        if callable(self._wait):
            self._wait(left)
            return
        poll = select.poll()
        poll.register(self._wait, select.POLLIN)
        ready = poll.poll(1000 * (_SLICE_S if left is None else min(_SLICE_S, left)))
        if not ready:
            return
        if ready[0][1] & select.POLLNVAL:
            raise LinkError("the doorbell of the ASG stream is closed")
        with contextlib.suppress(BlockingIOError):
            if not os.read(self._wait, 4096):
                raise LinkError("the client's doorbell has hung up")
