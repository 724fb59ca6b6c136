"""The numbers and the call beneath every ioctl of this package."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os

from sbe import errors

__all__ = ["call", "none", "open_device", "read", "read_write", "write"]

# include/uapi/asm-generic/ioctl.h, which arm, arm64, riscv and x86 share
_WRITE, _READ = 1, 2


def _number(direction: int, kind: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | kind << 8 | number


def none(kind: int, number: int) -> int:
    """Returns the request _IO(kind, number)."""
    return _number(0, kind, number, 0)


def read(kind: int, number: int, structure: type[ctypes.Structure]) -> int:
    """Returns the request _IOR(kind, number, structure)."""
    return _number(_READ, kind, number, ctypes.sizeof(structure))


def write(kind: int, number: int, structure: type[ctypes.Structure]) -> int:
    """Returns the request _IOW(kind, number, structure)."""
    return _number(_WRITE, kind, number, ctypes.sizeof(structure))


def read_write(kind: int, number: int, structure: type[ctypes.Structure]) -> int:
    """Returns the request _IOWR(kind, number, structure)."""
    return _number(_READ | _WRITE, kind, number, ctypes.sizeof(structure))


def call(fd: int, request: int, argument: ctypes.Structure | int, step: str) -> int:
    """Makes the ioctl; a structure is changed in place.

    `step` begins the error's text: what the kernel was asked for. Raises OutOfResources,
    PermissionDenied, BadArgument and the like after the kernel's errno.
    """
    while True:
        try:
            if isinstance(argument, int):
                result: int = fcntl.ioctl(fd, request, argument)
            else:
                result = fcntl.ioctl(fd, request, argument)
            return result
        except InterruptedError:
            continue
        except OSError as error:
            raise translate(error, step) from error


def open_device(path: str, flags: int = os.O_RDWR) -> int:
    """Opens a device node. The error says what is missing, or who may open it."""
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except PermissionError as error:
        raise errors.PermissionDenied(
            f"{path}: {error.strerror} (for its owner, by linux/udev sbe-daemon's user)",
            error.errno,
        ) from error
    except OSError as error:
        raise translate(error, path) from error


def translate(error: OSError, step: str) -> errors.Error:
    """Returns the exception for an error of the kernel."""
    code = error.errno or errno.EIO
    text = f"{step}: {os.strerror(code)}"
    refused = errors.from_system(error, step)
    if isinstance(refused, errors.OutOfResources):
        return refused
    if code in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return errors.LinkError(text, code)
    return errors.from_status(-code, text)
