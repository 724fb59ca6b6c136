"""The remote calls Linux; and links that serve and are dropped."""

from __future__ import annotations

import threading

import pytest

import sbe
import sbe.testing
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


def test_what_the_caller_gives_as_input_is_read_only() -> None:
    """In an area and inline alike: a handler can't change it by mistake."""
    seen: list[bool] = []

    def look(payload: bytes, *buffers: memoryview) -> None:
        seen.extend(buffer.readonly for buffer in buffers)
        with pytest.raises(TypeError, match="read-only"):
            buffers[0][0] = 77

    with sbe.testing.Remote({"look": look}) as remote, remote.link() as link:
        area = link.allocate(64)
        link.call("look", sbe.In(area), sbe.Out(area[:8]), sbe.InOut(area[8:16]), sbe.In(b"abc"))
        assert bytes(area[:1]) == b"\0"
    assert seen == [True, False, False, True]
