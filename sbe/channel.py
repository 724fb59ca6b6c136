"""The channel floor: ring memory and doorbells, made by whoever opens a channel.

The one who opens (the daemon, or the SDK with an embedded remote) creates `Rings`: sealed ring
memory and a doorbell for each end, all file descriptors. They go to the remote beside
CHANNEL_OPEN, and to the process that uses the channel, which attaches with `attach()`.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from sbe import _native
from sbe.errors import BadArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sbe.heaps import Allocation, Heap

__all__ = ["DEFAULT_GEOMETRY", "Geometry", "Medium", "Rings", "attach", "create_rings"]


class Geometry(NamedTuple):
    """Slots of each ring and bytes of each slot; both are bounded by what the link negotiated.

    slots is a power of two, slot_size_bytes a multiple of 64.
    """

    slots: int = 256
    slot_size_bytes: int = 1024


DEFAULT_GEOMETRY = Geometry()


class Rings:
    """A channel's memory and doorbells, seen from the end that opens it. Owns its descriptors.

    `memory_fd` is the ring memory, `ring_fd` the remote's doorbell, `wake_fd` this end's. Offsets
    and sizes are in bytes.
    """

    def __init__(
        self,
        geometry: Geometry,
        line_bytes: int,
        send_offset: int,
        receive_offset: int,
        size_bytes: int,
        memory_fd: int,
        ring_fd: int,
        wake_fd: int,
        segments: tuple[tuple[int, int], ...] = (),
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self.geometry = geometry
        self.line_bytes = line_bytes
        self.send_offset = send_offset
        self.receive_offset = receive_offset
        self.size_bytes = size_bytes
        self.memory_fd = memory_fd
        self.ring_fd = ring_fd
        self.wake_fd = wake_fd
        self.segments = segments  # device addresses, where the remote takes no descriptors
        self.on_close = on_close

    @property
    def fds(self) -> tuple[int, int, int]:
        """memory, remote's doorbell, own doorbell."""
        return (self.memory_fd, self.ring_fd, self.wake_fd)

    def duplicate(self) -> Rings:
        """The same channel with descriptors of its own."""
        return Rings(
            self.geometry,
            self.line_bytes,
            self.send_offset,
            self.receive_offset,
            self.size_bytes,
            os.dup(self.memory_fd),
            os.dup(self.ring_fd),
            os.dup(self.wake_fd),
        )

    def counters(self) -> dict[str, int]:
        """Frames and doorbells each way, as the ends count them in the rings' shared words.

        Either end may have written nonsense there: for display only. Counters wrap at 2^32.
        """
        # A dma-buf can't be read through its descriptor.
        with mmap.mmap(self.memory_fd, self.size_bytes, prot=mmap.PROT_READ) as memory:
            out = self._ring(memory, self.send_offset)
            back = self._ring(memory, self.receive_offset)
        return {
            "frames_to_remote": out["head"],
            "frames_from_remote": back["head"],
            "doorbells_to_remote": out["doorbells"],
            "doorbells_from_remote": back["doorbells"],
            "space_doorbells_to_remote": back["space_doorbells"],
            "space_doorbells_from_remote": out["space_doorbells"],
            "in_flight": out["waiting"] + back["waiting"],
        }

    def _ring(self, memory: mmap.mmap, offset: int) -> dict[str, int]:
        layout = _native.layout()

        def word(structure: str, field: str, line: int) -> int:
            place = offset + line * self.line_bytes + layout[structure][field][0]
            return int.from_bytes(memory[place : place + 4], "little")

        head = word("sbe_ring_producer", "head", 0)
        tail = word("sbe_ring_consumer", "tail", 1)
        return {
            "head": head,
            "doorbells": word("sbe_ring_producer", "doorbells", 0),
            "space_doorbells": word("sbe_ring_consumer", "doorbells", 1),
            "waiting": min((head - tail) % (1 << 32), self.geometry.slots),
        }

    def close(self) -> None:
        """Closes the descriptors; mappings and duplicates live on."""
        for fd in self.fds:
            if fd >= 0:
                os.close(fd)
        self.memory_fd = self.ring_fd = self.wake_fd = -1
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            on_close()


class Medium(Protocol):
    """How memory and doorbells reach a remote that takes no file descriptors."""

    @property
    def heaps(self) -> Mapping[str, Heap]:
        """Memory for areas, by name, the first choice first."""
        ...

    @property
    def ring_heap(self) -> Heap:
        """Coherent memory for rings."""
        ...

    def open_doorbell(self, channel: int) -> int:
        """A descriptor that is a channel's doorbell, both ways; the caller's."""
        ...

    def close_doorbell(self, fd: int) -> None:
        """The channel is closed: ends the doorbell, duplicates included, and closes fd."""
        ...


def create_rings(geometry: Geometry, line_bytes: int, medium: Medium | None = None) -> Rings:
    """Memory for both directions and doorbells. BadArgument on illegal geometry.

    Without a medium sealed memory and two eventfds; with one its memory, and no doorbells yet.
    """
    ring = _native.ring_size(geometry.slots, geometry.slot_size_bytes, line_bytes)
    if ring > 1 << 30:
        raise BadArgument(f"a ring of {ring} bytes: fewer or smaller slots will do")
    # The second ring starts on a line of its own; slot sizes keep every slot aligned to 64 bytes.
    receive_offset = -(-ring // line_bytes) * line_bytes
    size = receive_offset + ring
    if medium is not None:
        allocation = medium.ring_heap.allocate(size)
        rings = Rings(geometry, line_bytes, 0, receive_offset, allocation.size_bytes, -1, -1, -1)
        return _adopt(rings, allocation)
    from sbe.heaps import memfd  # whoever only attaches needs no heap

    allocation = memfd.MemfdHeap().allocate(size)
    flags = os.EFD_CLOEXEC | os.EFD_NONBLOCK
    fds = [allocation.fd]
    try:
        fds.append(os.eventfd(0, flags))
        fds.append(os.eventfd(0, flags))
    except OSError:
        for fd in fds:
            os.close(fd)
        raise
    memory, ring_fd, wake_fd = fds
    return Rings(
        geometry,
        line_bytes,
        0,
        receive_offset,
        allocation.size_bytes,
        memory,
        ring_fd,
        wake_fd,
    )


def _adopt(rings: Rings, allocation: Allocation) -> Rings:
    """The rings own what the allocation does."""
    rings.memory_fd, rings.segments = allocation.fd, allocation.segments
    allocation.fd, rings.on_close = -1, allocation.on_close
    return rings


def attach(
    rings: Rings,
    table: _native.Table,
    channel: int,
    context: int,
    *,
    control_fd: int = -1,
    on_control: Callable[[], None] | None = None,
    max_calls: int = 4096,
) -> _native.Channel:
    """This process's end of a channel. The descriptors stay the caller's.

    Fresh memory is all zero, which is a legal empty ring; the remote may have attached already,
    so nothing is cleared here.
    """
    memory = _native.Memory(rings.memory_fd, rings.size_bytes)
    return _native.Channel(
        table,
        memory,
        channel,
        context,
        rings.geometry.slots,
        rings.geometry.slot_size_bytes,
        rings.line_bytes,
        rings.send_offset,
        rings.receive_offset,
        rings.ring_fd,
        rings.wake_fd,
        control_fd=control_fd,
        on_control=on_control,
        max_calls=max_calls,
    )
