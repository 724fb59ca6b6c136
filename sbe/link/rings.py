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
from typing import TYPE_CHECKING, NamedTuple

from sbe import _native
from sbe.errors import BadArgument, ProtocolError, resources
from sbe.host.descriptors import close_all, duplicate

if TYPE_CHECKING:
    from sbe.heaps import Allocation, Heap

__all__ = [
    "BEATS",
    "DEFAULT_GEOMETRY",
    "Geometry",
    "Rings",
    "Sight",
    "attach",
    "create_rings",
    "listener",
    "shut_by_remote",
]


BEATS = 1 << 15
_FRAMES_LOOKED_AT = 1024  # for the one at hand: a ring may have many more


class Geometry(NamedTuple):
    """Slots of each ring and bytes of each slot; both are bounded by what the link negotiated.

    slots is a power of two, slot_size_bytes a multiple of 64.
    """

    slots: int = 256
    slot_size_bytes: int = 1024


DEFAULT_GEOMETRY = Geometry()


class Sight(NamedTuple):
    """What the remote shows in the ring that this end sends: it moves while the remote goes on."""

    request: int | None
    """The low bits of the transaction whose handler runs."""
    service: int
    """Of that request, -1 not known."""
    beat: int
    """Counts all that its handlers have shown, on whichever ring; wraps at BEATS."""
    tail: int
    """Frames that it has taken and returned."""
    answered: int
    """Frames that it has sent."""
    waiting: int
    """Frames in the ring beside the one at hand."""


class _Ring(NamedTuple):
    head: int
    tail: int
    doorbells: int
    space_doorbells: int
    at_work: int
    waiting: int


class Rings:
    """A channel's memory and doorbells, seen from the end that opens it. Owns its descriptors.

    `memory_fd` is the ring memory, from `memory_offset` on, `ring_fd` the remote's doorbell,
    `wake_fd` this end's: an eventfd, or a listener over it. `trusted`: the file needs no seals.
    `allocation` owns memory_fd at the end that made it. Offsets and sizes are in bytes.
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
        *,
        memory_offset: int = 0,
        trusted: bool = False,
        allocation: Allocation | None = None,
    ) -> None:
        self.geometry = geometry
        self.line_bytes = line_bytes
        self.send_offset = send_offset
        self.receive_offset = receive_offset
        self.size_bytes = size_bytes
        self.memory_fd = memory_fd
        self.ring_fd = ring_fd
        self.wake_fd = wake_fd
        self.memory_offset = memory_offset
        self.trusted = trusted
        self.allocation = allocation

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
            *duplicate(self.fds, "duplicating a channel's descriptors"),
            memory_offset=self.memory_offset,
            trusted=self.trusted,
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
        """Frames and doorbells each way, as the ends count them in the rings' shared words.

        Either end may have written nonsense there: for display only. Counters wrap at 2^32.
        """
        with self._mapped() as memory:
            out = self._ring(memory, self.send_offset)
            back = self._ring(memory, self.receive_offset)
        return {
            "frames_to_remote": out.head,
            "frames_from_remote": back.head,
            "doorbells_to_remote": out.doorbells,
            "doorbells_from_remote": back.doorbells,
            "space_doorbells_to_remote": back.space_doorbells,
            "space_doorbells_from_remote": out.space_doorbells,
            "in_flight": out.waiting + back.waiting,
        }

    def look(self) -> Sight:
        """What the remote works on. As trustworthy as the counters."""
        with self._mapped() as memory:
            out = self._ring(memory, self.send_offset)
            answered = self._ring(memory, self.receive_offset).head
            request, service, untaken = None, -1, False
            if out.at_work & _native.AT_WORK:
                request = out.at_work & _native.AT_WORK_TRANSACTIONS
                service, untaken = self._service(memory, out, request)
        beat = (out.at_work & _native.AT_WORK_BEATS) // (_native.AT_WORK_TRANSACTIONS + 1)
        return Sight(request, service, beat, out.tail, answered, out.waiting - untaken)

    def _mapped(self) -> memoryview:
        # A dma-buf can't be read through its descriptor.
        return memoryview(
            _native.Memory(
                self.memory_fd,
                self.size_bytes,
                readonly=True,
                trusted=True,  # it is ours, or its owner's word has been taken before
                offset=self.memory_offset,
            )
        )

    def _service(self, memory: memoryview, ring: _Ring, request: int) -> tuple[int, bool]:
        """Which one a request is for, and whether its frame was not returned yet: a handler that
        goes on in a later turn has it behind it, until another frame takes its place.
        """
        layout = _native.layout()["sbe_wire_frame"]
        slots, size = self.geometry
        first = self.send_offset + 2 * self.line_bytes

        def field(index: int, name: str) -> int:
            offset, length = layout[name]
            place = first + index % slots * size + offset
            return int.from_bytes(memory[place : place + length], "little")

        def is_it(index: int) -> bool:
            low = field(index, "transaction") & _native.AT_WORK_TRANSACTIONS
            return low == request and field(index, "type") == _native.FRAME_REQUEST

        untaken = min(ring.waiting, _FRAMES_LOOKED_AT)
        behind = min(slots - ring.waiting, _FRAMES_LOOKED_AT)
        for index in range(ring.tail, ring.tail + untaken):
            if is_it(index):
                return field(index, "service"), True
        for index in range(ring.tail - 1, ring.tail - 1 - behind, -1):
            if is_it(index):
                return field(index, "service"), False
        return -1, False

    def _ring(self, memory: memoryview, offset: int) -> _Ring:
        layout = _native.layout()

        def word(structure: str, field: str, line: int) -> int:
            place = offset + line * self.line_bytes + layout[structure][field][0]
            return int.from_bytes(memory[place : place + 4], "little")

        head = word("sbe_ring_producer", "head", 0)
        tail = word("sbe_ring_consumer", "tail", 1)
        return _Ring(
            head,
            tail,
            word("sbe_ring_producer", "doorbells", 0),
            word("sbe_ring_consumer", "doorbells", 1),
            word("sbe_ring_consumer", "at_work", 1),
            min((head - tail) % (1 << 32), self.geometry.slots),
        )

    def close(self) -> None:
        """Closes the descriptors; mappings and duplicates live on.

        The one that opened the channel gives the memory back: the remote must have let go.
        """
        allocation = self.let_go()
        if allocation is not None:
            allocation.close()

    def let_go(self) -> Allocation | None:
        """Closes the descriptors except the memory of the one that opened the channel: it is the
        caller's, who gives it back once the remote has let go.
        """
        allocation, self.allocation = self.allocation, None
        if allocation is not None:
            self.memory_fd = -1
        fds, self.memory_fd, self.ring_fd, self.wake_fd = self.fds, -1, -1, -1
        close_all(fds)
        return allocation


def create_rings(geometry: Geometry, line_bytes: int, heap: Heap | None = None) -> Rings:
    """Memory for both directions, by default sealed, and two eventfds.

    Raises BadArgument on illegal geometry, and what the heap raises.
    """
    ring = _native.ring_size(geometry.slots, geometry.slot_size_bytes, line_bytes)
    if ring > 1 << 30:
        raise BadArgument(f"a ring of {ring} bytes: fewer or smaller slots will do")
    # The second ring starts on a line of its own; slot sizes keep every slot aligned to 64 bytes.
    receive_offset = -(-ring // line_bytes) * line_bytes
    if heap is None:
        from sbe.heaps import memfd  # whoever only attaches needs no heap

        heap = memfd.MemfdHeap()
    allocation = heap.allocate(receive_offset + ring)
    flags = os.EFD_CLOEXEC | os.EFD_NONBLOCK
    fds: list[int] = []
    try:
        with resources("making a channel's doorbells"):
            fds.append(os.eventfd(0, flags))
            fds.append(os.eventfd(0, flags))
    except BaseException:
        allocation.close()
        close_all(fds)
        raise
    return Rings(
        geometry,
        line_bytes,
        0,
        receive_offset,
        allocation.size_bytes,
        allocation.fd,
        *fds,
        memory_offset=allocation.offset_bytes,
        trusted=allocation.trusted,
        allocation=allocation,
    )


def listener(doorbell_fd: int) -> int:
    """A descriptor that waits for an eventfd, and can do nothing else to it.

    File status flags are shared by all who hold an eventfd: any of them can make the others' writes
    block. Who holds a listener, an epoll descriptor, can't reach the eventfd. Each ring makes it
    readable until epoll_wait() has been called on it; the eventfd itself need not be read.
    """
    with resources("making a listener over a doorbell"), select.epoll() as poll:
        poll.register(doorbell_fd, select.EPOLLIN | select.EPOLLET)
        return os.dup(poll.fileno())


def shut_by_remote(channel: int) -> ProtocolError:
    """What is told to who uses a channel that the other end has shut."""
    return ProtocolError(
        f"the remote has read a ring index that can't be; channel {channel} is shut: something in "
        "this process has written over its rings"
    )


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
    with resources(f"attaching to channel {channel}"):
        memory = _native.Memory(
            rings.memory_fd, rings.size_bytes, trusted=rings.trusted, offset=rings.memory_offset
        )
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
