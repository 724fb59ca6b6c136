"""A dma-buf over the pages of a memfd: include/uapi/linux/udmabuf.h, since Linux 4.20."""

from __future__ import annotations

import ctypes
import os

from sbe.kernel import ioctl

__all__ = ["DEVICE", "create"]

DEVICE = "/dev/udmabuf"
_CLOEXEC = 1


class _Create(ctypes.Structure):
    """struct udmabuf_create."""

    _fields_ = (
        ("memfd", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("offset", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
    )


CREATE = ioctl.write(ord("u"), 0x42, _Create)


def create(memfd: int, offset: int, size_bytes: int) -> int:
    """Returns the descriptor of a dma-buf over whole pages of a memfd; the caller's.

    The memfd must be sealed with F_SEAL_SHRINK and not with F_SEAL_WRITE. The limits are the
    parameters of the module udmabuf, by default 64 MiB a buffer.
    """
    device = ioctl.open_device(DEVICE)
    try:
        data = _Create(memfd, _CLOEXEC, offset, size_bytes)
        return ioctl.call(device, CREATE, data, f"udmabuf of {size_bytes} bytes")
    finally:
        os.close(device)
