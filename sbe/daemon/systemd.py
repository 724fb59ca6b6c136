"""What systemd and a service tell each other: readiness and status, inherited sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import stat

from sbe.host import sockets

__all__ = ["InheritedError", "listen_sockets", "notify"]

_FIRST_FD = 3


class InheritedError(Exception):
    """What the service manager left is not what it says."""


def notify(*assignments: str) -> None:
    """Tells the service manager, as in `notify("READY=1", "STATUS=2 clients")`.

    Without one (no NOTIFY_SOCKET) or when it does not listen, nothing happens.
    """
    place = os.environ.get("NOTIFY_SOCKET", "")
    if place[:1] not in ("/", "@"):
        return
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock,
        contextlib.ExitStack() as stack,
    ):
        sock.setblocking(False)
        abstract = place[0] == "@"
        to = "\0" + place[1:] if abstract else stack.enter_context(sockets.address(place))
        sock.sendto("\n".join(assignments).encode(), to)


def listen_sockets() -> list[socket.socket]:
    """Takes the sockets that the service manager opened for this process; empty without one.

    Raises InheritedError when they are not there; they are left as they are then.
    """
    pid, count = os.environ.get("LISTEN_PID"), os.environ.get("LISTEN_FDS")
    if pid is None or count is None:
        return []
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    if pid != str(os.getpid()):
        return []  # they are for a process that started this one
    if not count.isascii() or not count.isdecimal() or len(count) > 4:
        raise InheritedError(f"LISTEN_FDS={count!r} is no number of sockets")
    fds = range(_FIRST_FD, _FIRST_FD + int(count))
    for fd in fds:
        found = _kind(fd)
        if found != "a socket":
            raise InheritedError(
                f"LISTEN_FDS={count} says that descriptor {fd} is a socket, but it is {found}: "
                "start the daemon by a .socket unit of systemd, or without LISTEN_FDS"
            )
    for fd in fds:
        os.set_inheritable(fd, False)
    return [socket.socket(fileno=fd) for fd in fds]


def _kind(fd: int) -> str:
    """What a descriptor is, for people."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return "not open"
    kinds = {
        stat.S_IFSOCK: "a socket",
        stat.S_IFREG: "a file",
        stat.S_IFIFO: "a pipe",
        stat.S_IFDIR: "a folder",
        stat.S_IFCHR: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")
