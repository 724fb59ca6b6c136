"""What clients count, in memory shared by all: it outlives those that are killed."""

from __future__ import annotations

import mmap
import time
from typing import Any

import numpy as np

__all__ = ["FIELDS", "Flag", "Ledger", "Outages", "Tally"]

FIELDS = (
    "attempts",  # to connect: counted before
    "connects",  # that succeeded
    "calls",  # answered, and the answer was right
    "bytes",  # of buffers that were checked
    "restarted",  # from here on what was refused, by reason
    "timeouts",
    "quota",
    "exhausted",
    "busy",
    "cancelled",
    "audits",  # its own counters beside the daemon's
    "streams",  # whose every frame was right
    "stream_bytes",  # of them: the positions at their ends
    "stream_lost",  # of these: told as lost, to who was late on purpose
)


class Tally:
    """One writer's row."""

    def __init__(self, row: Any) -> None:
        self._row = row

    def add(self, field: str, amount: int = 1) -> None:
        self._row[FIELDS.index(field)] += amount

    def get(self, field: str) -> int:
        return int(self._row[FIELDS.index(field)])


class Ledger:
    """A row for each place, one process at a time."""

    def __init__(self, rows: int) -> None:
        self._table = np.frombuffer(mmap.mmap(-1, 8 * rows * len(FIELDS)), np.int64)
        self._table = self._table.reshape(rows, len(FIELDS))

    def row(self, place: int) -> Tally:
        return Tally(self._table[place])

    def sum(self, field: str) -> int:
        return int(self._table[:, FIELDS.index(field)].sum())


class Flag:
    """A bit that all processes see."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    @property
    def is_set(self) -> bool:
        return self._memory[0] != 0

    def set(self, value: bool) -> None:
        self._memory[0] = value


_KEPT = 256  # of the latest: who asks looks back over one call


class Outages:
    """When the remote was killed, from before it happened until it worked again."""

    def __init__(self) -> None:
        self._table = np.frombuffer(mmap.mmap(-1, 8 * 2 * _KEPT), np.float64)
        self._table = self._table.reshape(_KEPT, 2)  # begin and end, time.monotonic()
        self._next = 0

    def begin(self) -> None:
        """Before the deed."""
        self._table[self._next % _KEPT] = (0.0, np.inf)
        self._table[self._next % _KEPT, 0] = time.monotonic()

    def end(self) -> None:
        """All is well again."""
        self._table[self._next % _KEPT, 1] = time.monotonic()
        self._next += 1

    def explain(self, since: float) -> bool:
        """One was under way between then and now."""
        begin, end = self._table.T
        return bool(((begin > 0) & (end >= since)).any())
