"""asyncio over the same calls: the loop watches the doorbell's descriptor while work is open."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sbe import _native
from sbe.errors import Error, Timeout, WouldBlock
from sbe.sdk.staging import StagedCall

if TYPE_CHECKING:
    from sbe.sdk.connection import Connection

__all__ = ["Pump"]

Future = _native.Call | StagedCall

_BACKSTOP_S = 0.25  # a lost doorbell costs this much; armed only while something is in flight


class Pump:
    """Takes a channel's frames in one asyncio loop, for one channel. Used in the loop's thread."""

    def __init__(
        self,
        connection: Connection,
        channel: _native.Channel,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.channel = channel
        self._loop = weakref.ref(loop)  # the connection outlives loops
        self._connection = weakref.ref(connection)
        self._thread = threading.get_ident()
        self._open: set[asyncio.Future[None]] = set()
        self._room: deque[asyncio.Future[None]] = deque()
        self._watched: list[int] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, which runs."""
        loop = self._loop()
        assert loop is not None, "callbacks come from a loop that is there"
        return loop

    async def submit(
        self, send: Callable[[float | None], Future], deadline: float | None
    ) -> Future:
        """Sends without blocking the loop: a full ring is awaited, until `deadline` (loop.time()).

        send(seconds left) is tried each time that there may be room.
        """
        try:
            while True:
                left = None if deadline is None else deadline - self.loop.time()
                try:
                    return send(None if left is None else max(left, 0.0))
                except WouldBlock:
                    if left is not None and left <= 0:
                        raise Timeout("the ring stayed full until the deadline") from None
                    await self._wait_room(deadline)
        finally:
            self._pass_on()  # one waiter is woken at a time, and wakes the next

    async def _wait_room(self, deadline: float | None) -> None:
        if self.channel.error is not None or self.channel.has_room():
            return
        waiter = self.loop.create_future()
        connection = self._connection()
        self._room.append(waiter)
        if connection is not None:
            connection.starved.add(self)
        self._watch(waiter)
        try:
            async with asyncio.timeout_at(deadline):
                await waiter
        except TimeoutError:
            return  # the caller's loop sees its deadline
        finally:
            self._unwatch(waiter)
            with contextlib.suppress(ValueError):
                self._room.remove(waiter)
            if connection is not None and not self._room:
                connection.starved.discard(self)

    async def wait(self, call: Future, deadline: float | None) -> _native.Reply:
        """Awaits a sent call. Cancelling the task cancels the call."""
        future: asyncio.Future[None] = self.loop.create_future()

        def ended(_: Any) -> None:
            if threading.get_ident() == self._thread:
                _set(future)
            else:
                self._soon(_set, future)

        call.add_done_callback(ended)
        timer = None if deadline is None else self.loop.call_at(deadline, call.expire)
        if not future.done():
            self._watch(future)
        try:
            await future
        except asyncio.CancelledError:
            call.cancel()
            raise
        finally:
            self._unwatch(future)
            if timer is not None:
                timer.cancel()
        return call.result(0)

    def _soon(self, callback: Callable[..., object], *arguments: Any) -> None:
        """From any thread: runs it in the loop, unless that has ended."""
        loop = self._loop()
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # closed
                loop.call_soon_threadsafe(callback, *arguments)

    def _watch(self, future: asyncio.Future[None]) -> None:
        if not self._open:
            connection = self._connection()
            watched: list[tuple[int, Callable[[], None]]] = [(self.channel.fileno(), self._take)]
            if connection is not None and connection.control_fd >= 0:
                watched.append((connection.control_fd, connection._process_control))
            for fd, callback in watched:
                with contextlib.suppress(OSError):  # closed meanwhile: what waits has heard of it
                    self.loop.add_reader(fd, callback)
                    self._watched.append(fd)
            self._timer = self.loop.call_later(_BACKSTOP_S, self._backstop)
        self._open.add(future)
        self._take()  # frames may have come before the loop watched; and say that we sleep

    def _unwatch(self, future: asyncio.Future[None]) -> None:
        self._open.discard(future)
        if self._open:
            return
        for fd in self._watched:
            self.loop.remove_reader(fd)
        self._watched.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _take(self) -> None:
        if not self._open:
            return
        try:
            idle = self.channel.poll()
        except Error:
            idle = True  # the channel died: its calls have been failed, each with its own error
        if not idle:
            self.loop.call_soon(self._take)
        connection = self._connection()
        others = set() if connection is None else connection.starved.copy()
        if not others or not (self.channel.error is not None or self.channel.has_room()):
            return
        for pump in others:
            if pump is self:
                self._pass_on()
            else:  # this loop may have taken the doorbell that was meant for that one
                pump._soon(pump._serve_room)

    def _pass_on(self) -> None:
        if self._room and (self.channel.error is not None or self.channel.has_room()):
            _set(self._room.popleft())

    def _serve_room(self) -> None:
        if self._room:
            self._take()

    def _backstop(self) -> None:
        with contextlib.suppress(Error):
            self.channel.nudge()
        self._take()
        self._timer = self.loop.call_later(_BACKSTOP_S, self._backstop)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
