"""Serving: Python handlers for what the remote calls, in one thread of the connection."""

from __future__ import annotations

import errno
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from sbe import _native
from sbe.errors import DaemonGone, Error, LinkClosed

if TYPE_CHECKING:
    from sbe.sdk.connection import Connection

__all__ = ["Handler", "Server", "answer"]

Handler = Callable[..., "bytes | bytearray | memoryview | None"]
"""handler(payload: bytes, *buffers: memoryview) -> payload of the reply, or None for none."""

_RETRY_S = 0.05  # after a link that could not be brought back, twice as long each time, up to
_RETRY_MAX_S = 5.0


def answer(request: _native.Request, handler: Handler | None) -> None:
    """Runs a handler and answers with what it returns or raises."""
    if handler is None:
        request.respond(b"", -errno.ENOENT)
        return
    if request.cancelled:
        request.respond(b"", -errno.ECANCELED)
        return
    try:
        result = handler(request.payload, *request.buffers)
        request.respond(b"" if result is None else result)
    except Error as error:
        request.respond(b"", -error.code)
    except Exception as error:
        import logging  # only when there is something to say

        logging.getLogger(__name__).exception("handler of service %d failed", request.service)
        code = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
        request.respond(b"", -code)


class Server:
    """The handlers of a connection and the thread that runs them. Thread-safe.

    The thread keeps neither the connection nor its handlers alive while it waits.
    """

    def __init__(self, connection: weakref.ref[Connection]) -> None:
        self._connection = connection
        self._handlers: dict[int, Handler] = {}
        self._ids: dict[str, int] = {}
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def add(self, name: str, service: int, handler: Handler) -> None:
        """Handler of a service and its id; the first one starts the thread."""
        self._handlers[service] = handler
        self._ids[name] = service
        if self._thread is None:
            self._thread = threading.Thread(
                target=_run, args=(self._connection, self._closing), name="sbe-serve", daemon=True
            )
            self._thread.start()

    def remove(self, name: str) -> None:
        """The handler is called no more."""
        service = self._ids.pop(name, None)
        if service is not None:
            self._handlers.pop(service, None)

    def offers(self, name: str) -> bool:
        """There is a handler of that name."""
        return name in self._ids

    def handler(self, service: int) -> Handler | None:
        """The handler of a service id, None if there is none (any more)."""
        return self._handlers.get(service)

    def close(self) -> None:
        """The thread ends when the connection's channel does."""
        self._closing.set()

    def join(self, timeout: float) -> None:
        """Waits for the thread, seconds."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)


def _run(reference: weakref.ref[Connection], closing: threading.Event) -> None:
    failures = 0
    while not closing.is_set():
        connection = reference()
        if connection is None:
            return
        try:
            # Brings the link back if it was lost.
            channel = connection._live_channel()
            del connection
            request = channel.next_request()
        except (LinkClosed, DaemonGone):
            return
        except Error as error:
            connection = None
            failures += 1
            if failures > 1:
                import logging

                logging.getLogger(__name__).warning("nothing is served: %s", error)
            closing.wait(min(_RETRY_S * 2**failures, _RETRY_MAX_S) if failures > 1 else 0)
            continue
        failures = 0
        connection = reference()
        if request is not None:
            answer(request, connection._server.handler(request.service) if connection else None)
        del connection, request, channel
