"""Clients that come and go leave the daemon as it was, however often."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.integration.varlink_client import Daemon, daemon

CLIENTS, AREAS = 30, 10
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


def test_crowd_after_crowd_adds_nothing(tmp_path: Path, path: Path):
    (tmp_path / "sitecustomize.py").write_text(COUNTER)
    environment = {"PYTHONPATH": str(tmp_path), "SBE_TEST_COUNTS": str(path)}
    with daemon(tmp_path, environment=environment) as running:
        come_and_go(running)  # what is loaded and made once
        counts(running, path)  # to count, too
        come_and_go(running)
        first = counts(running, path)
        for _ in range(2):
            come_and_go(running)

            running.wait_until(
                lambda: not added(first, counts(running, path)),
                "the crowd has left something behind",
            )
