"""`sbe.asg`: both ends, byte by byte as the original left its region, and what a peer may do."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import sbe
from sbe import asg
from tests.rigs.asg import golden
from tests.rigs.asg.traffic import (
    LIMIT_S,
    Packet,
    Place,
    be_client,
    be_server,
    packets,
    places,
    together,
)

SIZE = 1 << 16
STEP = 4096
STATE, CONFIG = 2176, 2180  # offsets in the region, as its layout says
BUFFER_SIZE, FLUSH_INTERVAL, CONSUMED, _, MODE, TRANSFER, IN_ERROR = range(CONFIG, CONFIG + 28, 4)
WRITE_POS = 8


@pytest.fixture
def place() -> Iterator[Place]:
    yield from places(SIZE)


Ends = tuple[asg.Client, asg.Server]


@pytest.fixture
def ends(place: Place) -> Ends:
    return (
        asg.Client(place.region, SIZE, place.bell, step=STEP, timeout=LIMIT_S),
        asg.Server(place.region, SIZE, place.bell, timeout=LIMIT_S),
    )


def put(place: Place, offset: int, *words: int) -> None:
    struct.pack_into(f"<{len(words)}I", place.region, offset, *words)


def word(place: Place, offset: int) -> int:
    return int(struct.unpack_from("<I", place.region, offset)[0])


def test_the_region_is_the_originals_to_the_byte() -> None:
    place = Place(golden.SIZE)
    client = asg.Client(place.region, golden.SIZE, place.bell, step=golden.STEP)
    server = asg.Server(place.region, golden.SIZE, place.bell)
    regions = golden.recorded()
    for number, name in enumerate(golden.steps(client, server)):
        ours = bytearray(place.region)
        # gfxstream counts what it has consumed, and so do we; the original has the word for that.
        ours[CONSUMED : CONSUMED + 4] = bytes(4)
        differs = [
            at for at, (a, b) in enumerate(zip(ours, regions[number], strict=True)) if a != b
        ]
        assert not differs, f"{name}: at {differs[:10]}"
    assert number == len(regions) - 1
    place.close()


def other_process(region: Any, bell: int, script: list[Packet]) -> None:
    be_client(asg.Client(region, SIZE, bell, timeout=LIMIT_S), script)


def test_random_traffic_between_processes(place: Place) -> None:
    script = packets(3000)
    asg.Client(place.region, SIZE, place.bell, step=STEP)  # lays it out
    server = asg.Server(place.region, SIZE, place.bell, timeout=LIMIT_S)
    process = multiprocessing.get_context("fork").Process(
        target=other_process, args=(place.region, place.bell, script)
    )
    process.start()
    be_server(server, script)
    process.join(LIMIT_S)
    assert process.exitcode == 0


@pytest.mark.parametrize("size", [1, STEP - 1, STEP, STEP + 1, SIZE - 1, SIZE, 5 * SIZE + 3])
def test_sizes(ends: Ends, size: int) -> None:
    client, server = ends
    script = [Packet(kind, size) for kind in ("write", "send", "read", "write")]
    script.append(Packet("read", 1))
    together(lambda: be_client(client, script), lambda: be_server(server, script))


def test_functions_as_doorbell_and_wait(place: Place) -> None:
    bell = threading.Semaphore(0)
    client = asg.Client(place.region, SIZE, bell.release, step=STEP)
    server = asg.Server(place.region, SIZE, lambda left: bell.acquire(timeout=left))
    script = packets(200)
    together(lambda: be_client(client, script), lambda: be_server(server, script))


def test_memory_to_fill_in_place(ends: Ends) -> None:
    client, server = ends
    np.frombuffer(client.alloc(400), np.uint32)[:] = 7
    client.alloc(100)[:] = b"x" * 100
    client.commit(3)  # of the last one
    assert server.read_exactly(403) == struct.pack("<I", 7) * 100 + b"xxx"
    large = client.alloc(STEP + 1)
    large[:] = b"y" * len(large)
    together(lambda: client.commit(STEP), lambda: server.read_exactly(STEP))
    with pytest.raises(sbe.BadArgument, match=r"commit\(1\) of 0 bytes"):
        client.commit(1)
    with pytest.raises(sbe.BadArgument):
        client.alloc(-1)
    with pytest.raises(sbe.Timeout):
        server.read(1, timeout=0.01)


def test_a_reply_that_nobody_has_read_is_kept(ends: Ends) -> None:
    client, server = ends
    server.reply(b"abcdef")
    client.write(b"question")  # the reply's bytes lie where these go
    client.flush()
    assert server.read_exactly(8) == b"question"
    server.reply(b"ghi")
    assert client.read(4) == b"abcd"
    assert client.read_exactly(5) == b"efghi"


def test_a_part_that_came_before_the_deadline_is_not_lost(ends: Ends) -> None:
    client, server = ends
    client.write(b"abc")
    client.flush()
    with pytest.raises(sbe.Timeout, match="5 bytes"):
        server.read_exactly(5, timeout=0.05)
    client.write(b"de")
    client.flush()
    assert server.read_exactly(5) == b"abcde"
    server.reply(b"abc")
    with pytest.raises(sbe.Timeout):
        client.read_exactly(5, timeout=0.05)
    server.reply(b"de")
    assert client.read_exactly(5) == b"abcde"


def test_a_reply_over_bytes_that_are_unread_is_refused(ends: Ends) -> None:
    client, server = ends
    client.write(b"abc")
    client.flush()
    with pytest.raises(sbe.Busy, match="read them first"):
        server.reply(b"x")
    assert server.read(2) == b"ab"
    server.reply(b"x")  # a record is taken whole
    assert server.read(2) == b"c"


def test_nothing_waits_for_ever(ends: Ends) -> None:
    client, server = ends
    for wait in (
        lambda: server.read(1, timeout=0.02),
        lambda: client.read(1, timeout=0.02),
        lambda: client.write(bytes(SIZE * 2), timeout=0.02),
    ):
        with pytest.raises(sbe.Timeout, match="at the deadline"):
            wait()


def test_reply_without_a_reader_ends(ends: Ends) -> None:
    with pytest.raises(sbe.Timeout, match="room for the reply"):
        ends[1].reply(bytes(SIZE), timeout=0.02)


def test_a_server_that_leaves_is_told(ends: Ends) -> None:
    client, server = ends
    with server:
        client.write(b"x")
    with pytest.raises(sbe.LinkError, match="left"):
        client.read(1)
    with pytest.raises(sbe.LinkClosed):
        server.read(1)


def test_close_ends_what_another_thread_waits_for(ends: Ends) -> None:
    _, server = ends
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            server.read(1, timeout=None)
        except sbe.Error as error:
            raised.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    while not server._turn.locked():
        time.sleep(0)
    server.close()
    waiting.join(LIMIT_S)
    assert isinstance(raised[0], sbe.LinkClosed)


def test_a_doorbell_that_is_gone(place: Place) -> None:
    ours, theirs = os.pipe()
    client = asg.Client(place.region, SIZE, theirs, step=STEP)
    server = asg.Server(place.region, SIZE, ours)
    os.close(theirs)
    with pytest.raises(sbe.LinkError, match="hung up"):
        server.read(1)
    os.close(ours)
    with pytest.raises(sbe.LinkError, match="is closed"):
        server.read(1)
    with pytest.raises(sbe.LinkError, match="doorbell"):
        client.write(bytes(SIZE))


# -- a hostile peer ---------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 3, STEP + 1, SIZE // 2, SIZE, 1 << 31, (1 << 32) - 1])
def test_a_flush_interval_that_nobody_can_work_with(place: Place, step: int) -> None:
    if step:
        with pytest.raises(sbe.BadArgument, match="a step is a power of two"):
            asg.Client(place.region, SIZE, place.bell, step=step)
    asg.Client(place.region, SIZE, place.bell, step=STEP)
    put(place, FLUSH_INTERVAL, step)
    with pytest.raises(sbe.BadArgument, match=f"in steps of {step}:"):
        asg.Client(place.region, SIZE, place.bell)


def test_a_region_of_another_size(place: Place) -> None:
    asg.Client(place.region, SIZE, place.bell, step=STEP)
    with pytest.raises(sbe.ProtocolError, match="another size"):
        asg.Client(place.region, SIZE // 2, place.bell)
    with pytest.raises(sbe.BadArgument, match="no buffer of"):
        asg.Server(place.region, SIZE + 1, place.bell)
    with pytest.raises(sbe.BadArgument, match="the rings alone"):
        asg.Server(bytearray(asg.STORAGE_BYTES), 1, place.bell)
    with pytest.raises((TypeError, BufferError)):
        asg.Server(bytes(SIZE * 2), SIZE, place.bell)


@pytest.mark.parametrize(
    "record", [(SIZE, 1), (0, SIZE + 1), (1, SIZE), (0xFFFFFFFF, 2), (0, 1 << 30), (2, 0xFFFFFFFF)]
)
def test_a_record_outside_of_the_buffer(place: Place, ends: Ends, record: tuple[int, int]) -> None:
    client, server = ends
    put(place, 128, *record)
    put(place, WRITE_POS, 8)
    with pytest.raises(sbe.ProtocolError, match="no client writes"):
        server.read(16)
    assert (word(place, STATE), word(place, IN_ERROR)) == (3, 1)
    with pytest.raises(sbe.ProtocolError, match="given the stream up"):
        client.read(1)


@pytest.mark.parametrize("mode", [0, 2, 3, 77])
def test_a_mode_that_there_is_not(place: Place, ends: Ends, mode: int) -> None:
    client, server = ends
    client.write(b"x")
    client.flush()
    put(place, MODE, mode)
    with pytest.raises(sbe.ProtocolError):
        server.read(1)


def try_all(client: asg.Client, server: asg.Server) -> None:
    for operation in (
        lambda: server.read(100, timeout=0.0001),
        lambda: server.reply(b"x" * 100, timeout=0.0001),
        lambda: client.write(b"x" * 100, timeout=0.0001),
        lambda: client.read(100, timeout=0.0001),
    ):
        with contextlib.suppress(sbe.Error):
            operation()


def test_a_region_that_is_scribbled_over(place: Place, ends: Ends) -> None:
    """Whatever stands there: an error or some bytes, at once, and nothing beyond the region."""
    noise = np.random.default_rng(1)
    words = [*range(0, 80, 4), STATE, *range(CONFIG, CONFIG + 28, 4)]
    for _ in range(2000):
        client = asg.Client(place.region, SIZE, place.bell, step=STEP)
        server = asg.Server(place.region, SIZE, place.bell)
        for page in range(3):
            for at in noise.choice(words, 4):
                put(place, page * 4096 + int(at), int(noise.integers(1 << 32)))
        put(place, 128, *(int(n) for n in noise.integers(1 << 18, size=4)))
        try_all(client, server)
