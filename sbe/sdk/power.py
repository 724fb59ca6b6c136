"""What a remote asks about power, decided by a function of the application."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from sbe.errors import Error, OutOfResources
from sbe.host.descriptors import close_all
from sbe.sdk.handlers import answer_code, report

if TYPE_CHECKING:
    from sbe.link.power import Answer, PowerRequest
    from sbe.sdk.connection import Connection

__all__ = ["PowerHandler", "PowerListener"]

PowerHandler = Callable[[str, int], object]
"""handler("suspend", "resume" or "frequency", kHz); returns when it is done, or raises."""


class PowerListener:
    """A handler and the thread that runs it. Thread-safe.

    The thread takes control messages too, for nobody else may be waiting for any. It does not keep
    the connection alive.
    """

    def __init__(self, connection: weakref.ref[Connection], handler: PowerHandler) -> None:
        self._connection = connection
        self._handler = handler
        self._wanted: deque[tuple[PowerRequest, int, Answer]] = deque()
        self._closing = False
        try:
            self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError as error:
            raise OutOfResources(f"the handler of power: {error.strerror}") from error
        self._lock = threading.RLock()  # of the bell's life; a signal handler may come
        self._thread: threading.Thread | None = None

    def start(self, control_fd: int) -> None:
        """Starts the thread; `control_fd` is readable when control messages have come.

        Raises OutOfResources when there can be none.
        """
        fd = -1
        try:
            fd = os.dup(control_fd)  # the connection may close its own at any time
            thread = threading.Thread(target=self._run, args=(fd,), name="sbe-power", daemon=True)
            thread.start()
        except BaseException as error:
            close_all((fd,))
            if isinstance(error, (OSError, RuntimeError)):
                raise OutOfResources(f"the thread for the handler of power: {error}") from error
            raise
        self._thread = thread

    def heard(self, request: PowerRequest, khz: int, answer: Answer) -> None:
        """The remote asks: called by the link, with the connection's lock held."""
        self._wanted.append((request, khz, answer))
        self._ring()

    def close(self) -> None:
        """The thread ends."""
        self._closing = True
        self._ring()
        if self._thread is None:
            self._end()

    def join(self, timeout: float) -> None:
        """Waits for it, seconds."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _ring(self) -> None:
        with self._lock:
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    def _run(self, control_fd: int) -> None:
        try:
            poll = select.poll()
            poll.register(control_fd, select.POLLIN)
            poll.register(self._bell, select.POLLIN)
            while not self._closing:
                ready = {fd for fd, _ in poll.poll()}
                if self._bell in ready:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(self._bell)
                connection = self._connection()
                if connection is None:
                    return
                if control_fd in ready:
                    connection._process_control()
                while self._wanted and not self._closing:
                    self._decide(connection, *self._wanted.popleft())
                del connection
        finally:
            os.close(control_fd)
            self._end()

    def _end(self) -> None:
        with self._lock:
            bell, self._bell = self._bell, -1
        if bell >= 0:
            os.close(bell)

    def _decide(
        self, connection: Connection, request: PowerRequest, khz: int, answer: Answer
    ) -> None:
        code = 0
        try:
            self._handler(request.word, khz)
        except BaseException as error:  # the thread is ours: it goes on
            code = answer_code(error)
            if not isinstance(error, Error):
                report(f"the handler of power failed at {request.word!r}", error)
        with connection._turn.operation():
            if not connection.closed:
                answer(code)
