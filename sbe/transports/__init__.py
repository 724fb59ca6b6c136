"""Transports: how control messages, with file descriptors beside them, reach the other end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

__all__ = ["Transport"]


class Transport(Protocol):
    """A message pipe to one peer. Nothing blocks. Not thread-safe: the owner serialises.

    Messages keep their borders and their order. A transport that has raised LinkError other than
    ProtocolError is dead and only good for `close()`.
    """

    def send(self, message: bytes, fds: Sequence[int] = ()) -> None:
        """Send or queue a message with descriptors, which stay the caller's.

        Raises WouldBlock when the queue is full, LinkError when the peer is gone.
        """
        ...

    def receive(self) -> tuple[bytes, list[int]] | None:
        """Return the next message and its descriptors, now the caller's; None when there is none.

        Raises ProtocolError for one message that is not whole (go on), LinkError at the end.
        """
        ...

    def fileno(self) -> int:
        """Return a descriptor that polls readable for `receive()` and writable for `flush()`."""
        ...

    @property
    def wants_write(self) -> bool:
        """Something is queued: call `flush()` when the descriptor is writable."""
        ...

    def flush(self) -> None:
        """Send what is queued, as far as the peer takes it. Raises LinkError."""
        ...

    def close(self) -> None:
        """Let go of everything. Closing twice is fine."""
        ...
