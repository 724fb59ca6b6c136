"""Our module sbe_dmabuf: device addresses, range sync, coherent memory.

The structures are those of linux/kernel/sbe_dmabuf.h.
"""

from __future__ import annotations

import ctypes
import os
from types import TracebackType
from typing import Self

from sbe import errors
from sbe.kernel import ioctl

__all__ = ["DEVICE", "Attachment", "allocate_coherent", "available"]

DEVICE = "/dev/sbe-dmabuf"
_NAME_SIZE = 32
_AT_ONCE = 256  # segments per call
_FOR_DEVICE, _FOR_CPU = 1, 2


class _Import(ctypes.Structure):
    """struct sbe_dmabuf_import."""

    _fields_ = (
        ("dmabuf", ctypes.c_int32),
        ("fd", ctypes.c_int32),
        ("size", ctypes.c_uint64),
        ("segments", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("device", ctypes.c_char * _NAME_SIZE),
    )


class _Coherent(ctypes.Structure):
    """struct sbe_dmabuf_coherent."""

    _fields_ = (
        ("size", ctypes.c_uint64),
        ("fd", ctypes.c_int32),
        ("reserved", ctypes.c_uint32),
        ("device", ctypes.c_char * _NAME_SIZE),
    )


class _Segment(ctypes.Structure):
    """struct sbe_dmabuf_segment."""

    _fields_ = (("address", ctypes.c_uint64), ("size", ctypes.c_uint64))


class _Segments(ctypes.Structure):
    """struct sbe_dmabuf_segments."""

    _fields_ = (
        ("first", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
        ("array", ctypes.c_uint64),
    )


class _Sync(ctypes.Structure):
    """struct sbe_dmabuf_sync."""

    _fields_ = (
        ("offset", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    )


_KIND = 0xB8
IMPORT = ioctl.read_write(_KIND, 0, _Import)
COHERENT = ioctl.read_write(_KIND, 1, _Coherent)
SEGMENTS = ioctl.read_write(_KIND, 2, _Segments)
SYNC = ioctl.write(_KIND, 3, _Sync)


def available() -> bool:
    """Whether the module is loaded."""
    return os.path.exists(DEVICE)


def _device_name(device: str) -> bytes:
    name = device.encode()
    if len(name) >= _NAME_SIZE or b"\0" in name:
        raise errors.BadArgument(f"a platform device's name has at most 31 bytes: {device!r}")
    return name


def allocate_coherent(size_bytes: int, device: str = "") -> int:
    """Returns the descriptor of a new dma-buf that needs no cache maintenance; the caller's.

    `device` is the platform device that shares it. Raises OutOfResources at the module's limit.
    """
    control = ioctl.open_device(DEVICE)
    try:
        data = _Coherent(size_bytes, -1, 0, _device_name(device))
        ioctl.call(control, COHERENT, data, f"coherent memory of {size_bytes} bytes")
        return int(data.fd)
    finally:
        os.close(control)


class Attachment:
    """A dma-buf attached to a device: keeps its device addresses valid until closed.

    The descriptor of the dma-buf stays the caller's. Not thread-safe.
    """

    def __init__(self, dmabuf: int, device: str = "") -> None:
        control = ioctl.open_device(DEVICE)
        try:
            data = _Import(dmabuf, -1, 0, 0, 0, _device_name(device))
            step = f"attaching dma-buf {dmabuf} to {device or 'any device'}"
            ioctl.call(control, IMPORT, data, step)
        finally:
            os.close(control)
        self._fd = int(data.fd)
        self.size_bytes = int(data.size)
        self._count = int(data.segments)

    def segments(self) -> list[tuple[int, int]]:
        """Returns (device address, bytes) of each contiguous run, in order."""
        found: list[tuple[int, int]] = []
        while len(found) < self._count:
            array = (_Segment * _AT_ONCE)()
            data = _Segments(len(found), _AT_ONCE, ctypes.addressof(array))
            ioctl.call(self._fd, SEGMENTS, data, "segments of an attachment")
            if data.count == 0:
                break
            found += [(entry.address, entry.size) for entry in array[: data.count]]
        return found

    def fileno(self) -> int:
        """The attachment's descriptor, which stays this object's."""
        return self._fd

    def sync_for_device(self, offset: int, size_bytes: int) -> None:
        """Cleans a range of caches: the processor has written, the device will read."""
        self._sync(offset, size_bytes, _FOR_DEVICE)

    def sync_for_cpu(self, offset: int, size_bytes: int) -> None:
        """Invalidates a range in caches: the device has written, the processor will read."""
        self._sync(offset, size_bytes, _FOR_CPU)

    def _sync(self, offset: int, size_bytes: int, flags: int) -> None:
        if offset < 0 or size_bytes < 0:
            raise errors.OutOfRange(f"a range of {size_bytes} bytes at {offset}")
        data = _Sync(offset, size_bytes, flags, 0)
        ioctl.call(self._fd, SYNC, data, f"sync of {size_bytes} bytes at {offset}")

    def close(self) -> None:
        """Detaches. Closing twice is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
