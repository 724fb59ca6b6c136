# SPDX-License-Identifier: Apache-2.0
"""Linux to Linux: two kernels with one window of RAM and a serial line, one host and one remote.

Runs outside of a guest, and boots them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rigs.guest import RigMissing
from tests.rigs.kernel import guest
from tests.rigs.kernel.beside import LINK
from tests.rigs.missing import give_up

pytestmark = [pytest.mark.rig, pytest.mark.timeout(300)]

WINDOW = 16 << 20
LIMIT_S = 120.0
ALL = os.environ.get("SBE_NEIGHBOURS") == "all"
SBE = (sys.executable, "-m", "sbe")
LIFE = ("/usr/bin/timeout", "1800")  # a guest ends by itself where its test is killed


@pytest.fixture(scope="module")
def kernel() -> Path:
    try:
        return guest.find()
    except RigMissing as error:
        give_up(str(error))


class Neighbours:
    """Boots kernels at the two ends of a line; the window and the line outlive them."""

    def __init__(self, kernel: Path, folder: Path) -> None:
        self._kernel = kernel
        self._ram = folder / "ram"
        self._ram.write_bytes(os.urandom(WINDOW))  # as at power-on
        self._ends = dict(zip(("host", "remote"), socket.socketpair(), strict=True))
        self._guests = contextlib.ExitStack()

    def boot(self, role: str, *command: str) -> guest.Guest:
        """A kernel that runs the command."""
        line = os.dup(self._ends[role].fileno())
        booted = guest.Guest(
            self._kernel,
            [*LIFE, sys.executable, "-m", "tests.rigs.kernel.beside", *command],
            memory="256M",
            kernel_arguments=[f"iomem=sbe,{self._ram}", f"ssl1=fd:{line},fd:{line}"],
            inherited=[line],
        )
        self._guests.callback(booted.close)
        return booted

    def remote(self) -> guest.Guest:
        """One that serves."""
        return self.boot("remote", *SBE, "serve", "tests.rigs.kernel.services", "--carveout", LINK)

    def host(self, rounds: int, lives: int = 1) -> guest.Guest:
        """One that works, and says so in each life of the remote."""
        words = ("-m", "tests.rigs.kernel.neighbours", str(rounds), str(lives))
        return self.boot("host", sys.executable, *words)

    def close(self) -> None:
        self._guests.close()
        for end in self._ends.values():
            end.close()


@pytest.fixture
def neighbours(kernel: Path, tmp_path: Path) -> Iterator[Neighbours]:
    with contextlib.closing(Neighbours(kernel, tmp_path)) as made:
        yield made


def ends_well(host: guest.Guest) -> None:
    result = host.wait(LIMIT_S)
    assert result.status == 0, result.output
    assert not result.faults


@pytest.mark.parametrize("first", ["host", "remote"])
def test_calls(neighbours: Neighbours, first: str) -> None:
    if first == "host":
        host = neighbours.host(100)
        neighbours.remote()
    else:
        neighbours.remote()
        host = neighbours.host(100)
    assert host.receive(LIMIT_S) == "worked"
    ends_well(host)


def test_the_remote_s_kernel_is_killed(neighbours: Neighbours) -> None:
    remote, host = neighbours.remote(), neighbours.host(10, lives=3)
    for _ in range(2):
        assert host.receive(LIMIT_S) == "worked"
        remote.close()
        remote = neighbours.remote()
    assert host.receive(LIMIT_S) == "worked"
    ends_well(host)


def test_the_host_s_kernel_is_killed(neighbours: Neighbours) -> None:
    remote = neighbours.remote()
    for _ in range(2):
        host = neighbours.host(10, lives=2)
        assert host.receive(LIMIT_S) == "worked"
        host.close()
    host = neighbours.host(10)
    assert host.receive(LIMIT_S) == "worked"
    ends_well(host)
    assert remote.output.count("a host is here") == 3


@pytest.mark.timeout(1800 if ALL else 300)
def test_the_conformance_suite(neighbours: Neighbours) -> None:
    """What is about buffers and services; SBE_NEIGHBOURS=all has all of it, in some minutes."""
    neighbours.remote()
    suite = ["sbe.testing.conformance"]
    if not ALL:
        suite = [f"{suite[0]}.{name}" for name in ("test_buffers", "test_services")]
    words = ["-p", "sbe.testing.plugin", f"--sbe-uri=carveout:{LINK}", "-q", "--pyargs", *suite]
    host = neighbours.boot("host", sys.executable, "-m", "pytest", *words)
    result = host.wait(1700 if ALL else 250)
    print(result.output[-3000:])
    assert result.status == 0, result.output
    assert " passed" in result.output
    assert not result.faults
