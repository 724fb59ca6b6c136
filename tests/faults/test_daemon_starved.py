"""A daemon and a remote that get no memory: requests are refused, both live, then all goes on."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import sbe
from sbe.control import PROTOCOL
from sbe.daemon.connection import HANDSHAKE_SECONDS
from tests.faults.attacks import application
from tests.integration.varlink_client import SECONDS, Daemon, Refused, daemon

ROOM = (0, 64 << 10, 1 << 20)  # bytes that are left


@contextmanager
def tight(pid: int, room: int) -> Iterator[None]:
    """The process may have no more than this above what it has."""
    [pages] = re.findall(r"^VmSize:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    before = resource.prlimit(pid, resource.RLIMIT_AS)
    resource.prlimit(pid, resource.RLIMIT_AS, (int(pages) * 1024 + room, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, before)


def ask_for_all_kinds(running: Daemon) -> int:
    """How many were refused. A connection may end instead; nothing may hang."""
    refused = 0
    for _ in range(5):
        with running.client() as client, suppress(EOFError, ConnectionError):
            client.socket.settimeout(HANDSHAKE_SECONDS + SECONDS)  # it may be closed only then
            for method, parameters in (
                ("Open", {"protocol": PROTOCOL, "name": "x" * 1000}),
                ("Allocate", {"size": 1 << 20}),
                ("Allocate", {"size": 64 << 20}),
                ("OpenChannel", {"slots": 1024, "slot_size": 1024}),
                ("FindService", {"name": "echo", "version": 0}),
                ("Serve", {"name": "mine", "version": 1}),
                ("List", {}),
                ("Stat", {}),
            ):
                try:
                    client.call(method, **parameters)
                except Refused:
                    refused += 1
    return refused


def check_well(running: Daemon) -> None:
    with running.client() as client:
        client.open()
        client.call("Allocate", size=64 << 20)
        client.call("OpenChannel")
    running.wait_until_empty()


@application(7, 16)
def test_a_daemon_without_memory(tmp_path: Path):
    with daemon(tmp_path) as running:
        check_well(running)
        for room in ROOM:
            with tight(running.pid, room):
                ask_for_all_kinds(running)
            check_well(running)
        assert running.stop() == 0


@application(7, 16)
def test_a_remote_without_memory(tmp_path: Path):
    with daemon(tmp_path) as running:
        remote = running.remote_pid()
        for room in ROOM:
            with tight(remote, room):
                assert ask_for_all_kinds(running) >= 5
            check_well(running)
        assert running.remote_pid() == remote


def test_a_remote_that_can_not_be_started(tmp_path: Path):
    """Neither fork nor the new process finds memory; then they do."""
    with daemon(tmp_path, "[[link]]\nrestart = { max_seconds = 0.1 }\n") as running:
        with tight(running.pid, 0):
            os.kill(running.remote_pid(), 9)
            ask_for_all_kinds(running)
        # One may have been started within what was left, which is not enough for what follows.
        with suppress(ProcessLookupError, TypeError):
            os.kill(running.remote_pid(), 9)
        for _ in range(3):
            with suppress(Refused, EOFError):  # the loss comes in the middle
                check_well(running)
                break
        else:
            check_well(running)


@contextmanager
def memory_cgroup(limit: int) -> Iterator[Path]:
    """A group of processes that may have so many bytes together."""
    top = Path("/sys/fs/cgroup")
    old = (top / "memory").is_dir()
    group = (top / "memory" if old else top) / f"sbe-test-{os.getpid()}"
    limits = group / ("memory.limit_in_bytes" if old else "memory.max")
    with suppress(OSError):
        group.mkdir()
    try:
        if not os.access(limits, os.W_OK):
            pytest.skip("no memory cgroup can be made here: that takes root and such a controller")
        limits.write_text(str(limit))
        yield group
    finally:
        with suppress(FileNotFoundError):
            group.rmdir()


@application(7, 16)
def test_a_client_whose_memory_does_not_fit(tmp_path: Path):
    """The kernel ends a process of the group: the remote, never the daemon, and it comes back."""
    with memory_cgroup(160 << 20) as group:
        enter = ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"]
        with daemon(tmp_path, launcher=enter) as running:
            with sbe.connect(f"unix:{running.socket}") as greedy:
                area = greedy.allocate(250 << 20)  # nobody has touched it: the remote pays
                for _ in range(2):
                    with pytest.raises(sbe.RemoteRestarted):
                        greedy.call("crc32", sbe.In(area), timeout=20.0)
                assert running.process.poll() is None
            del area
            running.wait_until_empty()
            with sbe.connect(f"unix:{running.socket}") as honest:
                assert honest.call("echo", payload=b"here", timeout=20.0).payload == b"here"
            assert running.stop() == 0
