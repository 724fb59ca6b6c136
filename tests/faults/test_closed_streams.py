"""Standard streams that are closed: 0 to 2 are numbers like any others, for what is opened next."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sbe.testing.conformance.parts import LIMIT_S
from tests.integration.varlink_client import daemon
from tests.rigs.boards import require_board

APPLICATION = """
import json, os, sys
uri, closed, told = sys.argv[1], sys.argv[2], int(sys.argv[3])
for fd in closed:
    os.close(int(fd))
import sbe
with sbe.connect(uri) as link:
    area = link.allocate(4096)
    area[:3] = b"abc"
    reply = link.call("crc32", sbe.In(area[:3]), timeout=10.0)
    names = [os.readlink(f"/proc/self/fd/{fd}") if os.path.exists(f"/proc/self/fd/{fd}") else ""
             for fd in closed]
    for fd in (1, 2):  # as a library in C would
        try:
            os.write(fd, b"an innocent message")
        except OSError:
            pass
    assert bytes(area[:4]) == b"abc\\0"
    assert link.call("crc32", sbe.In(area[:3]), timeout=10.0).payload == reply.payload
    link.find("echo")
os.write(told, json.dumps(names).encode())
"""

CLOSED = ["".join(each) for count in (1, 2, 3) for each in itertools.combinations("012", count)]


def run(uri: str, closed: str) -> None:
    reader, writer = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", APPLICATION, uri, closed, str(writer)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[writer],
    ) as process:
        os.close(writer)
        with open(reader, "rb") as told:
            names = told.read().decode()
        assert process.stderr is not None
        assert process.wait(LIMIT_S) == 0, process.stderr.read()
    for held in ("socket", "memfd", "/ram"):
        assert held not in names


@pytest.mark.parametrize("closed", CLOSED)
def test_the_embedded_remote(closed: str) -> None:
    run("loopback:", closed)


@pytest.mark.parametrize("closed", CLOSED)
def test_a_board(closed: str) -> None:
    require_board("mps2-an521")
    run("qemu:mps2-an521", closed)


def test_a_daemon_and_its_client(tmp_path: Path) -> None:
    shell = ["sh", "-c", 'exec "$@" 0<&- 1>&-', "sh"]  # standard error is the daemon's log
    with daemon(tmp_path, launcher=shell) as running:
        for closed in CLOSED:
            run(f"unix:{running.socket}", closed)
