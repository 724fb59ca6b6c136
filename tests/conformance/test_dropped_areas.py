"""Areas that nobody frees: memory comes back when nothing shows it any more, and not before."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable

import numpy as np
import pytest

import sbe
import sbe.testing
from sbe.testing.conformance.parts import LIMIT_S, answered, shown
from sbe.testing.conformance.services import PYTHON_SERVICES
from tests.conformance.ends import Connector
from tests.conformance.gate import gated

QUOTA = 2000  # areas, of the daemon


def areas(link: sbe.Connection) -> set[int]:
    return {each["id"] for each in link.list()["areas"] if each["context"] == link.context}


def test_more_areas_than_there_can_be_one_after_the_other(link: sbe.Connection) -> None:
    before = areas(link)
    for i in range(min(link._core.backend.limits["areas"], QUOTA) + 10):
        area = link.allocate(64)
        area[:1] = b"x"
        del area
        if i % 1000 == 0:
            assert len(areas(link) - before) <= 1
    assert areas(link) == before


SHOWS: dict[str, Callable[[sbe.Area], object]] = {
    "array": shown,
    "part of an array": lambda area: shown(area)[10:20].reshape(2, 5),
    "memoryview": memoryview,
    "slice": lambda area: area[:10],
    "slice of a slice": lambda area: memoryview(area[:10][2:4]),
    "buffer": lambda area: sbe.In(area),
    "piece of a pool": lambda area: sbe.Pool(area).allocate(64),
    "pool": sbe.Pool,
}


@pytest.mark.parametrize("what", SHOWS)
def test_what_shows_an_area_keeps_it(link: sbe.Connection, what: str) -> None:
    area = link.allocate(4096)
    number = area.id
    kept = [SHOWS[what](area)]
    del area
    gc.collect()
    assert number in areas(link)
    if what == "array":
        assert link.call("fill", sbe.Out(kept[0]), payload=b"\7").written == (4096,)
        assert kept[0].sum() == 7 * 4096  # type: ignore[attr-defined]
    kept.clear()
    assert number not in areas(link)


def test_a_call_in_flight_keeps_its_area() -> None:
    with gated() as (gate, link):
        area = link.allocate(64)
        number, calls = area.id, []
        calls.append(link.submit("gate", sbe.Out(area), payload=b"late"))
        gate.wait_seen()
        assert calls.pop().cancel()  # given up, but the remote may write it still
        del area
        gc.collect()
        assert number in link._core.areas._there
        assert not link._core.areas._unwanted
        gate.open()
        answered(link)
        assert number not in areas(link)


def test_a_region_that_is_dropped(link: sbe.Connection) -> None:
    if not link.regions():
        pytest.skip("this remote offers no regions")
    before = areas(link)
    for _ in range(3):
        link.region(next(iter(link.regions())))
    assert areas(link) == before


def test_areas_in_cycles_and_dropped_in_another_thread(link: sbe.Connection) -> None:
    before = areas(link)
    thread = threading.Thread(target=lambda: [link.allocate(64) for _ in range(20)].clear())
    thread.start()
    thread.join()
    cycle: list[object] = [link.allocate(64)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert areas(link) == before


def test_dropped_while_the_remote_restarts(connect: Connector) -> None:
    if connect.name != "loopback":
        pytest.skip("a daemon and a board restart their remote as they like")
    link = connect()
    kept, dropped = link.allocate(4096), link.allocate(4096)
    kept[:4] = b"kept"
    numbers = kept.id, dropped.id
    os.kill(link.list()["links"][0]["pid"], signal.SIGKILL)
    del dropped
    with pytest.raises(sbe.RemoteRestarted):
        link.call("crc32", sbe.In(kept), timeout=LIMIT_S)
    assert areas(link) & set(numbers) == {kept.id}
    assert bytes(kept[:4]) == b"kept"
    link.call("crc32", sbe.In(kept))


def test_the_limit_says_how_many_are_in_use_and_what_helps() -> None:
    with sbe.testing.Remote(PYTHON_SERVICES, areas=8) as remote, remote.link() as link:
        areas = [link.allocate(64) for _ in range(7)]  # and one for the rings
        with pytest.raises(sbe.OutOfResources, match=r"all 8 .* has 7 areas in use, free\(\)"):
            link.allocate(64)
        areas.pop()
        areas.append(link.allocate(64))


def test_freed_once_whatever_the_order(link: sbe.Connection) -> None:
    area = link.allocate(64)
    array = shown(area)
    area.free()
    del area
    link.find("echo")
    assert array.sum() == 0
    del array
    second = link.allocate(64)
    assert second.id in areas(link)
    second.free()
    second.free()
    assert np.frombuffer(second, np.uint8).size == 64


def test_an_area_that_a_finaliser_keeps_lives(connect: Connector) -> None:
    """The collector has told weak references of its death before."""
    link = connect()
    kept: list[sbe.Area] = []

    class Frame:
        def __init__(self) -> None:
            self.area, self.circle = link.allocate(4096), self

        def __del__(self) -> None:
            kept.append(self.area)

    Frame()
    gc.collect()
    area = kept.pop()
    area[:4] = b"kept"
    other = link.allocate(4096)
    other[:4] = b"othr"
    assert bytes(area[:4]) == b"kept"
    link.call("crc32", sbe.In(area))
    area.free()
    assert area.freed
    assert len(link.list()["areas"]) == 1
