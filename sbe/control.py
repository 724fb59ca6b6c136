"""What the daemon and its clients agree on: the varlink interface, by name.

The interface is `org.sbe.Control`; docs/spec/control.md describes it, `varlinkctl introspect`
prints it. A connection is one client: its context lives as long as the connection. File
descriptors travel beside the JSON; an integer parameter named `..._fd` is an index into them.
"""

from __future__ import annotations

import errno
import os

__all__ = [
    "DEFAULT_SOCKET",
    "ERROR",
    "ERROR_CODES",
    "INTERFACE",
    "PROTOCOL",
    "SHUT",
    "code_name",
    "default_socket",
    "named_socket",
]

INTERFACE = "org.sbe.Control"
PROTOCOL = 2
"""Version of the interface. Both ends compare it in Open; a difference is refused with words."""

ERROR = f"{INTERFACE}.Refused"
"""The one error: parameters `code` (positive errno number) and `message` (for people)."""

SHUT = "\x01"
"""An event of events_fd that begins so names a channel which the remote has shut; no words do."""

DEFAULT_SOCKET = "/run/sbe/control.sock"

ERROR_CODES = frozenset(errno.errorcode)


def default_socket() -> str:
    """The daemon's socket: $SBE_SOCKET, or the system's place for it."""
    named = named_socket()
    return DEFAULT_SOCKET if named is None else named


def named_socket() -> str | None:
    """The path in $SBE_SOCKET, which may be written as a URI, unix:PATH. None: unset or empty."""
    named = os.environ.get("SBE_SOCKET")
    return named.removeprefix("unix:") if named else None


def code_name(code: int) -> str:
    """EINVAL for 22."""
    return errno.errorcode.get(code, str(code))
