"""What two ends with caches do with buffers: each is a function of a link that asserts.

    python -m tests.caches.exchanges PROGRAMS REMOTE LINE

runs all, with the agent of the folder PROGRAMS and the program REMOTE, in lines of LINE bytes.
SBE_CACHE_SEED in the environment varies what moves by chance; with 0 nothing does. It needs nothing
but sbe and numpy, whichever extension is found first.
"""

from __future__ import annotations

import os
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import sbe
from sbe.errors import LinkError
from tests.caches.remote import cached_remotes

LIMIT_S = 30.0
SOON_S = 5.0  # for a stream of an eighth of a second
SIZE = 1 << 14  # of a buffer: so many lines that not all of them move by chance


def noise(seed: int, size: int = SIZE) -> Any:
    """Bytes that no earlier exchange had there."""
    return np.random.default_rng(seed).integers(1, 255, size, np.uint8)


def areas(link: sbe.Connection, count: int, size: int = SIZE) -> list[Any]:
    """Each with a guard behind it, as arrays that both ends have seen as noise."""
    made = []
    for i in range(count):
        view = np.frombuffer(link.allocate(size), np.uint8)
        view[:] = noise(100 + i, size)
        agree(link, view)
        made.append(view)
    return made


def agree(link: sbe.Connection, view: Any) -> None:
    """Both ends see the same there."""
    (seen,) = struct.unpack("<I", link.call("crc32", sbe.In(view), timeout=LIMIT_S).payload)
    assert seen == zlib.crc32(view), "the remote sees other bytes than this end"


def rewrite(link: sbe.Connection, view: Any, seed: int) -> None:
    """Written by this end once more: what the other end has of it must not come back."""
    view[:] = noise(seed, len(view))
    agree(link, view)
    assert np.array_equal(view, noise(seed, len(view)))


def given(link: sbe.Connection) -> None:
    (view,) = areas(link, 1)
    for seed in range(3):
        rewrite(link, view, seed)


def taken(link: sbe.Connection) -> None:
    (view,) = areas(link, 1)
    for value in (1, 2):
        view[:] = noise(value)  # dirty lines, which must not be written over the remote's
        reply = link.call("fill", sbe.Out(view), payload=bytes([value]))
        assert reply.written == (SIZE,)
        assert (view == value).all()
        agree(link, view)


def taken_in_part(link: sbe.Connection) -> None:
    source, target = areas(link, 2)
    for seed in (1, 2):
        source[:], target[:] = noise(seed), noise(seed + 10)
        part = SIZE // 2 + 7
        link.call("copy", sbe.In(source[:part]), sbe.Out(target))
        assert np.array_equal(target[:part], source[:part])
        assert np.array_equal(target[part:], noise(seed + 10)[part:]), "bytes that nobody wrote"
        agree(link, target)


def given_and_taken(link: sbe.Connection) -> None:
    (view,) = areas(link, 1)
    for seed in (1, 2):
        view[:] = noise(seed)
        link.call("invert", sbe.InOut(view))
        assert np.array_equal(view, ~noise(seed))
        link.call("invert", sbe.InOut(view))
        assert np.array_equal(view, noise(seed))


def kept(link: sbe.Connection) -> None:
    samples, out = areas(link, 2)
    samples[:], out[:] = 0, 1
    link.call("mulaw", sbe.In(samples), sbe.Out(out[: SIZE // 2]))
    assert (out[: SIZE // 2] == 0xFF).all()
    assert (out[SIZE // 2 :] == 1).all()
    agree(link, out)


def in_a_batch(link: sbe.Connection) -> None:
    area = link.allocate(2 * SIZE)
    view = np.frombuffer(area, np.uint8)
    offsets = np.arange(0, SIZE, 1024)
    both = np.stack(
        [
            area.descriptors(sbe.In, offsets, 1024),
            area.descriptors(sbe.Out, SIZE + offsets, 1024),
        ],
        axis=1,
    )
    for seed in (1, 2):
        view[:] = noise(seed, 2 * SIZE)
        link.batch("copy", both).check()
        assert np.array_equal(view[:SIZE], noise(seed, 2 * SIZE)[:SIZE])
        assert np.array_equal(view[SIZE:], view[:SIZE])


def failed(link: sbe.Connection) -> None:
    """What it wrote before is seen, whatever it is."""
    (view,) = areas(link, 1)
    for seed in (1, 2):
        view[:] = noise(seed)
        try:
            link.call("spoil", sbe.Out(view))
        except sbe.RemoteError:
            assert np.array_equal(view, noise(seed) + np.uint8(1))
            agree(link, view)
        else:
            raise AssertionError("spoil has not failed")


def failed_in_a_batch(link: sbe.Connection) -> None:
    area = link.allocate(SIZE)
    view = np.frombuffer(area, np.uint8)
    for seed in (1, 2):
        view[:] = noise(seed)
        result = link.batch("spoil", area.descriptors(sbe.Out, np.arange(0, SIZE, 1024), 1024))
        assert (result.status != 0).all()
        assert np.array_equal(view, noise(seed) + np.uint8(1))
        agree(link, view)


def ended(link: sbe.Connection, call: Any) -> None:
    """Until the remote has answered what was given up."""
    until = time.monotonic() + LIMIT_S
    while call.in_flight:
        link.call("echo", timeout=LIMIT_S)
        assert time.monotonic() < until


def given_up(link: sbe.Connection) -> None:
    (view,) = areas(link, 1)
    for seed in (1, 2):
        view[:] = noise(seed)
        call = link.submit("hold", sbe.InOut(view), timeout=None)
        has_taken(link)
        call.cancel()
        ended(link, call)
        assert np.array_equal(view, noise(seed) + np.uint8(1))
        agree(link, view)


def given_up_in_pieces(link: sbe.Connection) -> None:
    (view,) = areas(link, 1)
    call = link.submit("stall", sbe.InOut(view), timeout=0.05)
    assert isinstance(call.exception(), sbe.Timeout)
    ended(link, call)
    agree(link, view)
    rewrite(link, view, 5)


def has_taken(link: sbe.Connection) -> None:
    """Until the remote has begun what was sent before and is kept: the ring keeps its order."""
    link.call("echo", timeout=LIMIT_S)


def broken_off(
    link: sbe.Connection, service: str, has_begun: Callable[[sbe.Connection], object]
) -> None:
    """The channel ends, the area stays."""
    (view,) = areas(link, 1)
    epoch = link.epoch
    for first in (0, 10, 20):
        call = link.submit(service, sbe.InOut(view), timeout=None)
        has_begun(link)
        link._core.channel.fail(LinkError("broken off by the test"))
        assert isinstance(call.exception(), LinkError)
        link.call("echo", timeout=LIMIT_S)  # over another channel
        assert link.epoch == epoch, "the remote has restarted"
        for seed in range(first, first + 3):
            rewrite(link, view, seed)


def broken_off_kept(link: sbe.Connection) -> None:
    broken_off(link, "hold", has_taken)


def broken_off_in_pieces(link: sbe.Connection) -> None:
    began = threading.Semaphore(0)

    def has_begun(link: sbe.Connection) -> None:
        assert began.acquire(timeout=LIMIT_S)

    link.serve("began", lambda payload: began.release())
    broken_off(link, "stall", has_begun)


def sent(link: sbe.Connection) -> None:
    (view,) = areas(link, 1)
    for value in (1, 2):
        view[:] = noise(value)
        link.send("fill", sbe.Out(view), payload=bytes([value]))
        link.call("echo")  # the ring keeps its order
        link.sync(sbe.InOut(view))
        assert (view == value).all()


def lent(link: sbe.Connection) -> None:
    """The remote lends on what this end gave it."""
    first, second = areas(link, 2)
    seen: list[bytes] = []

    def borrow(payload: bytes, one: memoryview, two: memoryview) -> None:
        seen[:] = [bytes(one), bytes(two)]
        two[: SIZE // 2] = one[: SIZE // 2]

    def spoil(payload: bytes, one: memoryview, two: memoryview) -> None:
        borrow(payload, one, two)
        raise sbe.NoRoom("as asked")

    link.serve("borrow", borrow)
    link.serve("spoil_ours", spoil)
    for seed, name in enumerate(["borrow", "spoil_ours"] * 2):
        first[:], second[:] = noise(seed), noise(seed + 10)
        reply = link.call(
            "lend", sbe.In(first), sbe.InOut(second), payload=name.encode() + b"\0", timeout=LIMIT_S
        )
        plus_one = noise(seed + 10) + np.uint8(1)
        assert seen == [noise(seed).tobytes(), plus_one.tobytes()]
        wanted = np.concatenate([noise(seed)[: SIZE // 2], plus_one[SIZE // 2 :]])
        status, *sums = struct.unpack("<iII", reply.payload)
        assert (status == 0) == (name == "borrow")
        assert sums == [sum_of(first), sum_of(wanted)], "the remote sees what it had lent"
        assert np.array_equal(second, wanted)
        agree(link, second)
    link.unserve("borrow")
    link.unserve("spoil_ours")


def sum_of(view: Any) -> int:
    """As the remote's service computes it."""
    total = 0
    for byte in view.tobytes():
        total = (total * 31 + byte) & 0xFFFFFFFF
    return total


def beside_others(link: sbe.Connection) -> None:
    """What this end writes into the line of a buffer while it is the remote's stays."""
    (view,) = areas(link, 1)
    for seed in range(4):
        view[:] = noise(seed)
        calls = []
        for begin in (1001, 4001, 8001):
            calls.append(link.submit("hold", sbe.InOut(view[begin : begin + 2002]), timeout=None))
        has_taken(link)
        for begin in (1001, 4001, 8001):
            view[begin - 1], view[begin + 2002] = 77, 78
        for call in calls:
            call.cancel()
            ended(link, call)
        wanted = noise(seed)
        for begin in (1001, 4001, 8001):
            wanted[begin - 1], wanted[begin + 2002] = 77, 78
            wanted[begin : begin + 2002] = view[begin : begin + 2002]
        assert np.array_equal(view, wanted)
        agree(link, view)


def streamed(link: sbe.Connection) -> None:
    """The same memory run after run: what either end still has of the last one is not shown."""
    form = sbe.StreamFormat("uint8", 16, 32000)
    size = 4 * SIZE  # the delay is a part of it
    frames = size // form.frame_bytes
    opened = [
        link.open_stream("loop", way, form, period_frames=frames // 4, buffer_frames=frames)
        for way in ("playback", "capture")
    ]
    out, back = opened
    for seed in range(3):
        given = noise(seed, size)
        try:
            out.write(given, SOON_S)
            out.start(back)
            taken = np.frombuffer(back.read(frames, SOON_S), np.uint8)
            delay = back.position().delay_bytes
            for each in opened:
                each.stop()
                each.prepare()
        except (sbe.Timeout, sbe.StreamError, sbe.ProtocolError) as error:
            raise AssertionError(f"one end does not see the other's position: {error}") from error
        assert 0 < delay < size // 2
        assert not taken[:delay].any()
        assert np.array_equal(taken[delay:], given[: size - delay])
    for each in opened:
        each.close()


EXCHANGES: dict[str, Callable[[sbe.Connection], None]] = {
    exchange.__name__: exchange
    for exchange in (
        given,
        taken,
        taken_in_part,
        given_and_taken,
        kept,
        in_a_batch,
        failed,
        failed_in_a_batch,
        given_up,
        given_up_in_pieces,
        broken_off_kept,
        broken_off_in_pieces,
        sent,
        lent,
        beside_others,
        streamed,
    )
}


def main(programs: Path, remote: Path, line: int) -> None:
    """All of them, each over a link of its own."""
    seed = int(os.environ.get("SBE_CACHE_SEED", "1"))
    with cached_remotes(programs, line, seed, program=remote) as make:
        for exchange in EXCHANGES.values():
            with sbe.connect(make()) as link:
                exchange(link)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
