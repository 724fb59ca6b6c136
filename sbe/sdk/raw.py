"""Raw: an endpoint of firmware that does not know this protocol, and what is in flight on it."""

from __future__ import annotations

import contextlib
import logging
import math
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, NoReturn

from sbe import _native
from sbe.errors import (
    BadArgument,
    Busy,
    Cancelled,
    Error,
    LinkClosed,
    LinkError,
    RemoteRestarted,
    Timeout,
    WouldBlock,
    fresh_copy,
    from_status,
    resources,
)
from sbe.link.fixups import Fixup, check
from sbe.link.raw import ANSWER, IN_FLIGHT_MAX, RawBuffer, RawMessage
from sbe.sdk.area import Area
from sbe.sdk.core import Core
from sbe.sdk.ownership import not_copied
from sbe.sdk.raw_formats import ById, InOrder, Predicate, wire_match
from sbe.sdk.timeouts import DEFAULT_TIMEOUT_S, ends_at, in_thread, time_left

__all__ = ["Raw", "RawCall"]

_log = logging.getLogger(__name__)

_MESSAGE_MAX = 1 << 16
_UNMATCHED_MAX = 64
_TURN = 64  # messages taken at a time
_SETTLE_S = 1.0  # for the link to hear of an answer that came in time
_RETRY_S = 0.001  # rpmsg does not say when there is room again
_LOOK_S = 1e6  # at a time: poll() waits for no more than 24 days
_U32_MAX = 0xFFFFFFFF


class RawCall:
    """A message in flight. Any thread may wait for its answer."""

    def __init__(
        self, raw: Raw, number: int, sent: bytes, slices: list[_native.Slice], until: float
    ) -> None:
        self._raw, self._number, self._sent, self._until = raw, number, sent, until
        self._slices = slices  # they keep the areas
        self._asked = False  # the link was: it may have been sent
        self._answer: bytes | None = None
        self._error: BaseException | None = None

    def done(self) -> bool:
        """It has ended, well or not."""
        return self._answer is not None or self._error is not None

    def result(self, timeout: float | None = None) -> bytes:
        """Waits for the answer and returns its bytes; raises what went wrong.

        `timeout` in seconds bounds this wait, and leaves the call in flight.
        """
        self._raw._wait(self, ends_at(timeout))
        if self._error is not None:
            raise fresh_copy(self._error)
        assert self._answer is not None
        return self._answer

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Waits as `result()` does, and returns what went wrong, or None."""
        self._raw._wait(self, ends_at(timeout))
        return None if self._error is None else fresh_copy(self._error)

    def __reduce__(self) -> NoReturn:
        not_copied(self)

    def cancel(self) -> bool:
        """Gives it up; its buffers stay held until the firmware answers. False if ended."""
        return self._raw._give_up(self, Cancelled("the call was cancelled by this end"))


class Raw:
    """An endpoint of firmware that has messages of its own: `Connection.raw()`. Any thread may use
    it at any time; calls of several threads are in flight together, at most 64.

    A call that has ended early, by its deadline or `cancel()`, keeps its buffers until the answer
    comes or the firmware is gone: `Area.free()` raises Busy. When the firmware stops, everything in
    flight ends with RemoteRestarted, and another endpoint has to be opened.
    """

    def __init__(self, core: Core, endpoint: str, match: ById | InOrder | Predicate | None) -> None:
        """Opens it; applications use `Connection.raw()`."""
        if not isinstance(endpoint, str):
            raise TypeError(f"endpoint: a name, not {endpoint!r:.80}")
        self._core, self.endpoint = core, endpoint
        self._match = wire_match(match)
        self._predicate = match if callable(match) else None
        self._answered = match is not None
        self._news = threading.Condition()  # of what follows
        self._open: dict[int, RawCall] = {}  # in the order in which they were sent
        self._unmatched: deque[bytes] = deque(maxlen=_UNMATCHED_MAX)
        self._came: deque[bytes] = deque()  # what the predicate was not asked about
        self._found: deque[tuple[RawCall, bytes]] = deque()  # by the predicate, at the link not yet
        self._failed = False
        self._last = 0
        self._looking = False  # a thread does, for all
        self._told = 0  # how often all who wait were to look again
        self._closed: Error | None = None
        core.process_control()  # a loss that is not noticed yet would end it too
        for other in list(core.raws):
            if isinstance(other, Raw) and other._closed is not None:
                other._refresh()  # if it was answered meanwhile it has descriptors for nothing
        with resources("making sockets for raw messages"):
            self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        try:
            with core.control() as backend:
                self._raw, fd = backend.open_raw(endpoint, self._match)
                self._socket = socket.socket(fileno=fd)
                self._socket.setblocking(False)
        except BaseException:
            self._woken.close()
            self._waker.close()
            raise
        core.raws.add(self)

    # -- calls ------------------------------------------------------------------------------

    def call(
        self,
        template: Any,
        fixups: Sequence[Fixup] = (),
        *buffers: _native.Buffer,
        timeout: float | None = DEFAULT_TIMEOUT_S,
    ) -> bytes:
        """Sends a message and waits for its answer, whose bytes it returns.

        `template` are the bytes, in which `fixups` and the id are filled in. `buffers` are
        sbe.In(x), sbe.Out(x), sbe.InOut(x) or sbe.Shared(x), seen from the firmware, x an area, a
        slice of one or a numpy array in one. Raises BadArgument for an address that does not fit
        or memory in pieces, Timeout, RemoteRestarted and other LinkErrors, Busy.
        """
        return self.submit(template, fixups, *buffers, timeout=timeout).result()

    async def acall(
        self,
        template: Any,
        fixups: Sequence[Fixup] = (),
        *buffers: _native.Buffer,
        timeout: float | None = DEFAULT_TIMEOUT_S,
    ) -> bytes:
        """As `call()`, for asyncio: it waits in another thread. Cancelling the task gives it up."""
        until = ends_at(timeout)
        call = await in_thread(until, self._submit, template, fixups, buffers, until)
        try:
            return await in_thread(until, call.result)
        finally:
            call.cancel()  # nothing to do if it has ended

    def submit(
        self,
        template: Any,
        fixups: Sequence[Fixup] = (),
        *buffers: _native.Buffer,
        timeout: float | None = DEFAULT_TIMEOUT_S,
    ) -> RawCall:
        """As `call()`, and does not wait for the answer; the deadline counts from now."""
        if not self._answered:
            raise BadArgument("no message is an answer here: open it with a match, or send()")
        return self._submit(template, fixups, buffers, ends_at(timeout))

    def send(self, message: Any, *, timeout: float | None = DEFAULT_TIMEOUT_S) -> None:
        """Sends a message that nobody answers, so it can name no buffers.

        Raises Timeout when the firmware takes none, LinkError.
        """
        with self._news:
            if self._closed is not None:
                raise fresh_copy(self._closed)
        data = bytes(memoryview(message))
        self._send(RawCall(self, 0, data, [], ends_at(timeout)), RawMessage(0, data, (), ()))

    def receive(self, timeout: float | None = DEFAULT_TIMEOUT_S) -> bytes:
        """Waits for the next message that answers nothing; of those unread the last 64 are kept.

        Raises Timeout, LinkError.
        """
        until = ends_at(timeout)
        over = False
        while True:
            with self._news:
                told = self._told
                if self._unmatched:
                    return self._unmatched.popleft()
                if self._closed is not None:
                    raise fresh_copy(self._closed)
            if over:
                raise Timeout(f"no message on {self.endpoint!r} in time")
            self._look(until, told)
            over = time.monotonic() >= until

    def _submit(
        self,
        template: Any,
        fixups: Sequence[Fixup],
        buffers: Sequence[_native.Buffer],
        until: float,
    ) -> RawCall:
        message = bytes(memoryview(template))
        if not 0 < len(message) <= _MESSAGE_MAX:
            raise BadArgument(f"a message of {len(message)} bytes")
        slices, named = self._named(buffers)
        fixups = tuple(fixups)  # one that is an iterator would be spent on the check
        for i, fixup in enumerate(fixups):
            if not isinstance(fixup, Fixup):
                raise TypeError(f"fixup {i}: sbe.raw.AddressOf() or another, not {fixup!r:.80}")
        check(len(message), fixups, len(named), self._match.request)
        call = self._enter(message, slices, until)
        try:
            self._send(call, RawMessage(call._number, message, fixups, named))
        except BaseException as error:
            if call._asked and isinstance(error, (Timeout, KeyboardInterrupt)):
                self._give_up(call, Timeout("the message was not sent in time"))
            else:  # it was not sent
                with self._news:
                    self._open.pop(call._number, None)
            raise
        return call

    def _named(
        self, buffers: Sequence[_native.Buffer]
    ) -> tuple[list[_native.Slice], list[RawBuffer]]:
        slices, named = [], []
        for i, buffer in enumerate(buffers):
            if not isinstance(buffer, _native.Buffer):
                raise TypeError(f"buffer {i}: sbe.In(x), Out, InOut or Shared, not {buffer!r:.80}")
            place = self._core.table.locate(buffer.target)
            if place is None:
                raise BadArgument(
                    f"buffer {i} lies in no area of this connection, so it has no device address: "
                    "allocate() it"
                )
            slices.append(place)
            named.append(RawBuffer(place.area.id, place.offset, place.size, buffer.direction))
        return slices, named

    def _enter(self, message: bytes, slices: list[_native.Slice], until: float) -> RawCall:
        with self._news:
            if self._closed is not None:
                raise fresh_copy(self._closed)
        self._refresh(until)
        with self._news:
            if self._match.how == "order" and any(each.done() for each in self._open.values()):
                raise Busy(
                    "a call that has ended early is unanswered, and answers here are known by "
                    "their order: wait, or restart the remote"
                )
            if len(self._open) >= IN_FLIGHT_MAX:
                raise Busy(f"{IN_FLIGHT_MAX} messages of {self.endpoint!r} are unanswered")
            while self._last in self._open or self._last == 0:
                self._last = (self._last + 1) & _U32_MAX
            call = RawCall(self, self._last, message, slices, until)
            self._open[self._last] = call
            return call

    def _send(self, call: RawCall, message: RawMessage) -> None:
        while True:
            try:
                with self._core.control(call._until) as backend:
                    call._asked = True
                    backend.send_raw(self._raw, message)
                return
            except WouldBlock:
                if time.monotonic() >= call._until:
                    with self._news:
                        self._open.pop(call._number, None)
                    raise Timeout(f"{self.endpoint!r} has taken no message in time") from None
                time.sleep(_RETRY_S)

    # -- waiting ----------------------------------------------------------------------------

    def _wait(self, call: RawCall, until: float) -> None:
        bound = min(until, call._until)
        while True:
            told = self._told  # before the look at the call, which takes no lock
            if call.done():
                return
            self._look(bound, told)
            if call.done() or time.monotonic() < bound:
                continue  # what came need not have been its answer
            if time.monotonic() < call._until:
                raise Timeout(f"{self.endpoint!r} has not answered yet")
            self._give_up(
                call,
                Timeout(
                    f"{self.endpoint!r} had not answered at the deadline; the buffers stay held "
                    "until it does"
                ),
            )

    def _look(self, until: float, told: int) -> None:
        """Waits until something may have come, at least once, and takes it. `told`: what the caller
        has seen was so then; if all were told to look again since, it does not wait.
        """
        self._core.check_process()  # in a forked child nobody looks for us
        left = time_left(until)
        most = _LOOK_S if left is None else min(left, _LOOK_S)
        with self._looks(told) as alone:
            if alone:
                self._poll(most)
                self._drain(until)
                self._understand(until)
                return
        with self._news:
            if self._looking and self._told == told:
                self._news.wait(most)

    @contextlib.contextmanager
    def _looks(self, told: int | None = None) -> Iterator[bool]:
        """False: another thread does, or all were told to look again."""
        with self._news:
            alone = not self._looking and told in (None, self._told)
            self._looking = self._looking or alone
        try:
            yield alone
        finally:
            if alone:
                with self._news:
                    self._looking = False
                    self._tell()
                    self._forget()

    def _tell(self) -> None:
        """All who wait look again."""
        self._told += 1
        self._news.notify_all()
        if self._looking:
            with contextlib.suppress(OSError):
                self._waker.send(b"!", socket.MSG_DONTWAIT)

    def _poll(self, left: float) -> None:
        poll = select.poll()
        # Another thread may close any of them meanwhile, so each is asked for its number once.
        for fd in (self._socket.fileno(), self._woken.fileno(), self._core.backend.control_fd):
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        poll.poll(0 if self._came or self._found else math.ceil(left * 1000))
        with contextlib.suppress(OSError):
            self._woken.recv(64)

    def _refresh(self, until: float = math.inf) -> None:
        """Takes what is there, as far as one turn goes."""
        self._drain(until)
        with self._looks() as alone:
            if alone:
                self._understand(until)

    def _drain(self, until: float) -> None:
        """Takes some of what has come, also while another thread's operation of the link lasts."""
        free = False
        try:
            with self._core.turn.held(until):
                free = True
                self._core.process_control()
        except Timeout:
            if free:
                raise
        with self._news:
            for _ in range(_TURN):
                data = self._next() if len(self._came) < _UNMATCHED_MAX else None
                if data is None:
                    return
                self._sort(data)

    def _next(self) -> bytes | None:
        if self._socket.fileno() < 0:
            return None
        try:
            data = self._socket.recv(ANSWER.size + _MESSAGE_MAX)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            data = b""
        if len(data) >= ANSWER.size:
            return data
        if self._came:
            return None  # the predicate first: one of them may be an answer
        self._socket.close()
        error = self._core.channel.error or RemoteRestarted(
            f"the firmware behind {self.endpoint!r} has stopped; the call may have run or not"
        )
        self._end_all(error if isinstance(error, Error) else LinkError(str(error)))
        return None

    def _sort(self, data: bytes) -> None:
        number, status = ANSWER.unpack_from(data)
        answer = data[ANSWER.size :]
        call = self._open.get(number)
        if call is not None:
            self._end(call, answer, status)
        else:
            (self._unmatched if self._predicate is None else self._came).append(answer)
            self._tell()

    def _understand(self, until: float) -> None:
        """Asks the predicate, without a lock, about one message at least and for some at most. By
        who looks.
        """
        for _ in range(_TURN):
            if not self._settle(until):
                return
            with self._news:
                if not self._came:
                    return
                answer = self._came[0]  # it stays if whoever asks is interrupted
                calls = list(self._open.values())
            call = next((each for each in calls if self._says(each, answer)), None)
            with self._news:
                self._came.popleft()
                if call is not None and call._number in self._open:
                    self._found.append((call, answer))
                else:
                    self._unmatched.append(answer)
                    self._tell()
            if not self._settle(until) or time.monotonic() >= until:
                return

    def _settle(self, until: float) -> bool:
        """The link hears what is answered, then the call ends. False: not by then."""
        while self._found:
            call, answer = self._found[0]
            last = max(until, time.monotonic() + _SETTLE_S)
            try:
                with (
                    contextlib.suppress(LinkError),
                    self._core.turn.held(until),
                    self._core.control(last) as backend,
                ):
                    backend.settle_raw(self._raw, call._number)
            except Timeout:
                return False
            with self._news:
                self._found.popleft()
                self._end(call, answer, 0)
        return True

    def _says(self, call: RawCall, answer: bytes) -> bool:
        assert self._predicate is not None
        try:
            return bool(self._predicate(call._sent, answer))
        except Exception:
            if not self._failed:  # else who sends much fills the log
                _log.exception("the predicate of %r failed; more is not logged", self.endpoint)
            self._failed = True
            return False

    def _end(self, call: RawCall, answer: bytes, status: int) -> None:
        self._open.pop(call._number, None)
        call._slices = []
        self._tell()
        if call.done():
            return  # it was late
        if status < 0:
            call._error = from_status(status, "maintaining the caches of the answer's buffers")
        else:
            call._answer = answer

    def _give_up(self, call: RawCall, error: Error) -> bool:
        """It ends; what it names stays held."""
        with self._news:
            if call.done():
                return False
            call._error = error
            self._tell()
            return True

    # -- the end ----------------------------------------------------------------------------

    def _check_free(self, area: Area) -> None:
        """Raises Busy while the firmware may write it."""
        with self._news:
            held = [
                call
                for call in self._open.values()
                if any(each.area is area for each in call._slices)
            ]
        if held:
            raise Busy(
                f"{len(held)} messages to {self.endpoint!r} that name this area are unanswered: "
                "the firmware may still write it"
            )

    def _forget(self) -> None:
        """Nothing is expected any more."""
        if self._closed is not None and not self._open and not self._looking:
            self._core.raws.discard(self)
            for each in (self._socket, self._woken, self._waker):
                each.close()

    def _end_all(self, error: Error) -> None:
        """Everything in flight ends, and nothing of it is held any more."""
        with self._news:
            self._closed = self._closed or error
            for call in self._open.values():
                call._error = call._error or (None if call.done() else error)
            self._open.clear()
            self._tell()
            self._forget()

    def close(self) -> None:
        """Ends it: calls in flight end with LinkClosed, their buffers stay held until the firmware
        has answered. Calling twice is fine.
        """
        closed = LinkClosed(f"the endpoint {self.endpoint!r} was closed")
        with self._news:
            if self._closed is not None:
                return
            self._closed = closed
            calls = list(self._open.values())
        for call in calls:
            self._give_up(call, closed)
        with contextlib.suppress(Error), self._core.control() as backend:
            backend.close_raw(self._raw)
        with self._news:
            self._forget()

    def _let_go_in_child(self) -> None:
        """Forked, with the lock as another thread had it."""
        self._news = threading.Condition()
        for each in (self._socket, self._woken, self._waker):
            each.close()

    def __reduce__(self) -> NoReturn:
        not_copied(self)

    def __enter__(self) -> Raw:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
