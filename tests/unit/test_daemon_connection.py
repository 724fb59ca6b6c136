"""Deadlines of a connection: made short here, and met by a peer that does too little."""

from __future__ import annotations

import asyncio
import json
import os
import socket

import pytest

from sbe.control import INTERFACE
from sbe.daemon import connection
from sbe.daemon.client import Broker, Client
from sbe.daemon.config import PolicyConfig
from sbe.daemon.connection import ClientConnection, ClientTransport
from sbe.daemon.policy import Peer, Policy

BIG = (  # the answer, that is
    json.dumps(
        {
            "method": "org.varlink.service.GetInterfaceDescription",
            "parameters": {"interface": INTERFACE},
        }
    ).encode()
    + b"\0"
)
LIST = json.dumps({"method": f"{INTERFACE}.List"}).encode() + b"\0"
SECONDS = 20.0


def make_client(broker: Broker) -> Client:
    peer = Peer(os.getpid(), os.getuid(), os.getgid())
    return Client(peer, broker.policy.quota(peer), broker)


class Ends:
    """A connection and the socket of its peer."""

    def __init__(self) -> None:
        ours, self.peer = socket.socketpair()
        self.peer.setblocking(False)
        broker = Broker({}, Policy(PolicyConfig()))
        client = make_client(broker)
        self.closed = asyncio.Event()
        self.times_closed = 0
        self.connection = ClientConnection(client, broker, self._closed)
        self.transport = ClientTransport(asyncio.get_running_loop(), ours, self.connection)

    def _closed(self, _: ClientConnection) -> None:
        self.times_closed += 1
        self.closed.set()

    async def receive(self) -> bytes:
        loop = asyncio.get_running_loop()
        return await asyncio.wait_for(loop.sock_recv(self.peer, 1 << 20), SECONDS)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "HANDSHAKE_SECONDS", 0.05)
    monkeypatch.setattr(connection, "SEND_SECONDS", 0.05)


async def test_connection_that_never_calls_is_closed(short: None):
    ends = Ends()
    ends.peer.send(LIST[:10])  # the beginning of a call is no call
    assert await ends.receive() == b""
    await asyncio.wait_for(ends.closed.wait(), SECONDS)
    assert ends.times_closed == 1


async def test_connection_that_called_may_be_idle(short: None):
    ends = Ends()
    ends.peer.send(LIST)
    assert json.loads((await ends.receive()).rstrip(b"\0"))["parameters"]["links"] == []
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(ends.closed.wait(), 0.2)
    ends.peer.close()
    await asyncio.wait_for(ends.closed.wait(), SECONDS)


async def fill(ends: Ends) -> int:
    """Call without reading until replies have to wait; how many calls that took."""
    calls = 0
    while ends.connection._unsent < 3:
        ends.peer.send(BIG)
        calls += 1
        before = ends.connection._calls
        while ends.connection._calls or not before:
            await asyncio.sleep(0)
            before = before or ends.connection._calls
    return calls


async def test_replies_that_are_not_taken_end_the_connection(
    short: None, caplog: pytest.LogCaptureFixture
):
    ends = Ends()
    await fill(ends)
    await asyncio.wait_for(ends.closed.wait(), SECONDS)
    assert "a reply was not taken within 0.05 s" in caplog.text
    assert ends.times_closed == 1
    ends.peer.close()


async def test_slow_reader_within_the_deadline_is_kept():
    ends = Ends()
    calls = await fill(ends)
    await asyncio.sleep(0.2)
    answers = 0
    while answers < calls:
        received = await ends.receive()
        assert received, "it was dropped"
        answers += received.count(b"\0")
    assert not ends.closed.is_set()
    ends.peer.close()
    await asyncio.wait_for(ends.closed.wait(), SECONDS)


async def test_a_client_that_went_while_others_were_told_of_the_remote():
    broker = Broker({}, Policy(PolicyConfig()))
    client = make_client(broker)
    await client.gone()
    await client.remote_lost()
