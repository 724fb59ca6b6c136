"""File descriptors: several in a row, and beside those of the standard streams."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import stat
from collections.abc import Iterable, Sequence

from sbe.errors import BadArgument, from_system

__all__ = ["above_streams", "check_doorbells", "close_all", "duplicate", "socket_above_streams"]


def check_doorbells(wake_fd: int, ring_fd: int) -> None:
    """Raises BadArgument for what is no eventfd; what is waited for may be a listener over one.

    Neither blocks from now on, unless whoever shares it says otherwise: docs/adr/0010-listeners.md.
    Told by what they do, as there may be no /proc.
    """
    waited_for = _is_eventfd(wake_fd) or _is_listener(wake_fd, ring_fd)
    if not (waited_for and _is_eventfd(ring_fd)):
        raise BadArgument("a doorbell is no eventfd")
    for fd in (wake_fd, ring_fd):
        os.set_blocking(fd, False)


def _is_eventfd(fd: int) -> bool:
    # Of the files without a type, eventfds alone take eight bytes; zero never blocks.
    try:
        return stat.S_IFMT(os.fstat(fd).st_mode) == 0 and os.write(fd, bytes(8)) == 8
    except OSError:
        return False


def _is_listener(fd: int, other: int) -> bool:
    """An epoll descriptor: one that does not watch `other`, and can't be told to forget it."""
    with select.epoll.fromfd(os.dup(fd)) as poll:
        try:
            poll.unregister(other)
        except OSError as error:
            return error.errno == errno.ENOENT
    return False


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
