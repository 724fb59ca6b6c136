"""Transports: how control messages, with file descriptors beside them, reach the other end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

__all__ = ["Endpoint", "PrivateRings", "Transport"]


class PrivateRings(NamedTuple):
    """A channel's rings in memory that the remote does not see: their frames travel as messages.

    The descriptor stays the caller's. Offsets and sizes are in bytes.
    """

    memory_fd: int
    size: int
    send_offset: int
    receive_offset: int
    slots: int
    slot_size: int
    line: int


class Transport(Protocol):
    """A message pipe to one peer. Nothing blocks. Not thread-safe: the owner serialises.

    Messages keep their borders and their order. A transport that has raised LinkError other than
    ProtocolError is dead and only good for `close()`.
    """

    carries_handles: bool
    """Descriptors travel beside messages. Where they do not, areas go by their segments, and the
    doorbells of channels through `add_doorbells()`."""

    def send(self, message: bytes, fds: Sequence[int] = ()) -> None:
        """Sends or queues a message with descriptors, which stay the caller's.

        Raises WouldBlock when the queue is full, LinkError when the peer is gone.
        """
        ...

    def receive(self) -> tuple[bytes, list[int]] | None:
        """Returns the next message and its descriptors, now the caller's; None when there is none.

        Raises ProtocolError for one message that is not whole (go on), LinkError at the end.
        """
        ...

    def fileno(self) -> int:
        """Returns a descriptor that polls readable for `receive()` and writable for `flush()`."""
        ...

    @property
    def wants_write(self) -> bool:
        """Something is queued: call `flush()` when the descriptor is writable."""
        ...

    def flush(self) -> None:
        """Sends what is queued, as far as the peer takes it. Raises LinkError."""
        ...

    def add_doorbells(
        self, channel: int, ring_fd: int, wake_fd: int, rings: PrivateRings | None = None
    ) -> None:
        """Carries a channel's doorbells: rings of the one to the remote, and its to the other.

        The descriptors are eventfds and stay the caller's. Only where no handles are carried. With
        `rings` the frames are carried too. BadArgument where that can't be.
        """
        ...

    def remove_doorbells(self, channel: int) -> None:
        """Forgets a channel. One that is not known is fine."""
        ...

    def close(self) -> None:
        """Lets go of everything. Closing twice is fine.

        The peer hears of it even while a forked child has copies of the descriptors. In that child
        it closes the copies, and neither tells the peer anything nor takes from the parent.
        """
        ...


class Endpoint(Protocol):
    """Messages of foreign firmware, whole and in order. Nothing blocks. Not thread-safe."""

    name: str
    """As the firmware announces it."""
    address: int
    """The firmware's, for listings; 0: there are none."""

    def fileno(self) -> int:
        """Returns a descriptor that is readable when `receive()` has something to say."""
        ...

    def send(self, message: bytes) -> bool:
        """Sends a message; False: there is no room now, nothing was sent.

        Raises MessageTooLarge, LinkError when the other end is gone.
        """
        ...

    def receive(self) -> bytes | None:
        """Returns the next message; None when there is none. Raises LinkError at the end."""
        ...

    def close(self) -> None:
        """Lets go of it. Closing twice is fine."""
        ...
