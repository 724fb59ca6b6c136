"""How soon an application hears of what a stream does."""

from __future__ import annotations

import time
from typing import NamedTuple, TypedDict

from sbe.sdk.stream_wire import Event

__all__ = ["ClockPair", "StreamStat", "WakeUps"]

_BUCKETS = 64  # by the bits of the number of nanoseconds


class ClockPair(NamedTuple):
    """Two clocks at one moment, within `accuracy_ns`."""

    host_ns: int
    """time.monotonic_ns()"""
    remote_ns: int
    position_bytes: int
    accuracy_ns: int


class StreamStat(TypedDict):
    """Counters: `xruns` and `lost_bytes` of this run, the others since the stream was opened."""

    xruns: int
    lost_bytes: int
    events: int
    """That were taken."""
    events_skipped: int
    doorbells: int
    """That this end has rung."""
    wakeups: int
    """Events that ended a wait; others were there already."""
    wakeup_ns: dict[int, int] | None
    """From the remote's stamp of a period to the application that waited for it: how many took less
    than so many nanoseconds, a power of two, and not less than half of that. None unless both ends
    read the same clock, as a process of this machine does, at the latest `clock()` or when it was
    opened: a difference of two clocks that run apart would be a guess."""


class WakeUps:
    """Counts wake-ups, in a bounded number of numbers. One thread at a time may use it."""

    def __init__(self) -> None:
        self.count = 0
        self.waited = False
        """The next event ends a wait that asyncio did."""
        self._same_clock = False
        self._buckets = [0] * _BUCKETS

    def compare(self, pair: ClockPair) -> None:
        """Finds out whether stamps of the remote are times of this end."""
        self._same_clock = abs(pair.host_ns - pair.remote_ns) <= pair.accuracy_ns

    def woken(self, event: Event) -> None:
        """By this one, now."""
        self.count += 1
        if not self._same_clock or event.kind != "period":
            return
        took_ns = time.monotonic_ns() - event.clock_ns
        if took_ns < 0:
            self._same_clock = False  # whatever the remote says: it is another one
            return
        self._buckets[min(took_ns.bit_length(), _BUCKETS - 1)] += 1

    def histogram(self) -> dict[int, int] | None:
        """By the bound of what took less; None where nothing can be said."""
        if not self._same_clock:
            return None
        return {1 << bits: count for bits, count in enumerate(self._buckets) if count}
