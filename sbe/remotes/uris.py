"""URIs: how `sbe.connect()` is told which remote. The one table of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sbe.errors import BadArgument
from sbe.host import files
from sbe.remotes import Remote

__all__ = ["DAEMON", "check_remote", "forms", "open_remote", "split"]

DAEMON = "unix"
"""The scheme whose remote is a daemon's: whoever connects speaks to that instead."""


def forms() -> list[str]:
    """How URIs are written, one for each kind, as people are shown them."""
    return [f"{scheme}:{form}" for scheme, (form, _) in _SCHEMES.items()]


def split(uri: str) -> tuple[str, str]:
    """The scheme, and what follows the colon. Raises BadArgument which shows what there is."""
    scheme, colon, rest = uri.partition(":")
    if not files.is_path(uri):
        raise BadArgument(
            f"{uri!r:.80} is no link: it has characters that no name of a file can have"
        )
    if scheme in _SCHEMES:
        form = _SCHEMES[scheme].form
        if bool(rest) == bool(form) or (colon and form.startswith("[")):
            return scheme, rest
    raise _no_link(uri)


def check_remote(given: Remote) -> Remote:
    """What stands in the place of a URI. Raises BadArgument for anything else than a remote."""
    if Remote not in type(given).__mro__:
        raise BadArgument(
            f"{given!r:.80} is no link: say a URI, or derive it from sbe.remotes.Remote"
        )
    return given


def open_remote(uri: str, spin_s: float = 0.0) -> Remote:
    """The remote of a URI, not connected yet; `DAEMON` has none: BadArgument.

    `spin_s` is how long a remote that this end starts looks at its rings before it sleeps.
    Raises BadArgument, LinkError.
    """
    scheme, rest = split(uri)
    opened = _SCHEMES[scheme].opened
    if opened is None:
        raise BadArgument(f"{uri!r} is a daemon's, which holds its remote itself")
    return opened(rest, spin_s)


def _no_link(uri: str) -> BadArgument:
    *most, last = forms()
    return BadArgument(f"{uri!r} is no link: say {', '.join(most)} or {last}")


def _loopback(_: str, spin_s: float) -> Remote:
    from sbe.remotes.process import RemoteProcess

    return RemoteProcess(arguments=("--spin-us", str(int(spin_s * 1e6))))


def _board(rest: str, _: float) -> Remote:
    from sbe.remotes.boards import QemuBoard

    board, comma, image = rest.partition(",")
    return QemuBoard(board, image if comma else None)


def _rpmsg(rest: str, _: float) -> Remote:
    from sbe.remotes.rpmsg import RpmsgRemote

    processor, comma, rings = rest.partition(",")
    if comma and rings not in ("messages", "raw"):
        raise _no_link(f"rpmsg:{rest}")
    return RpmsgRemote(
        processor or None,
        rings="messages" if rings == "messages" else None,
        raw=rings == "raw",
    )


def _carveout(path: str, _: float) -> Remote:
    from sbe.remotes.carveout import Carveout, CarveoutConfig

    return Carveout(CarveoutConfig.load(path), path)


def _socket(path: str, _: float) -> Remote:
    from sbe.remotes.listening import ListeningRemote

    return ListeningRemote(path)


class _Scheme(NamedTuple):
    form: str
    """What follows the colon. Nothing may where it is empty, something must unless all of it is in
    brackets."""
    opened: Callable[[str, float], Remote] | None


_SCHEMES: dict[str, _Scheme] = {
    "loopback": _Scheme("", _loopback),
    DAEMON: _Scheme("PATH", None),
    "qemu": _Scheme("BOARD[,IMAGE]", _board),
    "rpmsg": _Scheme("[PROCESSOR][,messages|raw]", _rpmsg),
    "carveout": _Scheme("FILE.toml", _carveout),
    "socket": _Scheme("PATH", _socket),
}
