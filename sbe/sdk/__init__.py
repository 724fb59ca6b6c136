"""The SDK: what applications use. `import sbe` shows it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Literal

from sbe import control
from sbe._native import SignalsHeld
from sbe.channel import DEFAULT_GEOMETRY, Geometry
from sbe.errors import BadArgument, Error, LinkError, resources
from sbe.sdk.area import Area
from sbe.sdk.arrays import buffer_dtype
from sbe.sdk.backend import Backend, Service
from sbe.sdk.batch import BatchResult
from sbe.sdk.connection import Connection
from sbe.sdk.core import seconds
from sbe.sdk.pool import Pool

__all__ = [
    "Area",
    "BatchResult",
    "Connection",
    "Pool",
    "Service",
    "buffer_dtype",
    "connect",
    "uri_forms",
]


def connect(
    uri: str | None = None,
    *,
    timeout: float = 10.0,
    slots: int | None = None,
    slot_size: int | None = None,
    spin_s: float = 0.0,
) -> Connection:
    """Connects to a remote; the same program runs with every URI.

    uri: "loopback:" starts an embedded remote of this process; "unix:PATH" asks the daemon at that
    socket; "qemu:BOARD" or "qemu:BOARD,IMAGE" starts an emulated board of this process;
    "carveout:FILE.toml" uses shared RAM and a doorbell as configured there; "rpmsg:PROCESSOR" is a
    remote behind the kernel's rpmsg, "rpmsg:" the only one, and ",messages" after it sends frames
    as messages even where there is memory for rings; None means the daemon that $SBE_SOCKET names
    (a path or unix:PATH) and no other; if it is unset or empty a running daemon at the system's
    place, else the embedded remote. `timeout`: seconds for connecting and for each control
    operation. `slots` (a power of two) frames of `slot_size` bytes fit each ring,
    by default 256 of 1024 or what the link allows. `spin_s`: before sleeping look at the ring for
    up to this long, for latency at the price of a busy core while there is traffic; it does so only
    as long as that pays, so not where remote and application share a core. An embedded remote does
    the same, a daemon's as its configuration says.

    Raises LinkError when there is nobody, ProtocolError when versions do not meet,
    PermissionDenied when the daemon's socket is not for this user.
    """
    seconds(timeout)
    with SignalsHeld(), resources(f"connecting to {uri or 'the default remote'}"):
        return _connect(uri, timeout, slots, slot_size, spin_s)


def _connect(
    uri: str | None, timeout: float, slots: int | None, slot_size: int | None, spin_s: float
) -> Connection:
    backend = _backend(uri, timeout, spin_s)
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


def uri_forms() -> list[str]:
    """How `connect()`'s URIs are written, one for each kind of link."""
    return [f"{scheme}:{form}" for scheme, (form, _) in _SCHEMES.items()]


def _backend(uri: str | None, timeout: float, spin_s: float) -> Backend:
    if uri is None:
        named = control.named_socket()
        if named is not None:
            return _named_daemon(named, timeout, spin_s)
        if _is_socket(control.DEFAULT_SOCKET):
            try:
                return _daemon(control.DEFAULT_SOCKET, timeout, spin_s)
            except LinkError as error:
                if type(error) is not LinkError:
                    raise  # it is there and says no
                import logging  # only when there is something to say

                logging.getLogger(__name__).warning("%s; using an embedded remote", error)
        return _loopback("", timeout, spin_s)
    scheme, colon, rest = uri.partition(":")
    if scheme in _SCHEMES:
        form, opened = _SCHEMES[scheme]
        if bool(rest) == bool(form) or (colon and form.startswith("[")):
            return opened(rest, timeout, spin_s)
    raise _no_link(uri)


def _no_link(uri: str) -> BadArgument:
    *most, last = uri_forms()
    return BadArgument(f"{uri!r} is no link: say {', '.join(most)} or {last}")


def _loopback(_: str, timeout: float, spin_s: float) -> Backend:
    from sbe.sdk.embedded import EmbeddedBackend
    from sbe.transports.remote_process import RemoteProcess

    spin = ("--spin-us", str(int(spin_s * 1e6)))
    return EmbeddedBackend(timeout, RemoteProcess(arguments=spin))


def _daemon(path: str, timeout: float, _: float) -> Backend:
    from sbe.sdk.daemon_client import DaemonBackend

    return DaemonBackend(path, timeout)


def _board(rest: str, timeout: float, _: float) -> Backend:
    from sbe.boards import QemuBoard
    from sbe.sdk.embedded import EmbeddedBackend

    board, comma, image = rest.partition(",")
    return EmbeddedBackend(timeout, QemuBoard(board, image if comma else None))


def _carveout(path: str, timeout: float, _: float) -> Backend:
    from sbe.sdk.embedded import EmbeddedBackend
    from sbe.transports.carveout import Carveout, CarveoutConfig

    return EmbeddedBackend(timeout, Carveout(CarveoutConfig.load(path), path))


def _rpmsg(rest: str, timeout: float, _: float) -> Backend:
    from sbe.sdk.embedded import EmbeddedBackend
    from sbe.transports.rpmsg import RpmsgRemote

    processor, comma, rings = rest.partition(",")
    if comma and rings != "messages":
        raise _no_link(f"rpmsg:{rest}")
    how: Literal["messages"] | None = "messages" if comma else None
    return EmbeddedBackend(timeout, RpmsgRemote(processor or None, rings=how))


# What follows the colon, as it is shown to people, and who opens it. Nothing may follow where the
# form is empty, something must unless all of it is in brackets.
_SCHEMES: dict[str, tuple[str, Callable[[str, float, float], Backend]]] = {
    "loopback": ("", _loopback),
    "unix": ("PATH", _daemon),
    "qemu": ("BOARD[,IMAGE]", _board),
    "rpmsg": ("[PROCESSOR][,messages]", _rpmsg),
    "carveout": ("FILE.toml", _carveout),
}


def _named_daemon(path: str, timeout: float, spin_s: float) -> Backend:
    """Whoever names a daemon means it: a simulation in its place would not be noticed."""
    try:
        return _daemon(path, timeout, spin_s)
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
