"""asyncio over the same calls: the loop watches the doorbell's descriptor while work is open."""

from __future__ import annotations

import asyncio
import threading
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
        self.loop = loop
        self._connection = connection
        self._thread = threading.get_ident()
        self._open: set[asyncio.Future[None]] = set()
        self._room: list[asyncio.Future[None]] = []
        self._watched: list[int] = []
        self._timer: asyncio.TimerHandle | None = None

    async def submit(self, send: Callable[[], Future], timeout: float | None) -> Future:
        """Sends without blocking the loop: a full ring is awaited."""
        deadline = None if timeout is None else self.loop.time() + timeout
        while True:
            try:
                return send()
            except WouldBlock:
                left = None if deadline is None else deadline - self.loop.time()
                if left is not None and left <= 0:
                    raise Timeout("the ring stayed full until the deadline") from None
                await self._wait_room(left)

    async def _wait_room(self, timeout: float | None) -> None:
        if self.channel.has_room():
            return
        waiter = self.loop.create_future()
        self._room.append(waiter)
        self._watch(waiter)
        try:
            async with asyncio.timeout(timeout):
                await waiter
        except TimeoutError:
            return  # the caller's loop sees its deadline
        finally:
            self._unwatch(waiter)
            if waiter in self._room:
                self._room.remove(waiter)

    async def wait(self, call: Future, timeout: float | None) -> _native.Reply:
        """Awaits a sent call. Cancelling the task cancels the call."""
        future: asyncio.Future[None] = self.loop.create_future()

        def ended(_: Any) -> None:
            if threading.get_ident() == self._thread:
                _set(future)
            else:
                self.loop.call_soon_threadsafe(_set, future)

        call.add_done_callback(ended)
        timer = None if timeout is None else self.loop.call_later(timeout, call.expire)
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

    def _watch(self, future: asyncio.Future[None]) -> None:
        if not self._open:
            for fd, callback in (
                (self.channel.fileno(), self._take),
                (self._connection.control_fd, self._connection._process_control),
            ):
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
        if self._room and (self.channel.error is not None or self.channel.has_room()):
            waiters, self._room = self._room, []
            for waiter in waiters:
                _set(waiter)

    def _backstop(self) -> None:
        if self.channel.error is None:
            self.channel.nudge()
            self._take()
        self._timer = self.loop.call_later(_BACKSTOP_S, self._backstop)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
