"""The records as a table for a terminal of 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from tests.bench.runner import NOISY, Record

_TITLES = {
    "floor": "Floors: what the machine itself costs",
    "peer": "Peers: what people use instead",
    "sbe": "Structured Buffer Exchange",
    "part": "Parts of one sleeping call",
}
_HEAD = ("key", "value", "p99", "unit", "peer", "peer value", "ratio", "spread", "goal")
_RIGHT = {1, 2, 5, 6, 7, 8}


def number(figure: object) -> str:
    """Three significant digits, thousands separated, never an exponent; "-" for none."""
    if not isinstance(figure, int | float):
        return "-"
    for limit, digits in ((100, 0), (10, 1), (1, 2)):
        if abs(figure) >= limit:
            return f"{figure:,.{digits}f}"
    return f"{figure:.3g}" if figure else "0"


def amount(bytes_: int) -> str:
    """A power of two as people say it: 4 Ki, 256 Mi; small numbers as they are."""
    for power, prefix in ((20, "Mi"), (10, "Ki")):
        if bytes_ >= 1 << power:
            return f"{bytes_ >> power} {prefix}"
    return str(bytes_)


def _goal(record: Record) -> str:
    if record["goal"] is None:
        return ""
    sign = ">=" if record["higher_is_better"] else "<="
    verdict = "-" if record["goal_met"] is None else "met" if record["goal_met"] else "MISSED"
    return f"{sign} {number(record['goal'])} {verdict}"


def _cells(key: str, record: Record) -> tuple[str, ...]:
    scatter = record["spread"]
    percent = f"{scatter:.0%}" if isinstance(scatter, float) else "-"
    return (
        key,
        number(record["value"]),
        number(record["p99"]),
        str(record["unit"]),
        str(record["peer"] or ""),
        number(record["peer_value"]) if record["peer"] else "",
        number(record["ratio"]) if record["peer"] else "",
        percent + (" ~" if record["noisy"] else ""),
        _goal(record),
    )


def table(records: Mapping[str, Record], about: Record) -> str:
    rows = {key: _cells(key, record) for key, record in records.items()}
    widths = [max(len(row[i]) for row in [_HEAD, *rows.values()]) for i in range(len(_HEAD))]

    def line(cells: tuple[str, ...]) -> str:
        padded = (
            cell.rjust(width) if column in _RIGHT else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    lines = []
    for group, title in _TITLES.items():
        keys = [key for key, record in records.items() if record["group"] == group]
        if keys:
            lines += [title, line(_HEAD), *(line(rows[key]) for key in keys), ""]
    lines += _legend(records, about)
    return "\n".join(lines)


def _legend(records: Mapping[str, Record], about: Record) -> list[str]:
    placed = about["pinned"]
    where = f"ends pinned to CPUs {placed}" if placed else "ends placed by the scheduler"
    if any("@" in key for key in records):
        where += " (@one: both to the first, @none: to none)"
    lines = [
        f"Medians over {about['rounds']} round(s) in {about['seconds']} s; {where}; "
        f"{about['cpus']} CPUs, Linux {about['kernel']}, Python {about['python']}.",
        "ratio: median of each round's value / peer. spread: distance of its quartiles over it.",
    ]
    if any(record["noisy"] for record in records.values()):
        lines.append(
            f"~  more than {NOISY:.0%} apart: this median means little, rest the machine and repeat"
        )
    load, cpus = about["load_before"], about["cpus"]
    if isinstance(load, float) and isinstance(cpus, int) and load > cpus / 2:
        lines.append(f"The machine was loaded before the run: {load} runnable on {cpus} CPUs.")
    return lines + _notes(records)


def _notes(records: Mapping[str, Record]) -> list[str]:
    """Notes, those that several rows share said once."""
    sharing: dict[str, list[str]] = {}
    for key, record in records.items():
        if record["note"]:
            sharing.setdefault(str(record["note"]), []).append(key)
    if not sharing:
        return []
    said = (f"{', '.join(keys)}: {note}" for note, keys in sharing.items())
    wrapper = textwrap.TextWrapper(100, initial_indent="  ", subsequent_indent="    ")
    return ["", "Notes", *(wrapper.fill(words) for words in said)]
