"""The conformance suite's links, for what goes wrong; those over a kernel have their own tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.conftest import Shared, _daemons, link, opened
from tests.conformance.ends import ENDS, KERNEL, Connector
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
