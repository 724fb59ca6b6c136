"""How a remote reaches memory that its host names in AREA_MAP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sbe import _native, errors
from sbe.transports.window import Window

__all__ = ["Descriptors", "HostMemory", "SharedWindow"]


class HostMemory(Protocol):
    """Opens memory of the host. What the host says of it is checked here."""

    def open(
        self, flags: int, size: int, segments: Sequence[tuple[int, int]], fds: Sequence[int]
    ) -> _native.Memory:
        """A mapping of `size` bytes; `segments` are (device address, bytes), the descriptors stay
        the caller's. Raises an Error, which is the answer to the host.
        """
        ...


class Descriptors:
    """Memory comes as descriptors of sealed memfds, as over a socket."""

    def open(
        self, flags: int, size: int, segments: Sequence[tuple[int, int]], fds: Sequence[int]
    ) -> _native.Memory:
        """Maps the descriptor. Raises BadArgument without one, or for one that may shrink."""
        if len(fds) != 1:
            raise errors.BadArgument("an area comes with its descriptor on this link")
        with errors.resources(f"mapping {size} bytes of the host"):
            return _native.Memory(fds[0], size, readonly=bool(flags & _native.AREA_READONLY))


class SharedWindow:
    """Memory is a part of the arena in a window that both ends share.

    Device addresses are offsets into the window: this end has said so.
    """

    def __init__(self, window: Window) -> None:
        self._window = window

    def open(
        self, flags: int, size: int, segments: Sequence[tuple[int, int]], fds: Sequence[int]
    ) -> _native.Memory:
        """Maps that part. Raises an Error with code ERANGE for anything outside of the arena."""
        if fds or len(segments) != 1:
            raise errors.BadArgument("an area is one segment of the window on this link")
        return self._window.map_part(
            segments[0][0], size, readonly=bool(flags & _native.AREA_READONLY)
        )
