"""The channel floor: ring memory and doorbells, made by whoever opens a channel.

The one who opens (the daemon, or the SDK with an embedded remote) creates `Rings`: sealed ring
memory and a doorbell for each end, all file descriptors. They go to the remote beside
CHANNEL_OPEN, and to the process that uses the channel, which attaches with `attach()`.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Callable, Iterator
from typing import NamedTuple

from sbe import _native
from sbe.errors import BadArgument

__all__ = ["DEFAULT_GEOMETRY", "Geometry", "Rings", "attach", "create_rings", "listener"]


class Geometry(NamedTuple):
    """Slots of each ring and bytes of each slot; both are bounded by what the link negotiated.

    slots is a power of two, slot_size_bytes a multiple of 64.
    """

    slots: int = 256
    slot_size_bytes: int = 1024


DEFAULT_GEOMETRY = Geometry()


class Rings:
    """A channel's memory and doorbells, seen from the end that opens it. Owns its descriptors.

    `memory_fd` is the ring memory, `ring_fd` the remote's doorbell, `wake_fd` this end's: an
    eventfd, or a listener over it. Offsets and sizes are in bytes.
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
    ) -> None:
        self.geometry = geometry
        self.line_bytes = line_bytes
        self.send_offset = send_offset
        self.receive_offset = receive_offset
        self.size_bytes = size_bytes
        self.memory_fd = memory_fd
        self.ring_fd = ring_fd
        self.wake_fd = wake_fd

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
            *(os.dup(fd) for fd in self.fds),
        )

    @contextlib.contextmanager
    def remote_doorbells(self, *, apart: bool) -> Iterator[tuple[int, int]]:
        """The remote's doorbell and this end's, as they go into CHANNEL_OPEN inside the block.

        `apart`: the remote and the process that uses the channel do not trust each other. Then each
        gets the eventfd that it rings, and of its own doorbell no more than a listener; after the
        block that is all that `wake_fd` is.
        """
        if not apart:
            yield self.ring_fd, self.wake_fd
            return
        theirs = listener(self.ring_fd)
        try:
            ours = listener(self.wake_fd)
            bell, self.wake_fd = self.wake_fd, ours
            try:
                yield theirs, bell
            finally:
                os.close(bell)
        finally:
            os.close(theirs)

    def counters(self) -> dict[str, int]:
        """Frames and doorbells each way, from the rings' shared words.

        Either end may have written nonsense there: for display only. Indices are free-running
        32-bit numbers, so counts start over after 2^32 frames.
        """
        layout = _native.layout()
        producer, consumer = layout["sbe_ring_producer"], layout["sbe_ring_consumer"]
        sent, received = self.send_offset, self.receive_offset

        taken = sent + self.line_bytes + consumer["tail"][0]

        def word(offset: int) -> int:
            return int.from_bytes(os.pread(self.memory_fd, 4, offset), "little")

        return {
            "sent": word(sent + producer["head"][0]),
            "received": word(received + producer["head"][0]),
            "doorbells_sent": word(sent + producer["doorbells"][0]),
            "doorbells_received": word(received + producer["doorbells"][0]),
            "space_doorbells_sent": word(received + self.line_bytes + consumer["doorbells"][0]),
            "space_doorbells_received": word(sent + self.line_bytes + consumer["doorbells"][0]),
            "waiting": (word(sent + producer["head"][0]) - word(taken)) % (1 << 32),
        }

    def close(self) -> None:
        """Closes the descriptors; mappings and duplicates live on."""
        for fd in self.fds:
            if fd >= 0:
                os.close(fd)
        self.memory_fd = self.ring_fd = self.wake_fd = -1


def create_rings(geometry: Geometry, line_bytes: int) -> Rings:
    """Sealed memory for both directions and two eventfds. BadArgument on illegal geometry."""
    ring = _native.ring_size(geometry.slots, geometry.slot_size_bytes, line_bytes)
    if ring > 1 << 30:
        raise BadArgument(f"a ring of {ring} bytes: fewer or smaller slots will do")
    # The second ring starts on a line of its own; slot sizes keep every slot aligned to 64 bytes.
    receive_offset = -(-ring // line_bytes) * line_bytes
    from sbe.heaps import memfd  # whoever only attaches needs no heap

    allocation = memfd.MemfdHeap().allocate(receive_offset + ring)
    flags = os.EFD_CLOEXEC | os.EFD_NONBLOCK
    fds = [allocation.fd]
    try:
        fds.append(os.eventfd(0, flags))
        fds.append(os.eventfd(0, flags))
    except OSError:
        for fd in fds:
            os.close(fd)
        raise
    return Rings(geometry, line_bytes, 0, receive_offset, allocation.size_bytes, *fds)


def listener(doorbell_fd: int) -> int:
    """A descriptor that waits for an eventfd, and can do nothing else to it.

    File status flags are shared by all who hold an eventfd: any of them can make the others' writes
    block. Who holds a listener, an epoll descriptor, can't reach the eventfd. Each ring makes it
    readable until epoll_wait() has been called on it; the eventfd itself need not be read.
    """
    with select.epoll() as poll:
        poll.register(doorbell_fd, select.EPOLLIN | select.EPOLLET)
        return os.dup(poll.fileno())


def attach(
    rings: Rings,
    table: _native.Table,
    channel: int,
    context: int,
    *,
    control_fd: int = -1,
    on_control: Callable[[], None] | None = None,
    max_calls: int = 4096,
    max_buffers: int = _native.BUFFERS_MAX,
) -> _native.Channel:
    """This process's end of a channel. The descriptors stay the caller's.

    `max_buffers` in a frame is what the link agreed on, its `limits["buffers"]`.

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
        max_buffers=max_buffers,
    )
