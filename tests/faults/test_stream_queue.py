"""Streams of blocks whose other end dies, stops or lies."""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable
from typing import Any

import pytest

import sbe
from sbe import _native
from sbe.sdk.records import Record
from sbe.sdk.stream_queue import QueuedBlock
from sbe.testing.conformance.parts import answered
from sbe.testing.conformance.test_stream_queue import BYTES, FRAMES, areas_of, has_moved, is_wave
from sbe.testing.conformance.test_streams import STEREO, until
from tests.conformance.ends import Connector
from tests.faults.test_remote_dies import LIMIT_S, SOON_S, Process, process, victim

__all__ = ["process", "victim"]


# -- the remote dies --------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["prepared", "running", "paused"])
def test_the_remote_dies_with_blocks(victim: sbe.Connection, process: Process, state: str) -> None:
    stream = victim.open_queue("tone", "capture", STEREO, block_frames=FRAMES, on_xrun="go on")
    areas = areas_of(victim)
    if state != "prepared":
        stream.start()
    if state == "paused":
        stream.pause()
    process.freeze()  # so that none is filled before it dies
    blocks = [stream.queue(area) for area in areas]
    process.kill()
    for block in blocks:
        with pytest.raises(sbe.RemoteRestarted, match=r"stream 'tone' had moved \d+ bytes"):
            block.result(LIMIT_S)
    with pytest.raises(sbe.RemoteRestarted):
        stream.queue(areas[0])
    stream.close()
    for area in areas:
        area.free()
    (area,) = areas_of(victim, 1)
    with victim.open_queue("tone", "capture", STEREO, block_frames=FRAMES) as again:
        assert again.queue(area).result(LIMIT_S)[:3] == (1, 0, BYTES)
    assert is_wave(area, 0)
    answered(victim)
    area.free()
    until(lambda: victim.stat()["connection"]["areas"] == 0)


def test_a_block_is_given_up_while_the_remote_is_frozen(
    victim: sbe.Connection, process: Process
) -> None:
    """Its memory is held until the remote has answered, and then touched by nobody."""
    first, second = areas_of(victim, 2)
    with victim.open_queue(
        "tone", "capture", STEREO, block_frames=FRAMES, on_xrun="go on"
    ) as stream:
        stream.start()
        stream.pause()
        process.freeze()
        try:
            block = stream.queue(first)
            other = stream.queue(second)
            begun = time.monotonic()
            with pytest.raises(sbe.Timeout):
                block.result(0.05)
            assert block.cancel()
            with pytest.raises(sbe.Cancelled):
                block.result(LIMIT_S)
            assert time.monotonic() - begun < SOON_S
            assert block._call.in_flight
        finally:
            process.thaw()
        stream.resume()
        done = other.result(LIMIT_S)
        assert (done.sequence, done.error) == (2, False)
        assert not block._call.in_flight
        assert not any(bytes(first))


def test_the_link_is_closed_with_blocks() -> None:
    with sbe.connect("loopback:") as link:
        areas = areas_of(link)
        stream = link.open_queue("tone", "capture", STEREO, block_frames=FRAMES, on_xrun="go on")
        stream.start()
        stream.pause()
        blocks = [stream.queue(area) for area in areas]
    for block in blocks:
        with pytest.raises(sbe.LinkClosed):
            block.result(LIMIT_S)


def test_blocks_that_nobody_keeps_stay_queued() -> None:
    with sbe.connect("loopback:") as link:
        areas = areas_of(link)
        with link.open_queue("tone", "capture", STEREO, block_frames=FRAMES, blocks=3) as stream:
            for area in areas:
                stream.queue(area)
            stream.start()
            until(lambda: has_moved(stream, 3 * BYTES))
        assert all(is_wave(area, number * FRAMES) for number, area in enumerate(areas))


def test_a_stream_that_is_dropped_with_blocks() -> None:
    with sbe.connect("loopback:") as link:
        areas = areas_of(link)
        stream = link.open_queue("tone", "capture", STEREO, block_frames=FRAMES, on_xrun="go on")
        stream.start()
        stream.pause()
        block = stream.queue(areas[0])
        stream.queue(areas[1])
        del stream  # whoever holds a block holds it
        assert not block.done()
        del block
        until(lambda: len(link.list()["channels"]) == 1)
        assert len(link.list()["areas"]) == len(areas)


def test_an_application_that_dies_with_blocks(connect: Connector) -> None:
    """Another's blocks are filled meanwhile, without a byte lost between them."""
    link = connect()
    if "tone" not in connect.services:
        pytest.skip("the remote has no service tone")
    areas = areas_of(link)
    with link.open_queue("tone", "capture", STEREO, block_frames=FRAMES, blocks=3) as stream:
        blocks = [stream.queue(area) for area in areas]
        doomed = connect()
        theirs = doomed.open_queue("tone", "capture", STEREO, block_frames=FRAMES, blocks=3)
        held = [theirs.queue(area) for area in areas_of(doomed)]
        theirs.start()
        stream.start()
        doomed.close()
        for number, (area, block) in enumerate(zip(areas, blocks, strict=True)):
            assert block.result(LIMIT_S)[:3] == (number + 1, number * BYTES, BYTES)
            assert is_wave(area, number * FRAMES)
        for gone in held:
            with contextlib.suppress(sbe.LinkClosed):  # which it may have been filled before
                assert gone.result(LIMIT_S).sequence <= 3


# -- a remote that lies -----------------------------------------------------------------------

REQUEST = Record("sbe_stream_request")
ANSWER = Record("sbe_stream_answer")
PROPOSAL = Record("sbe_stream_proposal")
BLOCK_ANSWER = Record("sbe_stream_block_answer")


class Liar:
    """A stream whose blocks are answered at once, with what the test says."""

    def __init__(self) -> None:
        self.lie: Callable[[dict[str, Any]], bytes] = lambda truth: BLOCK_ANSWER.pack(**truth)
        self._generation = 0
        self._queued = 0

    def handle(self, payload: bytes, *buffers: memoryview) -> bytes:
        asked = REQUEST.unpack(payload[: REQUEST.size], "a request")
        if asked["op"] == _native.STREAM_NEGOTIATE:
            return PROPOSAL.pack(settings=payload[REQUEST.size :])
        if asked["op"] == _native.STREAM_PREPARE:
            self._generation, self._queued = asked["generation"], 0
        if asked["op"] != _native.STREAM_QUEUE_BLOCK:
            return ANSWER.pack(stream=asked["stream"])
        self._queued += 1
        return self.lie(
            {
                "stream": asked["stream"],
                "generation": self._generation,
                "sequence": self._queued,
                "position": (self._queued - 1) * BYTES,
                "used_bytes": BYTES,
                "state": _native.STREAM_RUNNING,
            }
        )


LIES: dict[str, dict[str, int]] = {
    "more than the block": {"used_bytes": BYTES + 4},
    "the last number": {"used_bytes": 0xFFFFFFFC},
    "less than all": {"used_bytes": BYTES - 4},
    "all, and yet returned": {"result": (1 << 32) - errno.ECANCELED},
    "no whole frame": {"used_bytes": 6, "result": (1 << 32) - errno.ECANCELED},
    "another block": {"sequence": 2},
    "no block": {"sequence": 0},
    "another run": {"generation": 99},
    "another stream": {"stream": 99},
    "no state": {"state": 99},
}


@pytest.mark.parametrize("lie", [*LIES, "too short"])
def test_answers_that_can_not_be(lie: str) -> None:
    liar = Liar()
    with sbe.testing.Remote({"liar": liar.handle}) as remote, remote.link() as link:
        (area,) = areas_of(link, 1)
        stream = link.open_queue("liar", "capture", STEREO, block_frames=FRAMES)
        assert stream.queue(area).result(LIMIT_S) == (1, 0, BYTES, 0, False)  # the truth
        stream.prepare()
        liar.lie = lambda truth: (
            b"short" if lie == "too short" else BLOCK_ANSWER.pack(**(truth | LIES[lie]))
        )
        block: QueuedBlock = stream.queue(area)
        with pytest.raises(sbe.ProtocolError, match="block"):
            block.result(LIMIT_S)
        with pytest.raises(sbe.ProtocolError):  # the stream alone is given up
            stream.queue(area)
        stream.close()
        assert link.find("liar").name == "liar"


def test_what_the_remote_refuses() -> None:
    """Not a lie: its own words come with the block."""
    liar = Liar()
    with sbe.testing.Remote({"liar": liar.handle}) as remote, remote.link() as link:
        (area,) = areas_of(link, 1)
        with link.open_queue("liar", "capture", STEREO, block_frames=FRAMES) as stream:
            liar.lie = lambda truth: BLOCK_ANSWER.pack(
                **(truth | {"result": (1 << 32) - errno.EIO, "used_bytes": 0})
            )
            with pytest.raises(sbe.RemoteError, match=r"queue: stream 'liar' answered: .*EIO"):
                stream.queue(area).result(LIMIT_S)
            liar.lie = lambda truth: BLOCK_ANSWER.pack(**truth)
            assert stream.queue(area).result(LIMIT_S).sequence == 2
