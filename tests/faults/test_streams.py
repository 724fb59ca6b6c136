"""Streams whose other end dies, stops, lies or is not listened to."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import struct
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import numpy as np
import pytest

import sbe
from sbe import _native
from sbe.sdk.records import Record
from sbe.testing.conformance.parts import answered
from sbe.testing.conformance.test_streams import STEREO, bring_to, frames_of, noise, until, wave
from tests.conformance.ends import Connector
from tests.faults.test_remote_dies import LIMIT_S, SOON_S, Process, process, victim

__all__ = ["process", "victim"]

_STATUS = Record("sbe_stream_status")


@pytest.fixture
def loopback() -> Iterator[sbe.Connection]:
    with sbe.connect("loopback:") as link:
        yield link


# -- the remote dies --------------------------------------------------------------------------


def leave_in(stream: sbe.Stream, state: str, link: sbe.Connection) -> None:
    bring_to(stream, "running" if state == "suspended" else state)
    if state == "suspended":
        link.suspend()


@pytest.mark.parametrize("state", ["setup", "prepared", "running", "paused", "xrun", "suspended"])
def test_the_remote_dies(victim: sbe.Connection, process: Process, state: str) -> None:
    stream = victim.open_stream(
        "tone",
        "capture",
        STEREO,
        period_frames=480,
        buffer_frames=96_000 if state == "suspended" else 960,
        on_suspend="pause",
    )
    leave_in(stream, state, victim)
    moved = stream.position().position_bytes
    process.kill()
    until(lambda: _fails(lambda: stream.read(1000, timeout=LIMIT_S)))
    with pytest.raises(sbe.RemoteRestarted, match=r"stream 'tone' had moved \d+ bytes"):
        stream.read(1000, timeout=LIMIT_S)
    with pytest.raises(sbe.RemoteRestarted):
        stream.pause()
    told = stream.position().position_bytes
    assert told >= moved  # what is known of it stays
    with pytest.raises(sbe.RemoteRestarted, match=rf"had moved {told} bytes"):
        stream.prepare()  # of the run that was lost, not of the one that never begins
    assert stream.state == "disconnected"
    assert stream.closed
    stream.close()
    with victim.open_stream("tone", "capture", STEREO) as again:  # in the next life
        assert np.array_equal(frames_of(again.read(480))[:, 0], wave(0, 480))
    answered(victim)
    assert victim.stat()["connection"]["areas"] == 0


def test_the_remote_dies_while_it_drains(victim: sbe.Connection, process: Process) -> None:
    slow = sbe.StreamFormat("int16", 2, 1000)
    stream = victim.open_stream("meter", "playback", slow, period_frames=10, buffer_frames=60_000)
    stream.write(noise(59_990))
    with pytest.raises(sbe.Timeout):
        stream.drain(0.1)
    assert stream.state == "draining"
    process.kill()
    with pytest.raises(sbe.RemoteRestarted, match=r"stream 'meter' had moved \d+ bytes"):
        stream.drain(LIMIT_S)
    assert stream.state == "disconnected"
    stream.close()
    answered(victim)


def _fails(call: Callable[[], object]) -> bool:
    """Whether it raises that the remote is gone; anything else is a failure."""
    try:
        call()
    except sbe.RemoteRestarted:
        return True
    except sbe.StreamError:
        return False
    return False


def test_the_remote_is_frozen(victim: sbe.Connection, process: Process) -> None:
    with victim.open_stream(
        "tone", "capture", STEREO, period_frames=480, buffer_frames=48000
    ) as stream:
        stream.start()
        stream.read(480)
        process.freeze()
        try:
            begun = time.monotonic()
            with pytest.raises(sbe.Timeout, match="no frames until the deadline; it is running"):
                stream.read(48000, timeout=0.5)
            assert time.monotonic() - begun < SOON_S
        finally:
            process.thaw()
        taken = frames_of(stream.read(4800))
        assert np.array_equal(taken[:, 0], wave(480, 4800))  # nothing between is missing


def test_what_goes_through_a_remote_that_is_late(victim: sbe.Connection, process: Process) -> None:
    """It plays and captures at once what was due meanwhile, which is more than it holds."""
    given = noise(15_360)
    with (
        victim.open_stream("loop", "playback", STEREO, buffer_frames=15_360) as out,
        victim.open_stream("loop", "capture", STEREO, buffer_frames=15_360) as back,
    ):
        out.write(given)
        out.start(back)
        process.freeze()
        try:
            time.sleep(0.5)  # of its time: 0.32 s are in the buffers
        finally:
            process.thaw()
        taken = frames_of(back.read(15_360))
        delay = back.position().delay_bytes // STEREO.frame_bytes
        assert not taken[:delay].any()
        assert np.array_equal(taken[delay:], given[: 15_360 - delay])


# -- nobody listens ---------------------------------------------------------------------------


def test_nobody_takes_events(loopback: sbe.Connection) -> None:
    """Thousands of them: the ring stays what it is, and so does what the application keeps."""
    with loopback.open_stream(
        "tone", "capture", STEREO, period_frames=24, on_xrun="go on", buffer_frames=960
    ) as stream:
        stream.start()
        until(lambda: stream.position().position_bytes >= 24 * 4 * 1000)
        status = stream.position()
        assert status.skipped > 500
        assert status.state == "running"
        stream.pause()
        taken = frames_of(stream.read(960))
        first = stream.position().position_bytes // 4 - 960
        assert np.array_equal(taken[:, 0], wave(first, 960))
        while stream.event(0) is not None:
            pass


def test_the_reader_stops_for_five_seconds(loopback: sbe.Connection) -> None:
    """One stream stops, one goes on, and another application's keeps its pace."""

    def opened(link: sbe.Connection, on_xrun: str) -> sbe.Stream:
        return link.open_stream(
            "tone", "capture", STEREO, period_frames=480, buffer_frames=9600, on_xrun=on_xrun
        )

    with (
        sbe.connect("loopback:") as other,
        opened(loopback, "stop") as stops,
        opened(loopback, "go on") as goes_on,
        opened(other, "go on") as paced,
    ):
        stops.start(goes_on)
        begun, taken = time.monotonic(), b""
        while time.monotonic() < begun + 5:
            taken += paced.read(480)
        assert stops.state == "xrun"
        assert np.array_equal(frames_of(stops.read(9600))[:, 0], wave(0, 9600))
        goes_on.pause()
        status, lost = goes_on.position(), goes_on.stat()["lost_bytes"]
        assert (status.xruns, lost) == (1, status.position_bytes - 9600 * 4)
        assert lost > 4 * STEREO.rate_hz * 3
        first = lost // 4
        assert np.array_equal(frames_of(goes_on.read(9600))[:, 0], wave(first, 9600))
        if paced.stat()["xruns"] == 0:  # however busy the machine was, nobody's fault is
            assert np.array_equal(frames_of(taken)[:, 0], wave(0, len(taken) // 4))


def test_events_that_nobody_asks_for_are_bounded(loopback: sbe.Connection) -> None:
    with loopback.open_stream(
        "tone", "capture", STEREO, period_frames=24, buffer_frames=96_000
    ) as stream:
        stream.read(48_000)
        assert stream.stat()["events"] > 256
        stream.stop()
        kept = 0
        while stream.event(0) is not None:
            kept += 1
        assert kept <= 256 + 32  # and what the ring still held


def test_a_block_that_was_overwritten_is_not_read(loopback: sbe.Connection) -> None:
    with loopback.open_stream(
        "tone", "capture", STEREO, period_frames=480, buffer_frames=960, on_xrun="go on"
    ) as stream:
        block = stream.next()
        until(lambda: stream.position().application_bytes > block.size_bytes)
        assert not stream.give(block)
        taken = stream.read(480)
        stream.pause()
        taken += stream.read(stream.available())
        status, lost = stream.position(), stream.stat()["lost_bytes"]
        assert len(taken) + lost == status.position_bytes  # each byte was read or is lost
        last = status.position_bytes // 4
        assert np.array_equal(frames_of(taken)[-480:, 0], wave(last - 480, 480))


# -- what is counted --------------------------------------------------------------------------


def test_wake_ups_are_timed(loopback: sbe.Connection) -> None:
    """The remote is a process here: its stamps are times of ours, as a look at both clocks says."""
    with loopback.open_stream("tone", "capture", STEREO, on_xrun="go on") as stream:
        assert stream.stat()["wakeup_ns"] == {}
        begun = time.monotonic_ns()
        until(lambda: bool(stream.read(480) and stream.stat()["wakeup_ns"]))
        stat, took = stream.stat(), time.monotonic_ns() - begun
        histogram = stat["wakeup_ns"]
        assert histogram
        assert 0 < sum(histogram.values()) <= stat["wakeups"] <= stat["events"]
        assert all(bound & (bound - 1) == 0 and bound < 2 * took for bound in histogram)
        stream.stop()
        while stream.event(0) is not None:
            pass
        assert stream.stat()["wakeups"] == stat["wakeups"]  # nobody waited
        assert stream.stat()["events"] > stat["events"]


def test_wake_ups_of_a_loop_are_timed(loopback: sbe.Connection) -> None:
    async def listen(stream: sbe.Stream) -> None:
        async for block in stream:
            stream.give(block)
            if stream.stat()["wakeup_ns"]:
                return

    with loopback.open_stream("tone", "capture", STEREO, on_xrun="go on") as stream:
        asyncio.run(listen(stream))
        stat = stream.stat()
        assert stat["wakeup_ns"]
        assert 0 < sum(stat["wakeup_ns"].values()) <= stat["wakeups"] <= stat["events"]


@pytest.mark.parametrize("ahead_s", [-3600.0, 3600.0])
def test_clocks_that_differ_time_nothing(
    loopback: sbe.Connection, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    """This end's clock is moved: what would be a difference of two clocks is not told."""
    real = time.monotonic_ns
    with loopback.open_stream("tone", "capture", STEREO, on_xrun="go on") as stream:
        monkeypatch.setattr(time, "monotonic_ns", lambda: real() + int(ahead_s * 1e9))
        stream.clock()
        until(lambda: bool(stream.read(480) and stream.stat()["wakeups"]))
        assert stream.stat()["wakeup_ns"] is None
        monkeypatch.undo()
        stream.clock()
        assert stream.stat()["wakeup_ns"] == {}


# -- the link, a thread, the application ------------------------------------------------------


def test_the_link_is_closed_under_it(loopback: sbe.Connection) -> None:
    stream = loopback.open_stream("tone", "capture", STEREO, buffer_frames=96_000)
    failed: list[BaseException] = []

    def read() -> None:
        try:
            stream.read(96_001, timeout=LIMIT_S)
        except sbe.Error as error:
            failed.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    until(lambda: stream.position().position_bytes > 0)
    loopback.close()
    thread.join(LIMIT_S)
    assert not thread.is_alive()
    assert [type(error) for error in failed] == [sbe.LinkClosed]
    stream.close()


def test_closed_by_another_thread(loopback: sbe.Connection) -> None:
    stream = loopback.open_stream("tone", "capture", STEREO, buffer_frames=96_000)
    closer = threading.Timer(0.1, stream.close)
    closer.start()
    with pytest.raises(sbe.LinkClosed):
        stream.read(96_001, timeout=LIMIT_S)
    closer.join()


def test_dropped_without_a_close(loopback: sbe.Connection) -> None:
    for _ in range(3):
        loopback.open_stream("tone", "capture", STEREO).start()
    until(lambda: len(loopback.list()["channels"]) == 1)
    assert loopback.list()["areas"] == []


def held(link: sbe.Connection) -> tuple[int, int]:
    listed = link.list()
    return len(listed["channels"]), len(listed["areas"])


def test_dropped_in_the_middle_of_an_operation(loopback: sbe.Connection) -> None:
    """By the collector, in a thread that has asked for something else and has no answer yet."""
    before = held(loopback)
    backend = loopback._core.backend
    asked = backend.allocate

    def collected_meanwhile(*given: Any) -> Any:
        granted = asked(*given)
        gc.collect()
        return granted

    stream = loopback.open_stream("tone", "capture", STEREO)
    stream.start()
    stream.itself = stream  # type: ignore[attr-defined]
    dead = weakref.ref(stream)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "allocate", collected_meanwhile)
        gc.disable()
        try:
            del stream
            area = loopback.allocate(4096)
        finally:
            gc.enable()
    assert dead() is None
    area.free()
    until(lambda: held(loopback) == before)


def test_dropped_while_the_remote_is_frozen(victim: sbe.Connection, process: Process) -> None:
    """The collector waits for nobody."""
    stream = victim.open_stream("tone", "capture", STEREO)
    stream.start()
    process.freeze()
    begun = time.monotonic()
    del stream
    assert time.monotonic() - begun < SOON_S
    process.thaw()
    until(lambda: len(victim.list()["channels"]) == 1)


class _Interrupted(Exception):
    pass


def _interrupt(*_: object) -> None:
    raise _Interrupted


# What a handler raises in a finaliser goes nowhere: Python says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupted_anywhere_while_it_is_opened(loopback: sbe.Connection) -> None:
    """A handler of a signal raises, at each call of ours in turn: nothing stays behind."""
    loopback.find("tone")
    before = held(loopback)
    calls, chosen = 0, -1

    def profile(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        if frame.f_code.co_filename.startswith(os.path.dirname(sbe.__file__)):
            calls += 1
            if calls == chosen:
                signal.raise_signal(signal.SIGUSR1)

    def opened() -> bool:
        nonlocal calls
        calls = 0
        sys.setprofile(profile)
        try:
            loopback.open_stream("tone", "capture", STEREO, buffer_frames=960).close()
        except _Interrupted:
            return False
        finally:
            sys.setprofile(None)
        return True

    usual = signal.signal(signal.SIGUSR1, _interrupt)
    try:
        assert opened()
        last = calls
        outcomes = []
        for each in range(1, last, 3):
            chosen = each
            outcomes.append(opened())
    finally:
        signal.signal(signal.SIGUSR1, usual)
    assert outcomes.count(False) > len(outcomes) / 2
    answered(loopback)
    until(lambda: held(loopback) == before)


def test_a_child_leaves_its_parents_stream_alone(loopback: sbe.Connection) -> None:
    with loopback.open_stream("tone", "capture", STEREO, buffer_frames=48_000) as stream:
        block = stream.next()
        pid = os.fork()
        if pid == 0:
            refused = 0
            for use in (lambda: stream.give(block), stream.position, lambda: stream.read(1)):
                try:
                    use()
                except sbe.LinkError:
                    refused += 1
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
        stream.give(block)
        first = block.frames
        assert np.array_equal(frames_of(stream.read(480))[:, 0], wave(first, 480))


def test_its_position_is_read_while_another_thread_reads(loopback: sbe.Connection) -> None:
    """What one thread has seen is no lie of the remote's because another has seen more."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    failed: list[BaseException] = []
    ended = threading.Event()
    try:
        with loopback.open_stream(
            "tone", "capture", STEREO, period_frames=24, buffer_frames=96_000
        ) as stream:

            def look() -> None:
                try:
                    while not ended.is_set():
                        stream.position()
                except sbe.Error as error:
                    failed.append(error)

            threads = [threading.Thread(target=look) for _ in range(3)]
            for thread in threads:
                thread.start()
            try:
                taken = frames_of(b"".join(stream.read(24) for _ in range(1000)))
            finally:
                ended.set()
                for thread in threads:
                    thread.join()
            assert failed == []
            assert np.array_equal(taken[:, 0], wave(0, 24_000))
    finally:
        sys.setswitchinterval(interval)


def test_a_loop_over_blocks_is_cancelled(loopback: sbe.Connection) -> None:
    """At the moment of a doorbell as well: each cancellation ends it, and no frame is lost."""

    async def main(stream: sbe.Stream) -> int:
        taken, soon = 0, random.Random(1)

        async def take() -> None:
            nonlocal taken
            async for block in stream:
                taken += block.frames
                stream.give(block)

        for _ in range(200):
            task = asyncio.create_task(take())
            await asyncio.sleep(soon.uniform(0, 0.01))
            task.cancel()
            ended, _ = await asyncio.wait({task}, timeout=SOON_S)
            assert ended, "the cancellation was lost"
            assert task.cancelled()
        return taken

    with loopback.open_stream("tone", "capture", STEREO, buffer_frames=48_000) as stream:
        taken = asyncio.run(main(stream))
        first = frames_of(stream.read(480))
        assert np.array_equal(first[:, 0], wave(taken, 480))


def test_more_than_a_context_may_have(loopback: sbe.Connection) -> None:
    streams = [
        loopback.open_stream("tone", "capture", STEREO, buffer_frames=960) for _ in range(64)
    ]
    with pytest.raises(sbe.RemoteError, match="EBUSY"):
        loopback.open_stream("tone", "capture", STEREO, buffer_frames=960)
    streams[0].close()
    loopback.open_stream("tone", "capture", STEREO).close()
    answered(loopback)
    for stream in streams:
        stream.close()


# -- a remote that lies -----------------------------------------------------------------------


class Liar:
    """Writes where the remote does. The stream is paused: it is the only writer."""

    def __init__(self, stream: sbe.Stream) -> None:
        stream.start()
        until(lambda: stream.position().position_bytes > 0)
        stream.pause()
        self._stream = stream
        self._memory = memoryview(stream._area)
        self._stride = stream._start // _native.STREAM_BLOCK_RECORDS
        self.truth = stream.position()

    def show(self, **wrong: int) -> None:
        (newest,) = struct.unpack_from("<I", self._memory, self._stride)
        fields = {
            "generation": self.truth.generation,
            "state": _native.STREAM_RUNNING,
            "position": self.truth.position_bytes,
            "clock_ns": self.truth.clock_ns,
        }
        place = (2 + (newest + 1) % 2) * self._stride
        self._memory[place : place + _STATUS.size] = _STATUS.pack(**(fields | wrong))
        struct.pack_into("<I", self._memory, self._stride, newest + 1)


LIES = {
    "backwards": {"position": 0},
    "a leap": {"position": 1 << 40},
    "the last number": {"position": (1 << 64) - 4},
    "beyond the buffer": {"position": 4 * 96_001},
    "no whole frame": {"position": 4 * 500 + 2},
    "no state": {"state": 99},
    "an overwrite beyond it": {"application": 1 << 40},
    "an overwrite of no whole frame": {"application": 2},
}


@pytest.mark.parametrize("lie", LIES)
def test_positions_that_can_not_be(loopback: sbe.Connection, lie: str) -> None:
    with loopback.open_stream("tone", "capture", STEREO, buffer_frames=96_000) as stream:
        liar = Liar(stream)
        if lie == "no whole frame":
            liar.show(position=liar.truth.position_bytes + 2)
        else:
            liar.show(**LIES[lie])
        with pytest.raises(sbe.ProtocolError, match="stream"):
            stream.position()
        with pytest.raises(sbe.ProtocolError):
            stream.read(1)
    answered(loopback)  # the stream alone is given up
    with loopback.open_stream("tone", "capture", STEREO) as stream:
        assert len(stream.read(480)) == 480 * 4


def test_a_status_of_another_run_moves_nothing(loopback: sbe.Connection) -> None:
    with loopback.open_stream("tone", "capture", STEREO, buffer_frames=96_000) as stream:
        liar = Liar(stream)
        liar.show(generation=liar.truth.generation + 1, position=1 << 40)
        assert stream.position() == liar.truth


# -- what is wrong here -----------------------------------------------------------------------


def test_arguments(loopback: sbe.Connection) -> None:
    def refused(kind: type[Exception], words: str, *given: object, **named: object) -> None:
        with pytest.raises(kind, match=words):
            loopback.open_stream(*given, **named)  # type: ignore[arg-type]

    refused(TypeError, "format: a sbe.StreamFormat", "tone", "capture", "int16")
    refused(sbe.BadArgument, "direction: 'up'", "tone", "up", STEREO)
    refused(sbe.BadArgument, "on_xrun: 'no'", "tone", "capture", STEREO, on_xrun="no")
    refused(sbe.BadArgument, "on_suspend: 'no'", "tone", "capture", STEREO, on_suspend="no")
    refused(sbe.BadArgument, "period_frames: -1", "tone", "capture", STEREO, period_frames=-1)
    refused(sbe.BadArgument, "buffer_frames: 0", "tone", "capture", STEREO, buffer_frames=0)
    refused(sbe.BadArgument, "buffer_frames: 1.5", "tone", "capture", STEREO, buffer_frames=1.5)
    refused(
        sbe.BadArgument,
        "a period of 960 frames is larger than the buffer of 480",
        *("tone", "capture", STEREO),
        period_frames=960,
        buffer_frames=480,
    )
    for wrong in (("int15", 2, 48000), ("int16", 0, 48000), ("int16", 2, -1), ("int16", 2.5, 1)):
        refused(sbe.BadArgument, "is not|is none", "tone", "capture", sbe.StreamFormat(*wrong))
    with loopback.open_stream("tone", "capture", STEREO) as stream:
        with pytest.raises(sbe.BadArgument, match="can't be written to"):
            stream.write(noise(1))
        with pytest.raises(sbe.BadArgument, match="frames"):
            stream.read(-1)
    with loopback.open_stream("meter", "playback", STEREO) as stream:
        with pytest.raises(sbe.BadArgument, match="can't be read from"):
            stream.read(1)
        with pytest.raises(sbe.BadArgument, match="no whole frames"):
            stream.write(b"abc")
        for array, words in (
            (np.zeros((8, 2)), r"are int16.*type 'd'; convert them: array.astype\('int16'\)"),
            (np.zeros((8, 2), np.int32), "type 'i'"),
            (np.zeros((8, 2), np.uint8), "type 'B'"),
            (np.zeros((8, 3), np.int16), r"shape \(8, 3\) is no frames of 2 channels"),
            (np.zeros((16, 2), np.int16)[::2], "ascontiguousarray"),
        ):
            with pytest.raises(sbe.BadArgument, match=words):
                stream.write(array)
        stream.write(np.zeros((0, 2), np.int16))
        stream.write(np.zeros(16, np.int16))
        with (
            pytest.raises(sbe.BadArgument, match="one connection"),
            sbe.connect("loopback:") as other,
        ):
            stream.start(other.open_stream("tone", "capture", STEREO))


def test_an_application_that_dies(connect: Connector) -> None:
    """Another's stream keeps its bytes meanwhile."""
    link = connect()
    if "tone" not in connect.services:
        pytest.skip("the remote has no service tone")
    with link.open_stream(
        "tone", "capture", STEREO, period_frames=480, buffer_frames=48000
    ) as stream:
        stream.start()
        doomed = connect()
        for _ in range(2):
            doomed.open_stream("tone", "capture", STEREO).start()
        doomed.close()
        assert np.array_equal(frames_of(stream.read(9600))[:, 0], wave(0, 9600))
