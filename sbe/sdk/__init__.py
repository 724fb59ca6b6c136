"""The SDK: what applications use. `import sbe` shows it."""

from __future__ import annotations

import os
import stat
import time

from sbe import control
from sbe._native import SignalsHeld
from sbe.errors import Error, LinkError, Timeout, resources
from sbe.link.rings import DEFAULT_GEOMETRY, Geometry
from sbe.remotes import Remote, uris
from sbe.sdk.area import Area
from sbe.sdk.arrays import buffer_dtype
from sbe.sdk.backend import Backend, Service
from sbe.sdk.batch import BatchResult
from sbe.sdk.connection import Connection
from sbe.sdk.pool import Pool
from sbe.sdk.stream_format import StreamFormat
from sbe.sdk.timeouts import seconds

__all__ = [
    "Area",
    "BatchResult",
    "Connection",
    "Pool",
    "Service",
    "StreamFormat",
    "buffer_dtype",
    "connect",
]


def connect(
    uri: str | Remote | None = None,
    *,
    timeout: float = 10.0,
    slots: int | None = None,
    slot_size: int | None = None,
    spin_s: float = 0.0,
) -> Connection:
    """Connects to a remote; the same program runs with every URI.

    uri: "loopback:" starts an embedded remote of this process; "unix:PATH" asks the daemon at that
    socket; "qemu:BOARD" or "qemu:BOARD,IMAGE" starts an emulated board of this process;
    "carveout:FILE.toml" uses shared RAM and a doorbell as configured there; "socket:PATH" is a
    process that listens there, such as `sbe serve`; "rpmsg:PROCESSOR" is a remote behind the
    kernel's rpmsg, "rpmsg:" the only one, and ",messages" after it sends frames as messages even
    where there is memory for rings; None means the daemon that $SBE_SOCKET names
    (a path or unix:PATH) and no other; if it is unset or empty a running daemon at the system's
    place, else the embedded remote. In place of a URI, a `sbe.remotes.Remote` is one of your
    own, closed with the connection. `timeout`: seconds for all of connecting, and for each control
    operation. `slots` (a power of two) frames of `slot_size` bytes fit each ring,
    by default 256 of 1024 or what the link allows. `spin_s`: before sleeping look at the ring for
    up to this long, for latency at the price of a busy core while there is traffic; it does so only
    as long as that pays, so not where remote and application share a core. An embedded remote does
    the same, a daemon's as its configuration says.

    Raises LinkError when there is nobody, Timeout which says how far it came, ProtocolError when
    versions do not meet, PermissionDenied when the daemon's socket is not for this user.
    """
    timeout = seconds(timeout)
    name = uri if uri is None or isinstance(uri, str) else uris.check_remote(uri).uri
    where = name or "the default remote"
    with SignalsHeld(), resources(f"connecting to {where}"):
        try:
            return _connect(uri, timeout, slots, slot_size, spin_s)
        except Timeout as error:
            raise Timeout(f"no link to {where} within {timeout:g} s: {error}") from error


def _connect(
    uri: str | Remote | None,
    timeout: float,
    slots: int | None,
    slot_size: int | None,
    spin_s: float,
) -> Connection:
    backend = _backend(uri, timeout, spin_s, time.monotonic() + timeout)
    try:
        geometry = Geometry(
            _as_allowed(slots, DEFAULT_GEOMETRY.slots, backend.limits["slots"]),
            _as_allowed(slot_size, DEFAULT_GEOMETRY.slot_size_bytes, backend.limits["slot_size"]),
        )
        return Connection(backend, geometry=geometry, spin_s=spin_s)
    except BaseException:
        backend.close()
        raise


def _as_allowed(asked: int | None, usual: int, limit: int) -> int:
    """What was asked for is refused in words if it can't be; the usual is no such wish."""
    return min(usual, limit) if asked is None else asked


def _backend(uri: str | Remote | None, timeout: float, spin_s: float, until: float) -> Backend:
    if uri is None:
        named = control.named_socket()
        if named is not None:
            return _named_daemon(named, timeout, until)
        if _is_socket(control.DEFAULT_SOCKET):
            try:
                return _daemon(control.DEFAULT_SOCKET, timeout, until)
            except LinkError as error:
                if type(error) is not LinkError:
                    raise  # it is there and says no
                import logging  # only when there is something to say

                logging.getLogger(__name__).warning("%s; using an embedded remote", error)
        uri = "loopback:"
    if not isinstance(uri, str):
        return _direct(uri, timeout, until)
    scheme, rest = uris.split(uri)
    if scheme == uris.DAEMON:
        return _daemon(rest, timeout, until)
    return _direct(uris.open_remote(uri, spin_s), timeout, until)


def _direct(remote: Remote, timeout: float, until: float) -> Backend:
    from sbe.sdk.direct import DirectBackend

    return DirectBackend(timeout, remote, until)


def _daemon(path: str, timeout: float, until: float) -> Backend:
    from sbe.sdk.daemon_client import DaemonBackend

    return DaemonBackend(path, timeout, until)


def _named_daemon(path: str, timeout: float, until: float) -> Backend:
    """Whoever names a daemon means it: a simulation in its place would not be noticed."""
    try:
        return _daemon(path, timeout, until)
    except Error as error:
        named = os.environ.get("SBE_SOCKET")
        raise type(error)(f"SBE_SOCKET={named!r}: {error}", error.code) from error


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except PermissionError:
        return True  # a folder that is not for this user: connecting will say so
    except OSError:
        return False
