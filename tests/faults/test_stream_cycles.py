"""Streams that come and go, many times: every process holds in the end what it held before.

With SBE_STREAM_CYCLES=10000 in the environment it takes a minute; a run of all tests has less.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import sbe
from sbe import _native
from sbe.testing.conformance.test_streams import STEREO, until
from tests.faults.test_remote_dies import remote_pid
from tests.integration.varlink_client import daemon
from tests.soak.held import Held, resident_bytes

CYCLES = int(os.environ.get("SBE_STREAM_CYCLES", "2000"))
# Ids are taken anew until each was in use once, and allocators settle; it does not go on.
ALLOWED_BYTES = 2 << 20
EXACT = not os.environ.get("LD_PRELOAD") and not sys.flags.dev_mode  # a sanitizer keeps what was
KINDS = (sbe.Stream, _native.Channel, _native.Memory, _native.Call, _native.StreamBlock)


@dataclass
class End:
    """A link, and all processes that could keep something."""

    link: sbe.Connection
    pids: dict[str, int]


@contextlib.contextmanager
def embedded(folder: Path) -> Iterator[End]:
    with sbe.connect("loopback:") as link:
        yield End(link, {"client": os.getpid(), "remote": remote_pid(link)})


@contextlib.contextmanager
def through_a_daemon(folder: Path) -> Iterator[End]:
    with daemon(folder) as running, sbe.connect(f"unix:{running.socket}") as link:
        pids = {"client": os.getpid(), "daemon": running.pid, "remote": running.remote_pid()}
        yield End(link, pids)


def cycle(link: sbe.Connection, number: int) -> None:
    """Each is left in another state."""
    with link.open_stream(
        "tone", "capture", STEREO, period_frames=48, buffer_frames=960, endless=True
    ) as stream:
        if number % 4 == 0:
            stream.stop()
        elif number % 4 > 1:
            stream.start()
        if number % 4 == 3:
            stream.pause()
    if number % 50 == 0:
        with pytest.raises(sbe.RemoteError):
            link.open_stream("tone", "playback", STEREO)


def counted(end: End) -> tuple[dict[str, int], Counter[type], dict[str, Held]]:
    """What is the same again, areas and channels once the remote has let go."""
    gc.collect()
    listed = end.link.list()
    kept = {kind: len(listed[kind]) for kind in ("areas", "channels", "contexts")}
    objects = Counter(type(item) for item in gc.get_objects() if isinstance(item, KINDS))
    held = {name: Held.by(pid) for name, pid in end.pids.items()}
    return kept, objects, held


@pytest.mark.parametrize("kind", [embedded, through_a_daemon])
@pytest.mark.timeout(600)
def test_nothing_grows(
    kind: Callable[[Path], contextlib.AbstractContextManager[End]], tmp_path: Path
) -> None:
    with kind(tmp_path) as end:
        for number in range(CYCLES // 4):
            cycle(end.link, number)
        before = counted(end)
        resident = {name: resident_bytes(pid) for name, pid in end.pids.items()}
        for number in range(CYCLES):
            cycle(end.link, number)
        until(lambda: counted(end) == before)
        grown = {name: resident_bytes(pid) - resident[name] for name, pid in end.pids.items()}
        print({name: f"{resident[name]} + {size} bytes" for name, size in grown.items()})
        if EXACT:
            assert max(grown.values()) < ALLOWED_BYTES, grown
