"""Rounds, medians and ratios: from probes to the records of build/bench.json.

Every round runs all probes once, those of one row next to each other, so that a machine that
slows down hits both sides of a comparison. A ratio is the median over the rounds of each round's
own ratio, not the ratio of two medians: what drifts between rounds cancels out.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import cast

from sbe import extras
from tests.bench.model import (
    Curve,
    Figures,
    Placement,
    Probe,
    Result,
    Row,
    Settings,
    UnavailableError,
)
from tests.bench.procs import cores

SCHEMA = 1
NOISY = 0.20
"""Spread from which a median says little: the middle half of the rounds differs by a fifth."""

TAILS = (50.0, 90.0, 99.0, 99.9, 99.99)
"""Percentiles of the tail, over the samples of all rounds together."""

_MIN_SAMPLES_P99 = 100
_MIN_BEYOND = 3  # samples above a percentile, or it is only the largest one
_MIN_ROUNDS_SPREAD = 3
_PEER_PACKAGES = ("numpy", "pyzmq", "iceoryx2", extras.DISTRIBUTION)

Measure = Callable[[str, Probe, Settings], Result]
Record = dict[str, object]


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least `share` of all samples do not exceed (nearest rank)."""
    ordered = sorted(samples)
    rank = -int(-share * len(ordered) // 1)  # rounded up
    return ordered[max(0, rank - 1)]


def spread(figures: Sequence[float]) -> float | None:
    """Distance between the quartiles over the median; None where it would mean nothing."""
    if len(figures) < _MIN_ROUNDS_SPREAD:
        return None
    low, middle, high = statistics.quantiles(figures, n=4, method="inclusive")
    return (high - low) / abs(middle) if middle else None


class Run:
    """All rounds of one run: what was measured so far, and why the rest was not.

    One thread uses it.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        probes: Mapping[str, Probe],
        settings: Settings,
        measure: Measure,
        curves: Sequence[Curve] = (),
    ) -> None:
        self.rows = rows
        self.curves = curves
        self.probes = probes
        self.settings = settings
        self.measure = measure
        self.figures: dict[str, Figures] = {}
        self.notes: dict[str, str] = {}
        self.reasons: dict[str, str] = {}

    def needed(self) -> list[str]:
        """The probes of all rows, each once, in the order of their first row; then the curves'."""
        named = [name for row in self.rows for name in row.probes()]
        return list(dict.fromkeys([*named, *(curve.probe for curve in self.curves)]))

    def round(self, number: int, progress: Callable[[str], object] = str) -> None:
        """Run every probe once; one that can't run is not tried again."""
        for name in self.needed():
            plain, at, placement = name.partition("@")
            probe = self.probes[plain]
            if name in self.reasons or (probe.once and number > 0):
                continue
            progress(name)
            settings = self.settings
            if at:
                settings = replace(settings, placement=cast(Placement, placement))
            try:
                result = self.measure(plain, probe, settings)
            except UnavailableError as reason:
                measured_before = f"round {number + 1}: " if number else ""
                self.reasons[name] = f"{measured_before}{reason}"
                continue
            self._keep(number, name, result)

    def _keep(self, number: int, name: str, result: Result) -> None:
        if result.note:
            self.notes[name] = result.note
        for series, samples in result.series.items():
            figures = self.figures.setdefault(f"{name}/{series}" if series else name, Figures())
            figures.p50[number] = statistics.median(samples)
            figures.pooled.extend(samples)
            if len(samples) >= _MIN_SAMPLES_P99:
                figures.p99[number] = percentile(samples, 0.99)

    def records(self) -> dict[str, Record]:
        return {row.key: self._record(row) for row in self.rows}

    def _record(self, row: Row) -> Record:
        """One row of bench.json. Missing figures are null, and the note says why."""
        ours, peer = (self.figures.get(row.placed(one), Figures()) for one in (row.ours, row.peer))
        both = sorted(ours.p50.keys() & peer.p50.keys())
        ratios = [ours.p50[n] / peer.p50[n] for n in both if peer.p50[n]]
        ratio, value = _median(ratios), _median(ours.p50.values())
        scatter = spread(ratios if ratios else [*ours.p50.values()])
        judged = ratio if row.goal_on == "ratio" else value
        return {
            "what": row.what,
            "group": row.group,
            "placement": row.placement,
            "value": value,
            "p99": _median(ours.p99.values()),
            "tail": _tail(ours.pooled),
            "unit": row.unit,
            "higher_is_better": row.higher_is_better,
            "peer": row.peer_name or None,
            "peer_value": _median(peer.p50.values()),
            "peer_p99": _median(peer.p99.values()),
            "ratio": ratio,
            "spread": scatter,
            "noisy": scatter is not None and scatter > NOISY,
            "goal": row.goal,
            "goal_on": row.goal_on if row.goal is not None else None,
            "goal_met": _meets(row, judged),
            "rounds": [ours.p50[n] for n in sorted(ours.p50)],
            "peer_rounds": [peer.p50[n] for n in sorted(peer.p50)],
            "note": self._note(row),
        }

    def curve_records(self) -> dict[str, Record]:
        """The curves as they go into bench.json; a point that was not measured is null."""
        return {curve.key: self._curve(curve) for curve in self.curves}

    def _curve(self, curve: Curve) -> Record:
        return {
            "what": curve.what,
            "unit": curve.unit,
            "axis": curve.axis,
            "points": list(curve.points),
            "lines": {
                said: [
                    _median(self.figures.get(f"{curve.probe}/{line}/{x}", Figures()).p50.values())
                    for x in curve.points
                ]
                for line, said in curve.lines.items()
            },
            "note": self.reasons.get(curve.probe, self.notes.get(curve.probe, "")),
        }

    def _note(self, row: Row) -> str:
        parts = [row.note] if row.note else []
        for name in dict.fromkeys(reversed(row.probes())):
            parts += [self.notes[name]] if name in self.notes else []
            if name in self.reasons:
                who = "" if name == row.probes()[-1] else f"{row.peer_name}: "
                parts.append(who + self.reasons[name])
        return "; ".join(parts)


def _median(figures: Iterable[float]) -> float | None:
    values = list(figures)
    return statistics.median(values) if values else None


def _tail(samples: Sequence[float]) -> dict[str, float]:
    """The percentiles that enough samples lie beyond."""
    return {
        f"{share:g}": percentile(samples, share / 100)
        for share in TAILS
        if len(samples) * (100 - share) / 100 >= _MIN_BEYOND
    }


def _meets(row: Row, judged: float | None) -> bool | None:
    if row.goal is None or judged is None:
        return None
    return judged >= row.goal if row.higher_is_better else judged <= row.goal


def load() -> float:
    """Runnable processes of the last minute; to be asked before the run adds its own."""
    return round(os.getloadavg()[0], 2)


def meta(settings: Settings, rounds: int, seconds: float, load_before: float) -> Record:
    """What has to be known beside the figures to compare two runs."""
    pair = cores(settings)
    versions = {}
    for package in _PEER_PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "schema": SCHEMA,
        "cpus": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": versions,
        "rounds": rounds,
        "quick": settings.quick,
        "pinned": list(pair) if pair else None,
        "load_before": load_before,
        "seconds": round(seconds, 1),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def write_json(
    path: Path, records: dict[str, Record], about: Record, curves: dict[str, Record]
) -> None:
    """Written whole or not at all: an interrupted run leaves the last one's file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".tmp")
    text = json.dumps({"meta": about, "curves": curves, **records}, indent=1, allow_nan=False)
    fresh.write_text(text + "\n")
    fresh.replace(path)
