"""File descriptors: several in a row, and beside those of the standard streams."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterable, Sequence

from sbe.errors import BadArgument, from_system

__all__ = ["above_streams", "close_all", "duplicate", "socket_above_streams"]


def close_all(fds: Iterable[int]) -> None:
    """Closes descriptors that belong to nobody else; those below 0 are none."""
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def duplicate(fds: Sequence[int], step: str) -> list[int]:
    """All of them or none, above the standard streams; those below 0 are none and stay so.

    Raises BadArgument for one that is not open, else what `from_system()` says.
    """
    copies: list[int] = []
    try:
        for fd in fds:
            copies.append(_copy(fd) if fd >= 0 else fd)
    except OSError as error:
        close_all(copies)
        if error.errno == errno.EBADF:
            raise BadArgument(f"{step}: file descriptor {fd} is not open") from error
        raise from_system(error, step) from error
    return copies


def above_streams(fd: int) -> int:
    """The descriptor, or where it is 0 to 2 another one in its place. Raises OSError.

    A process may run with its standard streams closed, and gets their numbers for what it opens
    next. There a child that is given them finds its own streams, and whatever prints to standard
    output or error writes into it.
    """
    if fd > 2:
        return fd
    try:
        return _copy(fd)
    finally:
        os.close(fd)


def socket_above_streams(sock: socket.socket) -> socket.socket:
    """The same of a socket, which is the result's from now on."""
    return sock if sock.fileno() > 2 else socket.socket(fileno=above_streams(sock.detach()))


def _copy(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
