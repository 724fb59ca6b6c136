"""The remote calls Linux; and links that serve and are dropped."""

from __future__ import annotations

import threading

import pytest

import sbe
from sbe.testing.conformance.parts import LIMIT_S
from sbe.testing.conformance.test_serve import *
from sbe.testing.conformance.test_serve import through
from tests.conformance.ends import Connector


def test_dropping_a_link_that_serves_ends_its_thread(connect: Connector) -> None:
    if connect.name != "loopback":
        pytest.skip("one transport is enough: the thread is the same")
    before = threading.active_count()
    link = sbe.connect("loopback:")
    link.serve("double", lambda payload: payload * 2)
    assert through(link, "double", b"x") == b"xx"
    thread = next(t for t in threading.enumerate() if t.name == "sbe-serve")
    del link
    thread.join(LIMIT_S)
    assert not thread.is_alive()
    assert threading.active_count() == before
