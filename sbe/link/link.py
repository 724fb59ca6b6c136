"""A link's upper half: the contexts, areas and channels of a host, and questions to its remote."""

from __future__ import annotations

import errno
import os
import secrets
import time
from array import array
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from sbe import _native, errors
from sbe.host.descriptors import duplicate
from sbe.link.pending import Pending
from sbe.link.raw import RawEndpoint
from sbe.link.session import Finish, HostSession, Reply
from sbe.transports import PrivateRings

__all__ = ["AreaInfo", "ChannelInfo", "Link", "ServiceInfo"]

_SERVICES_MAX = 4096  # entries of a list, whatever the remote says
_U32_MAX = 0xFFFFFFFF


class AreaInfo(NamedTuple):
    """An area that the remote has mapped. `size` in bytes, `flags` of `_native.AREA_*`."""

    id: int
    context: int
    size: int
    flags: int


class ChannelInfo(NamedTuple):
    """A channel that this end has opened. `slot_size` in bytes."""

    id: int
    context: int
    ring_area: int
    slots: int
    slot_size: int
    priority: int


class ServiceInfo(NamedTuple):
    """A service of the remote: found by name and version, called by id."""

    id: int
    version: int
    name: str


@dataclass(slots=True)
class _Area:
    info: AreaInfo
    fd: int  # our own, -1 none
    segments: tuple[tuple[int, int], ...]
    registered: bool = False  # with the remote that is there now
    ending: Pending[None] | None = None  # it was asked to let go, and has not answered
    channels: set[int] = field(default_factory=set)  # whose rings are in it


@dataclass(slots=True)
class _Context:
    registered: bool = False
    ending: Pending[None] | None = None
    areas: dict[int, _Area] = field(default_factory=dict)
    channels: set[int] = field(default_factory=set)


class _AreaIds:
    """Index in the low 16 bits, generation above: a reused index makes another id, 65,535 times.

    Fresh indexes first, then the one given back longest ago: a stale id stays stale long. Plain
    numbers, not objects: these outlive those who held the areas, and would keep the memory around
    them from being given back.
    """

    def __init__(self) -> None:
        self._generations = array("H")  # by index, of all that were ever taken
        self._free = array("H")  # in the order in which they were given back, from `_first` on
        self._first = 0
        self._beyond = array("H")  # free, of a former remote that could hold more
        self._limit = 0

    def take(self, limit: int) -> int:
        """Returns an id below the remote's limit. Raises OutOfResources."""
        if limit > self._limit:
            self._free.extend(self._beyond)
            del self._beyond[:]
        self._limit = limit
        if len(self._generations) < limit:
            self._generations.append(0)
            return self._renew(len(self._generations) - 1)
        while self._first < len(self._free):
            index = self._free[self._first]
            self._first += 1
            if self._first > len(self._free) // 2:
                del self._free[: self._first]
                self._first = 0
            if index < limit:
                return self._renew(index)
            self._beyond.append(index)
        raise errors.OutOfResources(f"all {limit} areas that the remote can hold are in use")

    def give(self, area: int) -> None:
        """Takes back an id that neither end uses any more."""
        self._free.append(area & 0xFFFF)

    def _renew(self, index: int) -> int:
        self._generations[index] = generation = self._generations[index] % 0xFFFF + 1
        return index | generation << 16


class Link(HostSession):
    """Host side of one pair. Starts no thread, needs no event loop, blocks only in `wait()`,
    `reconnect()` and `close()`.

    Not thread-safe: the owner serialises all calls, and callbacks come from within them. The owner
    polls `fileno()` and calls `process()` when it is readable, or calls `wait()`. Operations return
    a Pending, and raise at once what can be known at once: LinkError while there is no remote,
    ProtocolError after a refused negotiation, LinkClosed, BadArgument, WouldBlock when the remote
    leaves its messages unread.

    `connect` opens a transport to the remote, a new one at each call, and only returns when the
    former remote is gone for good: what that had mapped counts as free. `services` answers the
    remote's questions by (context, name or None, index) with (id, version, name) or None.
    `on_state` is told each State, `on_event` each (event, value), `on_power` what the remote asks
    about power. The limits are what this host can hold; sizes are bytes.
    """

    def _prepare(self) -> None:
        self._contexts: dict[int, _Context] = {}
        self._areas: dict[int, _Area] = {}
        self._area_ids = _AreaIds()
        self._channels: dict[int, ChannelInfo] = {}
        self.raws: dict[RawEndpoint, tuple[int, int]] = {}
        """Context and number of each, also of contexts that have ended."""
        self._last_context = self._last_channel = 0
        self._service_names: dict[int, str] = {}

    # -- what there is -------------------------------------------------------------------------

    @property
    def contexts(self) -> list[int]:
        """Live contexts, without the global one."""
        return [number for number, context in self._contexts.items() if context.ending is None]

    @property
    def areas(self) -> list[AreaInfo]:
        """Live areas."""
        return [area.info for area in self._areas.values() if area.ending is None]

    @property
    def channels(self) -> list[ChannelInfo]:
        """Channels that this link has opened with the remote that is there now."""
        return list(self._channels.values())

    def has_channel(self, channel: int) -> bool:
        """Whether this link has opened it with the remote that is there now."""
        return channel in self._channels

    @property
    def service_names(self) -> Mapping[int, str]:
        """Of services that the remote was asked for, by id, since it is there."""
        return self._service_names

    # -- contexts ------------------------------------------------------------------------------

    def create_context(self, owner: int = 0) -> Pending[int]:
        """Creates an isolation domain; its id. It lives through reconnections.

        Those of one `owner`, of which 16 bits count, share what services have for a user. Raises
        OutOfResources at the remote's limit.
        """
        self._check_up()
        limit = self.limits["contexts"]
        if len(self._contexts) >= limit:
            raise errors.OutOfResources(f"all {limit} contexts that the remote can hold are in use")
        most = (1 << _native.CONTEXT_OWNER) - 2  # beside the owner: neither all zeros nor all ones
        above = (owner << _native.CONTEXT_OWNER) & _U32_MAX
        self._last_context = self._next_id(self._last_context, self._contexts, most, above)
        number = above | self._last_context
        pending: Pending[int] = Pending(f"creation of context {number}")

        def finish(status: int, reply: Reply) -> None:
            if status == 0:
                pending.resolve(number)
            else:
                self._contexts.pop(number, None)
                pending.fail(self._failed(pending.operation, status))

        self._contexts[number] = _Context(registered=True)
        try:
            self._talk(partial(self._session.create_context, number, finish))
        except BaseException:
            self._contexts.pop(number, None)
            raise
        return pending

    def destroy_context(self, context: int) -> Pending[None]:
        """Destroys a context with its channels and areas.

        Ends when the remote has let go of all of them, or is gone. Asked again meanwhile, it is the
        same end that is waited for. Raises BadArgument when there is no such context.
        """
        if context == _native.CONTEXT_GLOBAL:
            raise errors.BadArgument("the global context can't be destroyed")
        entry = self._contexts.get(context)
        if entry is None:
            raise self._no_context(context)
        if entry.ending is not None:
            return entry.ending
        pending: Pending[None] = Pending(f"destruction of context {context}")
        gone = {0, -errno.ENOENT, -errno.ECONNRESET}

        def finish(status: int, reply: Reply) -> None:
            if status in gone:
                self._forget_context(context)
                pending.resolve(None)
            else:
                entry.ending = None
                pending.fail(self._failed(pending.operation, status))

        entry.ending = pending
        if not entry.registered:
            finish(0, None)
        else:
            self._talk_or_gone(partial(self._session.destroy_context, context, finish), finish)
        return pending

    # -- areas ---------------------------------------------------------------------------------

    def map_area(
        self,
        context: int,
        fd: int | None,
        size: int,
        flags: int = 0,
        *,
        segments: Sequence[tuple[int, int]] = (),
    ) -> Pending[int]:
        """Registers memory with the remote; the area's id, which lives through reconnections.

        `fd` stays the caller's. `segments` are its (address, bytes) as the remote sees them, where
        a descriptor does not say it all. Raises BadArgument, OutOfResources at a limit.
        """
        self._check_up()
        self._check_context(context)
        if size < 1:
            raise errors.BadArgument(f"an area of {size} bytes: at least 1 is needed")
        number = self._area_ids.take(self.limits["areas"])
        pending: Pending[int] = Pending(f"mapping of an area of {size} bytes")

        def finish(status: int, reply: Reply) -> None:
            if status == 0:
                pending.resolve(number)
            else:
                self._release(area)
                pending.fail(self._failed(pending.operation, status))

        try:
            copy = -1 if fd is None else duplicate((fd,), pending.operation)[0]
        except BaseException:
            self._area_ids.give(number)
            raise
        area = _Area(AreaInfo(number, context, size, flags), copy, tuple(segments))
        self._areas[number] = area
        if context in self._contexts:
            self._contexts[context].areas[number] = area
        try:
            self._send_map(area, finish)
        except BaseException:
            self._release(area)
            raise
        return pending

    def area_fd(self, area: int) -> int:
        """The link's own descriptor of an area's memory, as long as the area; -1: it needs none."""
        entry = self._areas.get(area)
        return -1 if entry is None else entry.fd

    def unmap_area(self, area: int) -> Pending[None]:
        """Takes an area back. Ends when the remote has let go of it, or is gone.

        Asked again meanwhile, it is the same end that is waited for. Raises AreaFreed when there is
        no such area, Busy while a channel has its rings in it.
        """
        entry = self._areas.get(area)
        if entry is not None and entry.ending is not None:
            return entry.ending
        if entry is None:
            raise errors.AreaFreed(f"no area {area:#x}: it was unmapped, or never mapped here")
        if entry.channels:
            channel = next(iter(entry.channels))
            raise errors.Busy(f"area {area:#x} holds the rings of channel {channel}")
        pending: Pending[None] = Pending(f"unmapping of area {area:#x}")
        gone = {0, -errno.EFAULT, -errno.ECONNRESET}

        def finish(status: int, reply: Reply) -> None:
            if status in gone:
                self._release(entry)
                pending.resolve(None)
            else:
                entry.ending = None
                pending.fail(self._failed(pending.operation, status))

        entry.ending = pending
        if not entry.registered:
            finish(0, None)
        else:
            self._talk_or_gone(partial(self._session.unmap_area, area, finish), finish)
        return pending

    # -- channels ------------------------------------------------------------------------------

    def open_channel(
        self,
        context: int,
        ring_area: int,
        *,
        slots: int,
        slot_size: int,
        line: int | None = None,
        send_offset: int,
        receive_offset: int,
        priority: int = 0,
        doorbells: Sequence[int] = (),
    ) -> Pending[int]:
        """Opens a channel over cleared rings in an area of the context; its id.

        `send_offset` is the ring that this end produces. `doorbells` are none, or the descriptors
        of the remote's and of this end's, which stay the caller's. The channel ends with the
        remote: open another one after a reconnection. `line` is by default the agreed one.
        """
        self._check_up()
        area = self._areas.get(ring_area)
        if area is None or area.ending is not None:
            raise errors.AreaFreed(f"no area {ring_area:#x} to hold a channel's rings")
        self._check_context(context)
        if len(doorbells) not in (0, 2):
            raise errors.BadArgument(f"{len(doorbells)} doorbells: none, or one for each end")
        number = self._last_channel = self._next_id(self._last_channel, self._channels)
        info = ChannelInfo(number, context, ring_area, slots, slot_size, priority)
        transport = self._handler.transport
        fds = doorbells if transport is not None and transport.carries_handles else ()
        line = self.line if line is None else line
        private: PrivateRings | None = None
        if transport is not None and not transport.carries_handles and not area.segments:
            private = PrivateRings(
                area.fd, area.info.size, send_offset, receive_offset, slots, slot_size, line
            )
        pending: Pending[int] = Pending(f"opening of channel {number}")

        def finish(status: int, reply: Reply) -> None:
            if status == 0:
                pending.resolve(number)
            else:
                self._forget_channel(number)
                pending.fail(self._failed(pending.operation, status))

        open_it = partial(
            self._session.open_channel,
            number,
            context,
            ring_area,
            slots,
            slot_size,
            line,
            send_offset,
            receive_offset,
            priority,
            len(fds),
            finish,
        )
        self._channels[number] = info
        area.channels.add(number)
        if context in self._contexts:
            self._contexts[context].channels.add(number)
        try:
            if doorbells and not fds and transport is not None:
                transport.add_doorbells(number, doorbells[0], doorbells[1], private)
            self._talk(open_it, fds)
        except BaseException:
            self._forget_channel(number)
            raise
        return pending

    def close_channel(self, channel: int) -> Pending[None]:
        """Closes a channel; at once done when it ended with a former remote.

        Raises BadArgument for an id that was never given out.
        """
        if not 0 < channel <= self._last_channel:
            raise errors.BadArgument(f"no channel {channel}")
        pending: Pending[None] = Pending(f"closing of channel {channel}")
        gone = {0, -errno.ENOENT, -errno.ECONNRESET}

        def finish(status: int, reply: Reply) -> None:
            if status in gone:
                self._forget_channel(channel)
                pending.resolve(None)
            else:
                pending.fail(self._failed(pending.operation, status))

        if channel not in self._channels:
            finish(0, None)
        else:
            self._talk_or_gone(partial(self._session.close_channel, channel, finish), finish)
        return pending

    # -- questions -----------------------------------------------------------------------------

    def find_service(self, context: int, name: str, version: int = 0) -> Pending[ServiceInfo]:
        """Asks for a service on behalf of a context; `version` is the least that will do.

        Ends with UnknownService when the remote has none such. Raises BadArgument for a name that
        can't be one.
        """
        self._check_up()
        pending: Pending[ServiceInfo] = Pending(f"the search for service {name!r}")

        def finish(status: int, reply: Reply) -> None:
            if reply is not None and len(reply) == 3:
                self._service_names[reply[0]] = reply[2]  # at most one for each of 65,536 ids
                pending.resolve(ServiceInfo(*reply))
            elif status in (-errno.ENOENT, -errno.EOPNOTSUPP):  # none, or too old
                least = f" of version {version} or later" if version else ""
                pending.fail(errors.UnknownService(f"the remote has no service {name!r}{least}"))
            else:
                pending.fail(self._failed(pending.operation, status))

        self._talk(partial(self._session.find_service, context, name, version, finish))
        return pending

    def list_services(self) -> Pending[list[ServiceInfo]]:
        """Asks for all services that the remote offers."""
        self._check_up()
        pending: Pending[list[ServiceInfo]] = Pending("the list of services")
        found: list[ServiceInfo] = []

        def finish(status: int, reply: Reply) -> None:
            if status == -errno.ENOENT:
                pending.resolve(found)
            elif reply is None or len(reply) != 3:
                pending.fail(self._failed(pending.operation, status))
            elif len(found) == _SERVICES_MAX:
                pending.fail(errors.ProtocolError("the remote's list of services does not end"))
            else:
                found.append(ServiceInfo(*reply))
                self._service_names[reply[0]] = reply[2]
                try:
                    ask()
                except errors.Error as error:
                    pending.fail(error)

        def ask() -> None:
            self._talk(partial(self._session.list_service, len(found), finish))

        ask()
        return pending

    def ping(self) -> Pending[int]:
        """Asks whether the remote is there; the time there and back in ns."""
        self._check_up()
        pending: Pending[int] = Pending("the ping")
        cookie = secrets.randbits(64)

        def finish(status: int, reply: Reply) -> None:
            took = time.perf_counter_ns() - begun
            if reply is None:
                pending.fail(self._failed(pending.operation, status))
            elif reply != (cookie,):
                pending.fail(errors.ProtocolError("the remote answered another ping"))
            else:
                pending.resolve(took)

        begun = time.perf_counter_ns()
        self._talk(partial(self._session.ping, cookie, finish))
        return pending

    # -- with each new remote -----------------------------------------------------------------

    def _register(self) -> None:
        contexts = deque(self._contexts)
        areas = deque(area for area in self._areas.values())
        self._register_next(contexts, areas)

    def _register_next(self, contexts: deque[int], areas: deque[_Area]) -> None:
        """Registers one thing after the other, so that no queue overflows; then the link is up."""

        def finish(subject: str, status: int, reply: Reply) -> None:
            if status == 0:
                self._register_next(contexts, areas)
            elif status != -errno.ECONNRESET:
                self._lose(str(self._failed(f"{subject}, which the former remote had", status)))

        try:
            while contexts:
                number = contexts.popleft()
                if self._lives(number):
                    done = partial(finish, f"context {number}")
                    self._contexts[number].registered = True
                    self._talk(partial(self._session.create_context, number, done))
                    return
            while areas:
                area = areas.popleft()
                if self._areas.get(area.info.id) is not area or area.ending is not None:
                    continue
                if self._lives(area.info.context):
                    self._send_map(area, partial(finish, f"area {area.info.id:#x}"))
                    return
        except errors.Error as error:
            self._lose(str(error))
            return
        self._registered()

    def _forget_remote(self) -> None:
        self._service_names.clear()
        self._channels.clear()
        for context in self._contexts.values():
            context.registered = False
            context.channels.clear()
        for area in self._areas.values():
            area.registered = False
            area.channels.clear()

    def _let_go(self) -> None:
        self._contexts.clear()
        for area in list(self._areas.values()):
            self._release(area)
        self._channels.clear()

    # -- inside --------------------------------------------------------------------------------

    def _lives(self, context: int) -> bool:
        entry = self._contexts.get(context)
        return context == _native.CONTEXT_GLOBAL or (entry is not None and entry.ending is None)

    def _check_context(self, context: int) -> None:
        if not self._lives(context):
            raise self._no_context(context)

    @staticmethod
    def _no_context(context: int) -> errors.BadArgument:
        return errors.BadArgument(f"no context {context}: it was destroyed, or never created")

    @staticmethod
    def _next_id(
        last: int,
        used: dict[int, _Context] | dict[int, ChannelInfo],
        most: int = _U32_MAX - 1,  # neither 0 nor the reserved all-ones
        above: int = 0,  # bits of the id that are given
    ) -> int:
        while True:
            last = last % most + 1
            if above | last not in used:
                return last

    def _send_map(self, area: _Area, finish: Finish, first: int = 0) -> None:
        """Sends the map and, one after the other, what its list of segments needs besides."""
        fds = [] if area.fd < 0 or first else [area.fd]
        transport = self._handler.transport
        if transport is not None and not transport.carries_handles:
            fds = []
            if not area.segments and not area.info.flags & _native.AREA_RING:
                raise errors.BadArgument(
                    "this link reaches memory by device address, and this memory has none: "
                    "allocate it from a heap of the link"
                )
        number, context, size, flags = area.info
        send = partial(self._session.map_area, number, context, flags, size, len(fds))
        part = area.segments[first : first + _native.SEGMENTS_MAX]
        rest = first + len(part)

        def sent(status: int, reply: Reply) -> None:
            if status == 0 and rest < len(area.segments) and area.registered:
                try:
                    self._send_map(area, finish, rest)
                except errors.Error as error:
                    finish(-error.code, None)
            else:
                finish(status, reply)

        area.registered = True
        self._talk(partial(send, part, sent, first), fds)

    def _release(self, area: _Area) -> None:
        """Nobody uses it any more: its index and our descriptor are free."""
        number = area.info.id
        if self._areas.get(number) is area:
            del self._areas[number]
            if context := self._contexts.get(area.info.context):
                context.areas.pop(number, None)
            self._area_ids.give(number)
            if area.fd >= 0:
                os.close(area.fd)

    def _forget_context(self, context: int) -> None:
        entry = self._contexts.pop(context, None)
        if entry is not None:
            for area in entry.areas.values():
                self._release(area)
            for channel in list(entry.channels):
                self._forget_channel(channel)

    def _forget_channel(self, channel: int) -> None:
        info = self._channels.pop(channel, None)
        if info is not None:
            if area := self._areas.get(info.ring_area):
                area.channels.discard(channel)
            if context := self._contexts.get(info.context):
                context.channels.discard(channel)
        if self._handler.transport is not None:
            self._handler.transport.remove_doorbells(channel)
