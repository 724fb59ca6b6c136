"""The remote dies between the end of an operation and the moment in which the daemon goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from sbe.daemon.client import Broker, Client
from sbe.daemon.config import EmbeddedLink, PolicyConfig
from sbe.daemon.policy import Peer, Policy
from sbe.daemon.supervisor import Supervisor
from sbe.errors import RemoteRestarted
from sbe.link.context import HostContext, run_sync
from sbe.link.link import Link
from sbe.remotes.process import RemoteProcess

SECONDS = 20.0


@contextlib.asynccontextmanager
async def opened() -> AsyncIterator[tuple[Client, Supervisor]]:
    remote = Supervisor(EmbeddedLink())
    broker = Broker({"embedded": remote}, Policy(PolicyConfig()))
    peer = Peer(os.getpid(), os.getuid(), os.getgid())
    client = Client(peer, broker.policy.quota(peer), broker)
    remote.start()
    try:
        _, _, events_fd = await client.open("test", None)
        os.close(events_fd)
        yield client, remote
        await client.gone()
        assert broker.accounts.used == {}
    finally:
        await remote.stop()


def dies_after(remote: Supervisor, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next operation ends well, and then the remote is lost before anybody hears of it."""
    run = remote.run

    async def and_die(operation: Coroutine[Any, Any, Any]) -> Any:
        monkeypatch.setattr(remote, "run", run)
        result = await run(operation)
        assert remote.pid is not None
        os.kill(remote.pid, signal.SIGKILL)
        async with asyncio.timeout(SECONDS):
            await remote.wait_down()
            while client.context is not None and client.context.channels:
                await asyncio.sleep(0)
        return result

    monkeypatch.setattr(remote, "run", and_die)


async def test_a_channel_that_died_before_it_was_handed_over(monkeypatch: pytest.MonkeyPatch):
    async with opened() as (client, remote):
        dies_after(remote, client, monkeypatch)
        with pytest.raises(RemoteRestarted, match="died or restarted"):
            await client.open_channel(None, None, 1)
        grant = await client.open_channel(None, None, 1)
        assert min(grant.rings.fds) >= 0


def test_a_channel_that_died_before_its_context_went_on():
    """The answer came, and the end of the remote with it; then whoever waited has its turn."""
    with RemoteProcess() as remote:
        link = Link(remote.connect)
        context = HostContext(link, apart=True)
        link.wait(link.start(), SECONDS)
        run_sync(link, context.open(), SECONDS)
        opening = context.open_channel()
        pending = opening.send(None)
        while not pending.operation.startswith("opening"):
            link.wait(pending, SECONDS)
            pending = opening.send(None)
        link.wait(pending, SECONDS)
        remote.kill()
        while link.connected:
            assert select.select([link.fileno()], [], [], SECONDS)[0]
            link.process()
        with pytest.raises(RemoteRestarted, match="died or restarted"):
            opening.send(None)
        assert context.channels == []
        link.close()
