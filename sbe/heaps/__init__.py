"""Heaps: where the memory of areas comes from, as plug-ins behind one interface."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

__all__ = ["Allocation", "Heap", "Offering", "Syncable"]


class Syncable(Protocol):
    """Cache maintenance for a range of an allocation; offsets and sizes in bytes."""

    def fileno(self) -> int:
        """The attachment of sbe_dmabuf, for who maintains ranges without Python.

        Or a SOCK_SEQPACKET socket, whose other end does it, in another thread than Python's: it
        takes `struct sbe_dmabuf_sync` as a message and answers with a status of 4 bytes, 0 or
        negative, when it is done. What takes a second has failed.
        """
        ...

    def sync_for_device(self, offset: int, size_bytes: int) -> None:
        """The processor has written, the device will read."""
        ...

    def sync_for_cpu(self, offset: int, size_bytes: int) -> None:
        """The device has written, the processor will read."""
        ...


@dataclass(slots=True)
class Allocation:
    """Memory as a range of a file descriptor, which the caller owns and closes.

    `size_bytes` is what there is from `offset_bytes`, at least what was asked for. `coherent`:
    every end sees it without cache maintenance. `segments` are its (device address, bytes) where
    the remote reaches it by address and not by the descriptor. `trusted`: the file needs no seals,
    nobody else can shrink it. `readonly`: it is the remote's, this end looks only. `mappable`: the
    processor may reach it; if not, only devices do. `attachment` synchronises caches for a range.
    `release` gives the range back to its heap. Not thread-safe.
    """

    fd: int
    size_bytes: int
    coherent: bool
    offset_bytes: int = 0
    segments: tuple[tuple[int, int], ...] = ()
    trusted: bool = False
    readonly: bool = False
    mappable: bool = True
    release: Callable[[], None] | None = field(default=None, repr=False)
    attachment: Syncable | None = field(default=None, repr=False)

    def close(self) -> None:
        """Closes the descriptor; mappings of it live on. Closing twice is fine.

        Memory that has a heap to go back to goes: neither end may use it any more.
        """
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
        release, self.release = self.release, None
        if release is not None:
            release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Heap(Protocol):
    """One kind of memory. Implementations allow calls from any thread."""

    @property
    def name(self) -> str:
        """What configuration and `allocate(heap=...)` call it."""
        ...

    def allocate(self, size_bytes: int) -> Allocation:
        """Returns zeroed memory of at least this size.

        Raises BadArgument for a size that is not positive, OutOfResources when there is no more.
        """
        ...


class Offering(Protocol):
    """Memory that a remote owns and lets others look at."""

    @property
    def regions(self) -> dict[str, int]:
        """Bytes of each region, by name."""

    def open_region(self, name: str) -> Allocation:
        """Returns one of them, read-only. Raises LinkError for one that can't be mapped."""
        ...
