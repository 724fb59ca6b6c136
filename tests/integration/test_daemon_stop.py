"""A daemon's link is stopped at any moment of its start."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sbe.daemon.config import EmbeddedLink
from sbe.daemon.supervisor import Supervisor


@pytest.mark.parametrize("turns", range(8))
async def test_stop_as_the_remote_gets_ready(turns: int, monkeypatch: pytest.MonkeyPatch):
    """So many turns of the loop later; of the supervisor's wait, all are passed."""
    remote = Supervisor(EmbeddedLink())
    ready = asyncio.Event()
    start = remote.link.start

    def noted() -> Any:
        pending = start()
        pending.add_done_callback(lambda _: ready.set())
        return pending

    monkeypatch.setattr(remote.link, "start", noted)
    remote.start()
    await ready.wait()
    for _ in range(turns):
        await asyncio.sleep(0)
    stopping = asyncio.create_task(remote.stop())
    done, _ = await asyncio.wait({stopping}, timeout=20)
    assert done, "the supervisor has lost its cancellation"
    await stopping
    assert remote.pid is None
