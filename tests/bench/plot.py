"""Pictures of a run: build/bench.png (all rows), bench_latency.png (how far the tails reach) and
one bench_<curve>.png for each curve."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench.model import UnavailableError, require
from tests.bench.report import amount, number
from tests.bench.runner import Record

_COLOURS = {"floor": "#9aa5b1", "peer": "#e0a458", "sbe": "#2a6f97"}
_PANELS = (
    ("us", "round trip, us: p50 (bar) and p99 (tick)"),
    ("GB/s", "bandwidth, GB/s"),
    ("MB", "resident memory, MB"),
)


_TAILS = {
    "floor_eventfd": ("eventfd, two Python processes", "#9aa5b1", "-"),
    "peer_seqpacket": ("AF_UNIX seqpacket", "#c08552", ":"),
    "peer_pipe": ("multiprocessing.Pipe", "#e0a458", "-"),
    "peer_zmq": ("pyzmq REQ/REP", "#b5495b", "-"),
    "peer_iceoryx2": ("iceoryx2, spinning", "#8e5ea2", "--"),
    "call_block": ("SBE call, sleeping", "#2a6f97", "-"),
    "call_spin": ("SBE call, spinning", "#2a6f97", "--"),
}
_OURS = ("#2a6f97", "#61a5c2", "#014f86")


def draw_all(
    records: Mapping[str, Record], curves: Mapping[str, Record], folder: Path
) -> list[str]:
    """Draw every plot and return what to tell the user."""
    try:
        matplotlib = require("matplotlib")
        matplotlib.use("Agg")
        pyplot = require("matplotlib.pyplot")
    except UnavailableError as reason:
        return [f"no plots: {reason}"]
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"bench": _overview(pyplot, records), "bench_latency": _latency(pyplot, records)}
    figures |= {f"bench_{key}": _curve(pyplot, curve) for key, curve in curves.items()}
    said = []
    for name, figure in figures.items():
        if figure is None:
            continue
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=110)
        pyplot.close(figure)
        said.append(f"plot: {path}")
    return said


def _latency(pyplot: Any, records: Mapping[str, Record]) -> Any:
    """One line for each peer: which share of its round trips took longer than so many us."""
    shown = {key: records[key]["tail"] for key in _TAILS if records.get(key, {}).get("tail")}
    if not shown:
        return None
    figure, axis = pyplot.subplots(figsize=(10, 6), layout="constrained")
    for key, tail in shown.items():
        name, colour, style = _TAILS[key]
        assert isinstance(tail, dict)
        beyond = [1 / (1 - float(share) / 100) for share in tail]
        axis.plot(beyond, list(tail.values()), style, color=colour, marker="o", label=name)
    axis.set_xscale("log")
    axis.set_yscale("log")
    shares = sorted({share for tail in shown.values() for share in tail}, key=float)  # type: ignore[attr-defined]
    axis.set_xticks([1 / (1 - float(s) / 100) for s in shares], [f"p{s}" for s in shares])
    axis.xaxis.minorticks_off()
    _plain(axis.yaxis)
    axis.set_ylabel("one round trip, us")
    axis.set_title("Round trips, from the median to the tail, all rounds together", fontsize=11)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def _curve(pyplot: Any, curve: Record) -> Any:
    lines, points = curve["lines"], curve["points"]
    assert isinstance(lines, dict)
    assert isinstance(points, list)
    if not any(value is not None for values in lines.values() for value in values):
        return None
    figure, axis = pyplot.subplots(figsize=(10, 6), layout="constrained")
    shades = iter(_OURS)
    for name, values in lines.items():
        colour = next(shades) if name.startswith("SBE") else _COLOURS["peer"]
        axis.plot(points, values, "-o", color=colour, label=name, markersize=4)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(points, [amount(point) for point in points])
    axis.xaxis.minorticks_off()
    _plain(axis.yaxis)
    axis.set_xlabel(str(curve["axis"]))
    axis.set_ylabel(str(curve["unit"]))
    axis.set_title(str(curve["what"]), fontsize=11)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def _plain(axis: Any) -> None:
    """A log axis with numbers as people write them, and a few of them in each decade."""
    axis.set_major_locator(require("matplotlib.ticker").LogLocator(subs=(1, 2, 5), numticks=20))
    axis.set_major_formatter(lambda value, _: f"{value:,.10g}")


def _overview(pyplot: Any, records: Mapping[str, Record]) -> Any:
    """Round trips, bandwidth, memory and ratios side by side."""
    records = {
        key: record
        for key, record in records.items()
        if record["group"] in _COLOURS and record["placement"] == "two"
    }
    figure, axes = pyplot.subplots(2, 2, figsize=(15, 11), layout="constrained")
    panels = axes.flat
    for axis, (unit, title) in zip(panels, _PANELS, strict=False):
        _bars(axis, {k: r for k, r in records.items() if r["unit"] == unit}, title)
    _ratios(panels[3], records)
    missing = sum(record["value"] is None for record in records.values())
    if missing:
        figure.suptitle(f"{missing} of {len(records)} rows could not be measured here", fontsize=10)
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=colour) for colour in _COLOURS.values()]
    figure.legend(handles, ["floor", "peer", "SBE"], loc="outside upper right", ncols=3)
    return figure


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
    if any(record["p99"] is not None for record in shown.values()):
        axis.set_xscale("log")  # a tail may be a thousand medians long
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
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
