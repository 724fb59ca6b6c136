"""One life of a remote that is this process: it runs the C core in the remote's role."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import secrets
import select
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sbe import _native, errors
from sbe.errors import Error, LinkError, ProtocolError
from sbe.host import text
from sbe.host.descriptors import check_doorbells, close_all
from sbe.serve.handlers import Handler, answer, here
from sbe.serve.memory import HostMemory
from sbe.transports import Transport

__all__ = ["DEFAULT_LIMITS", "Life", "Limits"]

_log = logging.getLogger(__name__)
_NAME_MAX = 32
_TURN = 64  # requests of a channel before the others have theirs


class Limits(NamedTuple):
    """What a remote can hold, as it tells its host: areas, and buffers of a call.

    `versions` are the protocol versions that it claims to speak, the lowest and the highest.
    """

    areas: int = 1024
    buffers: int = _native.BUFFERS_MAX
    versions: tuple[int, int] = (_native.VERSION_MIN, _native.VERSION_MAX)


DEFAULT_LIMITS = Limits()


class Life:
    """Its session, areas and channels. Used by one thread, in which handlers run one at a time.

    The host is not trusted: what it sends is checked, a ring that it breaks ends that channel, and
    a descriptor or mapping that can't be had is an answer.
    """

    def __init__(
        self,
        transport: Transport,
        memory: HostMemory,
        services: Mapping[str, Handler],
        *,
        name: str,
        limits: Limits = DEFAULT_LIMITS,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        """The transport stays the caller's. Services are known by their place: only add to them."""
        self._transport = transport
        self._memory = memory
        self._services = services
        self._tell = tell
        self._table = _native.Table(limits.areas)
        self._memories: dict[int, _native.Memory] = {}
        self._channels: dict[int, _native.Channel] = {}
        self._bells: dict[int, tuple[int, int]] = {}  # that this end has made, of a channel
        self._watched: dict[int, int] = {}  # descriptors of channels in the poll
        self._fds: Sequence[int] = ()  # that came beside the message at hand
        self._unsent: Error | None = None
        self._poll = select.poll()
        self._session = _native.Session(
            self,
            role=_native.ROLE_REMOTE,
            name=name,
            areas=limits.areas,
            buffers=limits.buffers,
            version_min=limits.versions[0],
            version_max=limits.versions[1],
        )

    # -- what the session asks --------------------------------------------------------------

    def send(self, message: bytes) -> None:
        """A control message to the host. One that can't go ends the life: the host would wait."""
        try:
            self._transport.send(message)
        except Error as error:
            self._unsent = self._unsent or error
            raise

    def area_attach(
        self,
        area: int,
        context: int,
        flags: int,
        size: int,
        handles: int,
        segments: Sequence[tuple[int, int]],
    ) -> int:
        """The host registers memory."""
        memory = self._memory.open(flags, size, segments, self._fds)
        self._table.add(memory, area, context, flags)
        self._memories[area] = memory
        return memory.address

    def area_detach(self, area: int) -> None:
        """It takes it back."""
        self._table.remove(self._memories.pop(area), True)

    def channel_open(
        self,
        channel: int,
        context: int,
        ring_area: int,
        slots: int,
        slot_size: int,
        line: int,
        send_offset: int,
        receive_offset: int,
        priority: int,
        handles: int,
    ) -> None:
        """The host opens a channel; offsets are as it sees them."""
        with errors.resources(f"channel {channel}"):
            ours, theirs = self._doorbells(channel)
            try:
                end = _native.Channel(
                    self._table,
                    self._memories[ring_area],
                    channel,
                    context,
                    slots,
                    slot_size,
                    line,
                    receive_offset,
                    send_offset,
                    theirs,
                    ours,
                    max_buffers=self._session.limits["buffers"],
                )
            except BaseException:
                self._forget_doorbells(channel)
                raise
        self._channels[channel] = end
        self._watched[channel] = end.fileno()
        self._poll.register(end.fileno(), select.POLLIN)

    def _doorbells(self, channel: int) -> tuple[int, int]:
        """The one that wakes this end, and the host's."""
        if self._transport.carries_handles:
            if len(self._fds) != 2:
                raise errors.BadArgument("a channel comes with two doorbells on this link")
            check_doorbells(self._fds[0], self._fds[1])
            return self._fds[0], self._fds[1]
        made = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            pair = made, os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except BaseException:
            os.close(made)
            raise
        self._bells[channel] = pair
        try:
            self._transport.add_doorbells(channel, pair[1], pair[0])
        except BaseException:
            self._forget_doorbells(channel)
            raise
        return pair

    def _forget_doorbells(self, channel: int) -> None:
        made = self._bells.pop(channel, None)
        if made is not None:
            self._transport.remove_doorbells(channel)
            close_all(made)

    def channel_close(self, channel: int) -> None:
        """It closes one."""
        self._unwatch(channel)
        self._channels.pop(channel).fail(LinkError("the host closed the channel"))
        self._forget_doorbells(channel)

    def _unwatch(self, channel: int) -> None:
        fd = self._watched.pop(channel, None)
        if fd is not None:
            self._poll.unregister(fd)

    def service(self, context: int, name: str | None, index: int) -> tuple[int, int, str] | None:
        """It asks for a service."""
        names = list(self._services)
        if name is None:
            name = names[index] if index < len(names) else None
        if name is None or name not in self._services:
            return None
        return names.index(name) + 1, 1, name

    def state_changed(self, state: int) -> None:
        """A host has come."""
        if state == _native.SESSION_CONNECTED:
            self._tell(f"a host is here: {text.one_line(self._session.peer_name, _NAME_MAX)}")

    def refused(self, why: int, theirs: bool, peer_min: int, peer_max: int) -> None:
        """The host is told too, and says so to whoever connects."""
        self._tell(f"a host that speaks versions {peer_min} to {peer_max} is refused")

    def replied(self, token: object, status: int, reply: object) -> None:
        """This remote asks nothing."""

    def event(self, event: int, value: int) -> None:
        """It asks about power, which functions have none of."""
        if _native.EVENT_SUSPEND <= event <= _native.EVENT_FREQUENCY:
            code = event << _native.ANSWERED_SHIFT | errno.EOPNOTSUPP
            self._session.send_event(_native.EVENT_ANSWERED, code)

    # -- the loop ---------------------------------------------------------------------------

    def run(self, stop_fd: int) -> None:
        """Serves until the host is gone, or `stop_fd` is readable. Lets go of everything.

        Raises an Error which says how the link ended; nothing when it was stopped.
        """
        control_fd = -1
        here.is_remote = True
        try:
            self._poll.register(stop_fd, select.POLLIN)
            self._session.start(secrets.randbits(31) + 1)
            while True:
                control_fd = self._watch_control(control_fd)
                timeout = None if self._idle() else 0
                ready = dict(self._poll.poll(timeout))
                if any(events & select.POLLNVAL for events in ready.values()):
                    raise LinkError("something in this process has closed a descriptor of the link")
                if stop_fd in ready:
                    return
                if control_fd in ready:
                    self._take_control()
                if self._unsent is not None:
                    raise self._unsent
                self._serve()
        finally:
            here.is_remote = False
            self._unsent = None  # by its traceback it would keep this life and its memory
            for channel in list(self._channels):
                self.channel_close(channel)

    def _watch_control(self, before: int) -> int:
        """What says that the transport has something, which may change."""
        fd = self._transport.fileno()
        if before not in (-1, fd):
            self._poll.unregister(before)
        self._poll.register(
            fd, select.POLLIN | (select.POLLOUT if self._transport.wants_write else 0)
        )
        return fd

    def _idle(self) -> bool:
        """Every channel wakes us for the next request."""
        return all([channel.poll() for channel in self._living()])

    def _living(self) -> list[_native.Channel]:
        """Those whose rings are whole. One that the host has broken is looked at no more."""
        for number in list(self._watched):
            error = self._channels[number].error
            if error is not None:
                _log.warning("channel %d: %s", number, error)
                self._unwatch(number)
        return [self._channels[number] for number in self._watched]

    def _serve(self) -> None:
        for channel in self._living():
            try:
                for _ in range(_TURN):
                    request = channel.next_request(0)
                    if request is None:
                        break
                    self._hear(request)
            except Error as error:
                channel.fail(error)

    def _hear(self, request: _native.Request) -> None:
        """The host asks something, or gives up what it has asked."""
        answer(request, *self._handler(request.service))

    def _take_control(self) -> None:
        if self._transport.wants_write:
            self._transport.flush()
        for _ in range(_TURN):
            try:
                received = self._transport.receive()
            except ProtocolError as error:
                _log.warning("a control message of the host: %s", error)
                continue
            if received is None:
                return
            message, self._fds = received
            try:
                self._session.receive(message, len(self._fds))
            except Error as error:  # the host is told in the reply
                _log.debug("a control message of the host: %s", error)
            finally:
                close_all(self._fds)
                self._fds = ()

    def _handler(self, service: int) -> tuple[str, Handler | None]:
        if service == 0:
            return "", None
        return next(itertools.islice(self._services.items(), service - 1, None), ("", None))
