"""Serving: Python handlers for what the remote calls, in one thread of the connection."""

from __future__ import annotations

import errno
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, cast

from sbe import _native
from sbe.errors import DaemonGone, Error, LinkClosed, OutOfResources
from sbe.serve.handlers import Handler, Payload, answer, refuse, respond

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

__all__ = ["CoroutineHandler", "Server"]

CoroutineHandler = Callable[..., Coroutine[Any, Any, Payload]]
"""A Handler as a coroutine function."""


_RETRY_S = 0.05  # after a link that could not be brought back, twice as long each time, up to
_RETRY_MAX_S = 5.0


async def _answer_awaited(request: _native.Request, name: str, handler: CoroutineHandler) -> None:
    """The same with a handler that is awaited, in a loop that goes on whatever is raised."""
    import asyncio

    try:
        result = await handler(request.payload, *request.buffers)
    except asyncio.CancelledError:  # as when the connection is closed
        request.respond(b"", -errno.ECANCELED)
        raise
    except BaseException as error:
        refuse(request, name, error)
        return
    respond(request, name, result)


class Server:
    """The handlers of a connection and the thread that runs them. Thread-safe.

    The thread keeps neither the connection nor its handlers alive while it waits.
    """

    def __init__(
        self, live_channel: Callable[[], _native.Channel], closing: threading.Event
    ) -> None:
        """`live_channel` brings the link back if it was lost; the thread ends with `closing`, which
        is set before the channel fails."""
        self._live_channel = live_channel
        # By id; those with a loop are coroutine functions.
        self._handlers: dict[int, tuple[str, Handler, asyncio.AbstractEventLoop | None]] = {}
        self._awaited: dict[_native.Request, tuple[Future[None], _native.Channel]] = {}
        self._ids: dict[str, int] = {}
        self._thread: threading.Thread | None = None
        self._closing = closing
        self._offering = threading.RLock()  # held while a service is known there and not yet here

    def add(
        self,
        name: str,
        handler: Handler | CoroutineHandler,
        offer: Callable[[], int],
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Offers a service by offer(), which returns its id; the first one starts the thread.
        A coroutine function runs in `loop`.

        A request may come before offer() has returned: it waits for its handler. Raises
        OutOfResources when there can be no thread, before anything is offered.
        """
        self._start()
        with self._offering:
            service = offer()
            self._handlers[service] = name, cast(Handler, handler), loop
            self._ids[name] = service

    def _start(self) -> None:
        if self._thread is not None:
            return
        thread = threading.Thread(
            target=_run,
            args=(weakref.ref(self), self._live_channel, self._closing),
            name="sbe-serve",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError as error:
            raise OutOfResources(f"the thread that serves: {error}") from error
        self._thread = thread

    def remove(self, name: str) -> None:
        """The handler is called no more; its service has been withdrawn before."""
        service = self._ids.pop(name, None)
        if service is not None:
            self._handlers.pop(service, None)

    def offers(self, name: str) -> bool:
        """There is a handler of that name."""
        return name in self._ids

    def answer(self, request: _native.Request, channel: _native.Channel) -> None:
        """Answers a request of the remote, with ENOENT if nothing is offered (any more).

        One that was given up, if it is awaited, is cancelled.
        """
        if request.type == _native.FRAME_CANCEL:
            self.give_up(channel, request.transaction)
            return
        found = self._handlers.get(request.service)
        if found is None:
            with self._offering:
                found = self._handlers.get(request.service)
        name, handler, loop = found or ("", None, None)
        if loop is None or handler is None or request.cancelled:
            answer(request, name, handler)
        else:
            self._begin(request, channel, name, cast(CoroutineHandler, handler), loop)

    def _begin(
        self,
        request: _native.Request,
        channel: _native.Channel,
        name: str,
        handler: CoroutineHandler,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        import asyncio

        answering = _answer_awaited(request, name, handler)
        try:
            future = asyncio.run_coroutine_threadsafe(answering, loop)
        except RuntimeError as error:  # its loop was closed
            answering.close()
            refuse(request, name, error)
            return
        self._awaited[request] = future, channel
        if self._closing.is_set():  # whoever closes may have looked before the line above
            future.cancel()

        def ended(future: Future[None]) -> None:
            self._awaited.pop(request, None)
            if future.cancelled():  # perhaps before it began
                request.respond(b"", -errno.ECANCELED)

        future.add_done_callback(ended)

    def give_up(
        self, channel: _native.Channel | None = None, transaction: int | None = None
    ) -> None:
        """Cancels all that is awaited, or what came by this channel, under this transaction."""
        for request, (future, by) in list(self._awaited.items()):
            if (channel is None or by is channel) and transaction in (None, request.transaction):
                future.cancel()

    def join(self, timeout: float) -> None:
        """Waits for the thread, seconds."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)


def _pause_s(failures: int) -> float:
    """After so many failures in a row; the first is followed by another try at once."""
    return 0.0 if failures < 2 else min(_RETRY_S * 2.0 ** min(failures, 16), _RETRY_MAX_S)


def _give_up(reference: weakref.ref[Server], channel: _native.Channel | None) -> None:
    """It was lost: who asked by it is gone."""
    server = reference()
    if server is not None and channel is not None:
        server.give_up(channel)


def _next_channel(
    reference: weakref.ref[Server],
    live_channel: Callable[[], _native.Channel],
    before: _native.Channel | None,
) -> _native.Channel:
    """The live one. Another than before: that was lost, and brought back before we looked."""
    channel = live_channel()
    if channel is not before:
        _give_up(reference, before)
    return channel


def _run(
    reference: weakref.ref[Server],
    live_channel: Callable[[], _native.Channel],
    closing: threading.Event,
) -> None:
    failures = 0
    channel: _native.Channel | None = None
    while not closing.is_set():
        try:
            channel = _next_channel(reference, live_channel, channel)
            request = channel.next_request()
        except (LinkClosed, DaemonGone):
            return
        except Exception as error:  # no descriptor left, for example: it may go better later
            _give_up(reference, channel)
            channel = None
            failures += 1
            if failures > 1:
                import logging

                strange = None if isinstance(error, Error) else error
                # Its words: a record that is kept would keep the error's frames, and channels.
                logging.getLogger(__name__).warning(
                    "nothing is served: %s", str(error), exc_info=strange
                )
            closing.wait(_pause_s(failures))
            continue
        failures = 0
        server = reference()
        if request is not None and server is not None:
            server.answer(request, channel)
        del server, request
