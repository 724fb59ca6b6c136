"""The words of the benchmark: what a probe gets, what it gives back, what a row compares."""

from __future__ import annotations

import importlib
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[2]

MESSAGE = b"a small message, 32 bytes long.."
"""What every small-message peer carries there and back."""

Placement = Literal["two", "one", "none"]
"""Where the ends of a probe run: on two cores, both on one, or where the scheduler puts them."""

BLOCK_BYTES = 16 << 20
"""The block of the bulk rows."""


class UnavailableError(Exception):
    """A probe can't run here; the message is the reason that the row shows."""


@dataclass(frozen=True)
class Settings:
    """What one run asks of every probe. Crosses a process border as JSON, so plain values only."""

    quick: bool = False
    placement: Placement = "two"
    build: str = "build"
    work: str = ""
    seconds: float = 0.0
    """Of the run of many streams; 0: as long as is usual."""

    @property
    def calls(self) -> int:
        """Round trips of a latency probe: enough for an honest p99."""
        return 2_000 if self.quick else 10_000

    @property
    def blocks(self) -> int:
        """Repetitions of whatever moves or reads many megabytes."""
        return 5 if self.quick else 15

    @property
    def starts(self) -> int:
        """Repetitions of whatever starts a process or a connection."""
        return 3 if self.quick else 7

    @property
    def contexts(self) -> int:
        """Contexts of the crowded daemon; each has ten areas."""
        return 50 if self.quick else 1_000

    @property
    def idle_s(self) -> float:
        return 3.0 if self.quick else 10.0

    @property
    def flow_s(self) -> float:
        """Seconds of data that flow one way."""
        return 1.0 if self.quick else 3.0

    @property
    def crowd_s(self) -> float:
        """Seconds of many streams at once."""
        return self.seconds or (5.0 if self.quick else 60.0)


@dataclass(frozen=True)
class Result:
    """What a probe measured: one or more named series of samples, each in its row's unit."""

    series: dict[str, list[float]]
    note: str = ""

    @classmethod
    def of(cls, samples: list[float], note: str = "") -> Result:
        return cls({"": samples}, note)


ProbeFunction = Callable[[Settings], Result]


@dataclass(frozen=True)
class Probe:
    """A measurement. It runs in a process of its own and is killed after `limit_s`."""

    run: ProbeFunction
    limit_s: float = 60.0
    once: bool = False
    """Measured in the first round only: long, and not a matter of luck (idle time, for example)."""


@dataclass(frozen=True)
class Row:
    """One key of bench.json: `ours` beside `peer`, each "probe" or "probe/series"."""

    key: str
    unit: str
    ours: str
    peer: str = ""
    peer_name: str = ""
    what: str = ""
    group: Literal["floor", "peer", "sbe", "part"] = "sbe"
    goal: float | None = None
    goal_on: Literal["value", "ratio"] = "ratio"
    higher_is_better: bool = False
    note: str = ""
    placement: Placement = "two"

    def probes(self) -> list[str]:
        """The probes that this row needs, peer first: "probe" or "probe@placement"."""
        return [self.placed(one).partition("/")[0] for one in (self.peer, self.ours) if one]

    def placed(self, reference: str) -> str:
        """The reference with this row's placement: a probe placed otherwise is another one."""
        probe, slash, series = reference.partition("/")
        where = f"@{self.placement}" if probe and self.placement != "two" else ""
        return f"{probe}{where}{slash}{series}"

    def elsewhere(self, placement: Placement, goal: float | None = None) -> Row:
        """The same row in another placement, KEY@PLACEMENT; what was asked of this one is not
        asked of it."""
        key = f"{self.key}@{placement}"
        return replace(self, key=key, placement=placement, goal=goal)


@dataclass(frozen=True)
class Curve:
    """A cost over a size or a number: each line a series "line/x" of one probe, x ascending."""

    key: str
    probe: str
    what: str
    unit: str
    axis: str
    points: tuple[int, ...]
    lines: dict[str, str]
    """Names of the lines, as the probe has them, and what they show."""


@dataclass
class Figures:
    """One reference of a row over all rounds: round number -> median and p99 of that round."""

    p50: dict[int, float] = field(default_factory=dict)
    p99: dict[int, float] = field(default_factory=dict)
    pooled: array[float] = field(default_factory=lambda: array("d"))
    """The samples of all rounds: only together are they enough for the far tail."""


def require(module: str, package: str = "") -> Any:
    """Import an optional peer, or say which package would bring it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UnavailableError(f"{package or module} is not installed ({error})") from error
