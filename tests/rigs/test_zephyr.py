"""The Zephyr image on the emulated board: what is its own. `make rig-zephyr` runs these, and the
conformance suite and the board's tests on the same image."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import sbe
from sbe.boards import BOARDS
from tests.rigs.boards import FaultyBoard, connect

IMAGE = os.environ.get("SBE_ZEPHYR_IMAGE", "")

pytestmark = [
    pytest.mark.rig,
    # Not even SBE_RIGS=required asks for it: no Debian package has Zephyr.
    pytest.mark.skipif(not IMAGE, reason="no Zephyr given: make rig-zephyr ZEPHYR_BASE=..."),
]


@pytest.fixture
def board() -> Iterator[FaultyBoard]:
    with FaultyBoard("mps2-an521", IMAGE) as board:
        yield board


@pytest.fixture
def link(board: FaultyBoard) -> Iterator[sbe.Connection]:
    with connect(board) as link:
        yield link


def test_boot_says_who_it_is(link: sbe.Connection, board: FaultyBoard) -> None:
    assert {"echo", "crc32", "mulaw", "uptime"} <= {service.name for service in link.services()}
    assert "sbe: carve-out link on mps2/an521/cpu0" in board.console()
    assert link.list()["links"][0]["remote"].startswith("sbe-zephyr ")


def test_service_of_the_application(link: sbe.Connection) -> None:
    first, second = (int.from_bytes(link.call("uptime").payload, "little") for _ in range(2))
    assert 0 < first <= second


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [(b"h", "fault", "CPU exception at pc 0x"), (b"a", "assert", "kernel panic")],
)
def test_fatal_error_is_told_with_its_record(
    link: sbe.Connection, board: FaultyBoard, how: bytes, kind: str, words: str
) -> None:
    with pytest.raises(sbe.RemoteRestarted, match=words):
        link.call("fault", payload=how, timeout=10.0)
    crash = board.crash()
    assert crash is not None
    assert crash["kind"] == kind
    assert crash["pc"] in BOARDS[board.name].code
    assert link.call("echo", payload=b"alive", timeout=10.0).payload == b"alive"  # a new life
    assert board.crash() is None
