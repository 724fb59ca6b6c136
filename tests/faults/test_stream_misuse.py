"""Streams in the hands of applications with threads, handlers of signals and blocks to mix up."""

from __future__ import annotations

import os
import signal
import struct
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import sbe
from sbe.sdk.stream_queue import BlockDone, QueuedBlock
from sbe.testing.conformance.test_stream_queue import BYTES, FRAMES, areas_of, is_wave
from sbe.testing.conformance.test_streams import STEREO, frames_of, until, wave
from tests.faults.test_remote_dies import LIMIT_S

FAST = sbe.StreamFormat("int16", 2, 192_000)


@pytest.fixture
def link() -> Iterator[sbe.Connection]:
    with sbe.connect("loopback:") as link:
        yield link


def test_a_read_that_is_not_in_time_loses_nothing(link: sbe.Connection) -> None:
    """What had come is read next, and is gone with its run."""
    with link.open_stream("tone", "capture", STEREO, buffer_frames=48_000) as stream:
        stream.start()
        until(lambda: stream.available() >= 960)
        stream.pause()
        there = stream.available()
        for _ in range(2):
            with pytest.raises(sbe.Timeout):
                stream.read(there + 100, timeout=0.01)
        first = stream.read(10)
        stream.resume()
        taken = frames_of(first + stream.read(there + 480))
        assert np.array_equal(taken[:, 0], wave(0, there + 490))
        stream.pause()
        with pytest.raises(sbe.Timeout):
            stream.read(48_000, timeout=0.01)
        stream.stop()
        with pytest.raises(sbe.StreamError):
            stream.read(48_000)
        stream.prepare()
        assert np.array_equal(frames_of(stream.read(480))[:, 0], wave(0, 480))


def test_a_block_of_another_stream_or_run_moves_nothing(link: sbe.Connection) -> None:
    with (
        link.open_stream("tone", "capture", STEREO, buffer_frames=48_000) as stream,
        link.open_stream("tone", "capture", STEREO, buffer_frames=48_000) as other,
    ):
        block = stream.next()
        with pytest.raises(sbe.BadArgument, match="a block of stream 'tone': give it to that"):
            other.give(block)
        assert np.array_equal(frames_of(other.read(480))[:, 0], wave(0, 480))
        stream.stop()
        stream.prepare()
        assert not stream.give(block)
        assert np.array_equal(frames_of(stream.read(480))[:, 0], wave(0, 480))
        block = stream.next()
        assert stream.give(block)
        assert not stream.give(block)


def test_blocks_that_many_threads_queue(link: sbe.Connection) -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    answers: list[BlockDone] = []
    failed: list[BaseException] = []
    with link.open_queue("tone", "capture", FAST, block_frames=96, on_xrun="go on") as stream:

        def work() -> None:
            area = link.allocate(96 * FAST.frame_bytes)
            try:
                for _ in range(150):
                    answers.append(stream.queue(area).result(LIMIT_S))
            except sbe.Error as error:
                failed.append(error)

        threads = [threading.Thread(target=work) for _ in range(min(4, stream.blocks))]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(LIMIT_S)
        finally:
            sys.setswitchinterval(interval)
        assert failed == []
        assert sorted(each.sequence for each in answers) == list(range(1, 150 * len(threads) + 1))
        assert not any(each.error for each in answers)


class Interrupted:
    """A channel, during whose submit() a signal comes."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def submit(self, *given: Any) -> Any:
        call = self._channel.submit(*given)
        signal.raise_signal(signal.SIGUSR1)
        return call


def test_a_handler_of_a_signal_queues_in_the_middle_of_it(link: sbe.Connection) -> None:
    areas = areas_of(link, 2)
    with link.open_queue("tone", "capture", STEREO, block_frames=FRAMES) as stream:
        channel: Any = stream._channel
        stream._channel = Interrupted(channel)  # type: ignore[assignment]
        second: list[QueuedBlock] = []

        def handle(*_: object) -> None:
            stream._channel = channel
            second.append(stream.queue(areas[1]))

        before = signal.signal(signal.SIGUSR1, handle)
        try:
            blocks = [stream.queue(areas[0]), *second]
        finally:
            signal.signal(signal.SIGUSR1, before)
        for number, (area, block) in enumerate(zip(areas, blocks, strict=True)):
            assert block.result(LIMIT_S)[:3] == (number + 1, number * BYTES, BYTES)
            assert is_wave(area, number * FRAMES)


def started_by_another_thread(stream: sbe.Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is, each time between the look at its state and the start."""
    start = stream.start

    def second() -> None:
        start()
        start()  # as the thread that was late does

    monkeypatch.setattr(stream, "start", second)


def test_two_threads_start_a_stream_by_what_they_wait_for(
    link: sbe.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    (area,) = areas_of(link, 1)
    with link.open_stream("tone", "capture", STEREO, buffer_frames=48_000) as stream:
        started_by_another_thread(stream, monkeypatch)
        assert np.array_equal(frames_of(stream.read(480))[:, 0], wave(0, 480))
    with link.open_queue("tone", "capture", STEREO, block_frames=FRAMES) as queue:
        started_by_another_thread(queue, monkeypatch)
        assert queue.queue(area).result(LIMIT_S)[:3] == (1, 0, BYTES)


def test_a_child_leaves_its_parents_byte_stream_alone(link: sbe.Connection) -> None:
    with link.open_asg("total", 1 << 16, timeout=LIMIT_S) as stream:
        stream.write(struct.pack("<I", 6) + b"abc")
        pid = os.fork()
        if pid == 0:
            refused = 0
            for ask in (lambda: stream.write(b"zzz"), stream.flush, lambda: stream.alloc(3)):
                try:
                    ask()
                except sbe.LinkError:
                    refused += 1
            stream.close()
            os._exit(3 - refused)
        assert os.waitpid(pid, 0) == (pid, 0)
        assert b"zzz" not in bytes(stream._area)
        stream.write(b"def")
        assert stream.read(1 << 60) == struct.pack("<I", sum(b"abcdef"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"size": 0}, "size: 0 is not between 1 and"),
        ({"size": 1 << 40}, "size: 1099511627776 is not between 1 and"),
        ({"size": "1"}, "size: '1' is not between 1 and"),
        ({"size": 100}, "step: 4096 is not between 1 and 100"),
        ({"step": 0}, "step: 0 is not between 1 and"),
        ({"step": 3}, "a step is a power of two"),
    ],
)
def test_a_byte_stream_that_can_not_be(
    link: sbe.Connection, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(sbe.BadArgument, match=words):
        link.open_asg("total", **given)
    link.call("echo")
    listed = link.list()
    assert (len(listed["channels"]), listed["areas"]) == (1, [])


def test_numbers_of_numpy(link: sbe.Connection) -> None:
    form = sbe.StreamFormat("int16", np.int8(2), np.int32(48_000))  # type: ignore[arg-type]
    with link.open_stream(
        "tone",
        "capture",
        form,
        period_frames=np.int64(480),  # type: ignore[arg-type]
        buffer_frames=np.uint32(4800),  # type: ignore[arg-type]
    ) as stream:
        assert (stream.period_frames, stream.buffer_frames) == (480, 4800)
        assert len(stream.read(np.int64(480))) == 1920  # type: ignore[arg-type]
        for wrong in (-1, 2.0, "3", 1 << 64):
            with pytest.raises(sbe.BadArgument, match=r"frames: .* is not between 0 and"):
                stream.read(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="not with 'other'"):
            stream.start("other")  # type: ignore[arg-type]
