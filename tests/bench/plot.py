"""build/bench.png: round trips, bandwidth, memory and ratios side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench.model import UnavailableError, require
from tests.bench.report import number
from tests.bench.runner import Record

_COLOURS = {"floor": "#9aa5b1", "peer": "#e0a458", "sbe": "#2a6f97"}
_PANELS = (
    ("us", "round trip, us: p50 (bar) and p99 (tick)"),
    ("GB/s", "bandwidth, GB/s"),
    ("MB", "resident memory, MB"),
)


def draw(records: Mapping[str, Record], path: Path) -> str:
    """Draw the plot and return what to tell the user."""
    try:
        matplotlib = require("matplotlib")
        matplotlib.use("Agg")
        pyplot = require("matplotlib.pyplot")
    except UnavailableError as reason:
        return f"no plot: {reason}"
    figure, axes = pyplot.subplots(2, 2, figsize=(13, 9), layout="constrained")
    panels = axes.flat
    for axis, (unit, title) in zip(panels, _PANELS, strict=False):
        _bars(axis, {k: r for k, r in records.items() if r["unit"] == unit}, title)
    _ratios(panels[3], records)
    missing = sum(record["value"] is None for record in records.values())
    if missing:
        figure.suptitle(f"{missing} of {len(records)} rows could not be measured here", fontsize=10)
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=colour) for colour in _COLOURS.values()]
    figure.legend(handles, ["floor", "peer", "SBE"], loc="outside upper right", ncols=3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return f"plot: {path}"


def _bars(axis: Any, records: Mapping[str, Record], title: str) -> None:
    """One bar per measured row; rows that share a probe's value stay, their names differ."""
    shown = {key: record for key, record in records.items() if record["value"] is not None}
    axis.set_title(title, fontsize=10)
    if not shown:
        _nothing(axis)
        return
    values = [record["value"] for record in shown.values()]
    colours = [_COLOURS[str(record["group"])] for record in shown.values()]
    axis.barh(range(len(shown)), values, color=colours)
    for place, record in enumerate(shown.values()):
        mark = " ~" if record["noisy"] else ""
        axis.annotate(
            f" {number(record['value'])}{mark}",
            (record["value"], place),
            va="center",
            fontsize=8,
        )
        if record["p99"] is not None:
            axis.plot([record["p99"]], [place], "k|", markersize=9)
    _label(axis, list(shown))
    axis.margins(x=0.12)


def _ratios(axis: Any, records: Mapping[str, Record]) -> None:
    """Value over peer on a log scale: left of 1 is smaller than the peer, right of it larger."""
    shown = {key: record for key, record in records.items() if record["ratio"]}
    axis.set_title("value / peer (1 = the same; filled: on the better side)", fontsize=10)
    if not shown:
        _nothing(axis)
        return
    axis.set_xscale("log")
    axis.axvline(1.0, color="black", linewidth=0.8)
    for place, record in enumerate(shown.values()):
        ratio = record["ratio"]
        assert isinstance(ratio, float)
        better = (ratio >= 1) is bool(record["higher_is_better"])
        colour = _COLOURS[str(record["group"])]
        axis.plot([ratio], [place], "o", color=colour, fillstyle="full" if better else "none")
        axis.annotate(f"   {number(ratio)} x {record['peer']}", (ratio, place), fontsize=8)
    _label(axis, list(shown))
    axis.margins(x=0.35)


def _label(axis: Any, keys: list[str]) -> None:
    axis.set_yticks(range(len(keys)), keys, fontsize=8)
    axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)


def _nothing(axis: Any) -> None:
    axis.text(0.5, 0.5, "nothing measured", ha="center", va="center")
    axis.set_axis_off()
