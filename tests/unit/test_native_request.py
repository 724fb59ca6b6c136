"""Request: answers are complete, in time and never lost, whatever handlers and peers do."""

from __future__ import annotations

import errno
import gc
import struct
import subprocess
import sys
import time
from typing import Any

import pytest

from sbe import _native, errors
from tests.unit.channel_pair import LIMIT_S, Pair, Thread

LAYOUT = _native.layout()


def pack(structure: str, **values: int) -> bytes:
    """A wire structure from its fields, the others zero."""
    fields = LAYOUT[structure]
    data = bytearray(max(offset + size for offset, size in fields.values()))
    for name, value in values.items():
        offset, size = fields[name]
        data[offset : offset + size] = value.to_bytes(size, "little", signed=value < 0)
    return bytes(data)


def test_a_handler_may_release_its_view_before_it_answers():
    with Pair() as pair:
        result = bytearray(64)
        call = pair.host.submit(1, (_native.Out(result),))
        request = pair.take()
        with request.buffers[0] as view:
            view[:] = b"r" * 64
        noise = [bytearray(b"\xff" * 64) for _ in range(100)]  # takes the place of freed memory
        request.respond()
        assert call.result(LIMIT_S).written == (64,)
        assert result == b"r" * 64
        del noise


def test_the_memory_behind_a_view_stays_until_the_answer():
    with Pair() as pair:
        result = bytearray(8)
        call = pair.host.submit(1, (_native.InOut(result),))
        request = pair.take()
        behind: Any = request.buffers[0].obj
        request.buffers[0].release()
        with pytest.raises(BufferError):
            behind.clear()
        request.respond()
        behind.clear()
        call.result(LIMIT_S)


def test_a_request_that_was_taken_is_followed_by_its_cancel():
    with Pair() as pair:
        waiting, taken, answered = [pair.host.submit(1, (), bytes([i])) for i in range(3)]
        requests = [pair.take() for _ in range(2)]
        assert [request.payload for request in requests] == [b"\0", b"\1"]
        requests[0].respond()
        assert waiting.result(LIMIT_S).payload == b""
        answered.cancel()  # it waits: its handler will not begin
        taken.cancel()
        third = pair.take()
        assert (third.payload, third.cancelled, third.type) == (b"\2", True, _native.FRAME_REQUEST)
        news = pair.take()
        assert (news.type, news.transaction) == (_native.FRAME_CANCEL, requests[1].transaction)
        assert (news.payload, news.buffers, news.service) == (b"", (), 0)
        assert pair.remote.counters()["requests"] == 3
        sent = pair.remote.counters()["sent"]
        news.respond(b"nobody waits for it")
        del news
        assert pair.remote.counters()["sent"] == sent
        for request in (requests[1], third):
            request.respond(b"", -errno.ECANCELED)
        assert pair.remote.counters()["requests"] == 0


def test_cancels_that_nobody_takes_have_a_bound():
    most = 4096
    with Pair() as pair:
        calls, taken = [], []
        for _ in range(most // 2):
            calls.append(pair.host.submit(1))
            taken.append(pair.take())
        for call in calls:
            call.cancel()
            pair.remote.poll()
        assert pair.remote.counters()["requests"] == most
        beyond = pair.host.submit(1)
        pair.remote.poll()
        assert isinstance(beyond.exception(LIMIT_S), errors.RemoteError)
        for request in taken:
            assert pair.take().transaction == request.transaction
            request.respond()
            pair.host.poll()
        assert pair.remote.counters()["requests"] == 0


def full(pair: Pair) -> list[tuple[_native.Call, _native.Request]]:
    """Requests until the remote's ring has been filled with answers, and three more."""
    asked = []
    for _ in range(pair.rings.geometry.slots + 3):
        call = pair.host.submit(1, (_native.Out(bytearray(8)),))
        asked.append((call, pair.take()))
    for _, request in asked[:-3]:
        request.respond(b"early")
    return asked


def test_a_second_answer_changes_nothing_of_one_that_waits():
    with Pair(slots=2) as pair:
        asked = full(pair)
        call, request = asked[-3]
        request.respond(b"first", written=[5])
        request.respond(b"second", written=[7])
        pair.host.poll()
        pair.remote.poll()
        reply = call.result(LIMIT_S)
        assert (reply.payload, reply.written) == (b"first", (5,))


def test_a_request_dropped_while_the_ring_is_full_is_answered_when_there_is_room():
    with Pair(slots=2) as pair:
        asked = full(pair)
        calls = [call for call, _ in asked]
        asked.clear()
        gc.collect()
        for _ in calls:
            pair.host.poll()
            pair.remote.poll()
        for call in calls[-3:]:
            error = call.exception(0)
            assert isinstance(error, errors.RemoteError)
            assert error.code == errno.EIO
        assert pair.remote.counters()["requests"] == 0


def test_an_answer_without_room_is_sent_by_a_sleeping_thread():
    with Pair(slots=2) as pair:
        for _ in range(5):  # fresh memory asks for a doorbell by itself
            call = pair.host.submit(1)
            pair.answer()
            call.result(LIMIT_S)
        asked = full(pair)
        server = Thread(lambda: pair.remote.next_request()).wait_asleep(leader=True)
        for number, (_, request) in enumerate(asked[-3:]):
            request.respond(bytes([number]))
        until = time.monotonic() + LIMIT_S
        while pair.host.in_flight and time.monotonic() < until:
            pair.host.poll()  # which rings only if the other end asked for it
        for number, (call, _) in enumerate(asked[-3:]):
            assert call.result(0).payload == bytes([number])
        pair.host.send(1, (), b"that was it")
        assert server.outcome().payload == b"that was it"


def test_a_peer_that_asks_for_more_than_a_frame_can_return_gets_no_memory():
    with Pair() as pair:
        size = LAYOUT["sbe_wire_frame"]["handled_ns"][0] + 4
        buffer = pack(
            "sbe_wire_buffer",
            direction=_native.DIR_OUT,
            flags=_native.BUFFER_INLINE,
            size=1 << 40,
        )
        frame = pack(
            "sbe_wire_frame",
            size=size + len(buffer),
            type=_native.FRAME_REQUEST,
            transaction=1,
            buffer_count=1,
        )
        rings = pair.rings
        memory = memoryview(_native.Memory(rings.memory_fd, rings.size_bytes))
        slot = rings.send_offset + 2 * rings.line_bytes
        memory[slot : slot + size + len(buffer)] = frame + buffer
        memory[rings.send_offset : rings.send_offset + 4] = struct.pack("<I", 1)  # head
        assert pair.remote.next_request(0) is None
        slot = rings.receive_offset + 2 * rings.line_bytes
        at = slot + LAYOUT["sbe_wire_frame"]["status"][0]
        assert struct.unpack_from("<i", memory, at)[0] == -errno.EMSGSIZE


def test_areas_that_go_while_a_request_is_taken():
    """Where the collector runs at any allocation, a finalizer may free what the frame names."""

    class Farewell:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            pair.tables[1].remove(second)

    thresholds = gc.get_threshold()
    with Pair() as pair:
        (first, _), (other, second) = pair.area(), pair.area()
        call = pair.host.submit(1, (_native.In(first), _native.In(other)))
        gc.collect()
        gc.disable()
        Farewell()
        gc.set_threshold(1)
        gc.enable()
        pair.remote.poll()
        gc.set_threshold(*thresholds)
        request = pair.remote.next_request(0)
        if request is not None:
            request.respond()
        pair.host.poll()
        assert call.done()


@pytest.mark.parametrize(
    ("answer", "wrong", "words"),
    [
        ({"written": [1, 2]}, errors.BadArgument, "2 sizes written for 1 buffers"),
        ({"written": [-1]}, errors.BadArgument, "-1 is not between 0"),
        ({"written": ["x"]}, TypeError, "."),
        ({"written": 5}, TypeError, "."),
        ({"status": 5}, errors.BadArgument, "0 or a negative errno, not 5"),
    ],
)
def test_a_wrong_answer_leaves_the_request_open(
    answer: dict[str, Any], wrong: type[Exception], words: str
):
    with Pair() as pair:
        call = pair.host.submit(1, (_native.Out(bytearray(8)),))
        request = pair.take()
        with pytest.raises(wrong, match=words):
            request.respond(b"", **answer)
        request.respond(b"right")
        reply = call.result(LIMIT_S)
        assert (reply.payload, reply.written) == (b"right", (8,))


ASKER = """
import sys
from collections import deque
from sbe import _native
from sbe.link.rings import Geometry, Rings, attach
fds = [int(word) for word in sys.argv[1:4]]
line, send, receive, size = (int(word) for word in sys.argv[4:])
rings = Rings(Geometry(2, 1024), line, send, receive, size, *fds)
end = attach(rings, _native.Table(1), 1, 1)
open = deque()
for number in range(20_000):
    open.append(end.submit(1, (), number.to_bytes(4, "little")))
    if len(open) > 24:
        open.popleft().result(30)
while open:
    open.popleft().result(30)
"""


def test_no_answer_is_lost_when_room_comes_while_it_is_asked_for():
    with Pair(slots=2) as pair:
        rings = pair.rings
        numbers = [*rings.fds, rings.line_bytes, rings.send_offset, rings.receive_offset]
        child = subprocess.Popen(
            [sys.executable, "-c", ASKER, *map(str, numbers), str(rings.size_bytes)],
            pass_fds=rings.fds,
        )
        held: list[_native.Request] = []
        while child.poll() is None:
            request = pair.remote.next_request(0.05)
            if request is not None:
                held.append(request)
            if len(held) > 8 or request is None:
                for request in held:
                    request.respond(request.payload)
                held.clear()
        assert child.returncode == 0
