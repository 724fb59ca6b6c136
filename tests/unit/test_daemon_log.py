"""The daemon's log: what clients cause is bounded, and what was left out is told."""

from __future__ import annotations

import logging

from sbe.daemon.log import LINES_MAX, WINDOW_SECONDS, Sparing


def record(message: str, name: str = "sbe.daemon") -> logging.LogRecord:
    return logging.LogRecord(name, logging.WARNING, "", 0, message, ("x",), None)


def test_lines_of_one_kind_are_bounded():
    now = 0.0
    sparing = Sparing(lambda: now)
    taken = [sparing.filter(record("refused: %s")) for _ in range(LINES_MAX + 7)]
    assert taken == [True] * LINES_MAX + [False] * 7
    assert sparing.filter(record("another: %s"))
    assert sparing.filter(record("refused: %s", "sbe.other"))
    now = WINDOW_SECONDS
    again = record("refused: %s")
    assert sparing.filter(again)
    assert again.__dict__["left_out"] == 7
    assert "left_out" not in record("refused: %s").__dict__
    assert sum(sparing.filter(record("refused: %s")) for _ in range(LINES_MAX)) == LINES_MAX - 1


def test_kinds_that_have_no_end_take_no_memory():
    sparing = Sparing(lambda: 0.0)
    for number in range(10_000):
        assert sparing.filter(record(f"library {number}"))
    assert len(sparing._kinds) < 2000
