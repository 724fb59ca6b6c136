"""What the daemon tells about itself: the answers to List and Stat.

The classes here and in sbe/link/description.py are types of the varlink interface; their fields are
its fields.
"""
# No `from __future__ import annotations`: asyncvarlink reads these annotations as types.

import time
from dataclasses import dataclass

from sbe.daemon.client import Broker, Client
from sbe.daemon.policy import COUNTERS, Peer
from sbe.daemon.supervisor import Supervisor
from sbe.link.context import HostContext
from sbe.link.description import (
    AreaEntry,
    ChannelEntry,
    ChannelStat,
    ContextEntry,
    EndpointEntry,
    EndpointStat,
    LinkEntry,
    LinkStat,
    ServiceEntry,
    count_channels,
    count_endpoints,
    count_link,
    describe_areas,
    describe_channels,
    describe_endpoints,
    describe_services,
)

__all__ = [
    "UserAmounts",
    "UserStat",
    "list_areas",
    "list_channels",
    "list_contexts",
    "list_endpoints",
    "list_links",
    "list_services",
    "stat_channels",
    "stat_endpoints",
    "stat_links",
    "stat_users",
    "uptime_seconds",
]

_STARTED = time.monotonic()
_MASK = 0xFFFFFFFF


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
        entry
        for _, remote, context in _holders(broker)
        for entry in describe_areas(remote.name, context)
    ]


def list_channels(broker: Broker) -> list[ChannelEntry]:
    """Every channel."""
    return [
        entry
        for _, remote, context in _holders(broker)
        for entry in describe_channels(remote.name, context)
    ]


def list_endpoints(broker: Broker) -> list[EndpointEntry]:
    """Every endpoint of foreign firmware, also of clients that have gone."""
    return [
        entry
        for remote in broker.remotes.values()
        for entry in describe_endpoints(remote.name, remote.link)
    ]


async def list_services(broker: Broker) -> list[ServiceEntry]:
    """Every service, the remotes' and the clients'."""
    found: list[ServiceEntry] = []
    for remote in broker.remotes.values():
        found += describe_services(remote.name, 0, await remote.services())
    for client, remote, context in _holders(broker):
        found += describe_services(remote.name, context.id, client.offers.all())
    return found


def stat_links(broker: Broker) -> list[LinkStat]:
    """Counters of every link."""
    return [
        count_link(remote.name, remote.link, remote.restarts, remote.uptime_seconds)
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
    """Counters of every channel."""
    return [
        entry
        for _, remote, context in _holders(broker)
        for entry in count_channels(remote.name, context)
    ]


def stat_endpoints(broker: Broker) -> list[EndpointStat]:
    """Counters of every endpoint of foreign firmware."""
    return [
        entry
        for remote in broker.remotes.values()
        for entry in count_endpoints(remote.name, remote.link)
    ]
