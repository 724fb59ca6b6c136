"""The conformance suite as who makes a remote has it: installed, and nothing of the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.unit.test_extras import Site

# Beside the checkout's tests, in no folder of theirs: `sbe` is found in the venv alone.
CHECK = """
import sys
import sbe, sbe.testing
try:
    print(sbe.testing.check_remote("loopback:", timeout=float(sys.argv[1])))
except sbe.Error as error:
    print(type(error).__name__, error)
"""

REMOTE = """
import os, socket, sys, time, zlib
import sbe.testing
from sbe.serve.life import Life
from sbe.serve.memory import Descriptors
from sbe.transports.seqpacket import SeqpacketTransport

def echo(payload, *buffers):
    return payload

def crc32(payload, *buffers):
    value = 0
    for buffer in buffers:
        value = zlib.crc32(buffer, value)
    return value.to_bytes(4, "little")

SERVICES = {services}
fd = int(sys.argv[sys.argv.index("--control-fd") + 1])
transport = SeqpacketTransport(socket.socket(fileno=fd))
Life(transport, Descriptors(), SERVICES, name="sbe.testing").run(os.eventfd(0))
"""


class Installed:
    """A venv that has this package as its wheel has it, and the other packages of this one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder / "venv", with_pip=False)
        self.python = folder / "venv" / "bin" / "python"
        [site] = (folder / "venv" / "lib").glob("python*/site-packages")
        # Its folder, not its .pth files: the editable install stays unseen.
        (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
        self.package = Site(site).package

    def remote(self, services: str) -> Path:
        """A program with these services, for SBE_REMOTE."""
        source, program = self.folder / "remote.py", self.folder / "remote"
        source.write_text(REMOTE.format(services=services))
        program.write_text(f'#!/bin/sh\nexec "{self.python}" "{source}" "$@"\n')
        program.chmod(0o755)
        return program

    def run(self, *words: str, remote: Path | None = None) -> str:
        clean = {key: value for key, value in os.environ.items() if key[:4] not in ("SBE_", "PYTE")}
        return subprocess.run(
            [self.python, *words],
            env=clean if remote is None else {**clean, "SBE_REMOTE": str(remote)},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=110,
        ).stdout

    def check(self, services: str, timeout: float = 60.0) -> str:
        return self.run("-c", CHECK, str(timeout), remote=self.remote(services))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    made = Installed(tmp_path_factory.mktemp("installed"))
    assert made.run("-c", "import sbe; print(sbe.__file__)").strip() == str(
        made.package / "__init__.py"
    )
    return made


def test_the_remote_of_the_package_passes(installed: Installed) -> None:
    said = json.loads(installed.run("-m", "sbe", "check", "--uri", "loopback:", "--json"))
    assert (said["ok"], said["failed"]) == (True, [])
    assert {each["words"] for each in said["skipped"]} == {
        "nothing is cached here that the remote does not see"
    }
    assert said["remote"] == "sbe-remote"
    assert said["passed"] > 200


def test_what_a_remote_has_not_is_skipped_with_the_reason(installed: Installed) -> None:
    said = installed.check('{"echo": echo}')
    assert said.startswith("PASS sbe.testing: ")
    assert "failed" not in said
    assert ": the remote has no service crc32\n" in said
    assert ": the remote can't be suspended\n" in said


def test_a_wrong_sum_fails(installed: Installed) -> None:
    said = installed.check('{"crc32": lambda *given: bytes(reversed(crc32(*given)))}')
    assert said.startswith("Error FAIL sbe.testing: ")
    assert "  failed services: crc32 of every size and offset: AssertionError: (1, 0)" in said
    assert "failed services: echo" not in said
    assert ": the remote has no service echo\n" in said


def test_too_few_bytes_fail(installed: Installed) -> None:
    said = installed.check('{"echo": lambda payload, *buffers: payload[:-1]}')
    assert said.startswith("Error FAIL sbe.testing: ")
    assert "  failed services: echo returns every payload: AssertionError: assert b''" in said


def test_a_remote_that_never_answers_ends_the_suite(installed: Installed) -> None:
    said = installed.check('{"echo": lambda *given: time.sleep(1000)}', timeout=1.0)
    assert said.startswith("Error FAIL sbe.testing: ")
    assert "no end after 1 s" in said
    assert "  failed the suite: 3 tests had no end, the others were not begun" in said


def test_a_remote_without_a_service_to_call_is_told_so(installed: Installed) -> None:
    said = installed.check('{"mine": echo}')
    assert said.startswith("UnknownService sbe.testing offers mine, and the conformance suite ")
    assert said.strip().endswith("give it at least echo")


def test_the_plugin_by_hand(installed: Installed) -> None:
    words = ["-m", "pytest", "-p", "sbe.testing.plugin", "-p", "no:cacheprovider"]
    words += ["--sbe-uri=loopback:", "--pyargs", "sbe.testing.conformance", "-k", "crc32"]
    assert " passed, " in installed.run(*words)
    (installed.folder / "test_mine.py").write_text(
        "def test_mine(link):\n    assert link.call('echo', payload=b'x').payload == b'x'\n"
    )
    words = ["-m", "pytest", "-p", "sbe.testing.plugin", "-q", "test_mine.py"]
    assert "1 passed" in installed.run(*words, "--sbe-uri=loopback:")
    assert "ERROR: 'tcp:' is no link: say loopback:" in installed.run(*words, "--sbe-uri=tcp:")
