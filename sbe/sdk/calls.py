"""Calling: one part of a connection, over its core."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from sbe import _native
from sbe.errors import BadArgument
from sbe.sdk.backend import Service
from sbe.sdk.batch import BatchResult, run_batch
from sbe.sdk.core import Core
from sbe.sdk.staging import StagedCall, Stager, stage, stage_async
from sbe.sdk.timeouts import DEFAULT_TIMEOUT_S, ends_at, in_thread, seconds, time_left
from sbe.sdk.waits import Waits

if TYPE_CHECKING:
    import asyncio

__all__ = ["Calls"]

_Send: TypeAlias = Callable[[tuple[_native.Buffer, ...], float | None], _native.Call]


def _submission(
    channel: _native.Channel,
    service: int,
    payload: Any,
    wait: bool = True,
) -> _Send:
    """Submits with buffers to come. In a function of its own: where a closure holds variables, each
    call makes them anew, also those that never need it."""
    return lambda staged, timeout: channel.submit(service, staged, payload, timeout, wait)


def _until(deadline: float | None, loop: asyncio.AbstractEventLoop) -> float:
    """A deadline of the loop's clock by `time.monotonic()`; never for None."""
    return math.inf if deadline is None else time.monotonic() + deadline - loop.time()


class Calls:
    """What a connection calls with. Any thread may use it at any time, `acall()` from any loop."""

    _core: Core
    _stager: Stager
    _waits: Waits

    def call(
        self,
        service: str | int | Service,
        *buffers: _native.Buffer,
        payload: Any = b"",
        timeout: float | None = DEFAULT_TIMEOUT_S,
    ) -> _native.Reply:
        """Calls a service of the remote and waits for its reply.

        `buffers` are sbe.In(x), sbe.Out(x), sbe.InOut(x) or sbe.Shared(x), with x an area, a slice
        of one, a contiguous numpy array of numbers or any bytes. What lies in an area goes by
        reference; the rest is copied, inline if small. `payload` are the bytes of the message
        itself, as many as one frame holds. `timeout` is in seconds, for all that the call does, its
        service looked up and its data staged; None waits for ever.

        Raises UnknownService, RemoteError, Timeout, RemoteRestarted, BadArgument and its kin.
        """
        core = self._core
        channel = core.channel
        number = core.ids.get(service)
        if number is None or channel.failed() or core.turn.thread:
            channel, number, timeout = core.prepare(service, timeout)
        try:
            return channel.call(number, buffers, payload, timeout)
        except _native.NeedsStaging:
            pass  # left before what staging may raise
        send = _submission(channel, number, payload)
        return self._submit_staged(send, buffers, timeout).result()

    def submit(
        self,
        service: str | int | Service,
        *buffers: _native.Buffer,
        payload: Any = b"",
        timeout: float | None = DEFAULT_TIMEOUT_S,
        wait: bool = True,
    ) -> _native.Call | StagedCall:
        """Sends a call and returns at once a future: result(), exception(), done(), cancel().

        It may be awaited in any asyncio loop, and `future()` makes one of concurrent.futures of it,
        for `as_completed()`, `wait()` and `asyncio.wrap_future()`.

        Many may be in flight; they complete in the remote's order. With the ring full it waits for
        room, or raises WouldBlock if `wait` is False. `timeout` runs from now.
        """
        core = self._core
        channel = core.channel
        number = core.ids.get(service)
        if number is None or channel.failed() or core.turn.thread:
            channel, number, timeout = core.prepare(service, timeout)
        try:
            return channel.submit(number, buffers, payload, timeout, wait)
        except _native.NeedsStaging:
            pass
        return self._submit_staged(_submission(channel, number, payload, wait), buffers, timeout)

    async def acall(
        self,
        service: str | int | Service,
        *buffers: _native.Buffer,
        payload: Any = b"",
        timeout: float | None = DEFAULT_TIMEOUT_S,
    ) -> _native.Reply:
        """As `call()`, for asyncio. Cancelling the task cancels the call at the remote."""
        import asyncio  # on first use: plain programs do without its weight

        core = self._core
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + seconds(timeout)
        channel = core.channel
        known = core.ids.get(service)
        core.turn.check()
        if known is None or channel.error is not None:
            # Control operations may wait for the remote: not in the loop's thread.
            until = _until(deadline, loop)
            channel, number = await in_thread(until, core.prepare_until, service, until)
        else:
            number = known
        pump = self._waits.pump(loop, channel)
        call: _native.Call | StagedCall
        try:
            call = await pump.submit(
                lambda left: channel.submit(number, buffers, payload, left, False), deadline
            )
            return await pump.wait(call, deadline)
        except _native.NeedsStaging:
            pass  # left before what staging may raise
        until = _until(deadline, loop)
        staged = await stage_async(self._stager, core.table, buffers, until)
        try:
            call = await pump.submit(
                lambda left: staged.begin(
                    channel.submit(number, staged.buffers, payload, left, False)
                ),
                deadline,
            )
        except BaseException:
            staged.abort()
            raise
        return await pump.wait(call, deadline)

    def send(
        self,
        service: str | int | Service,
        *buffers: _native.Buffer,
        payload: Any = b"",
        timeout: float | None = DEFAULT_TIMEOUT_S,
    ) -> None:
        """Sends a message that nobody answers: fire and forget.

        Its buffers must lie in areas (or be small): there is no answer to tell when the remote is
        done with them, so ownership is the application's own agreement with the service. A message
        does not keep an area either: keep it as long as that agreement says.
        """
        channel, number, timeout = self._core.prepare(service, timeout)
        try:
            channel.send(number, buffers, payload, timeout)
        except _native.NeedsStaging:
            raise BadArgument(
                "a message's large data must lie in an area: nobody would say when a copy of it "
                "is free again"
            ) from None

    def sync(
        self, *buffers: _native.Buffer, timeout: float | None = DEFAULT_TIMEOUT_S
    ) -> _native.Reply:
        """Hands buffers over and back without calling a service: caches are maintained."""
        until = ends_at(timeout)
        channel = self._core.live_channel(until)
        try:
            return channel.sync(0, buffers, b"", time_left(until)).result()
        except _native.NeedsStaging:
            raise BadArgument("only memory of an area can be synchronised") from None

    def batch(
        self,
        service: str | int | Service,
        descriptors: Any,
        payloads: Any = None,
        *,
        reply_size: int = 0,
        timeout: float | None = DEFAULT_TIMEOUT_S,
    ) -> BatchResult:
        """Thousands of calls of one service at once.

        `descriptors`: numpy array of `sbe.buffer_dtype()`, shape (calls, buffers per call), made
        with `Area.descriptors()`. `payloads`: None, or uint8 of shape (calls, bytes). `reply_size`:
        bytes of each reply's payload to keep. Returns when all are answered; each call's status is
        in the result. Raises Timeout if some are not answered in time, RemoteRestarted if the
        remote is lost before they are, OutOfResources without numpy.
        """
        channel, number, timeout = self._core.prepare(service, timeout)
        return run_batch(channel, number, descriptors, payloads, reply_size, timeout)

    async def abatch(
        self,
        service: str | int | Service,
        descriptors: Any,
        payloads: Any = None,
        *,
        reply_size: int = 0,
        timeout: float | None = DEFAULT_TIMEOUT_S,
    ) -> BatchResult:
        """As `batch()`, for asyncio: it runs in another thread, the loop goes on.

        A batch can't be cancelled: when the task is, it goes on until it is answered or its time
        is over, and its descriptors' areas are the remote's until then.
        """
        until = ends_at(timeout)

        def run() -> BatchResult:
            return self.batch(
                service, descriptors, payloads, reply_size=reply_size, timeout=time_left(until)
            )

        return await in_thread(until, run)

    def _submit_staged(
        self, send: _Send, buffers: tuple[_native.Buffer, ...], timeout: float | None
    ) -> StagedCall:
        until = ends_at(timeout)
        staged = stage(self._stager, self._core.table, buffers, until)
        try:
            return staged.begin(send(staged.buffers, time_left(until)))
        except BaseException:
            staged.abort()
            raise
