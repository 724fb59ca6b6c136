"""Our module sbe_userproc, from the core's side (linux/kernel/sbe_userproc.h)."""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import NamedTuple

from sbe.kernel import ioctl

__all__ = ["START", "STOP", "Core", "Event"]

START, STOP = 1, 2
_TABLE_MAX = 65536


class _Event(ctypes.Structure):
    """struct sbe_userproc_event."""

    _fields_ = (
        ("events", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("kicks", ctypes.c_uint64),
    )


class _Table(ctypes.Structure):
    """struct sbe_userproc_table."""

    _fields_ = (
        ("address", ctypes.c_uint64),
        ("size", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    )


_KIND = 0xB7
GET_TABLE = ioctl.read_write(_KIND, 0, _Table)
NOTIFY = ioctl.none(_KIND, 1)
STOPPED = ioctl.none(_KIND, 2)
CRASH = ioctl.none(_KIND, 3)


class Event(NamedTuple):
    """What happened since the last one: START and STOP bits, and a bit per virtqueue kicked."""

    events: int
    kicks: int


class Core:
    """This process as the core of a remote processor. Not thread-safe."""

    def __init__(self, path: str = "/dev/sbe-userproc0") -> None:
        self._fd = ioctl.open_device(path)

    def fileno(self) -> int:
        """Returns a descriptor that is readable when `event()` would not block."""
        return self._fd

    def event(self) -> Event:
        """Waits for what the host does."""
        data = _Event.from_buffer_copy(os.read(self._fd, ctypes.sizeof(_Event)))
        return Event(data.events, data.kicks)

    def table(self) -> bytes:
        """Returns the resource table as it stands."""
        room = ctypes.create_string_buffer(_TABLE_MAX)
        data = _Table(ctypes.addressof(room), _TABLE_MAX, 0)
        ioctl.call(self._fd, GET_TABLE, data, "the resource table")
        return room.raw[: data.size]

    def notify(self, notify_id: int) -> None:
        """Interrupts the host for a virtqueue."""
        ioctl.call(self._fd, NOTIFY, notify_id, f"notification of virtqueue {notify_id}")

    def stopped(self) -> None:
        """Acknowledges STOP: nothing of the host's memory is used any more."""
        ioctl.call(self._fd, STOPPED, 0, "the acknowledgment of a stop")

    def crash(self) -> None:
        """Reports a crash of this core."""
        ioctl.call(self._fd, CRASH, 0, "the report of a crash")

    def map(self, address: int, size_bytes: int) -> mmap.mmap:
        """Maps physical memory, whole pages. Only between START and `stopped()`."""
        try:
            return mmap.mmap(self._fd, size_bytes, mmap.MAP_SHARED, offset=address)
        except OSError as error:
            raise ioctl.translate(error, f"memory at {address:#x}") from error

    def close(self) -> None:
        """Leaves: a core that runs has crashed then. Closing twice is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
