"""Streams of a remote that is suspended: docs/spec/streams.md, 6."""

from __future__ import annotations

import time

import numpy as np
import pytest

import sbe
from sbe.testing.conformance.parts import LIMIT_S, needs
from sbe.testing.conformance.test_power import link as link
from sbe.testing.conformance.test_streams import (
    REQUESTS,
    STEREO,
    ask,
    bring_to,
    frames_of,
    noise,
    until,
    wave,
)

SLOW = sbe.StreamFormat("int16", 2, 1000)
SUSPENDED = {"prepare": "prepared", "resume": "running", "stop": "setup"}


def captured(link: sbe.Connection, on_suspend: str = "go on", frames: int = 48_000) -> sbe.Stream:
    return link.open_stream(
        "tone",
        "capture",
        STEREO,
        period_frames=480,
        buffer_frames=frames,
        on_suspend=on_suspend,
    )


def last_event(stream: sbe.Stream) -> tuple[str, str, int] | None:
    told = None
    while (event := stream.event(0)) is not None:
        told = event.kind, str(event.state), event.position_bytes
    return told


@needs("tone")
def test_it_goes_on_where_it_was(link: sbe.Connection) -> None:
    with captured(link, "pause") as stream:
        taken = stream.read(960)
        link.suspend()
        held = stream.position()
        assert held.state == stream.state == "suspended"
        # As messages, events and answers come by endpoints of their own, in any order.
        told = "state", "suspended", held.position_bytes
        until(lambda: last_event(stream) == told)
        time.sleep(0.05)
        assert stream.position() == held
        taken += stream.read(stream.available())  # what had come is there
        with pytest.raises(sbe.StreamError, match=r"is suspended at byte \d+.*resume") as raised:
            stream.read(1)
        assert raised.value.state == "suspended"
        link.resume()
        time.sleep(0.05)
        assert stream.position() == held  # not by itself
        stream.resume()
        assert stream.state == "running"
        taken += stream.read(960)
        assert np.array_equal(frames_of(taken)[:, 0], wave(0, len(taken) // 4))
        status = stream.position()
        assert (status.generation, status.xruns, status.lost_bytes) == (held.generation, 0, 0)


@needs("tone")
def test_who_goes_on_keeps_the_remote_awake(link: sbe.Connection) -> None:
    with captured(link) as stays, captured(link, "pause") as pauses:
        stays.start(pauses)
        with pytest.raises(sbe.Busy):
            link.suspend()
        assert (stays.state, pauses.state) == ("running", "running")
        assert np.array_equal(frames_of(stays.read(960))[:, 0], wave(0, 960))
        stays.pause()
        link.suspend()  # it stands still
        assert (stays.state, pauses.state) == ("paused", "suspended")
        link.resume()
        stays.resume()
        pauses.resume()
        assert np.array_equal(frames_of(stays.read(960))[:, 0], wave(960, 960))
        assert np.array_equal(frames_of(pauses.read(960))[:, 0], wave(0, 960))


@needs("tone")
@pytest.mark.parametrize("on_suspend", ["go on", "pause"])
@pytest.mark.parametrize("state", ["setup", "prepared", "paused", "xrun"])
def test_who_stands_still_stays_so(link: sbe.Connection, state: str, on_suspend: str) -> None:
    with captured(link, on_suspend, 960) as stream:
        bring_to(stream, state)
        before = stream.position()
        link.suspend()
        assert stream.state == state
        link.resume()
        assert stream.position() == before


@needs("meter")
@pytest.mark.parametrize("request_", REQUESTS)
def test_requests_while_suspended(link: sbe.Connection, request_: str) -> None:
    with link.open_stream(
        "meter", "playback", SLOW, period_frames=10, buffer_frames=60_000, on_suspend="pause"
    ) as stream:
        stream.write(noise(59_990))
        stream.start()
        link.suspend()
        link.resume()
        assert stream.state == "suspended"
        after = SUSPENDED.get(request_)
        if after is not None:
            ask(stream, request_)
            assert stream.state == after
            return
        with pytest.raises(sbe.StreamError, match="is suspended") as raised:
            ask(stream, request_)
        assert raised.value.state == stream.state == "suspended"


@needs("meter")
def test_it_drains_on(link: sbe.Connection) -> None:
    with link.open_stream(
        "meter", "playback", SLOW, period_frames=10, buffer_frames=200, on_suspend="pause"
    ) as stream:
        stream.write(noise(190))
        stream.start()
        ask(stream, "drain")
        link.suspend()
        assert stream.state == "suspended"
        with pytest.raises(sbe.StreamError, match="is suspended"):
            stream.drain(LIMIT_S)
        link.resume()
        stream.resume()
        assert stream.state == "draining"
        stream.drain(LIMIT_S)
        assert (stream.state, stream.position().position_bytes) == ("setup", 190 * 4)
        assert stream.position().xruns == 0


@needs("tone")
def test_closed_while_suspended(link: sbe.Connection) -> None:
    before = link.list()
    stopped, suspended = captured(link), captured(link, "pause")
    suspended.start()
    link.suspend()
    begun = time.monotonic()
    for stream in (stopped, suspended):
        stream.close()
        assert stream.state == "disconnected"
    assert time.monotonic() - begun < LIMIT_S  # and not the deadline of what the remote is asked
    kinds = ("areas", "channels")
    until(lambda: all(len(link.list()[kind]) == len(before[kind]) for kind in kinds))
    link.resume()
    with captured(link) as stream:
        assert np.array_equal(frames_of(stream.read(480))[:, 0], wave(0, 480))
