"""What systemd and a service tell each other: readiness and status, inherited sockets."""

from __future__ import annotations

import os
import socket

__all__ = ["listen_sockets", "notify"]

_FIRST_FD = 3


def notify(*assignments: str) -> None:
    """Tell the service manager, as in `notify("READY=1", "STATUS=2 clients")`.

    Without one (no NOTIFY_SOCKET) or when it does not listen, nothing happens.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    if address[0] == "@":
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.setblocking(False)
        try:
            sock.sendto("\n".join(assignments).encode(), address)
        except OSError:
            return


def listen_sockets() -> list[socket.socket]:
    """Take the sockets that the service manager opened for this process; empty without one."""
    try:
        mine = int(os.environ["LISTEN_PID"]) == os.getpid()
        count = int(os.environ["LISTEN_FDS"])
    except (KeyError, ValueError):
        return []
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    if not mine or not 0 < count < 1024:
        return []
    taken = []
    for fd in range(_FIRST_FD, _FIRST_FD + count):
        os.set_inheritable(fd, False)
        taken.append(socket.socket(fileno=fd))
    return taken
