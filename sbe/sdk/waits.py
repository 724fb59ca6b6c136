"""Waiting for calls elsewhere than in `result()`: in asyncio loops, as futures of Python's."""

from __future__ import annotations

import threading
import time
import weakref
from typing import TYPE_CHECKING

from sbe import _native
from sbe.errors import OutOfResources
from sbe.sdk.core import Core

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

    from sbe.sdk.aio import Pump

__all__ = ["Waits"]


class Waits:
    """How the calls of a connection are awaited: a pump in each loop, and a loop of ours for
    futures, in a thread that the first one starts. Thread-safe; asyncio is imported on use.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._pumps: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Pump] = (
            weakref.WeakKeyDictionary()
        )
        self._starved: set[Pump] = set()
        self._lock = threading.RLock()  # of what follows; a signal handler may come
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        core.at_end.append(self._stop)

    def pump(self, loop: asyncio.AbstractEventLoop, channel: _native.Channel) -> Pump:
        """The one of this loop, which runs, for this channel."""
        from sbe.sdk.aio import Pump

        return Pump.of(self._core, channel, loop, self._pumps, self._starved)

    async def wait(self, call: _native.Call) -> _native.Reply:
        """Awaits a sent call. Cancelling the task cancels the call."""
        import asyncio

        if call.done():
            return call.result(0)
        loop = asyncio.get_running_loop()
        deadline = call.deadline
        if deadline is not None:
            deadline += loop.time() - time.monotonic()
        return await self.pump(loop, self._core.channel).wait(call, deadline)

    def future(self, call: _native.Call) -> Future[_native.Reply]:
        """The same as a future of concurrent.futures. Cancelling it cancels the call."""
        import asyncio
        from concurrent.futures import Future

        self._core.check_process()
        if not call.done():
            with self._lock:
                if not self._core.closed:
                    return asyncio.run_coroutine_threadsafe(self.wait(call), self.loop())
        future: Future[_native.Reply] = Future()
        error = call.exception()
        if error is None:
            future.set_result(call.result())
        else:
            future.set_exception(error)
        return future

    def loop(self) -> asyncio.AbstractEventLoop:
        """Ours, which runs until the connection is closed. Raises OutOfResources."""
        import asyncio

        with self._lock:
            if self._loop is not None:
                return self._loop
            try:
                loop = asyncio.new_event_loop()
                stopping = asyncio.Event()
                thread = threading.Thread(
                    target=_run, args=(loop, stopping), name="sbe-loop", daemon=True
                )
                thread.start()
            except (OSError, RuntimeError) as error:
                raise OutOfResources(f"the thread that waits for futures: {error}") from error
            self._loop, self._stopping, self._thread = loop, stopping, thread
            return loop

    def _stop(self) -> None:
        with self._lock:
            if self._loop is not None and self._stopping is not None:
                self._loop.call_soon_threadsafe(self._stopping.set)

    def join(self, timeout: float) -> None:
        """Waits for the thread, seconds."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)


def _run(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    import asyncio

    async def until_stopped() -> None:
        await stopping.wait()
        # The connection is closing: what is awaited here ends with that, each with its error.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others)

    try:
        loop.run_until_complete(until_stopped())
    finally:
        loop.close()
