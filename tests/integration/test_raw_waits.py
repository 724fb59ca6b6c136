"""Raw messages: who waits, while firmware says what answers nothing or a predicate takes long."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

import sbe
from sbe.raw import AddressOf, ById
from sbe.testing.dumb import Bus, DumbFirmware
from tests.faults.attacks import remote
from tests.integration.test_raw import BY_ID, LIMIT_S, TEMPLATE, Slow


class Flood:
    """Firmware that never stops talking, from the first message on until told so."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.firmware = DumbFirmware({"flood": self.talk})

    def talk(self, message: bytes, bus: Bus) -> Iterator[bytes]:
        while not self.over.is_set():
            yield b"nobody's"

    @contextmanager
    def link(self) -> Iterator[sbe.Connection]:
        with self.firmware, self.firmware.link() as link:
            try:
                yield link
            finally:
                self.over.set()


@remote(20, 29)
@pytest.mark.parametrize("match", [BY_ID, lambda sent, came: False], ids=["id", "predicate"])
def test_a_flood_of_what_answers_nothing(match: ById | Callable[[bytes, bytes], bool]):
    """Deadlines hold, and so does what others ask of the link."""
    with Flood().link() as link, link.raw("flood", match) as raw, ThreadPoolExecutor(1) as pool:
        call = raw.submit(TEMPLATE, timeout=LIMIT_S)
        waiting = pool.submit(call.exception, LIMIT_S)
        for wait in (call.result, lambda left: raw.call(TEMPLATE, timeout=left)):
            with pytest.raises(sbe.Timeout):
                wait(0.05)
        assert raw.receive(LIMIT_S) == b"nobody's"
        area = link.allocate(4096)
        area.free()
        assert call.cancel()
        assert isinstance(waiting.result(LIMIT_S), sbe.Cancelled)


def test_a_predicate_that_takes_long_holds_nobody_else():
    """It is the time of who waits; it runs without a lock, and may look at the link itself."""
    asked, over = threading.Event(), threading.Event()

    def slowly(sent: bytes, came: bytes) -> bool:
        asked.set()
        assert link.list()["links"]
        return over.wait(LIMIT_S) and came == b"yes"

    slow = Slow()
    with slow.link() as link, link.raw("slow", slowly) as raw, ThreadPoolExecutor(1) as pool:
        area = link.allocate(4096)
        first = pool.submit(raw.call, bytes(8), [AddressOf(0)], sbe.Out(area), timeout=LIMIT_S)
        slow.answers.put([b"no", b"yes"])
        assert asked.wait(LIMIT_S)
        second = raw.submit(b"x", timeout=LIMIT_S)  # it has begun without the predicate
        with pytest.raises(sbe.Timeout):
            second.result(0.02)
        with pytest.raises(sbe.Timeout):
            raw.receive(0.02)
        with pytest.raises(sbe.Busy):
            area.free()
        link.allocate(4096).free()
        over.set()
        assert first.result(LIMIT_S) == b"yes"
        assert raw.receive(LIMIT_S) == b"no"
        area.free()
        assert second.cancel()


def test_an_answer_before_the_end_is_one():
    """Whoever asks a predicate comes to it after the firmware's end."""
    slow = Slow()
    with slow.link() as link, link.raw("slow", lambda sent, came: came == b"yes") as raw:
        call = raw.submit(b"x", timeout=LIMIT_S)
        slow.answers.put([b"no", b"yes"])
        with raw._looks():  # another thread is about to
            while len(raw._came) < 2:
                raw._refresh()
            slow.firmware.restart()
            raw._refresh()
        assert call.result() == b"yes"
        assert raw.receive() == b"no"
        with pytest.raises(sbe.RemoteRestarted):
            raw.receive()


def test_a_predicate_that_fails(caplog: pytest.LogCaptureFixture):
    """It is told once, and answers nothing."""
    slow = Slow()
    with slow.link() as link, link.raw("slow", lambda sent, came: bool(1 / came[0])) as raw:
        call = raw.submit(b"x", timeout=LIMIT_S)
        slow.answers.put([b"\0"] * 20 + [b"yes"])
        assert call.result() == b"yes"
        assert raw.receive() == b"\0"
    assert caplog.text.count("the predicate of 'slow' failed") == 1
