"""The SDK: what applications use. `import sbe` shows it."""

from __future__ import annotations

import logging
from pathlib import Path

from sbe.channel import DEFAULT_GEOMETRY, Geometry
from sbe.control import default_socket
from sbe.errors import BadArgument, LinkError
from sbe.sdk.area import Area, buffer_dtype
from sbe.sdk.backend import Backend, Service
from sbe.sdk.batch import BatchResult
from sbe.sdk.connection import Connection

__all__ = ["Area", "BatchResult", "Connection", "Service", "buffer_dtype", "connect"]

_log = logging.getLogger("sbe")


def connect(
    uri: str | None = None,
    *,
    timeout: float = 10.0,
    slots: int = DEFAULT_GEOMETRY.slots,
    slot_size: int = DEFAULT_GEOMETRY.slot_size_bytes,
) -> Connection:
    """Connects to a remote; the same program runs with every URI.

    uri: "loopback:" starts an embedded remote of this process; "unix:PATH" asks the daemon at that
    socket; None means a running daemon at its usual place ($SBE_SOCKET or the system's), else the
    embedded remote. `timeout`: seconds for connecting and for each control operation. `slots` (a
    power of two) frames of `slot_size` bytes fit each ring.

    Raises LinkError when there is nobody, ProtocolError when versions do not meet,
    PermissionDenied when the daemon's socket is not for this user.
    """
    backend = _backend(uri, timeout)
    try:
        return Connection(backend, geometry=Geometry(slots, slot_size))
    except BaseException:
        backend.close()
        raise


def _backend(uri: str | None, timeout: float) -> Backend:
    from sbe.sdk.daemon_client import DaemonBackend
    from sbe.sdk.embedded import EmbeddedBackend

    if uri is None:
        path = default_socket()
        if Path(path).is_socket():
            try:
                return DaemonBackend(path, timeout)
            except LinkError as error:
                if type(error) is not LinkError:
                    raise  # it is there and says no
                _log.warning("%s; using an embedded remote", error)
        return EmbeddedBackend(timeout)
    scheme, _, rest = uri.partition(":")
    if scheme == "loopback" and not rest:
        return EmbeddedBackend(timeout)
    if scheme == "unix" and rest:
        return DaemonBackend(rest, timeout)
    raise BadArgument(f"{uri!r} is no link: say loopback: or unix:PATH")
