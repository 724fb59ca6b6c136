"""Heaps: where the memory of areas comes from, as plug-ins found by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from sbe import errors

__all__ = ["Allocation", "Heap", "Syncable", "get", "names", "register"]


class Syncable(Protocol):
    """Cache maintenance for a range of an allocation; offsets and sizes in bytes."""

    def sync_for_device(self, offset: int, size_bytes: int) -> None:
        """The processor has written, the device will read."""
        ...

    def sync_for_cpu(self, offset: int, size_bytes: int) -> None:
        """The device has written, the processor will read."""
        ...


@dataclass(slots=True)
class Allocation:
    """Memory as a file descriptor, which the caller owns and closes.

    `size_bytes` is what the descriptor maps, at least what was asked for. `coherent`: every end
    sees it without cache maintenance. `segments` are the (device address, bytes) of its runs where
    a remote needs them, valid until it is closed; `attachment` synchronises caches for a range.
    Not thread-safe.
    """

    fd: int
    size_bytes: int
    coherent: bool
    segments: tuple[tuple[int, int], ...] = ()
    attachment: Syncable | None = None
    on_close: Callable[[], None] | None = None

    def close(self) -> None:
        """Close the descriptor; mappings of it live on. Closing twice is fine."""
        fd, self.fd = self.fd, -1
        if fd < 0:
            return
        os.close(fd)
        if self.on_close is not None:
            self.on_close()

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
        """What configuration and `get()` call it."""
        ...

    def allocate(self, size_bytes: int) -> Allocation:
        """Return zeroed memory of at least this size.

        Raises BadArgument for a size that is not positive, OutOfResources when there is no more.
        """
        ...


def _memfd() -> Heap:
    from sbe.heaps.memfd import MemfdHeap

    return MemfdHeap()


_makers: dict[str, Callable[[], Heap]] = {"memfd": _memfd}


def register(name: str, make: Callable[[], Heap]) -> None:
    """Make a heap known by name; `make` is called at each `get()`.

    Raises BadArgument when the name is taken.
    """
    if name in _makers:
        raise errors.BadArgument(f"a heap named {name!r} is registered already")
    _makers[name] = make


def get(name: str) -> Heap:
    """Return the heap of this name. Raises BadArgument, which lists the names there are."""
    make = _makers.get(name)
    if make is None:
        raise errors.BadArgument(f"no heap named {name!r}; there are: {', '.join(names())}")
    return make()


def names() -> list[str]:
    """Return the names of all heaps, sorted."""
    return sorted(_makers)
