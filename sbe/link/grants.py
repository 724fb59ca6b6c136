"""What an application is handed: an area or a channel, as ids and descriptors."""

from __future__ import annotations

from typing import NamedTuple

from sbe.host.descriptors import duplicate
from sbe.link.rings import Rings

__all__ = ["ChannelGrant", "Grant", "RawGrant"]


class Grant(NamedTuple):
    """An area. Whoever made it owns its descriptors; whoever got a duplicate owns that one's.

    `fd` is to be mapped from `offset_bytes`, and not at all if that is MEMORY_UNMAPPED; `trusted`:
    the file needs no seals. `sync_fd` maintains caches for ranges of it, -1 where the memory is
    coherent. `heap` says where it is from.
    """

    id: int
    size_bytes: int
    flags: int
    fd: int
    heap: str
    offset_bytes: int = 0
    trusted: bool = False
    sync_fd: int = -1

    def duplicate(self) -> Grant:
        """The same area with descriptors of its own. Raises OutOfResources."""
        fd, sync_fd = duplicate((self.fd, self.sync_fd), "an area's descriptors")
        return self._replace(fd=fd, sync_fd=sync_fd)


class ChannelGrant(NamedTuple):
    """A channel; it dies with the remote, whose epoch this is. Who owns its rings: as above."""

    id: int
    epoch: int
    priority: int
    rings: Rings

    def duplicate(self) -> ChannelGrant:
        """The same channel with descriptors of its own. Raises OutOfResources."""
        return self._replace(rings=self.rings.duplicate())


class RawGrant(NamedTuple):
    """An endpoint for raw messages. `fd`, a socket, tells of what came: `raw.ANSWER`, then the
    bytes. Its end is the endpoint's. Whoever got it owns it.
    """

    id: int
    fd: int
