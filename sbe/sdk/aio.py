"""asyncio over the same calls: the loop watches the doorbell's descriptor while work is open."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from sbe import _native
from sbe.errors import Error, OutOfResources, Timeout, WouldBlock
from sbe.sdk.core import Core
from sbe.sdk.staging import StagedCall

__all__ = ["Pump"]

Future = _native.Call | StagedCall

_BUSY_S = 0.005  # until another look at news while another thread's control operation goes on
_BACKSTOP_S = 0.25  # a lost doorbell costs this much; armed only while something is in flight


class Pump:
    """Takes a channel's frames in one asyncio loop, for one channel. Used in the loop's thread."""

    def __init__(
        self,
        core: Core,
        channel: _native.Channel,
        loop: asyncio.AbstractEventLoop,
        starved: set[Pump],
    ) -> None:
        """`starved`: pumps of the connection that wait for room in the ring, so that whoever hears
        of room can tell them."""
        self.channel = channel
        self._loop = weakref.ref(loop)  # the connection outlives loops
        self._core = core
        self._starved = starved
        self._pid = os.getpid()
        self._open: set[asyncio.Future[None]] = set()
        self._room: deque[asyncio.Future[None]] = deque()
        self._calls: dict[asyncio.Future[None], Future] = {}  # who waits for what
        # Duplicates of ours, while something is open. A loop knows one reader for each number: that
        # of another pump, of the channel before or after ours, would be replaced or removed; and a
        # number that its owner has closed may be somebody else's by the time we let go of it.
        self._watched: dict[int, Callable[[], None]] = {}
        self._timers: dict[Callable[[], None], asyncio.TimerHandle] = {}

    @classmethod
    def of(
        cls,
        core: Core,
        channel: _native.Channel,
        loop: asyncio.AbstractEventLoop,
        pumps: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Pump],
        starved: set[Pump],
    ) -> Pump:
        """The one of this loop, which runs, for this channel; if it is new, the one from now on.
        Those of loops that were closed with calls open go."""
        pump = pumps.get(loop)
        if pump is not None and pump.channel is channel:
            return pump
        for other in [reference() for reference in pumps.keyrefs()]:
            if other is not None and other.is_closed():
                pumps.pop(other)._stop_watching()
        pumps[loop] = cls(core, channel, loop, starved)
        return pumps[loop]

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
        self._room.append(waiter)
        self._starved.add(self)
        try:
            self._watch(waiter)
            async with asyncio.timeout_at(deadline):
                await waiter
        except TimeoutError:
            return  # the caller's loop sees its deadline
        finally:
            self._unwatch(waiter)
            with contextlib.suppress(ValueError):
                self._room.remove(waiter)
            if not self._room:
                self._starved.discard(self)

    async def wait(self, call: Future, deadline: float | None) -> _native.Reply:
        """Awaits a sent call. Cancelling the task cancels the call."""
        future: asyncio.Future[None] = self.loop.create_future()

        def ended(_: Any) -> None:
            if asyncio._get_running_loop() is self._loop():
                _set(future)
            else:
                self._soon(_set, future)

        self._calls[future] = call
        call.add_done_callback(ended)
        timer = None if deadline is None else self.loop.call_at(deadline, call._expire)
        try:
            if not future.done():
                self._watch(future)
            await future
        except BaseException:
            call.cancel()
            raise
        finally:
            self._calls.pop(future, None)
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
        """Raises OutOfResources."""
        if not self._open:
            try:
                self._add_reader(self.channel.fileno(), self._poll)
                self._add_reader(self._core.backend.control_fd, self._process_control)
            except BaseException:
                self._stop_watching()
                raise
            self._later(_BACKSTOP_S, self._backstop)
        self._open.add(future)
        self._poll()  # frames may have come before the loop watched; and say that we sleep

    def _add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        try:
            ours = os.dup(fd)
        except OSError as error:
            if error.errno == errno.EBADF:
                return  # closed by another thread: the channel has been failed before
            raise OutOfResources(
                f"no descriptor to watch the link with: {error.strerror}", error.errno
            ) from error
        self._watched[ours] = callback
        self.loop.add_reader(ours, callback)

    def _unwatch(self, future: asyncio.Future[None]) -> None:
        self._open.discard(future)
        if not self._open:
            self._stop_watching()

    def _stop_watching(self) -> None:
        loop = self._loop()
        # A loop that is closed is destroying its tasks. A forked child shares the loop's epoll,
        # where what it removes would be its parent's.
        forgets = loop is None or loop.is_closed() or os.getpid() != self._pid
        while self._watched:
            fd, _ = self._watched.popitem()
            if not forgets:
                self.loop.remove_reader(fd)
            os.close(fd)
        while self._timers:
            self._timers.popitem()[1].cancel()

    def __del__(self) -> None:
        self._stop_watching()  # its loop was closed with calls open

    def _later(self, seconds: float, callback: Callable[[], None]) -> None:
        self._timers[callback] = self.loop.call_later(seconds, callback)

    def _process_control(self) -> None:
        if self._core.process_control(wait=False):
            return
        # Who is in a control operation takes the news, or they stay and are seen again: the loop
        # neither waits for the lock nor looks all the time.
        for fd, callback in self._watched.items():
            if callback == self._process_control:
                self.loop.remove_reader(fd)
        self._later(_BUSY_S, self._watch_control)

    def _watch_control(self) -> None:
        for fd, callback in self._watched.items():
            if callback == self._process_control:
                self.loop.add_reader(fd, callback)

    def _poll(self) -> None:
        if not self._open:
            return
        try:
            idle = self.channel.poll()
        except Error:
            idle = True  # the channel died: its calls have been failed, each with its own error
        if not idle:
            self.loop.call_soon(self._poll)
        others = self._starved.copy()
        if not others or not (self.channel.error is not None or self.channel.has_room()):
            return
        for pump in others:
            if pump is self:
                self._pass_on()
            else:  # this loop may have taken the doorbell that was meant for that one
                pump._soon(pump._serve_room)

    def _pass_on(self) -> None:
        loop = self._loop()
        if loop is None or loop.is_closed():
            return
        if self._room and (self.channel.error is not None or self.channel.has_room()):
            _set(self._room.popleft())

    def _serve_room(self) -> None:
        if self._room:
            self._poll()

    def _backstop(self) -> None:
        with contextlib.suppress(Error):
            self.channel.nudge()
        self._poll()
        for future, call in list(self._calls.items()):
            if call.done():  # a handler of a signal raised while we were told
                _set(future)
        self._later(_BACKSTOP_S, self._backstop)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
