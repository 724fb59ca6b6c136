"""dma-heaps: include/uapi/linux/dma-heap.h, since Linux 5.6."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from sbe.kernel import ioctl

__all__ = ["FOLDER", "allocate", "names"]

FOLDER = Path("/dev/dma_heap")


class _Allocation(ctypes.Structure):
    """struct dma_heap_allocation_data."""

    _fields_ = (
        ("len", ctypes.c_uint64),
        ("fd", ctypes.c_uint32),
        ("fd_flags", ctypes.c_uint32),
        ("heap_flags", ctypes.c_uint64),
    )


ALLOC = ioctl.read_write(ord("H"), 0, _Allocation)


def names() -> list[str]:
    """Returns the heaps that the kernel publishes; none on a kernel without dma-heaps."""
    return sorted(path.name for path in FOLDER.iterdir()) if FOLDER.is_dir() else []


def allocate(name: str, size_bytes: int) -> int:
    """Returns the descriptor of a new dma-buf, zeroed, a whole number of pages; the caller's.

    There is no limit but memory itself: exhausting the system heap wakes the OOM killer.
    """
    heap = ioctl.open_device(str(FOLDER / name))
    try:
        data = _Allocation(size_bytes, 0, os.O_RDWR | os.O_CLOEXEC, 0)
        ioctl.call(heap, ALLOC, data, f"dma-heap {name}: {size_bytes} bytes")
        return int(data.fd)
    finally:
        os.close(heap)
