"""Figures for people: amounts with units, and what a list of samples comes to."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence

from sbe.errors import BadArgument

__all__ = ["amount", "duration", "parse_size", "percentile", "plural", "ratio", "summary_us"]

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_size(text: str) -> int:
    """Bytes in 4096, 16K, 8M or 1G, also with B or iB behind. Raises BadArgument."""
    match = re.fullmatch(r"(\d{1,15})\s*([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise BadArgument(f"{text!r} is no size: say bytes, or 16K, 8M, 1G")
    return int(match[1]) * _UNITS[match[2].upper()]


def amount(size_bytes: float) -> str:
    """Bytes with a binary unit; whole, or three digits."""
    for unit in ("B", "KiB", "MiB"):
        if abs(size_bytes) < 1024:
            return f"{_whole(size_bytes)} {unit}"
        size_bytes /= 1024
    return f"{_whole(size_bytes)} GiB"


def _whole(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else _three(value)


def duration(microseconds: float) -> str:
    """A time in us, ms or s, three digits."""
    for unit in ("us", "ms"):
        if abs(microseconds) < 1000:
            return f"{_three(microseconds)} {unit}"
        microseconds /= 1000
    return f"{_three(microseconds)} s"


def _three(value: float) -> str:
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}"


def ratio(ours: float, theirs: float) -> str:
    """How ours compares to theirs, both times."""
    if ours <= 0 or theirs <= 0:
        return "-"
    factor = theirs / ours
    return f"{_three(factor)} x faster" if factor >= 1 else f"{_three(1 / factor)} x slower"


def plural(count: int, noun: str) -> str:
    """1 frame, 2 frames."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least `share` of all do not exceed (nearest rank)."""
    ordered = sorted(samples)
    rank = -int(-share * len(ordered) // 1)  # rounded up
    return ordered[max(0, rank - 1)]


def summary_us(nanoseconds: Sequence[int]) -> dict[str, float]:
    """min, median, mean, p99 and max in microseconds; of at least one sample."""
    return {
        "min": min(nanoseconds) / 1000,
        "median": statistics.median(nanoseconds) / 1000,
        "mean": round(statistics.fmean(nanoseconds) / 1000, 3),
        "p99": percentile(nanoseconds, 0.99) / 1000,
        "max": max(nanoseconds) / 1000,
    }
