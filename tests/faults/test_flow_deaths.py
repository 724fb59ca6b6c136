"""Streams, queues of blocks and byte streams when an end dies that others share, or another's."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import sbe
from sbe.sdk.byte_stream import ByteStream
from sbe.testing.conformance.parts import answered
from sbe.testing.conformance.test_asg import ask, opened
from sbe.testing.conformance.test_stream_queue import BYTES, FRAMES, areas_of, is_wave
from sbe.testing.conformance.test_streams import STEREO, frames_of, until, wave
from tests.conformance.ends import Connector
from tests.faults.test_daemon_dies import wait_until_alone
from tests.faults.test_remote_dies import LIMIT_S, SOON_S, Process, process, victim
from tests.integration.varlink_client import daemon

__all__ = ["process", "victim"]

# -- the remote -------------------------------------------------------------------------------


def begin(stream: ByteStream) -> None:
    """A question of which the server has a part at most."""
    stream.write(struct.pack("<I", 8) + b"abc")
    stream.flush()


@pytest.mark.parametrize("waits", [False, True], ids=["before", "meanwhile"])
def test_the_remote_dies_with_a_byte_stream(
    victim: sbe.Connection, process: Process, connect: Connector, waits: bool
) -> None:
    """Before a reply is waited for, and meanwhile."""
    if "total" not in connect.services:
        pytest.skip("the remote has no service total")
    stream = opened(connect, victim)
    ask(stream, b"abc")
    begin(stream)
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            stream.read_exactly(4)
        except sbe.Error as error:
            ended.append(error)

    thread = threading.Thread(target=wait)
    if waits:
        thread.start()
        until(stream._turn.locked)
    process.kill()
    if not waits:
        thread.start()
    thread.join(LIMIT_S)
    assert [type(each) for each in ended] == [sbe.RemoteRestarted]
    with pytest.raises(sbe.RemoteRestarted):
        stream.write(b"x")
    stream.close()
    with opened(connect, victim) as again:  # in the next life
        ask(again, b"abcdef")
    answered(victim)
    assert victim.stat()["connection"]["areas"] == 0


def test_the_remote_of_a_byte_stream_is_frozen(
    victim: sbe.Connection, process: Process, connect: Connector
) -> None:
    """A wait ends when it is to, however many doorbells nobody hears; no byte is lost."""
    if "total" not in connect.services:
        pytest.skip("the remote has no service total")
    with opened(connect, victim) as stream:
        process.freeze()
        try:
            begin(stream)
            begun = time.monotonic()
            with pytest.raises(sbe.Timeout):
                stream.read(4, timeout=0.3)
            assert time.monotonic() - begun < SOON_S
        finally:
            process.thaw()
        stream.write(b"defgh")
        assert stream.read_exactly(4) == struct.pack("<I", sum(b"abcdefgh"))
    assert victim.stat()["connection"]["areas"] == 0


# -- an application, or its daemon ------------------------------------------------------------

VICTIM = """
import struct, sys, sbe
link = sbe.connect(sys.argv[1])
stereo = sbe.StreamFormat("int16", 2, 48000)
stream = link.open_stream("tone", "capture", stereo, on_xrun="go on")
stream.read(480)
queue = link.open_queue("tone", "capture", stereo, block_frames=4800, blocks=3, on_xrun="go on")
blocks = [queue.queue(link.allocate(19200)) for _ in range(3)]
queue.start()
total = link.open_asg("total", 1 << 16)
total.write(struct.pack("<I", 8) + b"abc")
total.flush()
print(link.list()["links"][0]["pid"], flush=True)
sys.stdin.read()
"""


def kill_one(uri: str) -> int:
    """An application dies with one of each; the process of its remote."""
    client = subprocess.Popen(
        [sys.executable, "-c", VICTIM, uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert client.stdout is not None
    told = client.stdout.readline()
    client.kill()
    client.communicate()
    return int(told)


def test_an_application_is_killed(tmp_path: Path) -> None:
    """Another's stream, blocks and bytes go on meanwhile, and what it had is taken back."""
    with daemon(tmp_path) as running, sbe.connect(f"unix:{running.socket}") as link:
        areas = areas_of(link)
        with (
            link.open_stream("tone", "capture", STEREO, buffer_frames=480_000) as stream,
            link.open_queue("tone", "capture", STEREO, block_frames=FRAMES) as queue,
            link.open_asg("total", 1 << 16, timeout=LIMIT_S) as total,
        ):
            stream.start()
            blocks = [queue.queue(area) for area in areas]
            begin(total)
            kill_one(f"unix:{running.socket}")
            total.write(b"defgh")
            assert total.read_exactly(4) == struct.pack("<I", sum(b"abcdefgh"))
            for number, (area, block) in enumerate(zip(areas, blocks, strict=True)):
                assert block.result(LIMIT_S)[:3] == (number + 1, number * BYTES, BYTES)
                assert is_wave(area, number * FRAMES)
            assert np.array_equal(frames_of(stream.read(9600))[:, 0], wave(0, 9600))
        for area in areas:
            area.free()
        wait_until_alone(running, link)
        answered(link)


def test_an_application_with_its_own_remote_is_killed() -> None:
    pid = kill_one("loopback:")
    until(lambda: not Path(f"/proc/{pid}").exists())


def test_the_daemon_is_killed(tmp_path: Path) -> None:
    """Memory stays mapped, each wait ends, and a new connection has all three again."""
    with daemon(tmp_path) as running, sbe.connect(f"unix:{running.socket}") as link:
        areas = areas_of(link)
        stream = link.open_stream("tone", "capture", STEREO, buffer_frames=48_000, on_xrun="go on")
        first = stream.read(480)
        kept = stream.next()
        before = bytes(kept.data)
        queue = link.open_queue("tone", "capture", STEREO, block_frames=FRAMES, on_xrun="go on")
        queue.start()
        queue.pause()
        blocks = [queue.queue(area) for area in areas]
        total = link.open_asg("total", 1 << 16, timeout=LIMIT_S)
        begin(total)
        running.process.kill()
        running.process.wait()

        def is_told(ask: Callable[[], object]) -> None:
            with pytest.raises((sbe.DaemonGone, sbe.RemoteRestarted)):
                ask()

        is_told(lambda: stream.read(480_000, timeout=LIMIT_S))
        for block in blocks:
            is_told(lambda block=block: block.result(LIMIT_S))  # type: ignore[misc]
        is_told(lambda: total.read_exactly(4))
        assert (stream.state, queue.state) == ("disconnected", "disconnected")
        assert np.array_equal(frames_of(first + before)[:, 0], wave(0, 480 + kept.frames))
        assert len(bytes(areas[0])) == areas[0].size
        for each in (stream, queue, total):
            each.close()
    with (
        daemon(tmp_path) as running,
        sbe.connect(f"unix:{running.socket}") as link,
        link.open_stream("tone", "capture", STEREO) as stream,
        link.open_queue("tone", "capture", STEREO, block_frames=FRAMES) as queue,
        link.open_asg("total", 1 << 16, timeout=LIMIT_S) as total,
    ):
        assert np.array_equal(frames_of(stream.read(480))[:, 0], wave(0, 480))
        assert queue.queue(areas_of(link, 1)[0]).result(LIMIT_S)[:2] == (1, 0)
        ask(total, b"abc")
