"""Raw messages end to end: firmware that knows nothing of us, and memory that it writes."""

import asyncio
import contextlib
import errno
import os
import pickle
import queue
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

import sbe
import sbe.raw
from sbe import _native
from sbe.heaps import Allocation
from sbe.heaps.memfd import MemfdHeap
from sbe.raw import AddressOf, ById, EndOf, InOrder, SizeOf
from sbe.remotes import Memory
from sbe.testing.dumb import Bus, DumbFirmware
from tests.faults.attacks import remote
from tests.unit.session_pair import count_fds

LIMIT_S = 10.0

# A descriptor as DMA controllers have them: operation, id, source, destination, size.
DESCRIPTOR = struct.Struct("<5I")


def dma(message: bytes, bus: Bus) -> bytes:
    _, number, source, target, size = DESCRIPTOR.unpack(message)
    bus[target : target + size] = bytes(bus[source : source + size])
    return struct.pack("<2I", 0, number)


COPY = (AddressOf(8), AddressOf(12, buffer=1), SizeOf(16))
BY_ID = ById(position=4)
TEMPLATE = DESCRIPTOR.pack(7, 0, 0, 0, 0)


def test_copies_by_real_addresses():
    with DumbFirmware({"dma": dma}) as firmware, firmware.link() as link:
        area = link.allocate(8192)
        area[:4096] = bytes(range(256)) * 16
        with link.raw("dma", BY_ID) as raw:
            for start in range(0, 4096, 512):
                there, back = area[start : start + 512], area[4096 + start : 4608 + start]
                assert len(raw.call(TEMPLATE, COPY, sbe.In(there), sbe.Out(back))) == 8
        assert bytes(memoryview(area)[4096:]) == bytes(memoryview(area)[:4096])
        area.free()


def test_fixups_of_any_sort_are_filled_in():
    with DumbFirmware({"dma": dma}) as firmware, firmware.link() as link:
        area = link.allocate(8192)
        area[:5] = b"hello"
        with link.raw("dma", BY_ID) as raw:
            for start, fixups in ((4096, iter(COPY)), (6000, (each for each in COPY))):
                target = area[start : start + 5]
                raw.call(TEMPLATE, fixups, sbe.In(area[:5]), sbe.Out(target))  # type: ignore[arg-type]
                assert bytes(target) == b"hello"


@pytest.mark.parametrize("timeout", [1e8, 1e18, float("inf"), None])
def test_a_timeout_that_is_never_over(timeout: float | None):
    echo = DumbFirmware({"echo": lambda message, bus: message})
    with echo, echo.link() as link, link.raw("echo", InOrder()) as raw:
        assert raw.call(b"1", timeout=timeout) == b"1"
        assert raw.submit(b"2").result(timeout) == b"2"


class Held(DumbFirmware):
    """Its death does not wait for handlers that wait for the test."""

    def __init__(self, slow: "Slow", endpoint: str) -> None:
        self.slow = slow
        super().__init__({endpoint: slow.handle})

    def restart(self) -> None:
        if os.getpid() != self._owner:  # a queue's lock may be another thread's
            return super().restart()
        self.slow.over = True
        for _ in range(4):
            self.slow.answers.put([])
        super().restart()
        self.slow.begin()


class Slow:
    """Answers what it is told to, when it is told to."""

    def __init__(self, endpoint: str = "slow") -> None:
        self.begin()
        self.firmware = Held(self, endpoint)

    def begin(self) -> None:
        """Another life."""
        self.came: queue.Queue[bytes] = queue.Queue()
        self.answers: queue.Queue[list[bytes]] = queue.Queue()
        self.over = False

    def handle(self, message: bytes, bus: Bus) -> list[bytes]:
        self.came.put(message)
        return [] if self.over else self.answers.get(timeout=LIMIT_S)

    def number(self) -> bytes:
        """The id in the next message that has come."""
        return self.came.get(timeout=LIMIT_S)[4:8]

    @contextmanager
    def link(self) -> Iterator[sbe.Connection]:
        with self.firmware, self.firmware.link() as link:
            yield link


def answer(number: bytes, rest: bytes = b"") -> bytes:
    return bytes(4) + number + rest


def until_freed(area: sbe.Area) -> None:
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            return area.free()
        except sbe.Busy:
            assert time.monotonic() < deadline
            time.sleep(0.001)


FIRST = [AddressOf(8)]


@remote(24)
def test_late_answer_frees_the_buffer_and_nothing_else_does():
    slow = Slow()
    with slow.link() as link, link.raw("slow", BY_ID) as raw:
        area = link.allocate(4096)
        with pytest.raises(sbe.Timeout, match="stay held"):
            raw.call(TEMPLATE, FIRST, sbe.Out(area), timeout=0.01)
        number = slow.number()
        with pytest.raises(sbe.Busy, match="'slow' that name this area are unanswered"):
            area.free()
        slow.answers.put([answer(b"\xff\xff\xff\xff"), answer(b"\0\0\0\0"), b"", b"xyz"])
        assert raw.receive(LIMIT_S) == answer(b"\xff\xff\xff\xff"), "a foreign id"
        with pytest.raises(sbe.Busy):
            area.free()
        # The next call has another id: the late answer is not taken for its.
        later = raw.submit(TEMPLATE, FIRST, sbe.In(area), timeout=LIMIT_S)
        slow.answers.put([answer(number, b"late"), answer(slow.number(), b"own")])
        assert later.result() == answer(b"\2\0\0\0", b"own")
        area.free()
        with pytest.raises(sbe.BadArgument):
            raw.call(TEMPLATE, FIRST, sbe.In(area))


@remote(24, 28)
def test_duplicates_answer_nothing():
    slow = Slow()
    with slow.link() as link, link.raw("slow", BY_ID) as raw:
        for _ in range(2):
            call = raw.submit(TEMPLATE, timeout=LIMIT_S)
            number = slow.number()
            slow.answers.put([answer(number, b"1"), answer(number, b"2")])
            assert call.result() == answer(number, b"1")
            assert raw.receive(LIMIT_S) == answer(number, b"2")


def test_out_of_order_by_id():
    slow = Slow()
    with slow.link() as link, link.raw("slow", BY_ID) as raw:
        calls = [raw.submit(TEMPLATE, timeout=LIMIT_S) for _ in range(3)]
        slow.answers.put([])
        slow.answers.put([])
        numbers = [slow.number() for _ in calls]
        slow.answers.put([answer(number) for number in reversed(numbers)])
        assert [call.result()[4:8] for call in calls] == numbers


def test_in_order():
    slow = Slow()
    with slow.link() as link, link.raw("slow", InOrder()) as raw:
        calls = [raw.submit(b"ab", timeout=LIMIT_S) for _ in range(2)]
        slow.answers.put([b"one"])
        slow.answers.put([b"two"])
        assert [call.result() for call in calls] == [b"one", b"two"]
        assert slow.came.get() == b"ab"
        with pytest.raises(sbe.Timeout):
            raw.call(b"cd", timeout=0.01)
        with pytest.raises(sbe.Busy, match="known by their order"):
            raw.call(b"ef")
        slow.answers.put([b"late", b"more"])
        assert raw.receive(LIMIT_S) == b"more"
        slow.answers.put([b"own"])
        assert raw.call(b"ef", timeout=LIMIT_S) == b"own"


def test_predicate():
    slow = Slow()
    with slow.link() as link, link.raw("slow", lambda sent, came: sent[0] == came[0]) as raw:
        area = link.allocate(4096)
        one = raw.submit(b"1" + bytes(4), [AddressOf(1)], sbe.Out(area), timeout=LIMIT_S)
        two = raw.submit(b"2", timeout=LIMIT_S)
        slow.answers.put([b"2 two", b"3 nobody"])
        assert two.result() == b"2 two"
        with pytest.raises(sbe.Busy):
            area.free()
        slow.answers.put([b"1 one"])
        assert one.result() == b"1 one"
        assert raw.receive(LIMIT_S) == b"3 nobody"
        area.free()


def test_death_ends_everything_in_flight():
    slow = Slow()
    with slow.link() as link, link.raw("slow", BY_ID) as raw:
        area = link.allocate(4096)
        calls = [raw.submit(TEMPLATE, FIRST, sbe.Out(area)) for _ in range(3)]
        slow.number()
        waiting = threading.Thread(target=calls[0].exception)
        waiting.start()
        slow.firmware.restart()
        waiting.join(LIMIT_S)
        for call in calls:
            with pytest.raises(sbe.RemoteRestarted):
                call.result()
        with pytest.raises(sbe.RemoteRestarted):
            raw.call(TEMPLATE)
        with pytest.raises(sbe.RemoteRestarted):
            raw.receive()
        area[:4] = b"live"
        with link.raw("slow", BY_ID) as again:
            call = again.submit(TEMPLATE, FIRST, sbe.In(area))
            slow.answers.put([answer(slow.number())])
            call.result()
        until_freed(area)


def test_closed_with_an_answer_due():
    """It is waited for before the memory is anybody else's; what is open ends at once."""
    slow = Slow()
    with slow.link() as link:
        area = link.allocate(4096)
        with link.raw("slow", BY_ID) as raw:
            call = raw.submit(TEMPLATE, FIRST, sbe.Out(area))
        with pytest.raises(sbe.LinkClosed):
            call.result()
        with pytest.raises(sbe.Busy):
            area.free()
        with pytest.raises(sbe.LinkClosed):
            raw.call(TEMPLATE)
        slow.answers.put([answer(slow.number())])
        until_freed(area)
        assert not link._core.raws


def test_listing_and_counters():
    """Also of an endpoint that is closed and not answered yet."""
    slow = Slow()
    counts = ("sent", "answered", "late", "in_flight", "unmatched", "dropped")
    with slow.link() as link:
        assert (link.list()["endpoints"], link.stat()["endpoints"]) == ([], [])
        area = link.allocate(4096)
        with link.raw("slow", BY_ID) as raw:
            [listed] = link.list()["endpoints"]
            assert listed == {
                **{"link": "dumb", "context": link.context, "id": 1},
                **{"name": "slow", "address": 0, "match": "id"},
            }
            call = raw.submit(TEMPLATE, timeout=LIMIT_S)
            slow.answers.put([answer(slow.number()), b"nobody's"])
            call.result()
            assert raw.receive(LIMIT_S) == b"nobody's"
            raw.submit(TEMPLATE, FIRST, sbe.Out(area), timeout=LIMIT_S)
            number = slow.number()
            [stat] = link.stat()["endpoints"]
            assert (stat["name"], stat["id"]) == ("slow", 1)
            assert [stat[key] for key in counts] == [2, 1, 0, 1, 1, 0]
        [stat] = link.stat()["endpoints"]
        assert [stat[key] for key in counts] == [2, 1, 0, 1, 1, 0]
        slow.answers.put([answer(number)])
        until_freed(area)
        assert link.stat()["endpoints"] == []


def test_cancelled_in_asyncio():
    slow = Slow()

    async def run(raw: sbe.raw.Raw, area: sbe.Area) -> None:
        task = asyncio.ensure_future(raw.acall(TEMPLATE, FIRST, sbe.Out(area)))
        number = await asyncio.to_thread(slow.number)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(sbe.Busy):
            area.free()
        slow.answers.put([answer(number)])
        slow.answers.put([])
        with pytest.raises(sbe.Timeout):
            await raw.acall(TEMPLATE, timeout=0.01)

    with slow.link() as link, link.raw("slow", BY_ID) as raw:
        area = link.allocate(4096)
        asyncio.run(run(raw, area))
        until_freed(area)


def test_threads():
    """Calls of several threads on one endpoint, each with its own answer."""

    def double(message: bytes, bus: Bus) -> bytes:
        return message + message[8:]

    with (
        DumbFirmware({"double": double}) as firmware,
        firmware.link() as link,
        link.raw("double", BY_ID) as raw,
        ThreadPoolExecutor(4) as pool,
    ):

        def call(i: int) -> bool:
            word = i.to_bytes(4, "big")
            return raw.call(bytes(8) + word, timeout=LIMIT_S)[8:] == word * 2

        assert all(pool.map(call, range(400)))


def test_what_an_application_may_not_name():
    with DumbFirmware({"dma": dma}, address=0xFFFF_F000_0000) as firmware, firmware.link() as link:
        area = link.allocate(4096)
        with link.raw("dma", BY_ID) as raw:
            refused = [
                (sbe.BadArgument, "does not fit the 32 bits", [AddressOf(8)], sbe.In(area)),
                (sbe.BadArgument, "lies in no area", [AddressOf(8)], sbe.In(bytes(8))),
                (sbe.BadArgument, "no buffer 1", [AddressOf(8, buffer=1)], sbe.In(area)),
                (sbe.OutOfRange, "leave the message", [EndOf(17)], sbe.In(area)),
                (sbe.BadArgument, "no multiple of", [AddressOf(8, 64, shift=2)], sbe.In(area[1:9])),
            ]
            for kind, words, fixups, buffer in refused:
                with pytest.raises(kind, match=words):
                    raw.call(TEMPLATE, fixups, buffer)
            with pytest.raises(sbe.MessageTooLarge):
                raw.call(bytes(497))
            with pytest.raises(sbe.BadArgument):
                raw.call(b"")
            for none in (None, "AddressOf", AddressOf):
                with pytest.raises(TypeError, match=r"fixup 0: sbe\.raw\.AddressOf"):
                    raw.call(TEMPLATE, [none])  # type: ignore[list-item]
        area.free()
        with pytest.raises(sbe.BadArgument, match="announces no 'other'"):
            link.raw("other")
        with pytest.raises(TypeError, match="match: ById, InOrder"):
            link.raw("dma", ById)  # type: ignore[arg-type]  # anything would be an answer
    with sbe.connect("loopback:") as link:
        with pytest.raises(sbe.Error, match="rpmsg has") as raised:
            link.raw("dma")
        assert raised.value.code == errno.EOPNOTSUPP


def test_words_of_16_bits():
    """A DSP that counts in words: half of the bytes' address, which fits 16 bits."""

    def negate(message: bytes, bus: Bus) -> bytes:
        first, words = struct.unpack(">HH", message)
        place = bus[2 * first : 2 * (first + words)]
        place[:] = bytes(255 - byte for byte in place)
        return message

    with (
        DumbFirmware({"dsp": negate}, address=0x10000, size_bytes=1 << 16) as firmware,
        firmware.link() as link,
        link.raw("dsp", InOrder()) as raw,
    ):
        area = link.allocate(4096)
        fixups = (
            AddressOf(0, 16, order="big", shift=1),
            SizeOf(2, 16, order="big", shift=1),
        )
        raw.call(bytes(4), fixups, sbe.InOut(area[2:10]), timeout=LIMIT_S)
        assert bytes(area[:12]) == b"\0\0" + b"\xff" * 8 + b"\0\0"
        for odd in (area[1:3], area[2:5]):
            with pytest.raises(sbe.BadArgument, match="no multiple of 2"):
                raw.call(bytes(4), fixups, sbe.InOut(odd))


def test_closing_the_connection_ends_who_waits():
    slow = Slow()
    with slow.link() as link:
        raw = link.raw("slow", BY_ID)
        call = raw.submit(TEMPLATE)
        slow.number()
        with ThreadPoolExecutor(2) as pool:
            ended, heard = pool.submit(call.exception), pool.submit(raw.receive)
            link.close()
            assert isinstance(ended.result(LIMIT_S), sbe.LinkClosed)
            assert isinstance(heard.exception(LIMIT_S), sbe.LinkClosed)


def test_deadlines_hold_while_another_thread_has_the_link():
    """And what was not sent then is not waited for."""
    over, begun = threading.Event(), threading.Event()
    echo = DumbFirmware({"echo": lambda message, bus: message, "mute": lambda message, bus: None})
    with (
        echo,
        echo.link() as link,
        link.raw("mute", BY_ID) as mute,
        link.raw("echo", InOrder()) as raw,
        ThreadPoolExecutor(1) as pool,
    ):
        area = link.allocate(4096)
        call = mute.submit(TEMPLATE)

        def operation() -> bool:
            with link._core.turn.lock:
                begun.set()
                return over.wait(LIMIT_S)

        def send(left: float) -> bytes:
            return raw.call(TEMPLATE, FIRST, sbe.Out(area), timeout=left)

        first = pool.submit(operation)
        begun.wait()
        for wait in (mute.receive, call.result, send):
            with pytest.raises(sbe.Timeout):
                wait(0.02)
        over.set()
        assert first.result()
        assert len(send(LIMIT_S)) == len(TEMPLATE)
        area.free()


def test_no_descriptor_is_left():
    """By what ends orderly, what nobody keeps, and what is in flight when the connection ends: that
    keeps its memory, which the firmware may write, and nothing else.
    """

    def lives(kept: int) -> None:
        slow = Slow()
        for _ in range(kept):
            with slow.link() as link:
                area = link.allocate(4096)
                with pytest.raises(sbe.BadArgument):
                    link.raw("nothing")
                link.raw("slow", BY_ID)  # nobody keeps it
                with link.raw("slow", BY_ID) as raw:
                    raw.submit(TEMPLATE, FIRST, sbe.Out(area), timeout=LIMIT_S)

    lives(0)
    before = count_fds()
    lives(3)
    assert count_fds() - before <= 3 + 1  # and the firmware's own


def test_closed_ones_give_their_descriptors_back_when_answered():
    slow = Slow()
    with slow.link() as link:
        for _ in range(20):
            with link.raw("slow", BY_ID) as raw:
                raw.submit(TEMPLATE, timeout=LIMIT_S)
            slow.answers.put([answer(slow.number())])
            while link.stat()["endpoints"]:
                pass  # the link hears of it
        with link.raw("slow"):
            assert len(link._core.raws) == 1


def test_another_thread_closes_or_cancels():
    slow = Slow()
    with slow.link() as link:
        raw = link.raw("slow", BY_ID)
        calls = [raw.submit(TEMPLATE) for _ in range(2)]
        with ThreadPoolExecutor(3) as pool:
            one, two = pool.submit(calls[0].exception), pool.submit(calls[1].exception)
            heard = pool.submit(raw.receive)
            assert calls[0].cancel()
            assert isinstance(one.result(LIMIT_S), sbe.Cancelled)
            assert not calls[0].cancel()
            raw.close()
            assert isinstance(two.result(LIMIT_S), sbe.LinkClosed)
            assert isinstance(heard.exception(LIMIT_S), sbe.LinkClosed)


@pytest.mark.timeout(60)
def test_a_wake_up_between_look_and_wait_is_not_lost():
    """Of who is told that its call has ended after it has seen that it had not."""
    mute = DumbFirmware({"mute": lambda message, bus: None})
    with mute, mute.link() as link, link.raw("mute", BY_ID) as raw:
        call = raw.submit(TEMPLATE, timeout=None)
        told = raw._told
        assert call.cancel()
        for another_looks in (False, True):
            raw._looking = another_looks
            raw._look(float("inf"), told)
        raw._looking = False


def test_a_forked_child_has_nothing_of_it():
    slow = Slow()
    with slow.link() as link, link.raw("slow", BY_ID) as raw:
        call = raw.submit(TEMPLATE, timeout=LIMIT_S)
        number = slow.number()
        raw._looking = True  # as when another thread waits just now
        child = os.fork()
        if child == 0:
            try:
                with contextlib.suppress(sbe.LinkError):
                    raw.call(TEMPLATE)
                    os._exit(1)
                for wait in (raw.receive, call.result):
                    with contextlib.suppress(sbe.LinkError):
                        wait(0.2)
                        os._exit(1)
                os._exit(0)
            finally:
                os._exit(1)
        raw._looking = False
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        slow.answers.put([answer(number)])
        assert call.result() == answer(number)
        with pytest.raises(sbe.BadArgument, match="can't be pickled"):
            pickle.dumps(raw)


class TwoViews:
    """Memory whose two ends see their own half until caches are maintained. For one area."""

    name = "two-views"

    def __init__(self, address: int) -> None:
        self.address = address
        self.whole = MemfdHeap().allocate(2 * 8192)
        self.bytes = memoryview(_native.Memory(self.whole.fd, self.whole.size_bytes))
        self.bus = Bus(self.bytes[:8192], address)
        self.sockets = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def allocate(self, size_bytes: int) -> Allocation:
        fd = os.dup(self.whole.fd)
        segments = ((self.address, 8192),)
        return Allocation(
            fd, 8192, False, 8192, segments, attachment=self, release=self.sockets[0].close
        )

    def fileno(self) -> int:
        return self.sockets[0].fileno()

    def sync_for_device(self, offset: int, size_bytes: int) -> None:
        end = offset + size_bytes
        self.bytes[offset:end] = self.bytes[8192 + offset : 8192 + end]

    def sync_for_cpu(self, offset: int, size_bytes: int) -> None:
        end = offset + size_bytes
        self.bytes[8192 + offset : 8192 + end] = self.bytes[offset:end]


def test_memory_that_is_not_coherent(monkeypatch: pytest.MonkeyPatch):
    """Each end sees what the other wrote, in the ranges that the message names and nowhere else."""
    views = TwoViews(0x9000_0000)
    firmware = DumbFirmware({"dma": dma})
    firmware.bus = views.bus
    monkeypatch.setattr(DumbFirmware, "memory", Memory({views.name: views}, MemfdHeap()))
    with firmware, firmware.link() as link, link.raw("dma", BY_ID) as raw:
        area = link.allocate(8192)
        area[:] = b"\xaa" * 8192
        area[4096:4160] = b"\xcc" * 64
        raw.call(TEMPLATE, COPY, sbe.In(area[64:128]), sbe.Out(area[4096:4160]))
        assert bytes(area[4096:4160]) == b"\xaa" * 64
        views.bytes[4160:4224] = b"\xbb" * 64  # the firmware's, which no message has named
        assert bytes(views.bytes[:64]) == bytes(64)
        assert bytes(area[4160:4224]) == b"\xaa" * 64
        with pytest.raises(sbe.BadArgument, match="multiples of a cache line"):
            raw.call(TEMPLATE, COPY, sbe.In(area[:3]), sbe.Out(area[4096:4099]))
        area.free()
    views.sockets[1].close()
    views.whole.close()
