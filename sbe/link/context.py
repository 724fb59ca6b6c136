"""The context floor: one isolation domain of a link, with its areas and channels.

Written once for two drivers: the operations are coroutines that await the link's `Pending`
objects. `run_sync()` drives one from a plain thread (the SDK), `run_async()` from an asyncio loop
(the daemon). Not thread-safe: the owner of the link serialises.

An operation that ended early, because its time was up or its caller was interrupted, owns what
arrives late: a late success is undone, a late failure is forgotten. What undoes it is a coroutine
as well, which the link's answers drive (`_go_on()`) after everybody has left.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import time
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sbe import _native
from sbe.errors import AreaFreed, BadArgument, Busy, Error, LinkError, RemoteRestarted
from sbe.heaps import Allocation, Heap
from sbe.link.grants import ChannelGrant, Grant, RawGrant
from sbe.link.link import Link
from sbe.link.pending import Pending
from sbe.link.raw import RawEndpoint, RawMatch
from sbe.link.rings import DEFAULT_GEOMETRY, Geometry, create_rings
from sbe.remotes import Memory
from sbe.transports import Endpoint

__all__ = ["HostContext", "run_async", "run_sync"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass
class _Area:
    """An area as its context holds it; the grant's descriptors are the context's."""

    grant: Grant
    allocation: Allocation
    ending: Pending[None] | None = None  # the last attempt to free it
    holds: int = 0  # raw messages that name it and are unanswered
    let_go: Callable[[], object] | None = None  # called when there are none, and it is detained


@dataclass
class _Channel:
    """A channel as its context holds it."""

    grant: ChannelGrant
    ring_area: int
    ending: Pending[None] | None = None  # the last attempt to close it


def _lost(channel: int) -> RemoteRestarted:
    return RemoteRestarted(
        f"the remote died or restarted while channel {channel} was opened; open another one"
    )


class _Await:
    """Yields a Pending to whichever driver runs the coroutine."""

    def __init__(self, pending: Pending[_T]) -> None:
        self.pending: Pending[Any] = pending

    def __await__(self) -> Generator[Pending[Any], None, Any]:
        if not self.pending.done:
            yield self.pending
        return self.pending.result()


async def _done(pending: Pending[_T]) -> _T:
    result: _T = await _Await(pending)
    return result


def run_sync(
    link: Link,
    operation: Coroutine[Any, Any, _T],
    timeout: float | None,
    midway: Callable[[], object] | None = None,
) -> _T:
    """Drives an operation to its end from a plain thread, `timeout` seconds for all of it.

    `midway()` is called when half of a step's time is over.
    """
    until = math.inf if timeout is None else time.monotonic() + timeout
    try:
        pending = operation.send(None)
        while True:
            try:
                left = None if timeout is None else max(until - time.monotonic(), 0.0)
                link.wait(pending, left, midway)
            except BaseException as error:
                # Its own error is taken below. Else: timed out, nobody is left to answer, or
                # whoever waits was interrupted.
                if not pending.done or not isinstance(error, Error):
                    pending = operation.throw(error)
                    continue
            pending = operation.send(None)  # which takes the result, or its error
    except StopIteration as stop:
        result: _T = stop.value
        return result


def _go_on(operation: Coroutine[Any, Any, _T], description: str) -> Pending[_T]:
    """Begins an operation that the link's answers drive to its end, whether anybody waits or not.

    `description` is the operation in words for error messages.
    """
    ended: Pending[_T] = Pending(description)

    def step(_: object = None) -> None:
        try:
            pending: Pending[Any] = operation.send(None)
        except StopIteration as stop:
            ended.resolve(stop.value)
        except Error as error:
            ended.fail(error)
        except Exception as error:
            _log.exception("%s failed", description)
            ended.fail(Error(f"{description}: {error}"))
        else:
            pending.add_done_callback(step)

    step()
    return ended


async def run_async(operation: Coroutine[Any, Any, _T]) -> _T:
    """Drives an operation inside an asyncio loop that processes the link's descriptor."""
    import asyncio  # the sync driver does without its weight

    loop = asyncio.get_running_loop()
    try:
        pending = operation.send(None)
        while True:
            waiter: asyncio.Future[None] = loop.create_future()

            def wake(_: Pending[Any], waiter: asyncio.Future[None] = waiter) -> None:
                if not waiter.done():
                    waiter.set_result(None)

            pending.add_done_callback(wake)
            try:
                await waiter
            except asyncio.CancelledError:
                operation.close()
                raise
            pending = operation.send(None)
    except StopIteration as stop:
        result: _T = stop.value
        return result


@dataclass
class HostContext:
    """One context of a link: what its application has been given, and its orderly end."""

    link: Link
    memory: Memory = field(default_factory=Memory.memfds)  # what comes with the remote
    owner: int = 0  # whose it is, a number
    apart: bool = False  # channels are used by a process that the remote doesn't trust, nor it that
    id: int = 0
    _areas: dict[int, _Area] = field(default_factory=dict)
    _channels: dict[int, _Channel] = field(default_factory=dict)
    _late: dict[int, Allocation] = field(default_factory=dict)
    """Memory that nobody was given: the remote has it until it answers, at most until the end."""
    _closing: Pending[None] | None = None
    _raws: dict[int, RawEndpoint] = field(default_factory=dict)
    _last_raw: int = 0
    _raw_ends: dict[int, Callable[[], object]] = field(default_factory=dict)
    _detained: dict[int, _Area] = field(default_factory=dict)
    """Freed areas whose memory firmware may still write."""

    async def open(self) -> None:
        """Creates the context at the remote."""
        creation = self.link.create_context(self.owner)
        try:
            self.id = await _done(creation)
        except BaseException:
            _go_on(self._undo_creation(creation), "the end of a context that came late")
            raise

    async def _undo_creation(self, creation: Pending[int]) -> None:
        with contextlib.suppress(Error):
            await _done(self.link.destroy_context(await _done(creation)))

    @property
    def areas(self) -> list[Grant]:
        """What was granted and not freed, without memory of rings."""
        return [area.grant for area in self._areas.values()]

    @property
    def channels(self) -> list[ChannelGrant]:
        """What was opened and not closed."""
        return [channel.grant for channel in self._channels.values()]

    @property
    def limits(self) -> dict[str, int]:
        """What the link agreed on, less where its rings allow less."""
        limits = dict(self.link.limits)
        if self.memory.slot_size_max is not None:
            limits["slot_size"] = min(limits["slot_size"], self.memory.slot_size_max)
        return limits

    def heap(self, name: str | None) -> Heap:
        """The heap of this name, or the first. BadArgument says which there are."""
        heaps = self.memory.heaps
        if name is None and heaps:
            return next(iter(heaps.values()))
        if name is None:
            raise LinkError(
                "this machine has no memory that the remote can reach; what rides in a frame needs "
                "none",
                errno.ENODEV,
            )
        if name not in heaps:
            raise BadArgument(f"no heap {name!r}; there are: {', '.join(heaps)}")
        return heaps[name]

    async def allocate(self, size_bytes: int, heap: str | None = None) -> Grant:
        """Allocates memory and registers it with the remote.

        The grant's size is what was asked for, rounded up to the heap's granularity.
        """
        source = self.heap(heap)
        return await self.register(source.allocate(size_bytes), source.name)

    @property
    def regions(self) -> dict[str, int]:
        """Bytes of each region that the remote owns and offers, by name."""
        return {} if self.memory.offering is None else self.memory.offering.regions

    async def open_region(self, name: str) -> Grant:
        """Registers one of `regions`, to be looked at. BadArgument says which there are."""
        offering = self.memory.offering
        if offering is None or name not in offering.regions:
            offered = ", ".join(self.regions) or "none"
            raise BadArgument(f"the remote offers no region {name!r}; it offers: {offered}")
        return await self.register(offering.open_region(name), f"remote:{name}")

    async def register(self, allocation: Allocation, heap: str) -> Grant:
        """Makes memory an area, which owns it from now on. `heap` says where it is from."""
        flags = _native.AREA_COHERENT if allocation.coherent else 0
        if allocation.readonly:
            flags |= _native.AREA_READONLY
        area = await self._map(allocation, flags)
        fd = self.link.area_fd(area)
        if fd < 0 or allocation.release is not None:
            fd = allocation.fd
        else:  # the link's serves: there may be thousands of areas, and few open files
            os.close(allocation.fd)
            allocation.fd = -1
        attachment = None if allocation.coherent else allocation.attachment
        if not allocation.mappable:
            attachment = None  # what the processor does not touch is in none of its caches
        grant = Grant(
            area,
            allocation.size_bytes,
            flags,
            fd,
            heap,
            allocation.offset_bytes if allocation.mappable else _native.MEMORY_UNMAPPED,
            allocation.trusted,
            -1 if attachment is None else attachment.fileno(),
        )
        self._areas[area] = _Area(grant, allocation)
        return grant

    async def _map(self, allocation: Allocation, flags: int) -> int:
        """Registers memory, which goes back to its heap if that fails, at once or later."""
        try:
            mapping = self.link.map_area(
                self.id,
                allocation.fd,
                allocation.size_bytes,
                flags,
                segments=allocation.segments,
            )
        except BaseException:
            allocation.close()
            raise
        try:
            return await _done(mapping)
        except BaseException:
            _go_on(self._undo_map(mapping, allocation), "the end of an area that came late")
            raise

    async def _undo_map(self, mapping: Pending[int], allocation: Allocation) -> None:
        self._late[id(allocation)] = allocation
        try:
            await self._unmap(await _done(mapping))
        except Error as error:
            if mapping.error is None:
                _log.debug("memory stays mapped: %s", error)
                return  # it ends with the context
        self._give_back(allocation)

    async def _unmap(self, area: int) -> None:
        """Ends when the remote has let go; it may have long ago."""
        with contextlib.suppress(AreaFreed):
            await _done(self.link.unmap_area(area))

    def _give_back(self, allocation: Allocation | None) -> None:
        """Memory that nobody was given: the remote has let go, or never had it."""
        if allocation is not None and self._late.pop(id(allocation), None) is not None:
            allocation.close()

    def start_free(self, area: int) -> Pending[None]:
        """Begins to take an area back; it goes on without anybody who waits for it.

        Raises AreaFreed when there is no such area.
        """
        entry = self._areas.get(area)
        if entry is None:
            raise AreaFreed(f"no area {area} in context {self.id}: freed, or never allocated here")
        if entry.ending is None or entry.ending.done:
            entry.ending = _go_on(self._free(area, entry), f"unmapping of area {area:#x}")
        return entry.ending

    async def free(self, area: int) -> None:
        """Unmaps an area; its memory goes back once the remote has acknowledged, however late.

        Another attempt waits for the one that is under way. AreaFreed when there is no such area.
        """
        await _done(self.start_free(area))

    async def _free(self, area: int, entry: _Area) -> None:
        if entry.holds > 0:
            raise Busy(
                f"{entry.holds} raw messages that name area {area:#x} are unanswered: the firmware "
                "may still write it"
            )
        await self._unmap(area)
        if self._areas.pop(area, None) is not None:
            entry.allocation.close()

    async def open_channel(
        self, geometry: Geometry = DEFAULT_GEOMETRY, priority: int = 1
    ) -> ChannelGrant:
        """Makes ring memory and doorbells, registers them, and opens the channel."""
        geometry = self._bounded(geometry)
        rings = create_rings(geometry, self.link.line, self.memory.rings)
        assert rings.allocation is not None  # just made
        try:
            ring_area = await self._map(rings.allocation, _native.AREA_RING | _native.AREA_COHERENT)
        except BaseException:
            rings.let_go()  # the memory's fate is decided
            raise
        opening: Pending[int] | None = None
        try:
            with rings.remote_doorbells(apart=self.apart) as doorbells:
                opening = self.link.open_channel(
                    self.id,
                    ring_area,
                    slots=geometry.slots,
                    slot_size=geometry.slot_size_bytes,
                    send_offset=rings.send_offset,
                    receive_offset=rings.receive_offset,
                    priority=priority,
                    doorbells=doorbells,
                )
                channel = await _done(opening)
            if not self.link.has_channel(channel):
                raise _lost(channel)
        except BaseException:
            undo = self._undo_channel(opening, ring_area, rings.let_go())
            _go_on(undo, "the end of a channel that came late")
            raise
        grant = ChannelGrant(channel, self.link.peer_epoch, priority, rings)
        self._channels[channel] = _Channel(grant, ring_area)
        return grant

    def check_channel(self, channel: int) -> None:
        """Its descriptors are there. Raises RemoteRestarted when it has ended with its remote.

        Whoever waits for an operation goes on a little after its end.
        """
        if channel not in self._channels:
            raise _lost(channel)

    async def _undo_channel(
        self, opening: Pending[int] | None, ring_area: int, allocation: Allocation | None
    ) -> None:
        if allocation is not None:
            self._late[id(allocation)] = allocation
        try:
            if opening is not None:
                with contextlib.suppress(Error):  # it was not opened, or can't be closed
                    await _done(self.link.close_channel(await _done(opening)))
            await self._unmap(ring_area)
        except Error as error:
            _log.debug("ring memory stays mapped: %s", error)
            return  # it ends with the context
        self._give_back(allocation)

    def _bounded(self, geometry: Geometry) -> Geometry:
        limits = self.limits
        if geometry.slots > limits["slots"] or geometry.slot_size_bytes > limits["slot_size"]:
            raise BadArgument(
                f"a ring of {geometry.slots} slots of {geometry.slot_size_bytes} bytes; this link "
                f"allows {limits['slots']} slots of {limits['slot_size']} bytes"
            )
        return geometry

    def start_close_channel(self, channel: int) -> Pending[None]:
        """Begins to close a channel; it goes on without anybody who waits for it."""
        entry = self._channels.get(channel)
        if entry is None:
            raise BadArgument(f"no channel {channel} in context {self.id}")
        if entry.ending is None or entry.ending.done:
            ending = self._close_channel(channel, entry)
            entry.ending = _go_on(ending, f"closing of channel {channel}")
        return entry.ending

    async def close_channel(self, channel: int) -> None:
        """Closes a channel and gives its ring memory back once the remote has let go of it."""
        await _done(self.start_close_channel(channel))

    async def _close_channel(self, channel: int, entry: _Channel) -> None:
        await _done(self.link.close_channel(channel))
        await self._unmap(entry.ring_area)
        if self._channels.pop(channel, None) is not None:
            entry.grant.rings.close()

    # -- raw messages ------------------------------------------------------------------------

    def open_raw(self, endpoint: Endpoint, match: RawMatch) -> RawGrant:
        """Takes over an endpoint of foreign firmware, for messages that name areas of this context.

        Raises BadArgument, OutOfResources.
        """
        self._last_raw = number = self._last_raw + 1
        try:
            raw = RawEndpoint(self, endpoint, match, self.link.line)
            self.link.watch_beside(raw.fileno(), lambda: self._take_raw(number))
        except BaseException:
            endpoint.close()
            raise
        self._raws[number] = raw
        self.link.raws[raw] = (self.id, number)
        return RawGrant(number, raw.hand_over())

    def raw(self, number: int) -> RawEndpoint:
        """One of them. Raises LinkError for one that has ended."""
        raw = self._raws.get(number)
        if raw is None:
            raise LinkError("the endpoint is gone: the firmware has stopped, or it was closed")
        return raw

    def close_raw(self, number: int) -> None:
        """Ends it when all is answered; memory that the firmware may write stays until then."""
        if (raw := self._raws.get(number)) is not None:
            raw.close()
            self._end_raw(number, raw)

    def lose_raws(self) -> None:
        """The remote is lost: who waits for answers waits no more."""
        for number, raw in list(self._raws.items()):
            raw.process()  # which notices the end of the firmware
            raw.abandon()
            self._end_raw(number, raw)

    def drop_raws(self) -> None:
        """The link has ended, so nobody hears answers any more: endpoints go. What firmware may
        still write stays this process', and is never given back.
        """
        while self._raws:
            self._raws.popitem()[1].release()

    def when_raw_ends(self, number: int, action: Callable[[], object]) -> None:
        """Calls action() when nothing is expected any more of one that is open."""
        self._raw_ends[number] = action

    def when_let_go(self, area: int, action: Callable[[], object]) -> bool:
        """Calls action() when the firmware has let go of an area of this context, which has ended.
        False: it has.
        """
        entry = self._detained.get(area)
        if entry is not None:
            entry.let_go = action
        return entry is not None

    def _take_raw(self, number: int) -> None:
        if (raw := self._raws.get(number)) is not None:
            raw.process()
            self._end_raw(number, raw)

    def _end_raw(self, number: int, raw: RawEndpoint) -> None:
        if raw.ended:
            del self._raws[number], self.link.raws[raw]
            self.link.watch_beside(raw.fileno(), None)
            raw.release()
            if (action := self._raw_ends.pop(number, None)) is not None:
                action()

    def hold(self, area: int) -> Allocation:
        """Its memory, which stays until `let_go()`."""
        entry = self._areas.get(area)
        if entry is None or (entry.ending is not None and not entry.ending.done):
            raise AreaFreed(f"no area {area:#x} in context {self.id}: freed, or never allocated")
        entry.holds += 1
        return entry.allocation

    def let_go(self, area: int) -> None:
        """The firmware uses it no more."""
        entry = self._areas.get(area) or self._detained[area]
        entry.holds -= 1
        if entry.holds == 0 and self._detained.pop(area, None) is not None:
            entry.allocation.close()
            if entry.let_go is not None:
                entry.let_go()

    async def forget_channels(self) -> None:
        """Lets go of channels that died, with the remote or alone, and of their memory."""
        for channel in list(self._channels):
            if channel in self._channels:  # who closed it was not faster
                await self.close_channel(channel)

    async def close(self) -> None:
        """Destroys the context; memory goes back when the remote has acknowledged or is gone."""
        if self._closing is None or self._closing.done:
            self._closing = _go_on(self._close(), f"destruction of context {self.id}")
        await _done(self._closing)

    async def _close(self) -> None:
        try:
            await _done(self.link.destroy_context(self.id))
        except LinkError as error:
            _log.debug("context %d ended with its link: %s", self.id, error)
        self.release()

    def release(self, *, keep: bool = False) -> None:
        """Closes this end's descriptors. The remote must have let go already.

        `keep`: it has not, and is lost track of; what it may still write never goes back to a heap.
        In a forked child: what goes back to a heap is the parent's.
        """
        for number, raw in list(self._raws.items()):
            raw.abandon()
            self._end_raw(number, raw)
        self._detained.update((n, area) for n, area in self._areas.items() if area.holds > 0)
        held = [area.allocation for area in self._areas.values() if area.holds == 0]
        rings = [channel.grant.rings for channel in self._channels.values()]
        ring_memory = [each.allocation for each in rings]
        detained = [area.allocation for area in self._detained.values()]
        for allocation in [*held, *detained, *ring_memory, *self._late.values()] if keep else ():
            if allocation is not None:
                allocation.release = None
        self._areas.clear()
        self._channels.clear()
        for allocation in held:
            allocation.close()
        for each in rings:
            each.close()
        while self._late:
            self._late.popitem()[1].close()
