"""`sbe stat`: what was counted."""

from __future__ import annotations

import time
from typing import Any

import click

import sbe
from sbe.cli.figures import amount, duration
from sbe.cli.screen import Screen
from sbe.cli.session import Session, common_options, daemon_of

__all__ = ["COUNTERS", "own_channel", "per_doorbell", "stat"]

COUNTERS = (
    "frames_to_remote",
    "frames_from_remote",
    "doorbells_to_remote",
    "doorbells_from_remote",
    "space_doorbells_to_remote",
    "space_doorbells_from_remote",
    "in_flight",
)


def per_doorbell(packets: int, doorbells: int) -> float | None:
    """Packets per doorbell; None before the first."""
    return round(packets / doorbells, 2) if doorbells else None


def _channel(row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {key: row.get(key) for key in ("link", "id", "context")}
    found |= {key: row.get(key, 0) for key in COUNTERS}
    for way in ("to_remote", "from_remote"):
        shared = per_doorbell(found[f"frames_{way}"], found[f"doorbells_{way}"])
        found[f"per_doorbell_{way}"] = shared
    return found


def own_channel(found: dict[str, Any]) -> dict[str, Any]:
    """The channel of the connection that asked for the counters."""
    own = found.get("connection", {})
    place = (own.get("context"), own.get("channel"))
    rows = found.get("channels", [])
    return _channel(next((row for row in rows if (row.get("context"), row.get("id")) == place), {}))


def _user(row: dict[str, Any]) -> dict[str, Any]:
    return {"uid": row.get("uid"), "used": row.get("used", {}), "quota": row.get("quota", {})}


@click.command()
@click.option(
    "--watch",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="Show it again and again, until Ctrl-C.",
)
@common_options
@click.pass_obj
def stat(session: Session, watch: float | None) -> int:
    """Show counters and packets per doorbell."""
    screen = session.screen()
    with session.connect() as link:
        if _once(screen, link) is None:
            screen.line()
            screen.line("No daemon: these are the counters of this command's own link.")
        while watch is not None:
            time.sleep(watch)
            screen.line()
            screen.line(f"-- {time.strftime('%H:%M:%S')}")
            _once(screen, link)
    return 0


def _once(screen: Screen, link: sbe.Connection) -> dict[str, Any] | None:
    """Shows the counters once; the daemon that keeps them."""
    found = link.stat()
    daemon = daemon_of(found)
    links = list(found.get("links", []))
    channels = [_channel(row) for row in found.get("channels", [])]
    endpoints = [dict(row) for row in found.get("endpoints", [])]
    users = [_user(row) for row in found.get("users", [])]
    connection = dict(found.get("connection", {}))
    screen.result(
        True,
        daemon=daemon,
        links=links,
        channels=channels,
        endpoints=endpoints,
        users=users,
        connection=connection,
    )
    if daemon is not None:
        up = duration(daemon["uptime_seconds"] * 1e6)
        screen.line(f"daemon {daemon['version']}, process {daemon['pid']}, up for {up}")
    screen.title("Links")
    screen.table(
        ("link", ">restarts", ">connected for", ">bad messages"),
        (
            (row.get("name"), row.get("restarts", 0), _uptime(row), row.get("bad_messages", 0))
            for row in links
        ),
    )
    _show_channels(screen, channels, connection.get("context"))
    if endpoints:
        _show_endpoints(screen, endpoints)
    _show_users(screen, users)
    return daemon


def _uptime(row: dict[str, Any]) -> str | None:
    seconds = row.get("uptime_seconds")
    return None if seconds is None else duration(seconds * 1e6)


def _show_channels(screen: Screen, channels: list[dict[str, Any]], own: Any) -> None:
    screen.title("Channels (packets and doorbells, to and from the remote)")
    rows = []
    for row in channels:
        packets = row["frames_to_remote"] + row["frames_from_remote"]
        doorbells = row["doorbells_to_remote"] + row["doorbells_from_remote"]
        rows.append(
            (
                row["id"],
                row["context"],
                f"{row['frames_to_remote']:,}",
                f"{row['frames_from_remote']:,}",
                f"{row['doorbells_to_remote']:,}",
                f"{row['doorbells_from_remote']:,}",
                per_doorbell(packets, doorbells),
                row["in_flight"],
                "this command" if row["context"] == own else "",
            )
        )
    names = (">channel", ">context", ">to", ">from", ">bells to", ">bells from")
    screen.table((*names, ">packets per doorbell", ">in flight", ""), rows)


def _show_endpoints(screen: Screen, endpoints: list[dict[str, Any]]) -> None:
    screen.title("Endpoints (messages of foreign firmware)")
    counters = ("sent", "answered", "late", "in_flight", "unmatched", "dropped")
    screen.table(
        ("endpoint", ">context", *(f">{key.replace('_', ' ')}" for key in counters)),
        (
            (row.get("name"), row.get("context"), *(f"{row.get(key, 0):,}" for key in counters))
            for row in endpoints
        ),
    )


def _show_users(screen: Screen, users: list[dict[str, Any]]) -> None:
    screen.title("Users (what they hold, and may hold)")
    rows = []
    for row in users:
        used, quota = row["used"], row["quota"]

        def cell(key: str, used: dict[str, Any] = used, quota: dict[str, Any] = quota) -> str:
            show = amount if key == "bytes" else str
            limit = f" of {show(quota[key])}" if key in quota else ""
            return f"{show(used.get(key, 0))}{limit}"

        rows.append((row["uid"], cell("bytes"), cell("areas"), cell("channels")))
    screen.table((">uid", ">memory", ">areas", ">channels"), rows)
