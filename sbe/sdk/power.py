"""What a remote asks about power, decided by a function of the application."""

from __future__ import annotations

import contextlib
import operator
import os
import select
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from sbe.errors import BadArgument, Error, OutOfResources
from sbe.host.descriptors import close_all
from sbe.sdk.core import Core
from sbe.sdk.timeouts import DEFAULT_TIMEOUT_S, seconds
from sbe.serve.handlers import answer_code, check_handler, report

if TYPE_CHECKING:
    from sbe.link.power import Answer, PowerRequest

__all__ = ["Power", "PowerHandler", "PowerListener"]

PowerHandler = Callable[[str, int], object]
"""handler("suspend", "resume" or "frequency", kHz); returns when it is done, or raises."""


class PowerListener:
    """A handler and the thread that runs it. Thread-safe.

    The thread takes control messages too, for nobody else may be waiting for any. It does not keep
    the connection alive.
    """

    def __init__(self, core: weakref.ref[Core], handler: PowerHandler) -> None:
        self._core = core
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
                core = self._core()
                if core is None:
                    return
                if control_fd in ready:
                    core.process_control()
                while self._wanted and not self._closing:
                    self._decide(core, *self._wanted.popleft())
                del core
        finally:
            os.close(control_fd)
            self._end()

    def _end(self) -> None:
        with self._lock:
            bell, self._bell = self._bell, -1
        if bell >= 0:
            os.close(bell)

    def _decide(self, core: Core, request: PowerRequest, khz: int, answer: Answer) -> None:
        code = 0
        try:
            self._handler(request.word, khz)
        except BaseException as error:  # the thread is ours: it goes on
            code = answer_code(error)
            if not isinstance(error, Error):
                report(f"the handler of power failed at {request.word!r}", error)
        with core.turn.operation():
            if not core.closed:
                answer(code)


class Power:
    """What a connection asks of the remote about power, and hears. Thread-safe."""

    _core: Core
    _power: PowerListener | None

    def suspend(self, *, timeout: float = DEFAULT_TIMEOUT_S) -> None:
        """Asks the remote to run nothing and to leave memory alone until `resume()`.

        Calls made meanwhile wait in the ring, with their deadlines. It concerns everyone who uses
        the link. A remote that restarts is not suspended any more. Streams are suspended too, or
        refuse, as `open_stream(on_suspend=)` said. Raises Busy while the remote keeps requests
        open or such a stream moves, what else its board answers, PermissionDenied from the daemon,
        and Timeout after `timeout` seconds.
        """
        self._request_power("suspend", 0, timeout)

    def resume(self, *, timeout: float = DEFAULT_TIMEOUT_S) -> None:
        """Ends `suspend()`; what waits is done at once."""
        self._request_power("resume", 0, timeout)

    def request_frequency(self, khz: int, *, timeout: float = DEFAULT_TIMEOUT_S) -> None:
        """Asks the remote to run at this frequency; 0: as it likes.

        Raises `sbe.Error` with code EOPNOTSUPP where the board can't.
        """
        self._request_power("frequency", operator.index(khz), timeout)

    def on_power(self, handler: PowerHandler | None) -> None:
        """Who decides on what the remote asks: handler("suspend", "resume" or "frequency", kHz).

        It runs in a thread of its own. Returning says that it is done, an `sbe.Error` why not.
        After "suspend" the application itself has to leave areas alone. None: the remote is told
        that nobody does this, as before the first call. BadArgument over a daemon, which has
        [link.power] for it, and for what is no plain function.
        """
        if handler is not None:
            check_handler("power", handler)
        with self._core.control() as backend:
            listener = None if handler is None else PowerListener(weakref.ref(self._core), handler)
            try:
                if listener is not None:
                    listener.start(backend.control_fd)
                backend.listen_power(None if listener is None else listener.heard)
            except BaseException:
                if listener is not None:
                    listener.close()
                raise
            if self._power is not None:
                self._core.at_end.remove(self._power.close)
                self._power.close()
            self._power = listener
            if listener is not None:
                self._core.at_end.append(listener.close)

    def _request_power(self, request: str, khz: int, timeout: float) -> None:
        if not 0 <= khz < 1 << 32:
            raise BadArgument(f"a frequency of {khz} kHz")
        seconds(timeout)
        with self._core.control() as backend:
            backend.request_power(request, khz, timeout)
