"""The conformance suite's links, for what goes wrong; those over a kernel have their own tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.conftest import Shared, _daemons, link, opened
from tests.conformance.ends import ENDS, KERNEL, Connector
from tests.faults.arena import Arena
from tests.faults.scripted_daemon import ScriptedDaemon

__all__ = ["_daemons", "connect", "link"]


@pytest.fixture(params=[name for name in ENDS if name not in KERNEL])
def connect(request: pytest.FixtureRequest, _daemons: Shared) -> Iterator[Connector]:
    """Opens links to one kind of remote; they are closed after the test."""
    yield from opened(request.param, _daemons)


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[ScriptedDaemon]:
    scripted = ScriptedDaemon(tmp_path)
    yield scripted
    scripted.close()


@pytest.fixture(scope="module")
def _arenas() -> Iterator[list[Arena]]:
    """At most one: starting it takes longer than most attacks."""
    arenas: list[Arena] = []
    yield arenas
    for arena in arenas:
        arena.close()


@pytest.fixture
def arena(_arenas: list[Arena]) -> Iterator[Arena]:
    """A daemon with a bystander, which this test attacks; what must hold is checked after it."""
    if not _arenas:
        _arenas.append(Arena())
    try:
        with _arenas[0].attacked():
            yield _arenas[0]
    except BaseException:
        _arenas.pop().close()
        raise
