"""Serving: the remote calls Linux. One thread per connection runs the handlers in turn."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sbe import _native
from sbe.errors import Error, LinkClosed, LinkError

if TYPE_CHECKING:
    from sbe.sdk.connection import Connection

__all__ = ["Handler", "Server", "answer"]

Handler = Callable[..., "bytes | bytearray | memoryview | None"]
"""handler(payload: bytes, *buffers: memoryview) -> payload of the reply, or None for none."""


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
    """The handlers of a connection and the thread that runs them. Thread-safe."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._handlers: dict[int, Handler] = {}
        self._thread: threading.Thread | None = None
        self._closing = False

    def add(self, service: int, handler: Handler) -> None:
        """Handler of a service id; the first one starts the thread."""
        self._handlers[service] = handler
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sbe-serve", daemon=True)
            self._thread.start()

    def remove(self, service: int) -> None:
        """The handler is called no more."""
        self._handlers.pop(service, None)

    def close(self) -> None:
        """The thread ends when the connection's channel does."""
        self._closing = True

    def join(self, timeout: float) -> None:
        """Waits for the thread, seconds."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._closing:
            try:
                request: Any = self._connection._live_channel().next_request()
                answer(request, self._handlers.get(request.service))
            except LinkClosed:
                return
            except LinkError as error:
                # The remote was lost: the next turn brings the link back, or raises for good.
                if self._connection.closed or not self._connection._can_recover(error):
                    return
