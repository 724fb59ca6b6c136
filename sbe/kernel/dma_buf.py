"""dma-bufs: include/uapi/linux/dma-buf.h.

`sync()` brackets access by the processor. On a dma-heap's buffer it does nothing while no device is
attached, and mainline has no way to sync a part: see sbe.kernel.importer for both.
"""

from __future__ import annotations

import ctypes
import os

from sbe.kernel import ioctl

__all__ = ["READ", "RW", "WRITE", "begin_access", "end_access", "size"]


class _Sync(ctypes.Structure):
    """struct dma_buf_sync."""

    _fields_ = (("flags", ctypes.c_uint64),)


READ, WRITE, RW = 1, 2, 3
_END = 4
SYNC = ioctl.write(ord("b"), 0, _Sync)


def begin_access(fd: int, access: int = RW) -> None:
    """Makes the processor see what the device has written."""
    ioctl.call(fd, SYNC, _Sync(access), f"dma-buf {fd}: begin of access")


def end_access(fd: int, access: int = RW) -> None:
    """Makes the device see what the processor has written."""
    ioctl.call(fd, SYNC, _Sync(access | _END), f"dma-buf {fd}: end of access")


def size(fd: int) -> int:
    """Returns the bytes of a dma-buf."""
    try:
        return os.lseek(fd, 0, os.SEEK_END)
    except OSError as error:
        raise ioctl.translate(error, f"dma-buf {fd}: size") from error
