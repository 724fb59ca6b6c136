"""ION, the heaps of vendor kernels before dma-heap: drivers/staging/android/uapi/ion.h.

Both interfaces: that of Linux 4.12 to 5.10, and that of before, which has handles and no names of
heaps. No kernel with ION can be run here: the layouts are those recorded from the header, the calls
are tried on a small device of the rig with these two interfaces.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from typing import NamedTuple

from sbe import errors
from sbe.kernel import ioctl

__all__ = ["DEVICE", "Heap", "HeapType", "allocate", "heaps"]

DEVICE = "/dev/ion"
_HEAPS_MAX = 32  # a mask names them


class HeapType:
    """enum ion_heap_type; a heap's mask is 1 << its id, usually of the same number."""

    SYSTEM, SYSTEM_CONTIG, CARVEOUT, CHUNK, DMA, CUSTOM = range(6)


class Heap(NamedTuple):
    """One that the kernel names."""

    name: str
    number: int
    """Its id: the mask of it alone is 1 << number."""
    kind: int


class _Allocation(ctypes.Structure):
    """struct ion_allocation_data of Linux 4.12 and later."""

    _fields_ = (
        ("len", ctypes.c_uint64),
        ("heap_id_mask", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("fd", ctypes.c_uint32),
        ("unused", ctypes.c_uint32),
    )


class _HeapData(ctypes.Structure):
    """struct ion_heap_data."""

    _fields_ = (
        ("name", ctypes.c_char * 32),
        ("type", ctypes.c_uint32),
        ("heap_id", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32 * 3),
    )


class _Query(ctypes.Structure):
    """struct ion_heap_query."""

    _fields_ = (
        ("cnt", ctypes.c_uint32),
        ("reserved0", ctypes.c_uint32),
        ("heaps", ctypes.c_uint64),
        ("reserved1", ctypes.c_uint32),
        ("reserved2", ctypes.c_uint32),
    )


class _OldAllocation(ctypes.Structure):
    """struct ion_allocation_data of Linux before 4.12."""

    _fields_ = (
        ("len", ctypes.c_size_t),
        ("align", ctypes.c_size_t),
        ("heap_id_mask", ctypes.c_uint),
        ("flags", ctypes.c_uint),
        ("handle", ctypes.c_int),
    )


class _Handle(ctypes.Structure):
    """struct ion_handle_data."""

    _fields_ = (("handle", ctypes.c_int),)


class _Shared(ctypes.Structure):
    """struct ion_fd_data."""

    _fields_ = (("handle", ctypes.c_int), ("fd", ctypes.c_int))


_KIND = ord("I")
ALLOC = ioctl.read_write(_KIND, 0, _Allocation)
QUERY = ioctl.read_write(_KIND, 8, _Query)
OLD_ALLOC = ioctl.read_write(_KIND, 0, _OldAllocation)
OLD_FREE = ioctl.read_write(_KIND, 1, _Handle)
OLD_SHARE = ioctl.read_write(_KIND, 4, _Shared)
FLAG_CACHED = 1


def heaps() -> list[Heap]:
    """Returns the heaps that the kernel names; none without ION, or where it is too old to."""
    if not os.path.exists(DEVICE):
        return []
    device = ioctl.open_device(DEVICE)
    try:
        array = (_HeapData * _HEAPS_MAX)()
        query = _Query(cnt=_HEAPS_MAX, heaps=ctypes.addressof(array))
        ioctl.call(device, QUERY, query, "ION's heaps")
        return [
            Heap(each.name.decode(errors="replace"), each.heap_id, each.type)
            for each in array[: min(query.cnt, _HEAPS_MAX)]
        ]
    except errors.Error as error:
        if error.code in (errno.ENOTTY, errno.EINVAL):  # before 4.12
            return []
        raise
    finally:
        os.close(device)


def allocate(heap_id_mask: int, size_bytes: int, *, cached: bool = True) -> int:
    """Returns the descriptor of a new dma-buf from the first heap of the mask; the caller's.

    By the newer interface, and where the kernel has no such call by the older.
    """
    if not 0 < heap_id_mask < 1 << _HEAPS_MAX:
        raise errors.BadArgument(f"ION heaps {heap_id_mask:#x}: a mask of 32 bits, not 0")
    device = ioctl.open_device(DEVICE)
    step = f"ION heaps {heap_id_mask:#x}: {size_bytes} bytes"
    flags = FLAG_CACHED if cached else 0
    try:
        data = _Allocation(size_bytes, heap_id_mask, flags, 0, 0)
        try:
            ioctl.call(device, ALLOC, data, step)
        except errors.Error as error:
            if error.code != errno.ENOTTY:
                raise
            return _allocate_old(device, heap_id_mask, size_bytes, flags, step)
        return int(data.fd)
    finally:
        os.close(device)


def _allocate_old(device: int, mask: int, size_bytes: int, flags: int, step: str) -> int:
    """The handle is given back: the dma-buf lives by its descriptor."""
    data = _OldAllocation(size_bytes, os.sysconf("SC_PAGE_SIZE"), mask, flags, 0)
    ioctl.call(device, OLD_ALLOC, data, step)
    shared = _Shared(data.handle, -1)
    try:
        ioctl.call(device, OLD_SHARE, shared, f"{step}: sharing them")
    finally:
        with contextlib.suppress(errors.Error):  # it ends with the device, at the latest
            ioctl.call(device, OLD_FREE, _Handle(data.handle), f"{step}: freeing the handle")
    return int(shared.fd)
