"""Clients that come and go leave the daemon as it was, however often."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.varlink_client import Daemon, daemon

CLIENTS, AREAS = 30, 10
OBJECTS = 5000
"""More than a crowd needs, far fewer than the modules that are imported have."""
BLOCKS = 100
"""Of memory, that the interpreter itself may keep for later; an area or two each are 300."""

# Runs in the daemon's process, as every sitecustomize does.
COUNTER = """
import collections, gc, json, os, signal, sys

def count(*_):
    gc.collect()
    kinds = collections.Counter(type(item).__name__ for item in gc.get_objects())
    found = {"objects": kinds, "descriptors": len(os.listdir("/proc/self/fd"))}
    found["blocks"] = sys.getallocatedblocks()
    path = os.environ["SBE_TEST_COUNTS"]
    with open(path + ".new", "w") as file:
        json.dump(found, file)
    os.rename(path + ".new", path)

signal.signal(signal.SIGUSR1, count)
"""


def counts(running: Daemon, path: Path) -> dict[str, Any]:
    """What the daemon holds at this moment."""
    path.unlink(missing_ok=True)
    os.kill(running.pid, signal.SIGUSR1)
    running.wait_until(path.exists)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def added(before: dict[str, Any], now: dict[str, Any]) -> Counter[str]:
    """What there is more than before. A connection that is just ending may count at any time."""
    more = Counter(now["objects"]) - Counter(before["objects"])
    more["descriptors"] = max(0, now["descriptors"] - before["descriptors"])
    more["blocks"] = max(0, now["blocks"] - before["blocks"] - BLOCKS)
    return +more


def come_and_go(running: Daemon) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(CLIENTS):
            client = stack.enter_context(running.client())
            client.open()
            client.call("OpenChannel", slots=2, slot_size=256)
            for _ in range(AREAS):
                client.call("Allocate", size=4096)
            client.call("FindService", name="echo", version=0)
    running.wait_until_empty()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "counts.json"


@pytest.fixture
def counting(tmp_path: Path, path: Path) -> Iterator[Daemon]:
    """A daemon that `counts()` can ask."""
    (tmp_path / "sitecustomize.py").write_text(COUNTER)
    environment = {"PYTHONPATH": str(tmp_path), "SBE_TEST_COUNTS": str(path)}
    with daemon(tmp_path, environment=environment) as running:
        yield running


def test_a_look_for_garbage_is_short(counting: Daemon, path: Path):
    """Nobody is answered meanwhile: it sees what comes and goes, not all that was imported."""
    come_and_go(counting)
    assert sum(counts(counting, path)["objects"].values()) < OBJECTS


def test_crowd_after_crowd_adds_nothing(counting: Daemon, path: Path):
    come_and_go(counting)  # what is loaded and made once
    counts(counting, path)  # to count, too
    come_and_go(counting)
    first = counts(counting, path)
    for _ in range(2):
        come_and_go(counting)

        counting.wait_until(
            lambda: not added(first, counts(counting, path)),
            "the crowd has left something behind",
        )
