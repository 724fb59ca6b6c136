"""Streams: states, positions, events and every byte, as docs/spec/streams.md has them.

Nothing here needs a fast machine: what is played is written before it starts, what is captured
fits the buffer.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import sbe
from sbe.sdk.stream_times import ClockPair
from sbe.testing.conformance.parts import LIMIT_S, in_a_loop, needs

RATE = 48000
STEREO = sbe.StreamFormat("int16", 2, RATE)


def wave(first: int, count: int, rate: int = RATE) -> Any:
    """Frames of the service tone, from its description."""
    phase = (np.arange(first, first + count) * ((440 << 16) // rate)) & 0xFFFF
    x = phase & 0x7FFF
    height = np.minimum((x * (0x8000 - x)) >> 13, 0x7FFF)
    return np.where(phase & 0x8000, -height, height).astype(np.int16)


def frames_of(data: bytes) -> Any:
    return np.frombuffer(data, "<i2").reshape(-1, 2)


def noise(count: int) -> Any:
    return np.random.default_rng(5).integers(-32768, 32768, (count, 2), np.int16)


def until(holds: Callable[[], bool]) -> None:
    """Waits for what the remote's clock brings about."""
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline, "it has not come about"
        time.sleep(0.002)


def in_xrun(stream: sbe.Stream) -> Callable[[], bool]:
    return lambda: stream.state == "xrun"


# -- bytes ------------------------------------------------------------------------------------


@needs("tone")
def test_captured_frames_are_exact(link: sbe.Connection) -> None:
    with link.open_stream(
        "tone", "capture", STEREO, period_frames=480, buffer_frames=2400
    ) as stream:
        assert stream.state == "prepared"
        taken = frames_of(stream.read(1000) + stream.read(1400))
        assert np.array_equal(taken[:, 0], wave(0, 2400))
        assert np.array_equal(taken[:, 1], taken[:, 0])


@needs("tone")
def test_blocks_are_views_of_the_buffer(link: sbe.Connection) -> None:
    with link.open_stream(
        "tone", "capture", STEREO, period_frames=480, buffer_frames=1920
    ) as stream:
        seen = 0
        while seen < 1920:
            with stream.next(LIMIT_S) as frames:
                assert not frames.flags.writeable
                assert not frames.flags.owndata
                assert len(frames) == 480
                assert np.array_equal(frames[:, 0], wave(seen, len(frames)))
                seen += len(frames)


@needs("loop")
def test_what_is_played_is_captured_later(link: sbe.Connection) -> None:
    """Both start at one moment, so the delay is exact."""
    given = noise(9600)
    with (
        link.open_stream("loop", "playback", STEREO, buffer_frames=9600) as out,
        link.open_stream("loop", "capture", STEREO, buffer_frames=9600) as back,
    ):
        out.write(given)
        out.start(back)
        taken = frames_of(back.read(9600))
        delay = back.position().delay_bytes // STEREO.frame_bytes
        assert delay > 0
        assert not taken[:delay].any()
        assert np.array_equal(taken[delay:], given[: 9600 - delay])


@needs("meter")
def test_blocks_to_be_filled(link: sbe.Connection) -> None:
    with link.open_stream(
        "meter", "playback", STEREO, period_frames=480, buffer_frames=1920
    ) as stream:
        for level in (100, 200, 400, 300):
            with stream.next(LIMIT_S) as frames:
                assert frames.flags.writeable
                assert frames.shape == (480, 2)
                frames[:] = (level, -level)
        assert stream.available() == 0
        stream.drain(LIMIT_S)
        assert stream.position().position_bytes == 1920 * 4
        levels = []
        while (event := stream.event(0)) is not None:
            if event.kind == "period":
                levels.append(event.data)
        assert set(levels) <= {(100, 100), (200, 200), (400, 400), (300, 300)}
        assert levels[-1] == (300, 300)


@needs("meter")
def test_a_block_that_raises_is_not_handed_over(link: sbe.Connection) -> None:
    with link.open_stream("meter", "playback", STEREO) as stream:
        with pytest.raises(ZeroDivisionError), stream.next():
            raise ZeroDivisionError
        assert stream.available() == stream.buffer_frames


# -- states -----------------------------------------------------------------------------------

# docs/spec/streams.md, 2: the state before, and after each request; None: refused.
TABLE = {
    "setup": {"prepare": "prepared", "stop": "setup"},
    "prepared": {"prepare": "prepared", "start": "running", "stop": "setup"},
    "running": {"pause": "paused", "drain": "draining", "stop": "setup"},
    "paused": {"resume": "running", "stop": "setup"},
    "draining": {"stop": "setup"},
    "xrun": {"prepare": "prepared", "stop": "setup"},
}
REQUESTS = ("prepare", "start", "pause", "resume", "drain", "stop")


def bring_to(stream: sbe.Stream, state: str) -> None:
    """From prepared, with the buffer full."""
    steps = {
        "setup": ["stop"],
        "prepared": [],
        "running": ["start"],
        "paused": ["start", "pause"],
        "draining": ["start", "drain"],
        "xrun": ["start"],
    }
    for step in steps[state]:
        ask(stream, step)
    if state == "xrun":
        until(in_xrun(stream))


def ask(stream: sbe.Stream, request: str) -> None:
    """`drain()` waits for the end, and `prepare()` knows what is refused; this only asks."""
    from sbe.sdk.stream_wire import Op

    if request == "prepare" and stream.state in ("setup", "prepared", "xrun", "suspended"):
        stream.prepare()
    else:
        stream._ask(Op[request.upper()])


@needs("meter")
@pytest.mark.parametrize("state", TABLE)
def test_requests_in_every_state(link: sbe.Connection, state: str) -> None:
    slow = sbe.StreamFormat("int16", 2, 1000)
    for request in REQUESTS:
        frames = 20 if state == "xrun" else 60_000  # a minute: none runs out
        with link.open_stream(
            "meter", "playback", slow, period_frames=10, buffer_frames=frames
        ) as stream:
            stream.write(noise(frames))
            if stream.state == "running":
                stream.stop()
                stream.prepare()
                stream.write(noise(frames - 10))
            bring_to(stream, state)
            after = TABLE[state].get(request)
            if after is None:
                with pytest.raises(sbe.StreamError, match=f"is {state}") as raised:
                    ask(stream, request)
                if request != "drain":  # which starts what is prepared
                    with pytest.raises(sbe.StreamError, match=f"is {state}"):
                        getattr(stream, request)()
                assert raised.value.state == state
                assert stream.state == state
            else:
                ask(stream, request)
                assert stream.state == after


@needs("tone")
def test_a_pause_keeps_the_position(link: sbe.Connection) -> None:
    with link.open_stream("tone", "capture", STEREO, buffer_frames=48000) as stream:
        stream.start()
        until(lambda: stream.position().position_bytes > 0)
        stream.pause()
        held = stream.position().position_bytes
        time.sleep(0.05)
        assert stream.position().position_bytes == held
        stream.resume()
        until(lambda: stream.position().position_bytes > held)
        taken = frames_of(stream.read(held // 4 + 1))
        assert np.array_equal(taken[:, 0], wave(0, len(taken)))  # nothing is missing between


@needs("tone")
def test_a_new_run_begins_at_nothing(link: sbe.Connection) -> None:
    with link.open_stream("tone", "capture", STEREO) as stream:
        for _ in range(3):
            taken = frames_of(stream.read(480))
            assert np.array_equal(taken[:, 0], wave(0, 480))
            stream.stop()
            assert stream.event(0) is not None
            stream.prepare()
            status = stream.position()
            assert status.position_bytes == status.xruns == 0
            while (event := stream.event(0)) is not None:  # of this run alone
                assert event.generation == status.generation


@needs("tone", "meter")
def test_a_group_starts_whole_or_not_at_all(link: sbe.Connection) -> None:
    with (
        link.open_stream("tone", "capture", STEREO) as tone,
        link.open_stream("meter", "playback", STEREO) as meter,
    ):
        meter.stop()
        with pytest.raises(sbe.StreamError):
            tone.start(meter)
        assert (tone.state, meter.state) == ("prepared", "setup")
        meter.prepare()
        meter.write(noise(480))
        tone.start(meter)
        assert tone.state == "running"


# -- positions and events -----------------------------------------------------------------------


@needs("tone")
def test_events_of_periods(link: sbe.Connection) -> None:
    with link.open_stream(
        "tone", "capture", STEREO, period_frames=480, buffer_frames=4800
    ) as stream:
        stream.start()
        position = clock = sequence = count = 0
        while position < 4800 * 4:
            event = stream.event(LIMIT_S)
            assert event is not None
            assert event.sequence > sequence
            sequence = event.sequence
            if event.kind != "period":
                continue
            count += 1
            assert event.position_bytes > position
            assert event.position_bytes - position >= 480 * 4 - 480 * 4 * (position > 0)
            assert event.clock_ns > clock
            position, clock = event.position_bytes, event.clock_ns
        assert count <= 10


@needs("tone")
def test_without_periods_the_position_is_read(link: sbe.Connection) -> None:
    with link.open_stream("tone", "capture", STEREO, period_frames=0, buffer_frames=4800) as stream:
        stream.start()
        with pytest.raises(sbe.BadArgument, match="no periods"):
            stream.read(4801)  # more than there can be
        until(lambda: stream.available() >= 480)
        assert stream.stat()["events"] == 0


@needs("tone")
def test_its_descriptor_tells_of_news_alone(link: sbe.Connection) -> None:
    """A loop that sleeps on it, and then asks event(0), neither spins nor misses anything."""

    def readable(timeout_s: float) -> bool:
        return bool(select.select([stream], [], [], timeout_s)[0])

    def is_quiet() -> bool:
        while stream.event(0) is not None:
            pass
        return not readable(0)

    with link.open_stream("tone", "capture", STEREO, period_frames=480, endless=True) as stream:
        stream.start()
        until(lambda: stream.position().position_bytes > 0)
        stream.pause()
        until(is_quiet)  # a doorbell may come after what it is for
        stream.resume()
        for _ in range(3):
            until(is_quiet)  # resume() may have taken the doorbell with its answer
            assert readable(LIMIT_S)


def rung(link: sbe.Connection, stream: sbe.Stream) -> int:
    """Doorbells of the remote, for this stream alone."""
    found = link.stat()
    own = found["connection"]["context"], stream._channel.id
    [row] = [row for row in found["channels"] if (row["context"], row["id"]) == own]
    return int(row["doorbells_from_remote"]) + int(row["space_doorbells_from_remote"])


@needs("tone")
def test_a_doorbell_for_each_period_at_most(link: sbe.Connection) -> None:
    with link.open_stream("tone", "capture", STEREO, period_frames=480, endless=True) as stream:
        before = rung(link, stream)
        stream.start()
        while stream.position().position_bytes < 20 * 480 * 4:
            assert stream.event(LIMIT_S) is not None  # asleep each time
        stream.pause()
        periods = stream.position().position_bytes // (480 * 4)
        told = 4  # two answers and two states
        assert 0 < rung(link, stream) - before <= periods + told


@needs("tone")
def test_no_doorbell_without_periods(link: sbe.Connection) -> None:
    with link.open_stream("tone", "capture", STEREO, period_frames=0, endless=True) as stream:
        stream.start()
        assert stream.event(LIMIT_S) is not None  # it runs
        until(lambda: stream.position().position_bytes >= 480 * 4)  # the answer's has rung
        while stream.event(0) is not None:  # from now on the next would ring
            pass
        before = rung(link, stream)
        until(lambda: stream.position().position_bytes >= 20 * 480 * 4)
        assert rung(link, stream) == before
        assert stream.event(0) is None


@needs("tone")
def test_positions_only_grow(link: sbe.Connection) -> None:
    with link.open_stream("tone", "capture", STEREO, endless=True) as stream:
        stream.start()
        last = stream.position()
        while last.position_bytes < 5 * stream.buffer_frames * 4:
            now = stream.position()
            assert now.position_bytes >= last.position_bytes
            assert now.clock_ns >= last.clock_ns
            last = now
        assert (last.state, last.xruns) == ("running", 0)


def assert_as_fast(first: ClockPair, second: ClockPair) -> None:
    """The remote's clock is as fast as ours, as exactly as the two looks were."""
    passed = second.host_ns - first.host_ns
    error = first.accuracy_ns + second.accuracy_ns
    assert abs(second.remote_ns - first.remote_ns - passed) <= error + passed * 0.05


@needs("tone")
def test_two_clocks(link: sbe.Connection) -> None:
    with link.open_stream("tone", "capture", STEREO, endless=True) as stream:
        stream.start()
        first = stream.clock()
        until(lambda: stream.position().position_bytes >= first.position_bytes + 9600)
        second = stream.clock()
        assert second.position_bytes > first.position_bytes
        assert_as_fast(first, second)


@needs("tone")
def test_the_clock_of_one_that_stands_still(link: sbe.Connection) -> None:
    with link.open_stream("tone", "capture", STEREO) as stream:
        first = stream.clock()
        time.sleep(0.02)
        second = stream.clock()
        assert_as_fast(first, second)


# -- late ---------------------------------------------------------------------------------------


@needs("tone")
def test_an_xrun_stops_and_nothing_captured_is_lost(link: sbe.Connection) -> None:
    with link.open_stream(
        "tone", "capture", STEREO, period_frames=480, buffer_frames=960
    ) as stream:
        stream.start()
        until(in_xrun(stream))
        status = stream.position()
        assert (status.xruns, status.position_bytes) == (1, 960 * 4)
        assert status.lost_bytes > 0
        assert np.array_equal(frames_of(stream.read(960))[:, 0], wave(0, 960))
        with pytest.raises(sbe.StreamError, match=r"an xrun .* prepare\(\)") as raised:
            stream.read(1)
        assert raised.value.state == "xrun"
        kinds = []
        while (event := stream.event(0)) is not None:
            kinds.append(event.kind)
            if event.kind == "xrun":
                assert event.lost == (960 * 4, status.lost_bytes)
        assert kinds[-2:] == ["xrun", "state"]
        stream.prepare()
        assert len(stream.read(480)) == 480 * 4


@needs("meter")
def test_silence_takes_the_place_of_what_is_late(link: sbe.Connection) -> None:
    with link.open_stream(
        "meter", "playback", STEREO, period_frames=480, on_xrun="go on"
    ) as stream:
        stream.write(noise(480))
        stream.start()
        until(lambda: stream.position().position_bytes >= 4 * 480 * 4)
        status = stream.position()
        assert (status.state, status.xruns) == ("running", 1)
        assert status.lost_bytes == status.position_bytes - 480 * 4
        behind = stream.stat()["lost_bytes"]
        stream.write(noise(stream.available()))  # goes where it is still in time
        assert stream.stat()["lost_bytes"] >= behind
        until(lambda: stream.position().application_bytes > 480 * 4)


@needs("tone")
def test_the_oldest_frames_give_way(link: sbe.Connection) -> None:
    with link.open_stream(
        "tone", "capture", STEREO, period_frames=480, buffer_frames=1920, on_xrun="go on"
    ) as stream:
        stream.start()
        until(lambda: stream.position().position_bytes >= 3 * 1920 * 4)
        stream.pause()
        status = stream.position()
        first = (status.position_bytes - 1920 * 4) // 4
        assert status.application_bytes == first * 4
        assert stream.stat()["lost_bytes"] == first * 4
        assert np.array_equal(frames_of(stream.read(1920))[:, 0], wave(first, 1920))


@needs("meter")
def test_an_endless_buffer_needs_nobody(link: sbe.Connection) -> None:
    with link.open_stream(
        "meter", "playback", STEREO, period_frames=480, buffer_frames=960, endless=True
    ) as stream:
        stream.write(noise(960))
        if stream.state == "prepared":
            stream.start()
        until(lambda: stream.position().position_bytes >= 5 * 960 * 4)
        assert stream.position().xruns == 0


# -- agreeing -------------------------------------------------------------------------------------


@needs("tone")
def test_the_remote_proposes_what_it_can(link: sbe.Connection) -> None:
    with link.open_stream("tone", "capture", STEREO, period_frames=1, buffer_frames=1001) as stream:
        assert stream.period_frames >= RATE // 2000
        assert stream.buffer_frames % stream.period_frames == 0
        assert stream.buffer_frames >= 1001


@needs("tone", "meter")
def test_what_a_service_does_not_take(link: sbe.Connection) -> None:
    before = link.list()
    with pytest.raises(sbe.RemoteError, match=r"stream 'tone'.*ENOTSUP"):
        link.open_stream("tone", "playback", STEREO)
    with pytest.raises(sbe.RemoteError, match=r"stream 'meter'.*ENOTSUP"):
        link.open_stream("meter", "playback", sbe.StreamFormat("uint8", 1, RATE))
    with pytest.raises(sbe.RemoteError, match=r"200 channels at 10000000 Hz.*ERANGE"):
        link.open_stream("tone", "capture", sbe.StreamFormat("int16", 200, 10_000_000))
    with pytest.raises(sbe.UnknownService):
        link.open_stream("no such stream", "capture", STEREO)
    until(
        lambda: (
            [len(link.list()[kind]) for kind in ("areas", "channels")]
            == [len(before[kind]) for kind in ("areas", "channels")]
        )
    )


@needs("echo")
def test_a_service_that_is_no_stream(link: sbe.Connection) -> None:
    with pytest.raises(sbe.ProtocolError, match=r"is 'echo' a stream.*answer of 56 bytes"):
        link.open_stream("echo", "capture", STEREO)
    assert link.call("echo", payload=b"x").payload == b"x"


# -- the end --------------------------------------------------------------------------------------


@needs("tone")
def test_many_come_and_go(link: sbe.Connection) -> None:
    before = link.list()
    for _ in range(20):
        with link.open_stream("tone", "capture", STEREO) as stream:
            stream.start()
        assert stream.closed
        assert stream.state == "disconnected"
        with pytest.raises(sbe.LinkClosed):
            stream.read(1)
        stream.close()
    until(
        lambda: (
            [len(link.list()[kind]) for kind in ("areas", "channels")]
            == [len(before[kind]) for kind in ("areas", "channels")]
        )
    )


@needs("tone", "echo")
def test_calls_go_on_beside_a_stream(link: sbe.Connection) -> None:
    with link.open_stream(
        "tone", "capture", STEREO, period_frames=480, buffer_frames=4800
    ) as stream:
        stream.start()
        taken = b""
        for i in range(10):
            assert link.call("echo", payload=bytes([i])).payload == bytes([i])
            taken += stream.read(480)
        assert np.array_equal(frames_of(taken)[:, 0], wave(0, 4800))


@needs("tone")
@in_a_loop
async def test_blocks_in_a_loop(link: sbe.Connection) -> None:
    seen = 0
    async with link.open_stream(
        "tone", "capture", STEREO, period_frames=480, buffer_frames=1920
    ) as stream:
        async for block in stream:
            with block as frames:
                assert np.array_equal(frames[:, 0], wave(seen, len(frames)))
                seen += len(frames)
            if seen >= 1920:
                break
    assert stream.closed
