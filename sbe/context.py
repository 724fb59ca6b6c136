"""The context floor: one isolation domain of a link, with its areas and channels.

Written once for two drivers: the operations are coroutines that await the link's `Pending`
objects. `run_sync()` drives one from a plain thread (the SDK), `run_async()` from an asyncio loop
(the daemon). Not thread-safe: the owner of the link serialises.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Coroutine, Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sbe import _native
from sbe.channel import DEFAULT_GEOMETRY, Geometry, Medium, Rings, create_rings
from sbe.errors import BadArgument, Error, LinkError
from sbe.heaps import Allocation, Heap
from sbe.heaps.memfd import MemfdHeap
from sbe.link import Link, Pending

__all__ = ["AreaGrant", "ChannelGrant", "HostContext", "run_async", "run_sync"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass
class AreaGrant:
    """An area as its context made it. The context owns `fd`."""

    id: int
    size_bytes: int
    flags: int
    fd: int
    heap: str
    allocation: Allocation | None = None

    def close(self) -> None:
        """The remote has let go: the memory goes back to its heap."""
        if self.allocation is not None:
            self.allocation.close()


@dataclass
class ChannelGrant:
    """A channel as its context opened it. The context owns the rings' descriptors."""

    id: int
    ring_area: int
    priority: int
    rings: Rings


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


def run_sync(link: Link, operation: Coroutine[Any, Any, _T], timeout: float | None) -> _T:
    """Drives an operation to its end from a plain thread; `timeout` seconds for each step."""
    try:
        pending = operation.send(None)
        while True:
            try:
                link.wait(pending, timeout)
            except Error as error:
                if not pending.done:  # timed out, or nobody is left to answer
                    pending = operation.throw(error)
                    continue
            pending = operation.send(None)  # which takes the result, or its error
    except StopIteration as stop:
        result: _T = stop.value
        return result


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
    heaps: dict[str, Heap] = field(default_factory=lambda: {"memfd": MemfdHeap()})
    id: int = 0
    medium: Medium | None = None
    areas: dict[int, AreaGrant] = field(default_factory=dict)
    channels: dict[int, ChannelGrant] = field(default_factory=dict)

    async def open(self) -> None:
        """Creates the context at the remote."""
        self.id = await _done(self.link.create_context())

    def heap(self, name: str | None) -> Heap:
        """The heap of this name, or the first. BadArgument says which there are."""
        if name is None:
            return next(iter(self.heaps.values()))
        if name not in self.heaps:
            raise BadArgument(f"no heap {name!r}; there are: {', '.join(self.heaps)}")
        return self.heaps[name]

    async def allocate(self, size_bytes: int, heap: str | None = None) -> AreaGrant:
        """Allocates memory and registers it with the remote.

        The grant's size is what was asked for, rounded up to the heap's granularity.
        """
        source = self.heap(heap)
        allocation = source.allocate(size_bytes)
        flags = _native.AREA_COHERENT if allocation.coherent else 0
        try:
            area = await _done(
                self.link.map_area(
                    self.id,
                    None if allocation.segments else allocation.fd,
                    allocation.size_bytes,
                    flags,
                    segments=allocation.segments,
                )
            )
        except BaseException:
            allocation.close()
            raise
        grant = AreaGrant(
            area, allocation.size_bytes, flags, allocation.fd, source.name, allocation
        )
        self.areas[area] = grant
        return grant

    async def free(self, area: int) -> None:
        """Unmaps an area; its memory goes back once the remote has acknowledged."""
        grant = self.areas.get(area)
        if grant is None:
            raise BadArgument(f"no area {area} in context {self.id}")
        await _done(self.link.unmap_area(area))
        del self.areas[area]
        grant.close()

    async def open_channel(
        self, geometry: Geometry = DEFAULT_GEOMETRY, priority: int = 1
    ) -> ChannelGrant:
        """Makes ring memory and doorbells, registers them, and opens the channel."""
        geometry = self._bounded(geometry)
        rings = create_rings(geometry, self.link.line, self.medium)
        ring_area: int | None = None
        try:
            ring_area = await _done(
                self.link.map_area(
                    self.id,
                    None if rings.segments else rings.memory_fd,
                    rings.size_bytes,
                    _native.AREA_RING | _native.AREA_COHERENT,
                    segments=rings.segments,
                )
            )
            channel = await _done(
                self.link.open_channel(
                    self.id,
                    ring_area,
                    slots=geometry.slots,
                    slot_size=geometry.slot_size_bytes,
                    send_offset=rings.send_offset,
                    receive_offset=rings.receive_offset,
                    priority=priority,
                    doorbells=() if self.medium else (rings.ring_fd, rings.wake_fd),
                )
            )
            if self.medium is not None:
                await self._add_doorbell(rings, channel)
        except BaseException as error:
            rings.close()
            if ring_area is not None and isinstance(error, Error):
                await _done(self.link.unmap_area(ring_area))
            raise
        grant = ChannelGrant(channel, ring_area, priority, rings)
        self.channels[channel] = grant
        return grant

    async def _add_doorbell(self, rings: Rings, channel: int) -> None:
        """Gives an open channel its doorbell, which ends with the rings."""
        medium = self.medium
        assert medium is not None
        try:
            rings.ring_fd = medium.open_doorbell(channel)
            rings.wake_fd = os.dup(rings.ring_fd)
            master = os.dup(rings.ring_fd)
        except BaseException:
            await _done(self.link.close_channel(channel))
            raise
        free = rings.on_close

        def close() -> None:
            medium.close_doorbell(master)
            if free is not None:
                free()

        rings.on_close = close

    def _bounded(self, geometry: Geometry) -> Geometry:
        limits = self.link.limits
        if geometry.slots > limits["slots"] or geometry.slot_size_bytes > limits["slot_size"]:
            raise BadArgument(
                f"a ring of {geometry.slots} slots of {geometry.slot_size_bytes} bytes; this link "
                f"allows {limits['slots']} slots of {limits['slot_size']} bytes"
            )
        return geometry

    async def close_channel(self, channel: int) -> None:
        """Closes a channel and gives its ring memory back."""
        grant = self.channels.pop(channel, None)
        if grant is None:
            raise BadArgument(f"no channel {channel} in context {self.id}")
        try:
            await _done(self.link.close_channel(channel))
            await _done(self.link.unmap_area(grant.ring_area))
        finally:
            grant.rings.close()

    async def forget_channels(self) -> None:
        """Lets go of channels that died, with the remote or alone, and of their memory."""
        for channel in list(self.channels):
            await self.close_channel(channel)

    async def close(self) -> None:
        """Destroys the context; memory goes back when the remote has acknowledged or is gone."""
        try:
            await _done(self.link.destroy_context(self.id))
        except LinkError as error:
            _log.debug("context %d ended with its link: %s", self.id, error)
        finally:
            self.release()

    def release(self) -> None:
        """Closes this end's descriptors; the remote must have let go already."""
        for area in self.areas.values():
            area.close()
        for channel in self.channels.values():
            channel.rings.close()
        self.areas.clear()
        self.channels.clear()
