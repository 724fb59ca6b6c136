"""Whatever one client asks for, the others are served in between: told by who is done first."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import sbe
from sbe import _native
from sbe.link.rings import Geometry, attach
from sbe.sdk.stream_wire import Direction, Mode, Op, Settings, answer_of, request
from sbe.testing.conformance.parts import Gate
from tests.faults.attacks import application
from tests.integration.varlink_client import daemon

LIMIT_S = 120.0
HALF = 16 << 20
TAPS = bytes([1, 0]) * 1024  # each call: seconds of work


class Greedy:
    """One context with as many channels as wished, each full of work that takes long."""

    def __init__(self, link: sbe.Connection, channels: int) -> None:
        core = link._core
        fir = link.find("fir").id
        area = link.allocate(2 * HALF)
        self.channels = []
        self.calls: list[_native.Call] = []
        for _ in range(channels):
            granted = core.backend.open_channel(Geometry(8, 4096), priority=3)
            try:
                channel = attach(granted.rings, core.table, granted.id, core.backend.context)
            finally:
                granted.rings.close()
            self.channels.append(channel)
            for _ in range(4):
                buffers = sbe.In(area[:HALF]), sbe.Out(area[HALF:])
                self.calls.append(channel.submit(fir, buffers, TAPS, LIMIT_S))

    @property
    def done(self) -> int:
        for channel in self.channels:
            channel.poll()
        return sum(call.done() for call in self.calls)

    def close(self) -> None:
        for channel in self.channels:
            channel.fail(sbe.LinkClosed("the test is over"))


@pytest.fixture
def uri(tmp_path: Path) -> Iterator[str]:
    with daemon(tmp_path) as running:
        yield f"unix:{running.socket}"


@pytest.mark.parametrize("channels", [1, 8, 48])
@application(7, 18, 26)
def test_a_bystander_is_served_in_between(channels: int, uri: str) -> None:
    """Were it behind one of those calls each time, as many would be done."""
    with sbe.connect(uri) as bystander, sbe.connect(uri) as link:
        bystander.call("echo")
        greedy = Greedy(link, channels)
        try:
            for i in range(100):
                payload = bytes([i])
                assert bystander.call("echo", payload=payload, timeout=LIMIT_S).payload == payload
            area = bystander.allocate(4096)
            assert bystander.call("crc32", sbe.In(area), timeout=LIMIT_S)
            area.free()
            with sbe.connect(uri) as newcomer:
                newcomer.call("echo", timeout=LIMIT_S)
            assert greedy.done < 3
            assert bystander.stat()["links"][0]["restarts"] == 0
        finally:
            greedy.close()


@application(7, 18, 26)
def test_a_bystander_is_served_between_streams(uri: str) -> None:
    """All that one context may have, as fast as may be, behind by what a large buffer holds."""
    with sbe.connect(uri) as bystander, sbe.connect(uri) as link:
        bystander.call("echo")
        buffer, block = 128 << 20, 256
        area = link.allocate(buffer + 64 * block)
        core = link._core
        tone = link.find("tone").id
        channel = core.open_another(Geometry(256, 256), 2, [])
        form = sbe.StreamFormat("int16", 1, 24_000_000)
        settings = Settings(form, Direction.CAPTURE, buffer, 0, Mode.ENDLESS, True)
        for number in range(1, 65):
            records = area[buffer + (number - 1) * block :][:block]
            opened = request(Op.OPEN, number, more=settings.pack())
            channel.submit(tone, (sbe.InOut(records), sbe.Out(area[:buffer])), opened, None)
            for op, generation in ((Op.PREPARE, 1), (Op.START, 0)):
                asked = request(op, number, generation)
                assert answer_of(channel.call(tone, (), asked, LIMIT_S).payload).result == 0
        begun = time.monotonic()
        for i in range(300):
            assert bystander.call("echo", payload=bytes([i % 256]), timeout=LIMIT_S)
        with sbe.connect(uri) as newcomer:
            newcomer.call("echo", timeout=LIMIT_S)
        assert time.monotonic() - begun < LIMIT_S / 8  # it was minutes
        moved = answer_of(channel.call(tone, (), request(Op.QUERY, 1), LIMIT_S).payload).status
        assert moved.position_bytes > 0
        assert bystander.stat()["links"][0]["restarts"] == 0


@application(7, 18, 26)
def test_long_work_ends_with_its_context(uri: str) -> None:
    with sbe.connect(uri) as bystander:
        bystander.call("echo")
        with sbe.connect(uri) as link:
            greedy = Greedy(link, 8)
            bystander.call("echo", timeout=LIMIT_S)
            greedy.close()
        assert bystander.list()["areas"] == []
        assert len(bystander.list()["contexts"]) == 1
        assert bystander.stat()["links"][0]["restarts"] == 0


@application(7, 18, 26)
def test_one_context_does_not_have_all_places_of_a_service(uri: str) -> None:
    """As many `relay` calls as it may have are never answered; another context's are."""
    with sbe.connect(uri) as bystander, sbe.connect(uri) as link:
        for each in (bystander, link):
            each.serve("echoed", lambda payload: payload)

        never = threading.Event()
        link.serve("never", lambda payload: bytes(never.wait(LIMIT_S)))
        held = [link.submit("relay", payload=b"never\0", timeout=None) for _ in range(100)]
        link.call("echo", timeout=LIMIT_S)
        refused = [call for call in held if call.done()]
        assert 80 < len(refused) < 100
        reply = bystander.call("relay", payload=b"echoed\0here", timeout=LIMIT_S)
        assert reply.payload == b"here"
        never.set()


def test_a_ring_that_is_full_of_kept_requests_is_busy(uri: str) -> None:
    """Of two places one is the last answer's: the service says what it says of its own places."""
    gate = Gate()
    with sbe.connect(uri, slots=2, slot_size=256) as link:
        link.serve("never", gate.handle)
        first = link.submit("relay", payload=b"never\0", timeout=LIMIT_S)
        area = link.allocate(64)
        refused = (
            link.submit("relay", payload=b"never\0", timeout=LIMIT_S),
            link.submit("mulaw", sbe.In(area[:2]), sbe.Out(area[2:3]), timeout=LIMIT_S),
        )
        for call in refused:
            with pytest.raises(sbe.RemoteError) as caught:
                call.result()
            assert caught.value.code == errno.EBUSY
        gate.open()
        assert first.result().payload == b""
