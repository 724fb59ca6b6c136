"""The varlink interface `org.sbe.Control`, one object for each connection."""
# No `from __future__ import annotations`: asyncvarlink reads these annotations as types.

import base64
import errno
import functools
import logging
import os
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, ParamSpec, TypedDict, TypeVar

from asyncvarlink import (
    FileDescriptor,
    TypedVarlinkErrorReply,
    VarlinkInterface,
    VarlinkInterfaceRegistry,
    VarlinkMethodCall,
    varlinkmethod,
)
from asyncvarlink.serviceinterface import VarlinkServiceInterface

from sbe import control
from sbe._native import RELEASE
from sbe.daemon import status
from sbe.daemon.client import Broker, Client
from sbe.errors import BadArgument, Error, ProtocolError, from_system
from sbe.host.descriptors import duplicate
from sbe.host.text import one_line
from sbe.link import description
from sbe.link.fixups import Fixup
from sbe.link.grants import Grant
from sbe.link.power import PowerRequest
from sbe.link.raw import RawBuffer, RawMatch, RawMessage

__all__ = ["ControlInterface", "Refused", "make_registry"]

_log = logging.getLogger(__name__)
_P = ParamSpec("_P")
_R = TypeVar("_R")

_BYTES_MAX = 2**48
_U32_MAX = 2**32 - 1
_U16_MAX = 2**16 - 1
_PRIORITY_MAX = 3
_PRIORITY = 1
_NAME_MAX = 64
_POWER_MS = 10_000
_RESTART_MS = 10_000
_MS_MAX = 600_000


class Refused(TypedVarlinkErrorReply, interface=control.INTERFACE):
    """The call was refused. code: a positive errno number; message: what to do, for people."""

    class Parameters:
        """Fields of the error."""

        code: int
        message: str


def refusal(error: BaseException) -> Refused:
    """Returns the varlink error for an exception."""
    if isinstance(error, Error):
        return Refused(code=abs(error.code) or errno.EIO, message=str(error))
    if isinstance(error, OSError) and error.errno:
        return refusal(from_system(error, "the daemon"))
    _log.error("a call failed", exc_info=error)
    return Refused(code=errno.EIO, message="the daemon failed; its log says more")


def _refusing(
    method: Callable[_P, Coroutine[Any, Any, _R]],
) -> Callable[_P, Coroutine[Any, Any, _R]]:
    """Everything a method raises becomes Refused."""

    @functools.wraps(method)
    async def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return await method(*args, **kwargs)
        except Exception as error:
            raise refusal(error) from error

    return wrapped


def _check(name: str, value: int, low: int, high: int) -> int:
    if isinstance(value, bool) or not low <= value <= high:
        raise BadArgument(f"{name} must be {low} to {high}, not {value!s:.40}")
    return value


@dataclass
class Limits:
    """What the link can hold, and a frame; slot_size in bytes."""

    areas: int
    contexts: int
    channels: int
    slots: int
    slot_size: int
    buffers: int


@dataclass
class Service:
    """A service of the remote."""

    id: int
    name: str
    version: int


class OpenReply(TypedDict):
    """The answer to Open."""

    context: int
    link: str
    remote: str
    epoch: int
    line: int
    coherent: bool
    limits: Limits
    heaps: list[str]
    events_fd: FileDescriptor


class AreaReply(TypedDict):
    """The answer to Allocate and OpenRegion."""

    area: int
    size: int
    flags: int
    heap: str
    offset: int
    trusted: bool
    memory_fd: FileDescriptor
    sync_fd: FileDescriptor | None


class OpenRawReply(TypedDict):
    """The answer to OpenRaw."""

    raw: int
    answers_fd: FileDescriptor


class OpenChannelReply(TypedDict):
    """The answer to OpenChannel."""

    channel: int
    epoch: int
    slots: int
    slot_size: int
    line: int
    send_offset: int
    receive_offset: int
    size: int
    offset: int
    trusted: bool
    events: int
    memory_fd: FileDescriptor
    ring_fd: FileDescriptor
    wake_fd: FileDescriptor


@dataclass
class Region:
    """Memory of the remote; size in bytes."""

    name: str
    size: int


class FindServiceReply(TypedDict):
    """The answer to FindService."""

    service: int
    version: int


class ListReply(TypedDict):
    """The answer to List."""

    links: list[description.LinkEntry]
    contexts: list[description.ContextEntry]
    areas: list[description.AreaEntry]
    channels: list[description.ChannelEntry]
    endpoints: list[description.EndpointEntry]
    services: list[description.ServiceEntry]


class StatReply(TypedDict):
    """The answer to Stat."""

    version: str
    pid: int
    uptime_seconds: float
    links: list[description.LinkStat]
    channels: list[description.ChannelStat]
    endpoints: list[description.EndpointStat]
    users: list[status.UserStat]


def _lend(*fds: int) -> list[FileDescriptor]:
    """Copies that live until the reply is sent, whatever becomes of the originals meanwhile."""
    copies = duplicate(fds, "the daemon's answer")
    return [FileDescriptor(copy, should_close=True) for copy in copies]


def _area(grant: Grant) -> AreaReply:
    lent = _lend(grant.fd, grant.sync_fd) if grant.sync_fd >= 0 else _lend(grant.fd)
    return {
        "area": grant.id,
        "size": grant.size_bytes,
        "flags": grant.flags,
        "heap": grant.heap,
        "offset": grant.offset_bytes,
        "trusted": grant.trusted,
        "memory_fd": lent[0],
        "sync_fd": lent[1] if len(lent) > 1 else None,
    }


def _decode(message: str) -> bytes:
    try:
        return base64.b64decode(message, validate=True)
    except ValueError as error:
        raise BadArgument(f"message: {error}") from None


class ControlInterface(VarlinkInterface, name=control.INTERFACE):
    """Contexts, areas, channels and services of Structured Buffer Exchange.

    A connection is one client. Its context lives as long as the connection. Data does not pass
    through here: the client maps the memory and rings the doorbells that it is handed.
    """

    # Not thread-safe: it belongs to the loop.

    errors = (Refused,)

    def __init__(self, client: Client, broker: Broker) -> None:
        self._client = client
        self._broker = broker

    @varlinkmethod
    @_refusing
    async def Open(
        self, *, protocol: int, name: str, link: str | None = None, timeout_ms: int | None = None
    ) -> OpenReply:
        """Creates the connection's context. protocol: the version of this interface that the client
        speaks; name: what the client calls itself; link: the first one by default. Waits up to
        10 s for the remote; with timeout_ms it is answered by then. events_fd: a stream socket;
        words ended by a NUL come when the remote was lost, which say why (channels are dead, areas
        and context live on), and a NUL when it came back; a byte 1 and a number when it has shut
        that channel, whose rings held nonsense.
        """
        if protocol != control.PROTOCOL:
            raise ProtocolError(
                f"the client speaks version {protocol} of {control.INTERFACE}, this daemon "
                f"version {control.PROTOCOL}: update the older one"
            )
        remote, context, events_fd = await self._client.open(
            one_line(name, _NAME_MAX),
            link,
            None if timeout_ms is None else _check("timeout_ms", timeout_ms, 1, _U32_MAX) / 1000,
        )
        limits = context.limits
        return {
            "context": context.id,
            "link": remote.name,
            "remote": remote.link.peer_name,
            "epoch": remote.link.peer_epoch,
            "line": remote.link.line,
            "coherent": remote.link.coherent,
            "limits": Limits(**{key: limits[key] for key in Limits.__dataclass_fields__}),
            "heaps": list(context.memory.heaps),
            "events_fd": FileDescriptor(events_fd, should_close=True),
        }

    @varlinkmethod
    @_refusing
    async def Allocate(self, *, size: int, heap: str | None = None) -> AreaReply:
        """Allocates memory that the remote reaches too. size in bytes, what was granted may be
        more; heap: the first one by default. memory_fd is to be mapped from offset, read and write;
        trusted: it keeps its size though it is not sealed. sync_fd maintains caches for ranges of
        it, where the memory is not coherent.
        """
        grant = await self._client.allocate(_check("size", size, 1, _BYTES_MAX), heap)
        return await self._hand_over(grant)

    async def _hand_over(self, grant: Grant) -> AreaReply:
        """An area that the client can't be told of is freed."""
        try:
            return _area(grant)
        except Error:
            await self._client.free(grant.id)
            raise

    @varlinkmethod(return_parameter="regions")
    @_refusing
    async def ListRegions(self) -> list[Region]:
        """Memory that the remote owns and offers, its log for instance."""
        return [Region(name, size) for name, size in self._client.regions().items()]

    @varlinkmethod
    @_refusing
    async def OpenRegion(self, *, name: str) -> AreaReply:
        """Makes such a region an area, which memory_fd maps from offset, to be read only."""
        return await self._hand_over(await self._client.open_region(name))

    @varlinkmethod
    @_refusing
    async def Free(self, *, area: int) -> None:
        """Gives an area back. Answered when the remote has let go of it."""
        await self._client.free(_check("area", area, 0, _U32_MAX))

    @varlinkmethod
    @_refusing
    async def OpenChannel(
        self, *, slots: int | None = None, slot_size: int | None = None, priority: int | None = None
    ) -> OpenChannelReply:
        """Opens a channel: two rings in memory_fd (size bytes from offset; trusted as for areas),
        at send_offset of them the one that the client produces. The client writes to ring_fd to
        ring the remote. wake_fd, an epoll descriptor, becomes readable when the remote has rung;
        epoll_wait() takes that. It dies with the remote, whose epoch this is. events: NULs sent to
        events_fd so far; what the client reads beyond them concerns this channel.
        """
        grant = await self._client.open_channel(
            None if slots is None else _check("slots", slots, 1, _U32_MAX),
            None if slot_size is None else _check("slot_size", slot_size, 1, _U32_MAX),
            _PRIORITY if priority is None else _check("priority", priority, 0, _PRIORITY_MAX),
        )
        rings = grant.rings
        try:
            memory_fd, ring_fd, wake_fd = _lend(*rings.fds)
        except Error:
            await self._client.close_channel(grant.id)
            raise
        return {
            "channel": grant.id,
            "epoch": grant.epoch,
            "slots": rings.geometry.slots,
            "slot_size": rings.geometry.slot_size_bytes,
            "line": rings.line_bytes,
            "send_offset": rings.send_offset,
            "receive_offset": rings.receive_offset,
            "size": rings.size_bytes,
            "offset": rings.memory_offset,
            "trusted": rings.trusted,
            "events": self._client.events,
            "memory_fd": memory_fd,
            "ring_fd": ring_fd,
            "wake_fd": wake_fd,
        }

    @varlinkmethod
    @_refusing
    async def CloseChannel(self, *, channel: int) -> None:
        """Closes a channel. Answered when the remote has let go of its rings."""
        await self._client.close_channel(_check("channel", channel, 0, _U32_MAX))

    @varlinkmethod
    @_refusing
    async def OpenRaw(self, *, endpoint: str, match: RawMatch) -> OpenRawReply:
        """Opens an endpoint of firmware that has messages of its own, by the name that it announces
        on rpmsg; policy says who may. match: "id", which is put at request and looked for at
        answer; "order"; "caller", who gets all that comes. answers_fd: a socket of messages. Each
        begins with the number of the call that it answers, 0 none, and a status (u32 and i32,
        little-endian); the rest is the firmware's. It ends when the firmware has stopped.
        """
        grant = await self._client.open_raw(endpoint, match)
        return {"raw": grant.id, "answers_fd": FileDescriptor(grant.fd, should_close=True)}

    @varlinkmethod
    @_refusing
    async def SendRaw(
        self,
        *,
        raw: int,
        number: int,
        message: str,
        fixups: list[Fixup],
        buffers: list[RawBuffer],
    ) -> None:
        """Sends a message: the bytes in base64, with the fixups filled in for these buffers, which
        stay in use until it is answered. number: what the answer will be known by, 0 without one.
        EAGAIN: the firmware takes none just now.
        """
        sent = RawMessage(number, _decode(message), fixups, buffers)
        await self._client.send_raw(raw, sent)

    @varlinkmethod
    @_refusing
    async def SettleRaw(self, *, raw: int, number: int) -> None:
        """A message was answered, as the client has found: its buffers are not in use any more."""
        await self._client.settle_raw(raw, number)

    @varlinkmethod
    @_refusing
    async def CloseRaw(self, *, raw: int) -> None:
        """Ends an endpoint. What is unanswered stays in use until the firmware has answered."""
        await self._client.close_raw(raw)

    @varlinkmethod
    @_refusing
    async def FindService(self, *, name: str, version: int) -> FindServiceReply:
        """Finds a service of the remote; version: the least that will do, 0 any."""
        found = await self._client.find_service(name, _check("version", version, 0, _U16_MAX))
        return {"service": found.id, "version": found.version}

    @varlinkmethod(return_parameter="services")
    @_refusing
    async def ListServices(self) -> list[Service]:
        """All services of the remote."""
        return [
            Service(item.id, item.name, item.version) for item in await self._client.list_services()
        ]

    @varlinkmethod(return_parameter="service")
    @_refusing
    async def Serve(self, *, name: str, version: int) -> int:
        """Offers a service of this client to the remote, which finds it for this context only.
        Requests for it arrive on the client's channels under the id that is answered.
        """
        return self._client.serve(name, _check("version", version, 0, _U16_MAX))

    @varlinkmethod
    @_refusing
    async def Unserve(self, *, name: str) -> None:
        """Offers it no more."""
        self._client.unserve(name)

    @varlinkmethod
    @_refusing
    async def Power(
        self, *, request: str, khz: int | None = None, timeout_ms: int | None = None
    ) -> None:
        """Asks the remote to "suspend", to "resume", or for a "frequency" in kHz, 0 or none as it
        likes. It concerns all clients of the link; policy says who may. Answered when the remote
        has, within timeout_ms, 10 s by default.
        """
        words = {item.word: item for item in PowerRequest}
        if request not in words:
            raise BadArgument(f"request must be one of {', '.join(words)}, not {request!r:.40}")
        milliseconds = _POWER_MS if timeout_ms is None else timeout_ms
        await self._client.power(
            words[request],
            0 if khz is None else _check("khz", khz, 0, _U32_MAX),
            _check("timeout_ms", milliseconds, 1, _MS_MAX) / 1000,
        )

    @varlinkmethod
    @_refusing
    async def Restart(self, *, timeout_ms: int | None = None) -> None:
        """Ends the remote of this connection's link and starts it again, for all who use it: calls
        in flight fail, contexts and areas live on. Policy says who may. Answered when it is back,
        within timeout_ms, 10 s by default.
        """
        milliseconds = _RESTART_MS if timeout_ms is None else timeout_ms
        await self._client.restart(_check("timeout_ms", milliseconds, 1, _MS_MAX) / 1000)

    @varlinkmethod
    @_refusing
    async def List(self) -> ListReply:
        """All links, contexts, areas, channels and services. Needs no Open."""
        services = await status.list_services(self._broker)
        return {
            "links": status.list_links(self._broker),
            "contexts": status.list_contexts(self._broker),
            "areas": status.list_areas(self._broker),
            "channels": status.list_channels(self._broker),
            "endpoints": status.list_endpoints(self._broker),
            "services": services,
        }

    @varlinkmethod
    @_refusing
    async def Stat(self) -> StatReply:
        """Counters of links, channels and users. Needs no Open."""
        return {
            "version": RELEASE,
            "pid": os.getpid(),
            "uptime_seconds": status.uptime_seconds(),
            "links": status.stat_links(self._broker),
            "channels": status.stat_channels(self._broker),
            "endpoints": status.stat_endpoints(self._broker),
            "users": status.stat_users(self._broker, self._client.peer),
        }


class _Call(VarlinkMethodCall):
    """A call whose method's name is the interpreter's one string of it.

    Each other string would stay in its cache of attributes, somewhere in memory that could
    otherwise be given back.
    """

    @property
    def method_name(self) -> str:
        return sys.intern(super().method_name)


class _Registry(VarlinkInterfaceRegistry):
    def lookup_method(self, call: VarlinkMethodCall) -> Any:
        return super().lookup_method(_Call(**vars(call)))


def make_registry(client: Client, broker: Broker) -> VarlinkInterfaceRegistry:
    """Returns what one connection is offered: org.sbe.Control and varlink's introspection."""
    registry = _Registry()
    registry.register_interface(
        VarlinkServiceInterface("Structured Buffer Exchange", "sbe-daemon", RELEASE, "", registry)
    )
    registry.register_interface(ControlInterface(client, broker))
    return registry
