"""`sbe list`: what there is."""

from __future__ import annotations

from typing import Any

import click

from sbe.cli.figures import amount
from sbe.cli.screen import Screen
from sbe.cli.session import Session, common_options, daemon_of

__all__ = ["list_"]

_STARTED_HERE = ("embedded", "qemu")  # transports whose remote ends with the link
_KINDS = ("links", "contexts", "areas", "channels", "endpoints", "services")
_RARE = ("endpoints",)  # not worth a line where there are none


@click.command("list")
@common_options
@click.pass_obj
def list_(session: Session) -> int:
    """Show links, contexts, areas, channels, services and the cores of this machine."""
    from sbe.cli import cores

    screen = session.screen()
    found = [core.facts() for core in cores.all_cores()]
    with session.connect() as link:
        listing = link.list()
        daemon = daemon_of(link.stat())
        own = link.context
    tables = {kind: list(listing.get(kind, [])) for kind in _KINDS}
    screen.result(True, daemon=daemon, context=own, cores=found, **tables)
    for kind in _KINDS:
        if kind in _RARE and not tables[kind]:
            continue
        screen.title(kind.capitalize())
        if tables[kind]:
            _SHOW[kind](screen, tables[kind], own)
        else:
            screen.line("none")
    if found:
        screen.title("Cores")
        cores.show(screen, found)
    if daemon is None:
        screen.line()
        screen.line(f"No daemon: {_after(tables['links'])}")
    return 0


def _after(links: list[dict[str, Any]]) -> str:
    """What becomes of the remote of a command without a daemon."""
    if any(row.get("transport") in _STARTED_HERE for row in links):
        return "this remote was started for this command alone and is gone now."
    return "the link was this command's alone; the remote runs on."


def _epoch(value: Any) -> str | None:
    return f"{value:#010x}" if isinstance(value, int) and value else None


def _links(screen: Screen, rows: list[dict[str, Any]], own: int) -> None:
    screen.table(
        ("link", "state", "remote", ">process", "epoch", "transport"),
        (
            (
                row.get("name"),
                row.get("state"),
                row.get("remote"),
                row.get("pid"),
                _epoch(row.get("epoch")),
                row.get("transport"),
            )
            for row in rows
        ),
    )


def _contexts(screen: Screen, rows: list[dict[str, Any]], own: int) -> None:
    screen.table(
        ("link", ">context", "client", ">process", ">uid", ""),
        (
            (
                row.get("link"),
                row.get("id"),
                row.get("client"),
                row.get("pid"),
                row.get("uid"),
                "this command" if row.get("id") == own else "",
            )
            for row in rows
        ),
    )


def _areas(screen: Screen, rows: list[dict[str, Any]], own: int) -> None:
    screen.table(
        (">area", ">context", ">size", "heap"),
        (
            (row.get("id"), row.get("context"), amount(row.get("size", 0)), row.get("heap"))
            for row in rows
        ),
    )


def _channels(screen: Screen, rows: list[dict[str, Any]], own: int) -> None:
    screen.table(
        (">channel", ">context", ">slots", ">slot size", ">priority"),
        (
            (
                row.get("id"),
                row.get("context"),
                row.get("slots"),
                amount(row.get("slot_size", 0)),
                row.get("priority"),
            )
            for row in rows
        ),
    )


def _endpoints(screen: Screen, rows: list[dict[str, Any]], own: int) -> None:
    screen.table(
        ("endpoint", ">context", ">id", ">address", "answers by"),
        (
            (
                row.get("name"),
                row.get("context"),
                row.get("id"),
                row.get("address") or None,
                row.get("match"),
            )
            for row in rows
        ),
    )


def _services(screen: Screen, rows: list[dict[str, Any]], own: int) -> None:
    def end(row: dict[str, Any]) -> str:
        context = row.get("context")
        return f"context {context}" if context else "remote"

    screen.table(
        ("service", ">version", ">id", "served by"),
        ((row.get("name"), row.get("version"), row.get("id"), end(row)) for row in rows),
    )


_SHOW = {
    "links": _links,
    "contexts": _contexts,
    "areas": _areas,
    "channels": _channels,
    "endpoints": _endpoints,
    "services": _services,
}
