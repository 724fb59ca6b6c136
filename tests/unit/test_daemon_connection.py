"""Deadlines of a connection: made short here, and met by a peer that does too little."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path

import pytest
from asyncvarlink import VarlinkInterfaceServerProtocol

from sbe.control import INTERFACE
from sbe.daemon import connection, server
from sbe.daemon.client import Broker, Client
from sbe.daemon.config import Config, DaemonConfig, PolicyConfig
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


@pytest.mark.parametrize("step", ["message_received", "request_received", "send_message"])
async def test_a_call_for_which_there_is_no_memory_ends_the_connection(
    step: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """At any step of it: whoever waits for an answer that can't come is not left alone."""

    def starved(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(VarlinkInterfaceServerProtocol, step, starved)
    ends = Ends()
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the daemon's logs it
    ends.peer.send(LIST)
    assert await ends.receive() == b""
    await asyncio.wait_for(ends.closed.wait(), SECONDS)
    assert "no memory for a call or its answer" in caplog.text


async def test_what_is_lost_for_want_of_memory_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    received = socket.recv_fds

    def starved(sock: socket.socket, size: int, *more: int) -> None:
        received(sock, size, *more)  # who sent it can't send it again
        raise MemoryError

    monkeypatch.setattr(socket, "recv_fds", starved)
    ends = Ends()
    ends.peer.send(LIST)
    assert await ends.receive() == b""
    await asyncio.wait_for(ends.closed.wait(), SECONDS)
    assert "connection dropped: no memory" in caplog.text


@pytest.mark.parametrize("part", ["ClientConnection", "ClientTransport"])
async def test_a_connection_for_which_there_is_no_memory_is_closed(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Its user is charged nothing for it."""

    def starved(*_: object) -> None:
        raise MemoryError

    daemon = DaemonConfig(socket=str(tmp_path / "s"), group="")
    listening = server.Server(Config(daemon=daemon), server.Listener(daemon))
    listening._resume()
    monkeypatch.setattr(server, part, starved)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as peer:
        peer.setblocking(False)
        await loop.sock_connect(peer, daemon.socket)
        assert await asyncio.wait_for(loop.sock_recv(peer, 1), SECONDS) == b""
    assert "connection refused: no memory for it" in caplog.text
    assert listening.broker.accounts.used == {}
    assert not listening._connections
    await listening.stop()


async def test_a_client_that_went_while_others_were_told_of_the_remote():
    broker = Broker({}, Policy(PolicyConfig()))
    client = make_client(broker)
    await client.gone()
    await client.remote_lost("it died")
