"""The context floor: one isolation domain of a link, with its areas and channels.

Written once for two drivers: the operations are coroutines that await the link's `Pending`
objects. `run_sync()` drives one from a plain thread (the SDK), `run_async()` from an asyncio loop
(the daemon). Not thread-safe: the owner of the link serialises.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Coroutine, Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sbe import _native
from sbe.channel import DEFAULT_GEOMETRY, Geometry, Rings, create_rings
from sbe.errors import BadArgument, Error, LinkError
from sbe.heaps import Allocation, Heap, Offering
from sbe.heaps.memfd import MemfdHeap
from sbe.link import Link, Pending

__all__ = ["AreaGrant", "ChannelGrant", "HostContext", "run_async", "run_sync"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass
class AreaGrant:
    """An area as its context made it. `fd` is valid as long as the area, and not its user's."""

    id: int
    size_bytes: int
    flags: int
    fd: int
    heap: str
    offset_bytes: int = 0
    trusted: bool = False
    allocation: Allocation | None = None

    @property
    def sync_fd(self) -> int:
        """What maintains caches for ranges of it, which stays the context's; -1 where coherent."""
        if self.allocation is None or self.allocation.coherent:
            return -1
        attachment = self.allocation.attachment
        return -1 if attachment is None else attachment.fileno()

    def close(self) -> None:
        """Gives the memory back: the remote must have let go."""
        if self.allocation is not None:
            self.allocation.close()
        elif self.fd >= 0:
            os.close(self.fd)
        self.fd = -1


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


def _keep(allocation: Allocation | None) -> None:
    """Memory that the remote has not let go of does not go back to its heap."""
    if allocation is not None:
        allocation.release = None


@dataclass
class HostContext:
    """One context of a link: what its application has been given, and its orderly end."""

    link: Link
    heaps: dict[str, Heap] = field(default_factory=lambda: {"memfd": MemfdHeap()})
    ring_heap: Heap | None = None  # where ring memory comes from, None: sealed memfds
    slot_size_max: int | None = None  # of a ring's slot, bytes, beside what the link agrees on
    offering: Offering | None = None  # memory that the remote owns
    apart: bool = False  # channels are used by a process that the remote doesn't trust, nor it that
    id: int = 0
    areas: dict[int, AreaGrant] = field(default_factory=dict)
    channels: dict[int, ChannelGrant] = field(default_factory=dict)

    def supply(self, remote: object) -> None:
        """Takes memory from what comes with a remote, before `open()`.

        That may be `heaps` by name, `ring_heap` (else the first is for rings too),
        `slot_size_max`, and `window`, which offers regions. The rest stays as it is.
        """
        heaps: dict[str, Heap] | None = getattr(remote, "heaps", None)
        if heaps is None:
            return
        self.heaps = heaps
        self.ring_heap = getattr(remote, "ring_heap", next(iter(heaps.values()), None))
        self.slot_size_max = getattr(remote, "slot_size_max", None)
        self.offering = getattr(remote, "window", None)

    async def open(self) -> None:
        """Creates the context at the remote."""
        self.id = await _done(self.link.create_context())

    @property
    def limits(self) -> dict[str, int]:
        """What the link agreed on, less where its rings allow less."""
        limits = dict(self.link.limits)
        if self.slot_size_max is not None:
            limits["slot_size"] = min(limits["slot_size"], self.slot_size_max)
        return limits

    def heap(self, name: str | None) -> Heap:
        """The heap of this name, or the first. BadArgument says which there are."""
        if name is None and self.heaps:
            return next(iter(self.heaps.values()))
        if name is None:
            raise LinkError(
                "this machine has no memory that the remote can reach; what rides in a frame needs "
                "none",
                errno.ENODEV,
            )
        if name not in self.heaps:
            raise BadArgument(f"no heap {name!r}; there are: {', '.join(self.heaps)}")
        return self.heaps[name]

    async def allocate(self, size_bytes: int, heap: str | None = None) -> AreaGrant:
        """Allocates memory and registers it with the remote.

        The grant's size is what was asked for, rounded up to the heap's granularity.
        """
        source = self.heap(heap)
        return await self.register(source.allocate(size_bytes), source.name)

    @property
    def regions(self) -> dict[str, int]:
        """Bytes of each region that the remote owns and offers, by name."""
        return {} if self.offering is None else self.offering.regions

    async def open_region(self, name: str) -> AreaGrant:
        """Registers one of `regions`, to be looked at. BadArgument says which there are."""
        if self.offering is None or name not in self.regions:
            offered = ", ".join(self.regions) or "none"
            raise BadArgument(f"the remote offers no region {name!r}; it offers: {offered}")
        return await self.register(self.offering.open_region(name), f"remote:{name}")

    async def register(self, allocation: Allocation, heap: str) -> AreaGrant:
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
        grant = AreaGrant(
            area,
            allocation.size_bytes,
            flags,
            fd,
            heap,
            allocation.offset_bytes,
            allocation.trusted,
            allocation,
        )
        self.areas[area] = grant
        return grant

    async def _map(self, allocation: Allocation, flags: int) -> int:
        """Registers memory, which goes back to its heap if the remote refuses it."""
        pending: Pending[int] | None = None
        try:
            pending = self.link.map_area(
                self.id,
                allocation.fd,
                allocation.size_bytes,
                flags,
                segments=allocation.segments,
            )
            return await _done(pending)
        except BaseException:
            if pending is None or pending.done:
                allocation.close()
            else:  # a remote that has not answered may yet map it
                pending.add_done_callback(
                    lambda late: allocation.close() if late.error is not None else None
                )
            raise

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
        rings = create_rings(geometry, self.link.line, self.ring_heap)
        assert rings.allocation is not None  # just made
        try:
            ring_area = await self._map(rings.allocation, _native.AREA_RING | _native.AREA_COHERENT)
        except BaseException:
            rings.allocation = None  # its fate is decided
            rings.memory_fd = -1
            rings.close()
            raise
        try:
            with rings.remote_doorbells(apart=self.apart) as doorbells:
                channel = await _done(
                    self.link.open_channel(
                        self.id,
                        ring_area,
                        slots=geometry.slots,
                        slot_size=geometry.slot_size_bytes,
                        send_offset=rings.send_offset,
                        receive_offset=rings.receive_offset,
                        priority=priority,
                        doorbells=doorbells,
                    )
                )
        except BaseException as error:
            unmapping = self._take_back(ring_area, rings)
            if unmapping is not None and isinstance(error, Error):
                await _done(unmapping)
            raise
        grant = ChannelGrant(channel, ring_area, priority, rings)
        self.channels[channel] = grant
        return grant

    def _take_back(self, ring_area: int, rings: Rings) -> Pending[None] | None:
        """Rings of a channel that was not opened: free once the remote has let go of them."""
        try:
            pending = self.link.unmap_area(ring_area)
        except LinkError:
            rings.close()
            return None
        except Error as error:  # the opening may still be answered: they end with the context
            _log.debug("ring memory stays mapped: %s", error)
            return None
        pending.add_done_callback(lambda _: rings.close())
        return pending

    def _bounded(self, geometry: Geometry) -> Geometry:
        limits = self.limits
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
        except BaseException:
            _keep(grant.rings.allocation)
            raise
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
        except BaseException:
            self._keep_memory()
            raise
        finally:
            self.release()

    def _keep_memory(self) -> None:
        """The remote has not let go: what it may still write never goes back to a heap."""
        for area in self.areas.values():
            _keep(area.allocation)
        for channel in self.channels.values():
            _keep(channel.rings.allocation)

    def let_go(self) -> None:
        """In a forked child: closes its descriptors. What goes back to a heap is the parent's."""
        self._keep_memory()
        self.release()

    def release(self) -> None:
        """Closes this end's descriptors; the remote must have let go already."""
        for area in self.areas.values():
            area.close()
        for channel in self.channels.values():
            channel.rings.close()
        self.areas.clear()
        self.channels.clear()
