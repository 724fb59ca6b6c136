"""One arena of RAM that both ends reach: allocated here, by offsets, first fit."""

from __future__ import annotations

import bisect
import mmap
import os
import threading

from sbe import _native, errors
from sbe.heaps import Allocation
from sbe.host.descriptors import duplicate

__all__ = ["CarveoutHeap"]

_ZEROES = bytes(1 << 20)


class CarveoutHeap:
    """Sub-allocates a range of a file: shared RAM of an emulated board, /dev/mem, a UIO device.

    Every allocation starts on a page, so that it can be mapped alone, and on a line of any cache.
    `offset_bytes` is the arena's place in the file, `address` the remote's device address of its
    first byte. Free neighbours are one. The file is trusted to keep its size. Thread-safe.
    """

    def __init__(
        self,
        fd: int,
        offset_bytes: int,
        size_bytes: int,
        *,
        address: int | None = None,
        coherent: bool = True,
        name: str = "carveout",
    ) -> None:
        page = mmap.PAGESIZE
        if offset_bytes % page or size_bytes < page:
            raise errors.BadArgument(
                f"an arena of {size_bytes} bytes at {offset_bytes}: whole pages of {page} bytes"
            )
        self.name = name
        self.address = address
        self._coherent = coherent
        self._offset = offset_bytes
        self._size = size_bytes - size_bytes % page
        with errors.resources(f"{name}: mapping {self._size} bytes"):
            self._memory = _native.Memory(fd, self._size, trusted=True, offset=offset_bytes)
        (self._fd,) = duplicate((fd,), name)
        self._lock = threading.Lock()
        self._free: list[tuple[int, int]] = [(0, self._size)]  # (offset, bytes), sorted, apart

    @property
    def free_bytes(self) -> int:
        """Bytes that are not allocated, in however many pieces."""
        with self._lock:
            return sum(size for _, size in self._free)

    @property
    def largest_bytes(self) -> int:
        """Bytes of the largest allocation that would succeed now."""
        with self._lock:
            return max((size for _, size in self._free), default=0)

    def allocate(self, size_bytes: int) -> Allocation:
        """Returns zeroed memory, whole pages.

        Raises BadArgument for a size below one byte, OutOfResources when no free piece is large
        enough, LinkError before the remote has said where it sees the arena.
        """
        if size_bytes <= 0:
            raise errors.BadArgument(f"{self.name}: a size of {size_bytes} bytes")
        if self.address is None:
            raise errors.LinkError(f"{self.name}: the remote has not said where it sees the arena")
        size = -(-size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        begin = self._reserve(size)
        try:
            for at in range(begin, begin + size, len(_ZEROES)):
                piece = min(len(_ZEROES), begin + size - at)
                self._memory[at : at + piece] = _ZEROES[:piece]
            (fd,) = duplicate((self._fd,), self.name)
        except BaseException:
            self._release(begin, size)
            raise
        return Allocation(
            fd,
            size,
            coherent=self._coherent,
            offset_bytes=self._offset + begin,
            segments=((self.address + begin, size),),
            trusted=True,
            release=lambda: self._release(begin, size),
        )

    def close(self) -> None:
        """Closes the file; allocations and their mappings live on."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _reserve(self, size: int) -> int:
        with self._lock:
            for index, (offset, room) in enumerate(self._free):
                if room >= size:
                    if room == size:
                        del self._free[index]
                    else:
                        self._free[index] = (offset + size, room - size)
                    return offset
            total = sum(room for _, room in self._free)
            largest = max((room for _, room in self._free), default=0)
        raise errors.OutOfResources(
            f"{self.name}: {size} bytes asked for; of {self._size} bytes {total} are free, "
            f"{largest} in one piece"
        )

    def _release(self, offset: int, size: int) -> None:
        with self._lock:
            index = bisect.bisect(self._free, (offset, 0))
            if index < len(self._free) and self._free[index][0] == offset + size:
                size += self._free.pop(index)[1]
            if index > 0 and sum(self._free[index - 1]) == offset:
                index -= 1
                before = self._free.pop(index)
                offset, size = before[0], before[1] + size
            self._free.insert(index, (offset, size))
