"""What the daemon tells about itself: the answers to List and Stat.

The classes are types of the varlink interface; their fields are its fields.
"""
# No `from __future__ import annotations`: asyncvarlink reads these annotations as types.

import time
from dataclasses import dataclass

from sbe.context import HostContext
from sbe.daemon.client import Broker, Client
from sbe.daemon.policy import COUNTERS, Peer
from sbe.daemon.supervisor import Supervisor

__all__ = [
    "AreaEntry",
    "ChannelEntry",
    "ChannelStat",
    "ContextEntry",
    "LinkEntry",
    "LinkStat",
    "ServiceEntry",
    "UserAmounts",
    "UserStat",
    "list_areas",
    "list_channels",
    "list_contexts",
    "list_links",
    "list_services",
    "stat_channels",
    "stat_links",
    "stat_users",
    "uptime_seconds",
]

_STARTED = time.monotonic()
_MASK = 0xFFFFFFFF


@dataclass
class LinkEntry:
    """One host-remote pair. `epoch` is the remote's, 0 when it is not connected."""

    name: str
    transport: str
    state: str
    epoch: int
    remote: str
    pid: int | None


@dataclass
class ContextEntry:
    """One client with its isolation domain."""

    link: str
    id: int
    client: str
    pid: int
    uid: int


@dataclass
class AreaEntry:
    """Memory of a context, size in bytes."""

    link: str
    id: int
    context: int
    size: int
    flags: int
    heap: str


@dataclass
class ChannelEntry:
    """A pair of rings, slot_size in bytes."""

    link: str
    id: int
    context: int
    slots: int
    slot_size: int
    priority: int


@dataclass
class ServiceEntry:
    """A service. Context 0: the remote's; else offered to the remote by that context's client."""

    link: str
    context: int
    id: int
    version: int
    name: str


@dataclass
class LinkStat:
    """uptime_seconds: since the remote was connected. bad_messages: what it sent against rules."""

    name: str
    restarts: int
    uptime_seconds: float
    bad_messages: int
    areas: int
    contexts: int
    channels: int


@dataclass
class ChannelStat:
    """Both rings of a channel, as client and remote count them themselves.

    Counters wrap at 2^32. Doorbells are those for new frames; space doorbells, rung by the one who
    receives, say that there is room again. in_flight: frames that were sent and not yet taken.
    """

    link: str
    id: int
    context: int
    frames_to_remote: int
    frames_from_remote: int
    doorbells_to_remote: int
    doorbells_from_remote: int
    space_doorbells_to_remote: int
    space_doorbells_from_remote: int
    in_flight: int


@dataclass
class UserAmounts:
    """Amounts by the quota's names."""

    bytes: int
    areas: int
    channels: int
    contexts: int
    in_flight: int
    connections: int


@dataclass
class UserStat:
    """What one user holds and may hold."""

    uid: int
    used: UserAmounts
    quota: UserAmounts
    max_area_bytes: int


def uptime_seconds() -> float:
    """Since the daemon was started."""
    return round(time.monotonic() - _STARTED, 3)


def _holders(broker: Broker) -> list[tuple[Client, Supervisor, HostContext]]:
    found = [
        (client, client.remote, client.context)
        for client in broker.clients
        if client.remote is not None and client.context is not None
    ]
    return sorted(found, key=lambda entry: (entry[1].name, entry[2].id))


def list_links(broker: Broker) -> list[LinkEntry]:
    """Every link that is configured."""
    return [
        LinkEntry(
            name=remote.name,
            transport=remote.config.transport,
            state=remote.state,
            epoch=remote.link.peer_epoch if remote.up else 0,
            remote=remote.link.peer_name,
            pid=remote.pid,
        )
        for remote in broker.remotes.values()
    ]


def list_contexts(broker: Broker) -> list[ContextEntry]:
    """Every client that has called Open."""
    return [
        ContextEntry(remote.name, context.id, client.name, client.peer.pid, client.peer.uid)
        for client, remote, context in _holders(broker)
    ]


def list_areas(broker: Broker) -> list[AreaEntry]:
    """Every area, without those that hold rings."""
    return [
        AreaEntry(remote.name, area.id, context.id, area.size_bytes, area.flags, area.heap)
        for _, remote, context in _holders(broker)
        for area in context.areas.values()
    ]


def list_channels(broker: Broker) -> list[ChannelEntry]:
    """Every channel."""
    return [
        ChannelEntry(
            link=remote.name,
            id=channel.id,
            context=context.id,
            slots=channel.rings.geometry.slots,
            slot_size=channel.rings.geometry.slot_size_bytes,
            priority=channel.priority,
        )
        for _, remote, context in _holders(broker)
        for channel in context.channels.values()
    ]


async def list_services(broker: Broker) -> list[ServiceEntry]:
    """Every service, the remotes' and the clients'."""
    found = [
        ServiceEntry(remote.name, 0, service.id, service.version, service.name)
        for remote in broker.remotes.values()
        for service in await remote.services()
    ]
    for client, remote, context in _holders(broker):
        for name, (number, version) in client.offers.items():
            found.append(ServiceEntry(remote.name, context.id, number, version, name))
    return found


def stat_links(broker: Broker) -> list[LinkStat]:
    """Counters of every link; areas include those that hold rings."""
    return [
        LinkStat(
            name=remote.name,
            restarts=remote.restarts,
            uptime_seconds=round(remote.uptime_seconds, 3),
            bad_messages=remote.link.bad_messages,
            areas=len(remote.link.areas),
            contexts=len(remote.link.contexts),
            channels=len(remote.link.channels),
        )
        for remote in broker.remotes.values()
    ]


def stat_users(broker: Broker, asking: Peer) -> list[UserStat]:
    """Usage and quota of everyone who holds something, and of who asks."""
    quotas = {asking.uid: broker.policy.quota(asking)}
    quotas |= {client.peer.uid: client.quota for client in broker.clients}
    for uid in broker.accounts.used:
        quotas.setdefault(uid, broker.policy.quota(Peer(0, uid, _MASK)))
    return [
        UserStat(
            uid=uid,
            used=UserAmounts(**broker.accounts.usage(uid)),
            quota=UserAmounts(**{key: getattr(quota, key) for key in COUNTERS}),
            max_area_bytes=quota.max_area_bytes,
        )
        for uid, quota in sorted(quotas.items())
    ]


def stat_channels(broker: Broker) -> list[ChannelStat]:
    """Counters of every channel, from the words in its rings."""
    return [
        ChannelStat(remote.name, channel.id, context.id, **channel.rings.counters())
        for _, remote, context in _holders(broker)
        for channel in context.channels.values()
    ]
