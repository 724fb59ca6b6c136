"""A program that writes over its own rings: it is told, and goes on with other rings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import sbe
from sbe import _native
from sbe.link.rings import Rings
from sbe.sdk import core
from sbe.testing.conformance.parts import Gate
from tests.integration.varlink_client import Daemon, daemon

LIMIT_S = 20.0
HEAD = _native.layout()["sbe_ring_producer"]["head"][0]


@pytest.fixture
def rings(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Rings]]:
    """Those of each channel that the SDK attaches to, in order."""
    seen: list[Rings] = []
    attach = core.attach  # type: ignore[attr-defined]

    def noted(rings: Rings, *how: object, **more: object) -> object:
        seen.append(rings.duplicate())
        return attach(rings, *how, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(core, "attach", noted)
    yield seen
    for each in seen:
        each.close()


@pytest.fixture(params=["loopback", "unix"])
def link(
    request: pytest.FixtureRequest, tmp_path: Path, rings: list[Rings]
) -> Iterator[tuple[sbe.Connection, Daemon | None]]:
    if request.param == "loopback":
        with sbe.connect("loopback:") as link:
            yield link, None
    else:
        with daemon(tmp_path) as running, sbe.connect(f"unix:{running.socket}") as link:
            yield link, running


def scribble(rings: Rings) -> None:
    """An index that can't be, and a doorbell so that the remote looks at it."""
    os.pwrite(rings.memory_fd, b"\x99" * 4, rings.send_offset + HEAD)
    os.eventfd_write(rings.ring_fd, 1)


def test_it_is_told_and_goes_on(
    link: tuple[sbe.Connection, Daemon | None], rings: list[Rings]
) -> None:
    connection, running = link
    for lives in range(1, 4):
        gate = Gate()
        connection.serve(f"never{lives}", gate.handle)
        held = connection.submit("relay", payload=b"never%d\0" % lives, timeout=LIMIT_S)
        gate.wait_seen()
        scribble(rings[-1])
        with pytest.raises(sbe.ProtocolError, match=r"ring index that can't be; channel \d+ is sh"):
            held.result()
        assert connection.call("echo", payload=b"on", timeout=LIMIT_S).payload == b"on"
        assert connection.stat()["connection"]["losses"] == lives
        assert len(rings) == lives + 1
        gate.open()
    assert len(connection.list()["channels"]) == 1
    if running is not None:
        assert running.log().count("the remote has shut it") == 3
