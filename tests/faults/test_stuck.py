"""Who waits is told for what: the remote shows in the ring which request it works on."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator

import pytest

import sbe
import sbe.testing
from sbe import _native
from sbe.remotes.process import RemoteProcess
from sbe.testing.conformance.parts import LIMIT_S
from tests.conformance.gate import gated
from tests.faults.stubborn import milliseconds, program
from tests.unit.channel_pair import Pair

SHORT_S = 0.3


def words_of(call: _native.Call) -> str:
    with pytest.raises(sbe.Timeout) as raised:
        call.result()
    return str(raised.value)


def test_the_service_that_runs_is_named() -> None:
    with gated() as (gate, link):
        held = link.submit("gate", timeout=2 * SHORT_S)
        gate.wait_seen()
        begun = time.monotonic()
        behind = [link.submit("echo", timeout=SHORT_S) for _ in range(3)]
        words = words_of(behind[0])
        took = time.monotonic() - begun
        start = "no answer from service 'echo' in time: service 'gate' has run for "
        assert words.startswith(start)
        assert 0.0 <= float(words.removeprefix(start).split()[0]) <= took + 2 * SHORT_S + LIMIT_S
        assert words.endswith(" s without a sign of life; 3 calls wait behind it")
        words = words_of(held)
        assert words.startswith("no answer from service 'gate' in time: it has run for ")
        assert words.endswith("; 3 calls wait behind it")
        gate.open()
        assert link.call("echo", timeout=LIMIT_S)


def test_nothing_is_said_of_a_request_that_a_service_keeps() -> None:
    with sbe.connect("loopback:") as link:

        async def never(payload: bytes) -> bytes:
            await asyncio.Event().wait()
            return payload

        link.serve("never", never)
        with pytest.raises(sbe.Timeout) as raised:
            link.call("relay", payload=b"never\0", timeout=SHORT_S)
        assert str(raised.value) == "no answer from service 'relay' in time"


def test_a_frozen_remote_has_not_looked() -> None:
    with sbe.connect("loopback:") as link:
        link.call("echo")
        pid = link.list()["links"][0]["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(sbe.Timeout, match="has not looked at it, for it is busy with othe"):
                link.call("echo", timeout=SHORT_S)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert link.call("echo", payload=b"on", timeout=LIMIT_S).payload == b"on"


def test_a_deadline_that_the_remote_sees_is_a_timeout_as_any() -> None:
    """Work in pieces ends at its deadline, by the remote's word or by ours."""
    with sbe.connect("loopback:") as link:
        area = link.allocate(64 << 20)
        half, taps = 32 << 20, bytes([1, 0]) * 400
        with pytest.raises(sbe.Timeout, match="'fir'") as raised:
            link.call("fir", sbe.In(area[:half]), sbe.Out(area[half:]), payload=taps, timeout=0.2)
        assert "answered" not in str(raised.value)
        assert link.call("echo", payload=b"on", timeout=LIMIT_S).payload == b"on"


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Pair() as pair:
        yield pair


def show(pair: Pair, word: int) -> None:
    """What the remote shows, whatever that is: it is the peer's memory."""
    offset = pair.rings.send_offset
    layout = _native.layout()["sbe_ring_consumer"]["at_work"][0]
    data = word.to_bytes(4, "little")
    os.pwrite(pair.rings.memory_fd, data, offset + pair.rings.line_bytes + layout)


@pytest.mark.parametrize("word", [0x8000FFFF, 0xFFFFFFFF, 0x80001000, 0x7FFFFFFF, 1, 0x8000_0FFF])
def test_a_remote_may_show_what_it_likes(word: int, pair: Pair) -> None:
    call = pair.host.submit(1, (), b"", SHORT_S)
    show(pair, word)
    assert words_of(call).startswith("no answer from service 1 in time")


def test_a_sign_of_life_is_seen(pair: Pair) -> None:
    """Between two looks, the second at the deadline, the count has moved."""
    call = pair.host.submit(1, (), b"", 1.0)
    place = call.transaction & 0xFFFF
    waiting = pair.host.submit(2, (), b"", 30.0)
    show(pair, 0x80000000 | 5 << 16 | place)
    with pytest.raises(sbe.Timeout):
        waiting.result(0.6)  # long enough for a look
    show(pair, 0x80000000 | 6 << 16 | place)
    words = words_of(call)
    assert "it has run for" in words
    assert words.endswith("s and is at work; 1 call waits behind it")


def test_a_cancel_ends_work_in_pieces() -> None:
    """Between two of them: nobody waits for the rest, and its memory is free."""
    with sbe.connect(RemoteProcess(program())) as link:
        area = link.allocate(4096)
        link.call("echo")
        work = link.submit("plod", sbe.Out(area), payload=milliseconds(600_000), timeout=LIMIT_S)
        behind = [link.submit("echo", timeout=LIMIT_S) for _ in range(100)]
        with pytest.raises(sbe.Timeout, match="service 'plod' has run for"):
            link.call("echo", timeout=SHORT_S)
        assert work.cancel()
        for call in behind:
            assert call.result()
        area.free()
        with pytest.raises(sbe.Cancelled):
            work.result()
