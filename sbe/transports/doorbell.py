"""Byte streams that carry the doorbells of a carve-out link: a unix socket or a serial line."""

from __future__ import annotations

import os
import socket

from sbe import errors, extras
from sbe.host import sockets

__all__ = ["open_doorbell"]


def open_doorbell(where: str) -> int:
    """Opens the byte stream that "unix:PATH" or "serial:DEVICE[,BAUD]" names; its descriptor.

    Raises BadArgument for anything else, LinkError when it can't be opened.
    """
    scheme, _, rest = where.partition(":")
    if scheme == "unix" and rest:
        with errors.resources(f"the doorbell {rest} (is the board running?)"):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)  # where too many wait to be accepted, EAGAIN
                with sockets.address(rest) as address:
                    sock.connect(address)
            except BaseException:
                sock.close()
                raise
            return sock.detach()
    if scheme == "serial" and rest:
        return _open_serial(*rest.partition(",")[::2])
    raise errors.BadArgument(f"{where!r} is no doorbell: say unix:PATH or serial:DEVICE,BAUD")


def _open_serial(device: str, baud: str) -> int:
    try:
        import serial
    except ImportError as error:
        raise errors.LinkError(
            extras.missing("a serial doorbell", error, "serial") or str(error)
        ) from error
    try:
        with serial.Serial(device, int(baud or 115200), exclusive=True) as port:
            return os.dup(port.fileno())
    except (OSError, ValueError) as error:
        raise errors.LinkError(f"the doorbell {device}: {error}") from error
