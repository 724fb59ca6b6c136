"""What every command shares: the options of all, and the link."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

import sbe
from sbe.cli.screen import Screen
from sbe.remotes import uris

__all__ = ["Session", "common_options", "daemon_of", "describe_link"]

# Links by their transport, as List has it.
_KINDS = {
    "embedded": "embedded remote",
    "qemu": "emulated board",
    "carveout": "carve-out",
    "rpmsg": "remote processor",
    "socket": "process behind a socket",
}

_CONNECT_S = 10.0

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass
class Session:
    """The options that stand before the command, or behind it."""

    uri: str | None = None
    json: bool = False

    def screen(self) -> Screen:
        """The output of the command that runs."""
        return Screen(click.get_current_context().info_name or "sbe", self.json)

    def connect(self, timeout: float = _CONNECT_S) -> sbe.Connection:
        """The link that --uri names, within seconds; never more than the usual ones."""
        return sbe.connect(self.uri, timeout=min(timeout, _CONNECT_S))


def _set(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    session = ctx.ensure_object(Session)
    if value not in (None, False) and param.name is not None:
        setattr(session, param.name, value)


def common_options(command: _F) -> _F:
    """--uri and --json, which may stand before or behind the command's name."""
    for option in (
        click.option(
            "--json",
            is_flag=True,
            expose_value=False,
            callback=_set,
            help="Print one JSON object instead of text.",
        ),
        click.option(
            "--uri",
            metavar="URI",
            expose_value=False,
            callback=_set,
            help=f"The link: {', '.join(uris.forms())}. Default: a running daemon, else loopback:.",
        ),
    ):
        command = option(command)
    return command


def daemon_of(counters: dict[str, Any]) -> dict[str, Any] | None:
    """The daemon that `Connection.stat()` asked; None where there is none."""
    if counters.get("pid") is None:
        return None
    return {key: counters.get(key, 0) for key in ("version", "pid", "uptime_seconds")}


def describe_link(link: sbe.Connection) -> str:
    """One phrase for the link that answers."""
    links: list[dict[str, Any]] = link.list().get("links") or [{}]
    name, remote, pid, transport = (
        links[0].get(key) for key in ("name", "remote", "pid", "transport")
    )
    kind = _KINDS.get(str(transport), str(transport))
    through = ", through the daemon" if daemon_of(link.stat()) is not None else ""
    process = f", process {pid}" if pid else ""
    return f"{name} ({kind}{through}: {remote}{process})"
