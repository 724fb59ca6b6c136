"""File descriptors beside those of the standard streams."""

from __future__ import annotations

import fcntl
import os
import socket

__all__ = ["above_streams", "duplicate", "socket_above_streams"]


def above_streams(fd: int) -> int:
    """The descriptor, or where it is 0 to 2 another one in its place. Raises OSError.

    A process may run with its standard streams closed, and gets their numbers for what it opens
    next. There a child that is given them finds its own streams, and whatever prints to standard
    output or error writes into it.
    """
    if fd > 2:
        return fd
    try:
        return duplicate(fd)
    finally:
        os.close(fd)


def duplicate(fd: int) -> int:
    """As os.dup(), above the standard streams."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def socket_above_streams(sock: socket.socket) -> socket.socket:
    """The same of a socket, which is the result's from now on."""
    return sock if sock.fileno() > 2 else socket.socket(fileno=above_streams(sock.detach()))
