"""A timer as a descriptor: timerfd_create(2), which Python has only from 3.13 on."""

from __future__ import annotations

import ctypes
import os

from sbe.kernel import ioctl

__all__ = ["Timer"]

_libc = ctypes.CDLL(None, use_errno=True)
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC  # TFD_NONBLOCK and TFD_CLOEXEC are the same bits


class _Specification(ctypes.Structure):
    """struct itimerspec."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class Timer:
    """Readable once a time has passed, until cleared. Not thread-safe."""

    def __init__(self) -> None:
        self._fd: int = _libc.timerfd_create(1, _FLAGS)  # CLOCK_MONOTONIC
        if self._fd < 0:
            code = ctypes.get_errno()
            raise ioctl.translate(OSError(code, os.strerror(code)), "timer")
        self._set = False

    def fileno(self) -> int:
        """Returns the descriptor to poll."""
        return self._fd

    def set(self, seconds: float) -> None:
        """Fires once, so long from now."""
        ns = max(1, int(seconds * 1e9))
        value = _Specification(0, 0, ns // 1_000_000_000, ns % 1_000_000_000)
        _libc.timerfd_settime(self._fd, 0, ctypes.byref(value), None)
        self._set = True

    def clear(self) -> None:
        """Never fire. Costs nothing when it was not set."""
        if self._set:
            _libc.timerfd_settime(self._fd, 0, ctypes.byref(_Specification()), None)
            self._set = False

    def close(self) -> None:
        """Closes the descriptor. Closing twice is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
