"""Batches, also against a remote that answers when the test says so."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import sbe
from sbe.testing.conformance.parts import LIMIT_S, answered, shown
from sbe.testing.conformance.test_batch import *
from tests.conformance.gate import gated


def test_a_batch_that_is_late_quarantines_the_rest() -> None:
    with gated() as (gate, link):
        area = link.allocate(1000)
        given = area.descriptors(sbe.Out, np.arange(10), 1)
        with pytest.raises(sbe.Timeout, match="0 of 10 calls of the batch have ended"):
            link.batch("gate", given, np.full((10, 1), 5, np.uint8), timeout=0.02)
        assert area.holds == 10
        with pytest.raises(sbe.Busy, match="10 unanswered"):
            area.free()
        del given
        gate.open()
        answered(link)
        assert area.holds == 0
        assert shown(area)[:10].tolist() == [5] * 10
        area.free()


def test_closing_under_a_batch_and_after_a_late_one() -> None:
    with gated() as (gate, link):
        area = link.allocate(1000)
        for _ in range(3):
            with pytest.raises(sbe.Timeout):
                link.batch("gate", area.descriptors(sbe.In, np.arange(10), 1), timeout=0.01)
        closing = threading.Thread(target=link.close)  # waits for the handler that runs
        closing.start()
        gate.open()
        closing.join(LIMIT_S)
        assert not closing.is_alive()
        assert area.holds == 0
