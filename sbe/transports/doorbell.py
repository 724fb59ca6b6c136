"""What carries the doorbells of a carve-out link: a byte stream, an interrupt, or a mailbox."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass

from sbe import _native, errors, extras
from sbe.host import sockets
from sbe.kernel import ioctl, uio

__all__ = ["FORMS", "Interrupt", "is_doorbell", "open_doorbell", "open_unix"]

FORMS = "unix:PATH, serial:DEVICE,BAUD, uio:DEVICE,MAP,OFFSET,VALUE or mailbox:PATH"
_NUMBER = r"0x[\da-fA-F]{1,8}|0|[1-9]\d{0,8}"
_KNOWN = re.compile(
    r"unix:.+|serial:[^,]+(,[0-9]+)?|mailbox:.+"
    rf"|uio:(?P<device>[^,]+),(?P<map>\d{{1,2}}),(?P<offset>{_NUMBER})(,(?P<value>{_NUMBER}))?",
    re.ASCII,
)


@dataclass(frozen=True)
class Interrupt:
    """A doorbell without bytes; the descriptor is whoever's it is given to.

    `register` is what is written to for the other direction, None: the descriptor is a mailbox's.
    """

    fd: int
    register: _native.Slice | None = None
    value: int = 0


def is_doorbell(where: str) -> bool:
    """It has one of the FORMS."""
    return _KNOWN.fullmatch(where) is not None


def open_doorbell(where: str) -> int | Interrupt:
    """Opens what one of the FORMS names. Of a byte stream its descriptor, now the caller's.

    Raises BadArgument for anything else, LinkError when it can't be opened.
    """
    known = _KNOWN.fullmatch(where)
    if known is None:
        raise errors.BadArgument(f"{where!r:.80} is no doorbell: say {FORMS}")
    scheme, _, rest = where.partition(":")
    if scheme == "unix":
        return open_unix(rest)
    if scheme == "serial":
        return _open_serial(*rest.partition(",")[::2])
    if scheme == "mailbox":
        return Interrupt(ioctl.open_device(rest, os.O_RDWR | os.O_NONBLOCK))
    return _open_uio(
        known["device"],
        int(known["map"]),
        int(known["offset"], 0),
        1 if known["value"] is None else int(known["value"], 0),
    )


def open_unix(path: str) -> int:
    """Connects to a socket; the descriptor. Raises LinkError when it can't be."""
    with errors.resources(f"the doorbell {path} (is the board running?)"):
        return sockets.connect(path, socket.SOCK_STREAM).detach()


def _open_uio(device: str, number: int, offset: int, value: int) -> Interrupt:
    fd = uio.open_interrupt(device)
    try:
        return Interrupt(fd, uio.register(fd, device, number, offset), value)
    except BaseException:
        os.close(fd)
        raise


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
