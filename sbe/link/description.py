"""What listings and statistics say of a link, whoever holds it: the items of List and Stat.

The classes are types of the varlink interface as well; their fields are its fields.
"""
# No `from __future__ import annotations`: asyncvarlink reads these annotations as types.

from collections.abc import Iterable
from dataclasses import dataclass

from sbe.link.context import HostContext
from sbe.link.link import Link

__all__ = [
    "AreaEntry",
    "ChannelEntry",
    "ChannelStat",
    "ContextEntry",
    "EndpointEntry",
    "EndpointStat",
    "LinkEntry",
    "LinkStat",
    "ServiceEntry",
    "count_channels",
    "count_endpoints",
    "count_link",
    "describe_areas",
    "describe_channels",
    "describe_endpoints",
    "describe_services",
]


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
class EndpointEntry:
    """An endpoint for messages of foreign firmware, whose address is the firmware's, 0 unknown.

    Its context may have ended: it stays until the firmware has answered. match: how answers are
    told apart, "id", "order" or "caller".
    """

    link: str
    id: int
    context: int
    name: str
    address: int
    match: str


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
class EndpointStat:
    """Messages over an endpoint of foreign firmware.

    in_flight: sent and unanswered, whose buffers are held. late: those of the answered whose
    endpoint or client was gone by then. unmatched: messages that answered nothing; dropped: those
    of them that had no room since nobody read.
    """

    link: str
    id: int
    context: int
    name: str
    sent: int
    answered: int
    late: int
    in_flight: int
    unmatched: int
    dropped: int


def describe_areas(link: str, context: HostContext) -> list[AreaEntry]:
    """Every area of a context, without those that hold rings."""
    return [
        AreaEntry(link, area.id, context.id, area.size_bytes, area.flags, area.heap)
        for area in context.areas
    ]


def describe_channels(link: str, context: HostContext) -> list[ChannelEntry]:
    """Every channel of a context."""
    return [
        ChannelEntry(link, channel.id, context.id, *channel.rings.geometry, channel.priority)
        for channel in context.channels
    ]


def describe_endpoints(name: str, link: Link) -> list[EndpointEntry]:
    """Every endpoint of foreign firmware."""
    return [
        EndpointEntry(name, number, context, raw.name, raw.address, raw.match)
        for raw, (context, number) in link.raws.items()
    ]


def describe_services(
    link: str, context: int, services: Iterable[tuple[int, int, str]]
) -> list[ServiceEntry]:
    """Services, each (id, version, name), that a context offers; context 0: the remote."""
    return [ServiceEntry(link, context, *service) for service in services]


def count_link(name: str, link: Link, restarts: int, uptime_seconds: float) -> LinkStat:
    """Counters of a link; areas include those that hold rings."""
    return LinkStat(
        name=name,
        restarts=restarts,
        uptime_seconds=round(uptime_seconds, 3),
        bad_messages=link.bad_messages,
        areas=len(link.areas),
        contexts=len(link.contexts),
        channels=len(link.channels),
    )


def count_channels(link: str, context: HostContext) -> list[ChannelStat]:
    """Counters of every channel of a context, from the words in its rings."""
    return [
        ChannelStat(link, channel.id, context.id, **channel.rings.counters())
        for channel in context.channels
    ]


def count_endpoints(name: str, link: Link) -> list[EndpointStat]:
    """Counters of every endpoint of foreign firmware."""
    return [
        EndpointStat(
            link=name,
            id=number,
            context=context,
            name=raw.name,
            sent=raw.sent,
            answered=raw.answered,
            late=raw.late,
            in_flight=raw.in_flight,
            unmatched=raw.unmatched,
            dropped=raw.dropped,
        )
        for raw, (context, number) in link.raws.items()
    ]
