"""Threads, also against a remote that answers when the test says so."""

from __future__ import annotations

import threading

import pytest

import sbe
from sbe.link.rings import Geometry
from sbe.testing.conformance.parts import LIMIT_S
from sbe.testing.conformance.test_threads import *
from sbe.testing.conformance.test_threads import together
from tests.conformance.gate import gated


def test_several_threads_wait_for_one_call() -> None:
    with gated() as (gate, link):
        future = link.submit("gate", payload=b"for all")
        waiting = threading.Barrier(6)

        def wait(i: int) -> object:
            waiting.wait(LIMIT_S)
            return future.result(LIMIT_S).payload

        def open_gate(i: int) -> object:
            waiting.wait(LIMIT_S)
            gate.open()
            return b"for all"

        assert together(6, lambda i: (open_gate if i == 0 else wait)(i)) == [b"for all"] * 6


def test_threads_that_time_out_leave_the_others_alone() -> None:
    with gated() as (gate, link):

        def work(i: int) -> object:
            if i % 2:
                with pytest.raises(sbe.Timeout):
                    link.call("gate", timeout=0.02 * i)
                if i == 7:
                    gate.open()
                return b""
            return link.call("gate", payload=b"patient", timeout=LIMIT_S).payload

        assert together(8, work) == [b"patient", b""] * 4


def test_close_while_threads_wait_for_room() -> None:
    with gated(Geometry(2, 256)) as (gate, link):
        held = link.submit("gate")
        gate.wait_seen()

        def work(i: int) -> str:
            if i == 0:
                gate.open()
                link.close()
                return ""
            try:
                while True:
                    link.call("gate", timeout=None)
            except sbe.Error as error:
                return type(error).__name__

        assert set(together(6, work)) == {"", "LinkClosed"}
        assert held.done()
