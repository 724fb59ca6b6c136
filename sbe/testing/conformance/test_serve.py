"""The remote calls Linux: handlers of this end, called back by the firmware's relay service."""

from __future__ import annotations

import asyncio
import errno
import logging
import threading

import numpy as np
import pytest

import sbe
from sbe.testing.conformance.parts import LIMIT_S, Connector, Endless, Gate, in_a_loop, needs


@pytest.fixture
def relay(connect: Connector) -> sbe.Connection:
    """A link to a remote that has the relay service."""
    return connect()


def through(link: sbe.Connection, name: str, payload: bytes = b"", **how: float) -> bytes:
    return link.call("relay", payload=name.encode() + b"\0" + payload, **how).payload


@needs("relay")
def test_the_remote_calls_linux(relay: sbe.Connection) -> None:
    relay.serve("double", lambda payload: payload * 2)
    assert through(relay, "double", b"ab") == b"abab"
    for i in range(300):
        assert through(relay, "double", bytes([i % 256])) == bytes([i % 256]) * 2


@needs("relay")
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_what_a_handler_may_return(relay: sbe.Connection, kind: type) -> None:
    relay.serve("as", lambda payload: kind(payload))
    relay.serve("none", lambda payload: None)
    assert through(relay, "as", b"bytes") == b"bytes"
    assert through(relay, "none", b"bytes") == b""


@needs("relay")
def test_handlers_find_their_own_service(relay: sbe.Connection) -> None:
    for i in range(20):
        relay.serve(f"number{i}", lambda payload, i=i: bytes([i]))
    assert [through(relay, f"number{i}")[0] for i in range(20)] == list(range(20))


@needs("relay")
def test_a_handler_that_raises(relay: sbe.Connection, caplog: pytest.LogCaptureFixture) -> None:
    def fail(payload: bytes) -> bytes:
        match payload:
            case b"ours":
                raise sbe.NoRoom("no room")
            case b"os":
                raise FileNotFoundError(errno.EXDEV, "an OSError keeps its number")
            case b"wrong":
                return "text"  # type: ignore[return-value]
            case b"large":
                return bytes(1 << 20)
        raise ZeroDivisionError("a bug of the application")

    relay.serve("fail", fail)
    with pytest.raises(sbe.NoRoom):
        through(relay, "fail", b"ours")
    with pytest.raises(sbe.RemoteError) as caught:
        through(relay, "fail", b"os")
    assert caught.value.code == errno.EXDEV
    with caplog.at_level(logging.CRITICAL, "sbe"):
        for payload in (b"", b"wrong"):
            with pytest.raises(sbe.RemoteError) as caught:
                through(relay, "fail", payload)
            assert caught.value.code == errno.EIO
    with pytest.raises(sbe.NoRoom):
        through(relay, "fail", b"large")
    relay.serve("fine", lambda payload: payload)
    assert through(relay, "fine", b"on") == b"on"


@needs("relay")
def test_nobody_serves_it(relay: sbe.Connection) -> None:
    with pytest.raises(sbe.UnknownService):
        through(relay, "nobody")
    relay.serve("gone", lambda payload: payload)
    assert through(relay, "gone", b"x") == b"x"
    relay.unserve("gone")
    with pytest.raises(sbe.UnknownService):
        through(relay, "gone")
    with pytest.raises(sbe.BadArgument, match="not served"):
        relay.unserve("gone")
    relay.serve("gone", lambda payload: b"again")
    assert through(relay, "gone") == b"again"


@needs("relay")
def test_names_that_cant_be(relay: sbe.Connection) -> None:
    relay.serve("taken", lambda payload: payload)
    with pytest.raises(sbe.BadArgument, match="served already"):
        relay.serve("taken", lambda payload: b"other")
    for name in ("", "n" * 32, "nul\0"):
        with pytest.raises(sbe.BadArgument, match="1 to 31 bytes"):
            relay.serve(name, lambda payload: payload)
    assert through(relay, "taken", b"x") == b"x"
    relay.serve("n" * 31, lambda payload: b"longest")
    assert through(relay, "n" * 31) == b"longest"


@needs("crc32", "fill", "relay")
def test_a_handler_calls_the_remote(relay: sbe.Connection) -> None:
    area = relay.allocate(4096)

    def work(payload: bytes) -> bytes:
        relay.call("fill", sbe.Out(area), payload=payload)
        return relay.call("crc32", sbe.In(area)).payload

    relay.serve("work", work)
    for i in range(20):
        got = through(relay, "work", bytes([i]))
        assert got == relay.call("crc32", sbe.In(bytes([i]) * 4096)).payload


@needs("echo", "relay")
def test_a_handler_that_is_slow_holds_up_nobody_else(relay: sbe.Connection) -> None:
    """Out of order: calls sent later are answered earlier."""
    slow = Gate()
    relay.serve("slow", slow.handle)
    held = relay.submit("relay", payload=b"slow\0first", timeout=LIMIT_S)
    slow.wait_seen()
    later = [relay.submit("echo", payload=bytes([i])) for i in range(200)]
    assert [future.result().payload[0] for future in later] == list(range(200))
    assert not held.done()
    slow.open()
    assert held.result().payload == b"first"


@needs("echo", "relay")
def test_cancel_reaches_the_relay(relay: sbe.Connection) -> None:
    slow = Gate()
    relay.serve("slow", slow.handle)
    first = relay.submit("relay", payload=b"slow\0a", timeout=LIMIT_S)
    slow.wait_seen()
    second = relay.submit("relay", payload=b"slow\0b", timeout=LIMIT_S)
    relay.call("echo")
    assert second.cancel()
    with pytest.raises(sbe.Cancelled, match="'relay'"):
        second.result()
    relay.call("echo")  # the remote has passed the wish on
    slow.open()
    assert first.result().payload == b"a"
    relay.serve("fence", lambda payload: payload)
    assert through(relay, "fence") == b""
    assert slow.begun == [b"a"]  # a cancelled call that has not begun never does


@needs("relay")
def test_cancel_reaches_a_coroutine_that_has_begun(relay: sbe.Connection) -> None:
    endless = Endless()
    relay.serve("endless", endless.handle)
    calls = [relay.submit("relay", payload=b"endless\0", timeout=LIMIT_S) for _ in range(2)]
    for _ in calls:
        endless.wait_begun()
    assert calls[0].cancel()
    endless.wait_ended()
    assert not calls[1].done()
    assert calls[1].cancel()
    endless.wait_ended()
    relay.serve("fence", lambda payload: payload)
    assert through(relay, "fence", b"on") == b"on"


@needs("echo", "relay")
def test_more_calls_than_the_relay_holds(relay: sbe.Connection) -> None:
    slow = Gate()
    relay.serve("slow", slow.handle)
    futures = [relay.submit("relay", payload=b"slow\0" + bytes([i])) for i in range(30)]
    slow.wait_seen()
    relay.call("echo")
    slow.open()
    errors = [future.exception() for future in futures]
    busy = [error for error in errors if error is not None]
    assert 0 < len(busy) < 30
    assert all(isinstance(error, sbe.RemoteError) and error.code == errno.EBUSY for error in busy)
    assert through(relay, "slow", b"on") == b"on"


@needs("echo", "relay")
@in_a_loop
async def test_served_while_asyncio_awaits(relay: sbe.Connection) -> None:
    relay.serve("double", lambda payload: payload * 2)
    for i in range(50):
        reply = await relay.acall("relay", payload=b"double\0" + bytes([i]))
        assert reply.payload == bytes([i]) * 2
    got = await asyncio.gather(*(relay.acall("echo", payload=bytes([i])) for i in range(200)))
    assert [reply.payload[0] for reply in got] == list(range(200))


@needs("echo", "relay")
def test_served_while_threads_call(relay: sbe.Connection) -> None:
    relay.serve("double", lambda payload: payload * 2)
    errors: list[BaseException] = []

    def work(i: int) -> None:
        try:
            for n in range(100):
                assert through(relay, "double", bytes([i, n])) == bytes([i, n]) * 2
                assert relay.call("echo", payload=b"x").payload == b"x"
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert not errors


@needs("relay")
def test_close_by_a_handler(relay: sbe.Connection) -> None:
    closed = threading.Event()

    def close(payload: bytes) -> bytes:
        relay.close()
        closed.set()
        return b"never sent"

    relay.serve("close", close)
    with pytest.raises(sbe.LinkClosed):
        through(relay, "close", timeout=LIMIT_S)
    assert closed.wait(LIMIT_S)


@needs("echo", "relay")
def test_lists_show_both_ends(connect: Connector, relay: sbe.Connection) -> None:
    relay.serve("mine", lambda payload: payload)
    listed = relay.list()["services"]
    offered = {(item["name"], item["context"]) for item in listed}
    assert {("mine", relay.context), ("echo", 0)} <= offered  # context 0: the remote's own
    assert np.int64(relay.stat()["connection"]["requests"]) == 0
