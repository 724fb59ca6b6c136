"""A link's lower half: one session over one transport after the other."""

from __future__ import annotations

import enum
import errno
import logging
import os
import secrets
import select
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Self, TypeAlias, TypeVar

from sbe import _native, errors
from sbe.host.waiting import wait_ready
from sbe.link.pending import Pending
from sbe.link.power import OnPower, Power, PowerRequest
from sbe.transports import Transport

__all__ = ["Finish", "HostSession", "Reply", "Services", "State"]

T = TypeVar("T")
Reply: TypeAlias = tuple[int, int, str] | tuple[int] | None
Finish: TypeAlias = Callable[[int, Reply], None]
Services: TypeAlias = Callable[[int, str | None, int], tuple[int, int, str] | None]

_log = logging.getLogger("sbe.link")

_TURN = 64  # messages of one process(): a remote that never stops talking must not stop this end
_NEGOTIATION = "the negotiation with the remote"


class State(enum.IntEnum):
    """Where a link stands; see docs/spec/control.md."""

    INITIALISING = _native.SESSION_INITIALISING
    WAITING = _native.SESSION_WAITING
    INITIALISED = _native.SESSION_INITIALISED
    CONNECTED = _native.SESSION_CONNECTED
    CLOSING = _native.SESSION_CLOSING
    CLOSED = _native.SESSION_CLOSED


class _Handler:
    """What the session asks and tells. It notes what happened; the link acts on it afterwards."""

    def __init__(self, link: HostSession, services: Services | None) -> None:
        self.transport: Transport | None = None
        self.fds: Sequence[int] = ()  # that go with the next message
        self.happened: deque[Callable[[], None]] = deque()
        self._link = link
        self._services = services

    def send(self, message: bytes) -> None:
        fds, self.fds = self.fds, ()
        if self.transport is None:
            raise errors.LinkError("the remote is not connected")
        self.transport.send(message, fds)

    def area_attach(self, area: int, context: int, *_: object) -> None:
        raise errors.PermissionDenied("this host takes no areas of a remote")

    def area_detach(self, area: int) -> None:
        raise AssertionError("no area was ever attached")

    def channel_open(self, *_: int) -> None:
        raise errors.PermissionDenied("channels are opened by the host")

    def channel_close(self, channel: int) -> None:
        raise AssertionError("no channel was ever opened")

    def service(self, context: int, name: str | None, index: int) -> tuple[int, int, str] | None:
        return self._services(context, name, index) if self._services else None

    def state_changed(self, state: int) -> None:
        self.happened.append(partial(self._link._session_state, State(state)))

    def refused(self, why: int, theirs: bool, peer_min: int, peer_max: int) -> None:
        self.happened.append(partial(self._link._session_refused, why, theirs, peer_min, peer_max))

    def replied(self, token: Finish, status: int, reply: Reply) -> None:
        self.happened.append(partial(token, status, reply))

    def event(self, event: int, value: int) -> None:
        self.happened.append(partial(self._link._session_event, event, value))


class HostSession:
    """What Link is built on: negotiation, waiting, loss. See Link for thread and blocking rules.

    A subclass registers what it has with each new remote (`_register()`, which ends in
    `_registered()`) and notes that a remote is gone (`_forget_remote()`).
    """

    def __init__(
        self,
        connect: Callable[[], Transport],
        *,
        name: str = "sbe host",
        coherent: bool = True,
        address_bits: int = 64,
        cache_line: int = 64,
        version_min: int = _native.VERSION_MIN,
        version_max: int = _native.VERSION_MAX,
        areas: int = 1024,
        contexts: int = 256,
        channels: int = 256,
        slots: int = 4096,
        slot_size: int = _native.SLOT_SIZE_MAX,
        pending: int = 1024,
        services: Services | None = None,
        on_state: Callable[[State], object] | None = None,
        on_event: Callable[[int, int], object] | None = None,
        on_power: OnPower | None = None,
    ) -> None:
        self._prepare()
        self._connect = connect
        self._on_state, self._on_event = on_state, on_event
        self._power = Power(self._send_event, on_power)
        self._handler = _Handler(self, services)
        self._session = _native.Session(
            self._handler,
            role=_native.ROLE_HOST,
            name=name,
            coherent=coherent,
            address_bits=address_bits,
            cache_line=cache_line,
            version_min=version_min,
            version_max=version_max,
            areas=areas,
            contexts=contexts,
            channels=channels,
            slots=slots,
            slot_size=slot_size,
            pending=pending,
        )
        self._versions = (version_min, version_max)
        with errors.resources("making the descriptor that says when the link has news"):
            self._epoll = select.epoll()
        self._watched = (-1, 0)  # descriptor and events
        self._beside: dict[int, Callable[[], object]] = {}
        self._reason = "the link was not started"
        self._ready: Pending[None] = Pending(_NEGOTIATION)
        self._ready.fail(errors.LinkError(self._reason))
        self._refusal: str | None = None
        self._blame: str | None = None
        self._up = self._settling = self._closing = self._closed = False
        self._owner = os.getpid()
        self.bad_messages = 0
        """Messages of the remote that were not whole or broke the protocol's rules."""

    # -- life ----------------------------------------------------------------------------------

    def start(self) -> Pending[None]:
        """Opens a transport, a new one if there was one, and negotiates under a fresh epoch.

        Ends when the remote is connected and every live context and area is registered with it,
        under the same ids. Channels are not: their owners open new ones. Raises LinkClosed, and
        what `connect` raises; the link can be started again then.
        """
        if self._closed or self._closing:
            raise errors.LinkClosed("the link is closed")
        self._lose("the link was started again")
        if self._handler.transport is not None:
            return self._ready  # a callback on the loss was quicker
        self._refusal = None
        ready = self._ready = Pending(_NEGOTIATION)
        try:
            self._handler.transport = self._connect()
        except Exception as error:
            self._reason = str(error)
            ready.fail(error if isinstance(error, errors.Error) else errors.LinkError(self._reason))
            raise
        self._reason = "the negotiation has not ended"
        self._blame = None
        epoch = self._session.epoch
        while epoch in (0, self._session.epoch):
            epoch = secrets.randbits(32)
        try:
            self._talk(partial(self._session.start, epoch))
        except errors.Error as error:
            self._lose(str(error))  # which ends the negotiation: the same whenever it dies
        return ready

    def reconnect(self, timeout_s: float = 5.0) -> None:
        """Starts again and waits until all is registered. Raises as `start()` and `wait()`."""
        self.wait(self.start(), timeout_s)

    def abandon(self, why: str) -> None:
        """Gives up a remote that can't be relied on, as if it had gone; `start()` begins anew."""
        self._lose(why)

    def expect_loss(self, why: str | None) -> None:
        """Somebody ends the remote: `why` goes before what is noticed of that, in `reason`. None:
        not after all.
        """
        self._blame = why

    def close(self, timeout_s: float = 0.5) -> None:
        """Says goodbye, waits for the answer at most this long, lets go of everything.

        Operations under way end with LinkClosed, except that unmapping and destroying succeed.
        Closing twice is fine. In a forked child it closes descriptors and tells nobody.
        """
        if self._closed or self._closing:
            return
        self._closing = True
        if os.getpid() != self._owner:
            self._let_go_in_child()
            return
        try:
            self._say_goodbye(timeout_s)
        finally:  # also when whoever closes is interrupted
            self._lose("the link was closed")
            self._closed, self._up = True, False
            self._let_go()
            self._epoll.close()
            self._tell(self._on_state, State.CLOSED)

    def _say_goodbye(self, timeout_s: float) -> None:
        if self._session.state != State.CONNECTED:
            return
        bye: Pending[None] = Pending("the goodbye to the remote")
        try:
            self._talk(partial(self._session.bye, lambda *_: bye.resolve(None)))
            self.wait(bye, timeout_s)
        except errors.Error as error:
            _log.debug("no orderly goodbye: %s", error)

    def _let_go_in_child(self) -> None:
        self._epoll.close()  # first: what it watches is watched for the parent as well
        transport, self._handler.transport = self._handler.transport, None
        if transport is not None:
            transport.close()
        self._closed, self._up = True, False
        self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- waiting -------------------------------------------------------------------------------

    def fileno(self) -> int:
        """Returns a descriptor that is readable when `process()` has something to do.

        It stays the same through reconnections, until `close()`; then it is -1.
        """
        return -1 if self._epoll.closed else self._epoll.fileno()

    @property
    def wants_write(self) -> bool:
        """Messages are queued. `fileno()` minds that too; this is for the curious."""
        transport = self._handler.transport
        return transport is not None and transport.wants_write

    def flush(self) -> None:
        """Sends what is queued, as far as the remote takes it."""
        transport = self._handler.transport
        try:
            if transport is not None:
                with errors.resources("sending to the remote"):
                    transport.flush()
        except errors.Error as error:
            self._lose(str(error))
        self._settle()

    def process(self) -> None:
        """Takes what the remote has sent, some messages at most. Never blocks.

        At the end of the connection everything under way ends with RemoteRestarted, contexts and
        areas wait for `start()` or `reconnect()`, and `on_state` is told WAITING.
        """
        for take in list(self._beside.values()):
            take()
        self.flush()
        transport = self._handler.transport
        for _ in range(_TURN):
            if transport is None or transport is not self._handler.transport:
                break
            try:
                more = self._receive(transport)
            except errors.Error as error:
                self._lose(str(error))
                break
            self._settle()
            if not more:
                break

    def watch_beside(self, fd: int, take: Callable[[], object] | None) -> None:
        """Has take() called by `process()`, also when `fd` is readable; None: no more.

        It may not block nor raise.
        """
        if take is not None:
            self._epoll.register(fd, select.EPOLLIN)
            self._beside[fd] = take
        elif self._beside.pop(fd, None) is not None and not self._epoll.closed:
            self._epoll.unregister(fd)

    def wait(
        self,
        pending: Pending[T],
        timeout_s: float | None,
        midway: Callable[[], object] | None = None,
    ) -> T:
        """Processes until `pending` ends and returns its result. None waits for ever.

        `midway()` is called when half of the time is over. Raises its error, or Timeout, which
        leaves it under way. Not to be called by a callback of this link.
        """
        if self._settling and not pending.done:
            raise errors.BadArgument(f"a callback of the link can't wait for {pending.operation}")
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        half = 0.0 if timeout_s is None or midway is None else timeout_s / 2
        while True:
            if not pending.done:
                self.process()
            if pending.done:
                return pending.result()
            if self._handler.transport is None:
                raise errors.LinkError(f"{pending.operation}: {self._reason}")
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise errors.Timeout(
                    f"{pending.operation}: the remote has not answered within {timeout_s:.2g} s"
                )
            if left is not None and midway is not None and left <= half:
                midway()
                midway, half = None, 0.0
            if left is not None:
                left -= half
            wait_ready(self._epoll.poll, left)  # the rest of an operation is not interrupted

    # -- power ---------------------------------------------------------------------------------

    def request_power(self, request: PowerRequest, khz: int = 0) -> Pending[None]:
        """Asks the remote to suspend, to resume, or for a frequency (0 kHz: as it likes).

        Ends with what the remote answers: nothing, or an error of the errno that it gives; `Error`
        with code EOPNOTSUPP where it can't. Raises Busy when it answers none of these.
        """
        self._check_up()
        if not 0 <= khz <= 0xFFFFFFFF:
            raise errors.BadArgument(f"a frequency of {khz} kHz")
        return self._power.ask(request, khz)

    @property
    def suspended(self) -> bool:
        """The remote has been suspended by this end: it takes no calls until it is resumed."""
        return self._power.suspended

    @property
    def on_power(self) -> OnPower | None:
        """Who is told what the remote asks; without anybody it is answered ENOTSUP."""
        return self._power.on_power

    @on_power.setter
    def on_power(self, on_power: OnPower | None) -> None:
        self._power.on_power = on_power

    def _send_event(self, event: int, value: int) -> None:
        self._talk(partial(self._session.send_event, event, value))

    # -- what there is -------------------------------------------------------------------------

    @property
    def reason(self) -> str:
        """Why it is not connected, or how the last connection ended, in words."""
        return self._reason

    @property
    def state(self) -> State:
        """CONNECTED means negotiated and everything registered: operations are accepted."""
        if self._closed:
            return State.CLOSED
        state = State(self._session.state)
        return State.INITIALISED if state is State.CONNECTED and not self._up else state

    @property
    def connected(self) -> bool:
        """Operations are accepted."""
        return self._up

    @property
    def ready(self) -> Pending[None]:
        """The negotiation with the remote that is there now; failed when there is none."""
        return self._ready

    @property
    def epoch(self) -> int:
        """This end's epoch, 0 before the first start."""
        return self._session.epoch

    @property
    def peer_epoch(self) -> int:
        """The remote's epoch, 0 when there is none."""
        return self._session.peer_epoch

    @property
    def peer_name(self) -> str:
        """What the remote last called itself."""
        return self._session.peer_name

    @property
    def peer_limits(self) -> dict[str, int]:
        """What the remote last said it can hold, by name."""
        return self._session.peer_limits

    @property
    def limits(self) -> dict[str, int]:
        """The agreed limits, the smaller of both ends', by name."""
        return self._session.limits

    @property
    def version(self) -> int:
        """The agreed version of the protocol."""
        return self._session.version

    @property
    def line(self) -> int:
        """The agreed cache line, the larger of both ends', bytes."""
        return self._session.line

    @property
    def coherent(self) -> bool:
        """Both ends see areas cache-coherently."""
        return self._session.coherent

    # -- for the subclass ----------------------------------------------------------------------

    def _prepare(self) -> None:
        """Initialises before anything else; a constructor would repeat the one here."""

    def _register(self) -> None:
        """Registers everything with the remote that has just agreed, then calls `_registered()`."""
        self._registered()

    def _forget_remote(self) -> None:
        """Notes that the remote holds nothing of ours any more, whatever comes back."""

    def _let_go(self) -> None:
        """Frees everything: the link is closed."""

    def _registered(self) -> None:
        self._up = True
        self._reason = "the remote restarted"  # what ends calls unless something else is noticed
        self._tell(self._on_state, State.CONNECTED)
        self._ready.resolve(None)

    def _check_up(self) -> None:
        if self._closed or self._closing:
            raise errors.LinkClosed("the link is closed")
        if self._refusal is not None:
            raise errors.ProtocolError(self._refusal)
        if not self._up:
            raise errors.LinkError(f"the remote is not connected: {self._reason}")

    def _failed(self, operation: str, status: int) -> errors.Error:
        if status == -errno.ECONNRESET:
            kind = errors.LinkClosed if self._closing else errors.RemoteRestarted
            return kind(f"{operation}: {self._reason}")
        return errors.from_status(status, f"the remote refused {operation}")

    def _talk(self, action: Callable[[], None], fds: Sequence[int] = ()) -> None:
        """Lets the session send. A transport that fails ends the connection: RemoteRestarted."""
        self._handler.fds = fds
        try:
            action()
        except errors.LinkError as error:
            self._lose(str(error))
            raise errors.RemoteRestarted(str(error)) from error
        finally:
            self._handler.fds = ()
            self._settle()

    def _talk_or_gone(self, request: Callable[[], None], finish: Finish) -> None:
        """Asks the remote to let go of something. One that is gone has."""
        try:
            self._talk(request)
        except BaseException as error:
            if self._handler.transport is not None or not isinstance(error, errors.Error):
                finish(-errno.EAGAIN, None)
                raise
            finish(-errno.ECONNRESET, None)

    def _lose(self, reason: str) -> None:
        transport, self._handler.transport = self._handler.transport, None
        if transport is None:
            return
        if self._blame not in (None, reason):
            reason = f"{self._blame}; {reason}"
        self._reason = reason
        self._watch(None)
        transport.close()
        self._session.lost()
        kind = errors.LinkClosed if self._closing else errors.RemoteRestarted
        self._handler.happened.append(partial(self._not_ready, self._ready, kind(reason)))
        self._settle()

    # -- the session's word --------------------------------------------------------------------

    def _session_state(self, state: State) -> None:
        if state is State.CONNECTED:
            self._register()
            return
        if state in (State.WAITING, State.CLOSED):
            self._up = False
            self._forget_remote()
            if state is State.CLOSED and not self._closing:
                self._reason = "the remote said goodbye"
                self._not_ready(self._ready, errors.LinkError(self._reason))
            elif self._handler.transport is not None and self._ready.done and not self._refusal:
                self._reason = "the remote restarted"
                self._ready = Pending(_NEGOTIATION)  # the remote restarted behind the transport
            self._power.lost(self._failed("the request", -errno.ECONNRESET))
        if not self._closing:
            self._tell(self._on_state, state)

    def _session_refused(self, why: int, theirs: bool, peer_min: int, peer_max: int) -> None:
        if self._refusal is not None:
            return  # each end refuses the other: the first word is as good as the second
        ours = f"{self._versions[0]} to {self._versions[1]}"
        sentences = {
            _native.REFUSED_MAGIC: "the other end does not speak this protocol (wrong magic)",
            _native.REFUSED_VERSION: f"remote speaks protocol versions {peer_min} to {peer_max}, "
            f"this host {ours}: update the older end",
            _native.REFUSED_ROLE: "the other end is a host as well: link a host with a remote",
            _native.REFUSED_LIMITS: "the remote can't work with this host's limits"
            if theirs
            else "the remote's limits (areas, channels, slots, cache line) make no sense",
        }
        self._refusal = self._reason = sentences[why]
        self._not_ready(self._ready, errors.ProtocolError(self._refusal))

    def _session_event(self, event: int, value: int) -> None:
        ours = self._power.take(event, value)
        if ours is None:
            self._tell(self._on_event, event, value)
        elif not ours:
            self.bad_messages += 1

    # -- inside --------------------------------------------------------------------------------

    def _not_ready(self, ready: Pending[None], error: errors.Error) -> None:
        if ready.done and ready is self._ready:
            ready = self._ready = Pending(_NEGOTIATION)
        ready.fail(error)

    def _receive(self, transport: Transport) -> bool:
        """Takes one message. False: there was none. Raises when the connection is of no use.

        One that was half received is lost, and with it the order of all: that it could not be taken
        ends the connection, for an event loop would ask for it again and again.
        """
        try:
            with errors.resources("receiving from the remote"):
                got = transport.receive()
        except errors.ProtocolError as error:
            _log.warning("%s", error)
            self.bad_messages += 1
            return True
        if got is None:
            return False
        message, fds = got
        try:
            if self._session.receive(message, len(fds)) == -errno.EBADMSG:
                self.bad_messages += 1
        except errors.Error:
            raise  # an answer could not be sent
        except Exception:
            _log.exception("the services of this host could not be asked")
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _settle(self) -> None:
        """Acts on what the session told, callbacks included; nested calls leave it to the outer."""
        if self._settling:
            return
        self._settling = True
        try:
            while self._handler.happened:
                self._handler.happened.popleft()()
        finally:
            self._settling = False
        self._watch(self._handler.transport)

    def _watch(self, transport: Transport | None) -> None:
        if self._epoll.closed:
            return
        fd, events = -1, 0
        if transport is not None:
            fd = transport.fileno()
            events = select.EPOLLIN | (select.EPOLLOUT if transport.wants_write else 0)
        if (fd, events) == self._watched:
            return
        watched, self._watched = self._watched[0], (-1, 0)
        try:
            if fd == watched:
                self._epoll.modify(fd, events)
            else:
                if watched >= 0:
                    self._epoll.unregister(watched)
                if fd >= 0:
                    self._epoll.register(fd, events)
        except OSError as error:  # nobody would hear of the remote, not even of its end
            self._lose(f"its connection can't be watched: {error.strerror}")
            return
        self._watched = (fd, events)

    @staticmethod
    def _tell(callback: Callable[..., object] | None, *arguments: object) -> None:
        try:
            if callback is not None:
                callback(*arguments)
        except Exception:
            _log.exception("a callback of the link failed")
