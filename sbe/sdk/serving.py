"""Serving: Python handlers for what the remote calls, in one thread of the connection."""

from __future__ import annotations

import errno
import threading
import weakref
from collections.abc import Callable

from sbe import _native
from sbe.errors import DaemonGone, Error, LinkClosed, MessageTooLarge, OutOfResources
from sbe.sdk.handlers import answer_code, report

__all__ = ["Handler", "Server", "answer"]

Handler = Callable[..., "bytes | bytearray | memoryview | None"]
"""handler(payload: bytes, *buffers: memoryview) -> payload of the reply, or None for none."""

_RETRY_S = 0.05  # after a link that could not be brought back, twice as long each time, up to
_RETRY_MAX_S = 5.0


def answer(request: _native.Request, name: str, handler: Handler | None) -> None:
    """Runs a handler and answers with what it returns or raises, whatever that is.

    The thread is ours, so not even SystemExit ends it. What is no answer of the service but a
    mistake of the application is logged; an `sbe.Error` is an answer.
    """
    if handler is None:
        request.respond(b"", -errno.ENOENT)
        return
    if request.cancelled:
        request.respond(b"", -errno.ECANCELED)
        return
    try:
        result = handler(request.payload, *request.buffers)
    except BaseException as error:
        if not isinstance(error, Error):
            report(f"the handler of service {name!r} failed", error)
        request.respond(b"", -answer_code(error))
        return
    try:
        request.respond(b"" if result is None else result)
    except BaseException as error:
        report(f"what the handler of service {name!r} returned can't be sent", error)
        too_large = isinstance(error, MessageTooLarge)
        request.respond(b"", -(errno.ENOSPC if too_large else errno.EIO))


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
        self._handlers: dict[int, tuple[str, Handler]] = {}
        self._ids: dict[str, int] = {}
        self._thread: threading.Thread | None = None
        self._closing = closing
        self._offering = threading.RLock()  # held while a service is known there and not yet here

    def add(self, name: str, handler: Handler, offer: Callable[[], int]) -> None:
        """Offers a service by offer(), which returns its id; the first one starts the thread.

        A request may come before offer() has returned: it waits for its handler. Raises
        OutOfResources when there can be no thread, before anything is offered.
        """
        self._start()
        with self._offering:
            service = offer()
            self._handlers[service] = name, handler
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

    def answer(self, request: _native.Request) -> None:
        """Answers a request of the remote, with ENOENT if nothing is offered (any more)."""
        found = self._handlers.get(request.service)
        if found is None:
            with self._offering:
                found = self._handlers.get(request.service)
        answer(request, *(found or ("", None)))

    def join(self, timeout: float) -> None:
        """Waits for the thread, seconds."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)


def _pause_s(failures: int) -> float:
    """After so many failures in a row; the first is followed by another try at once."""
    return 0.0 if failures < 2 else min(_RETRY_S * 2.0 ** min(failures, 16), _RETRY_MAX_S)


def _run(
    reference: weakref.ref[Server],
    live_channel: Callable[[], _native.Channel],
    closing: threading.Event,
) -> None:
    failures = 0
    while not closing.is_set():
        try:
            channel = live_channel()
            request = channel.next_request()
        except (LinkClosed, DaemonGone):
            return
        except Exception as error:  # no descriptor left, for example: it may go better later
            failures += 1
            if failures > 1:
                import logging

                strange = None if isinstance(error, Error) else error
                logging.getLogger(__name__).warning(
                    "nothing is served: %s", error, exc_info=strange
                )
            closing.wait(_pause_s(failures))
            continue
        failures = 0
        server = reference()
        if request is not None and server is not None:
            server.answer(request)
        del server, request, channel
