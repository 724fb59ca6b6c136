"""ION, the heaps of vendor kernels before dma-heap: drivers/staging/android/uapi/ion.h.

Its interface here is that of Linux 4.12 to 5.10.

No kernel with ION can be run here: the layout is tested against one recorded from that header.
"""

from __future__ import annotations

import ctypes
import os

from sbe.kernel import ioctl

__all__ = ["DEVICE", "HeapType", "allocate"]

DEVICE = "/dev/ion"


class HeapType:
    """enum ion_heap_type; a heap's mask is 1 << its id, usually of the same number."""

    SYSTEM, SYSTEM_CONTIG, CARVEOUT, CHUNK, DMA, CUSTOM = range(6)


class _Allocation(ctypes.Structure):
    """struct ion_allocation_data of Linux 4.12 and later (before, ION had handles)."""

    _fields_ = (
        ("len", ctypes.c_uint64),
        ("heap_id_mask", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("fd", ctypes.c_uint32),
        ("unused", ctypes.c_uint32),
    )


ALLOC = ioctl.read_write(ord("I"), 0, _Allocation)
FLAG_CACHED = 1


def allocate(heap_id_mask: int, size_bytes: int, *, cached: bool = True) -> int:
    """Returns the descriptor of a new dma-buf from the first heap of the mask; the caller's."""
    device = ioctl.open_device(DEVICE)
    try:
        data = _Allocation(size_bytes, heap_id_mask, FLAG_CACHED if cached else 0, 0, 0)
        ioctl.call(device, ALLOC, data, f"ION heaps {heap_id_mask:#x}: {size_bytes} bytes")
        return int(data.fd)
    finally:
        os.close(device)
