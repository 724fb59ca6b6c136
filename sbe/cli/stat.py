"""`sbe stat`: what was counted."""

from __future__ import annotations

import time
from typing import Any

import click

import sbe
from sbe.cli.figures import amount, duration
from sbe.cli.screen import Screen
from sbe.cli.session import Session, common_options, is_embedded

__all__ = ["COUNTERS", "own_channel", "per_doorbell", "stat"]

# What the embedded link and the daemon call the same counter.
COUNTERS = {
    "sent": ("sent", "frames_to_remote"),
    "received": ("received", "frames_from_remote"),
    "doorbells_sent": ("doorbells_sent", "doorbells_to_remote"),
    "doorbells_received": ("doorbells_received", "doorbells_from_remote"),
    "space_doorbells_sent": ("space_doorbells_sent", "space_doorbells_to_remote"),
    "space_doorbells_received": ("space_doorbells_received", "space_doorbells_from_remote"),
    "in_flight": ("in_flight", "waiting"),
}


def per_doorbell(packets: int, doorbells: int) -> float | None:
    """Packets per doorbell; None before the first."""
    return round(packets / doorbells, 2) if doorbells else None


def _channel(row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "link": row.get("link"),
        "id": row.get("id"),
        "context": row.get("context"),
    }
    for name, spellings in COUNTERS.items():
        found[name] = next((row[key] for key in spellings if row.get(key) is not None), 0)
    found["per_doorbell_sent"] = per_doorbell(found["sent"], found["doorbells_sent"])
    found["per_doorbell_received"] = per_doorbell(found["received"], found["doorbells_received"])
    return found


def own_channel(found: dict[str, Any]) -> dict[str, Any]:
    """The channel of the connection that asked for the counters."""
    own = found.get("connection", {})
    place = (own.get("context"), own.get("channel"))
    rows = found.get("channels", [])
    return _channel(next((row for row in rows if (row.get("context"), row.get("id")) == place), {}))


def _user(row: dict[str, Any]) -> dict[str, Any]:
    used = row.get("used", row)
    return {
        "uid": row.get("uid"),
        "used": {key: value for key, value in used.items() if key != "uid"},
        "quota": row.get("quota", {}),
    }


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
        embedded = is_embedded(link.list())
        _once(screen, link)
        if embedded:
            screen.line()
            screen.line("No daemon: these are the counters of this command's own link.")
        while watch is not None:
            time.sleep(watch)
            screen.line()
            screen.line(f"-- {time.strftime('%H:%M:%S')}")
            _once(screen, link)
    return 0


def _once(screen: Screen, link: sbe.Connection) -> None:
    found = link.stat()
    links = list(found.get("links", []))
    channels = [_channel(row) for row in found.get("channels", [])]
    users = [_user(row) for row in found.get("users", found.get("usage", []))]
    connection = dict(found.get("connection", {}))
    screen.result(True, links=links, channels=channels, usage=users, connection=connection)
    screen.title("Links")
    screen.table(
        ("link", ">restarts", ">connected for", ">bad messages"),
        (
            (row.get("name"), row.get("restarts", 0), _uptime(row), row.get("bad_messages", 0))
            for row in links
        ),
    )
    _show_channels(screen, channels, connection.get("context"))
    _show_users(screen, users)


def _uptime(row: dict[str, Any]) -> str | None:
    seconds = row.get("uptime_seconds")
    return None if seconds is None else duration(seconds * 1e6)


def _show_channels(screen: Screen, channels: list[dict[str, Any]], own: Any) -> None:
    screen.title("Channels (packets and doorbells, to and from the remote)")
    rows = []
    for row in channels:
        packets = row["sent"] + row["received"]
        doorbells = row["doorbells_sent"] + row["doorbells_received"]
        rows.append(
            (
                row["id"],
                row["context"],
                f"{row['sent']:,}",
                f"{row['received']:,}",
                f"{row['doorbells_sent']:,}",
                f"{row['doorbells_received']:,}",
                per_doorbell(packets, doorbells),
                row["in_flight"],
                "this command" if row["context"] == own else "",
            )
        )
    names = (">channel", ">context", ">to", ">from", ">bells to", ">bells from")
    screen.table((*names, ">packets per doorbell", ">in flight", ""), rows)


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
