"""Streams of blocks from several areas: their order, what is measured of each, how they come back.

As in `test_streams`, nothing here needs a fast machine.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import numpy as np
import pytest

import sbe
from sbe.testing.conformance.parts import LIMIT_S, in_a_loop, needs
from sbe.testing.conformance.test_streams import STEREO, frames_of, in_xrun, noise, until, wave

FRAMES = 512  # whole cache lines
BYTES = FRAMES * STEREO.frame_bytes
SLOW = sbe.StreamFormat("int16", 2, 1000)
LONG = 60_000  # frames: of SLOW, a minute; no test gets to the end of such a block


def areas_of(link: sbe.Connection, count: int = 3) -> list[sbe.Area]:
    return [link.allocate(BYTES) for _ in range(count)]


def is_wave(memory: Any, first: int) -> bool:
    taken = frames_of(bytes(memory))
    return np.array_equal(taken[:, 0], wave(first, len(taken)))


def has_moved(stream: sbe.StreamQueue, size: int) -> bool:
    return stream.position().position_bytes >= size


# -- blocks ------------------------------------------------------------------------------------


@needs("tone")
def test_blocks_of_several_areas_are_filled_in_order(link: sbe.Connection) -> None:
    areas = areas_of(link)
    with link.open_queue("tone", "capture", STEREO, block_frames=FRAMES, blocks=3) as stream:
        assert (stream.state, stream.block_frames, stream.blocks) == ("prepared", FRAMES, 3)
        blocks = [stream.queue(area) for area in areas]
        clock = 0
        for number, (area, block) in enumerate(zip(areas, blocks, strict=True)):
            done = block.result(LIMIT_S)
            assert block.done()
            assert done.sequence == number + 1
            assert done.position_bytes == number * BYTES
            assert (done.used_bytes, done.error) == (BYTES, False)
            assert done.clock_ns >= clock
            clock = done.clock_ns
            assert is_wave(area, number * FRAMES)
            assert block.result(0) == done


@needs("tone")
def test_a_block_is_any_piece_of_an_area(link: sbe.Connection) -> None:
    area = link.allocate(3 * 4096)
    view = np.frombuffer(area, np.int16)
    with link.open_queue("tone", "capture", STEREO, block_frames=FRAMES, blocks=3) as stream:
        line = max(64, area.line_bytes)
        stream.queue(area[4096 : 4096 + line])
        stream.queue(view[4096 : 4096 + line // 2])
        last = stream.queue(area[line : line + BYTES])
        done = last.result(LIMIT_S)
        assert (done.sequence, done.position_bytes) == (3, 2 * line)
    assert is_wave(area[4096 : 4096 + line], 0)
    assert is_wave(view[4096 : 4096 + line // 2], line // 4)
    assert is_wave(area[line : line + BYTES], line // 2)
    assert not any(bytes(area[line + BYTES : 4096]))


@needs("loop")
def test_what_is_played_from_blocks_is_captured_in_blocks(link: sbe.Connection) -> None:
    frames = 2048  # three are more than the delay
    given = noise(3 * frames)
    areas = [link.allocate(frames * 4) for _ in range(6)]
    for area, piece in zip(areas[:3], np.split(given, 3), strict=True):
        area[:] = piece.tobytes()
    with (
        link.open_queue("loop", "playback", STEREO, block_frames=frames, blocks=3) as out,
        link.open_queue("loop", "capture", STEREO, block_frames=frames, blocks=3) as back,
    ):
        blocks = [out.queue(area) for area in areas[:3]] + [back.queue(area) for area in areas[3:]]
        out.start(back)
        for block in blocks:
            assert not block.result(LIMIT_S).error
        delay = back.position().delay_bytes // STEREO.frame_bytes
        assert 0 < delay < 3 * frames
        taken = frames_of(b"".join(bytes(area) for area in areas[3:]))
        assert not taken[:delay].any()
        assert np.array_equal(taken[delay:], given[: 3 * frames - delay])


@needs("tone")
def test_blocks_go_round(link: sbe.Connection) -> None:
    """Each is queued again when it has ended; the position says what was lost, if this is slow."""
    areas = areas_of(link)
    with link.open_queue(
        "tone", "capture", STEREO, block_frames=FRAMES, blocks=3, on_xrun="go on"
    ) as stream:
        blocks = [stream.queue(area) for area in areas]
        end = 0
        for number in range(12):
            done = blocks[number % 3].result(LIMIT_S)
            assert done.sequence == number + 1
            assert done.position_bytes >= end
            end = done.position_bytes + BYTES
            assert is_wave(areas[number % 3], done.position_bytes // 4)
            blocks[number % 3] = stream.queue(areas[number % 3])


@needs("tone")
@in_a_loop
async def test_blocks_are_awaited(link: sbe.Connection) -> None:
    areas = areas_of(link)
    async with link.open_queue("tone", "capture", STEREO, block_frames=FRAMES, blocks=3) as stream:
        done = await asyncio.gather(*(stream.queue(area) for area in areas))
        assert [each.sequence for each in done] == [1, 2, 3]
        assert all(is_wave(area, number * FRAMES) for number, area in enumerate(areas))


# -- states ------------------------------------------------------------------------------------


@needs("meter")
@pytest.mark.parametrize("state", ["setup", "prepared", "running", "paused", "draining", "xrun"])
def test_states_in_which_blocks_are_queued(link: sbe.Connection, state: str) -> None:
    first = link.allocate(LONG * 4)
    (second,) = areas_of(link, 1)
    with link.open_queue("meter", "playback", SLOW, block_frames=LONG, blocks=3) as stream:
        if state == "setup":
            stream.stop()
        elif state != "prepared":
            held = stream.queue(first if state != "xrun" else first[:40])
            stream.start()
        if state == "paused":
            stream.pause()
        elif state == "draining":
            from sbe.sdk.stream_wire import Op

            stream._ask(Op.DRAIN)
        elif state == "xrun":
            until(in_xrun(stream))
            assert not held.result(0).error
        block = stream.queue(second)
        if state in ("prepared", "running", "paused"):
            stream.stop()
            assert block.result(LIMIT_S).error
        else:
            with pytest.raises(sbe.StreamError, match=f"queue: stream 'meter' is {state}") as what:
                block.result(LIMIT_S)
            assert what.value.state == state


@needs("meter")
def test_a_stop_brings_blocks_back(link: sbe.Connection) -> None:
    areas = [link.allocate(LONG * 4), *areas_of(link, 2)]
    with link.open_queue("meter", "playback", SLOW, block_frames=LONG, blocks=3) as stream:
        blocks = [stream.queue(area) for area in areas]
        stream.start()
        until(lambda: stream.clock().position_bytes > 0)
        stream.stop()
        done = [block.result(LIMIT_S) for block in blocks]
        assert [each.sequence for each in done] == [1, 2, 3]
        assert all(each.error for each in done)
        assert 0 < done[0].used_bytes < LONG * 4
        assert [each.used_bytes for each in done[1:]] == [0, 0]
        assert done[1].position_bytes == done[0].used_bytes
        assert stream.position().position_bytes == done[0].used_bytes
        stream.prepare()
        again = stream.queue(areas[0])  # the memory is ours, and the run another
        stream.prepare()
        assert again.result(LIMIT_S).error
        short = stream.queue(areas[1][:40])
        assert short.result(LIMIT_S)[:3] == (1, 0, 40)


@needs("meter")
def test_a_drain_plays_all_that_is_queued(link: sbe.Connection) -> None:
    areas = areas_of(link)
    with link.open_queue("meter", "playback", STEREO, block_frames=FRAMES, blocks=3) as stream:
        blocks = [stream.queue(area) for area in areas]
        stream.drain(LIMIT_S)
        assert [block.result(0).used_bytes for block in blocks] == [BYTES] * 3
        assert stream.state == "setup"
        assert stream.position().position_bytes == 3 * BYTES


@needs("tone")
def test_one_block_is_taken_back(link: sbe.Connection) -> None:
    areas = areas_of(link)
    with link.open_queue("tone", "capture", STEREO, block_frames=FRAMES, blocks=3) as stream:
        blocks = [stream.queue(area) for area in areas]
        assert blocks[1].cancel()
        with pytest.raises(sbe.Cancelled):
            blocks[1].result(LIMIT_S)
        done = [blocks[i].result(LIMIT_S) for i in (0, 2)]
        assert [(each.sequence, each.position_bytes) for each in done] == [(1, 0), (3, BYTES)]
        assert not any(bytes(areas[1]))
        assert not blocks[0].cancel()


@needs("tone")
@in_a_loop
async def test_a_cancelled_task_takes_its_block_back(link: sbe.Connection) -> None:
    first, second = areas_of(link, 2)
    async with link.open_queue(
        "tone", "capture", STEREO, block_frames=FRAMES, on_xrun="go on"
    ) as stream:
        stream.start()
        stream.pause()
        task = asyncio.ensure_future(stream.queue(first))
        other = stream.queue(second)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        stream.resume()
        done = await other
        assert done.sequence == 2
        assert is_wave(second, done.position_bytes // 4)
        assert not any(bytes(first))


# -- late --------------------------------------------------------------------------------------


@needs("tone")
def test_an_empty_queue_is_an_xrun(link: sbe.Connection) -> None:
    (area,) = areas_of(link, 1)
    with link.open_queue("tone", "capture", STEREO, block_frames=FRAMES, blocks=2) as stream:
        block = stream.queue(area)
        stream.start()
        until(in_xrun(stream))
        assert block.result(0)[:3] == (1, 0, BYTES)
        status = stream.position()
        assert (status.xruns, status.position_bytes) == (1, BYTES)
        assert status.lost_bytes > 0
        stream.prepare()
        assert stream.queue(area).result(LIMIT_S)[:3] == (1, 0, BYTES)
        assert is_wave(area, 0)


@needs("tone", "meter")
def test_an_empty_queue_that_goes_on(link: sbe.Connection) -> None:
    (area,) = areas_of(link, 1)
    for service, direction in (("tone", "capture"), ("meter", "playback")):
        with link.open_queue(
            service, direction, STEREO, block_frames=FRAMES, blocks=2, on_xrun="go on"
        ) as stream:
            stream.start()
            until(functools.partial(has_moved, stream, 2 * BYTES))
            done = stream.queue(area).result(LIMIT_S)
            assert done.sequence == 1
            assert done.position_bytes >= 2 * BYTES
            status = stream.position()
            assert status.state == "running"
            assert status.lost_bytes >= done.position_bytes
            if direction == "capture":
                assert is_wave(area, done.position_bytes // 4)


# -- bounds ------------------------------------------------------------------------------------


@needs("tone")
def test_what_can_not_be_queued(link: sbe.Connection) -> None:
    area = link.allocate(2 * BYTES)
    with link.open_queue("tone", "capture", STEREO, block_frames=FRAMES, blocks=2) as stream:
        for wrong, words in (
            (area, "more than a block has"),
            (area[:6], "no whole frames"),
            (area[:0], "no whole frames"),
        ):
            with pytest.raises(sbe.BadArgument, match=words):
                stream.queue(wrong)
        with pytest.raises(sbe.BadArgument, match="lies in an area"):
            stream.queue(np.zeros(4, np.uint8))  # would go inline, as a call's
        assert stream.available() == 2 * FRAMES
        stream.queue(area[:BYTES])
        stream.queue(area[BYTES:])
        assert stream.available() == 0
        with pytest.raises(sbe.WouldBlock, match="2 blocks are queued"):
            stream.queue(area[:BYTES])
        for ask in (stream.next, lambda: stream.read(1)):
            with pytest.raises(sbe.BadArgument, match="takes blocks"):
                ask()
    with pytest.raises(sbe.LinkClosed):
        stream.queue(area[:BYTES])


@needs("tone")
def test_the_remote_has_a_bound_of_blocks(link: sbe.Connection) -> None:
    with link.open_queue("tone", "capture", STEREO, block_frames=1, blocks=16) as stream:
        assert stream.block_frames >= STEREO.rate_hz // 2000
        assert 2 <= stream.blocks <= 16
        areas = [link.allocate(4) for _ in range(stream.blocks)]
        blocks = [stream.queue(area) for area in areas]
        done = [block.result(LIMIT_S) for block in blocks]
        assert [each.sequence for each in done] == list(range(1, stream.blocks + 1))
        assert is_wave(b"".join(bytes(area) for area in areas), 0)


@needs("tone")
def test_a_closed_stream_gives_its_memory_back(link: sbe.Connection) -> None:
    before = len(link.list()["areas"])
    for _ in range(5):
        areas = areas_of(link, 2)
        with link.open_queue(
            "tone", "capture", STEREO, block_frames=FRAMES, on_xrun="go on"
        ) as stream:
            stream.start()
            stream.pause()
            blocks = [stream.queue(area) for area in areas]
        for block in blocks:
            with pytest.raises(sbe.LinkClosed):  # stop() would have brought them back
                block.result(0)
        for area in areas:
            area.free()
    until(lambda: len(link.list()["areas"]) == before)
