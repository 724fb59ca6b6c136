# SPDX-License-Identifier: Apache-2.0
"""`sbe firmware` on a remote processor of the kernel."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sbe.cli import app, exit_codes
from sbe.kernel import remoteproc
from tests.rigs.kernel import parts

pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True)
def _processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))  # where emulated boards would be
    parts.make_firmware(tmp_path)
    with parts.module("sbe_userproc", "attach_ms=200"):
        yield


class Sbe:
    """`sbe firmware` in this process."""

    def __init__(self, output: pytest.CaptureFixture[str]) -> None:
        self._output = output

    def says(self, *arguments: str, status: int = exit_codes.OK) -> str:
        assert app.run(["firmware", *arguments]) == status
        said = self._output.readouterr()
        return said.err if status else said.out

    def json(self, *arguments: str) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self.says(*arguments, "--json"))
        return facts


@pytest.fixture
def sbe(capsys: pytest.CaptureFixture[str]) -> Sbe:
    return Sbe(capsys)


def test_life_of_a_processor(sbe: Sbe):
    [listed] = sbe.json("list")["processors"]
    assert (listed["name"], listed["state"], listed["services"]) == (parts.NAME, "offline", [])
    with parts.core_process():
        assert "running" in sbe.says("start", parts.NAME)
        parts.wait_for_service("sbe-doorbell")
        status = sbe.json("status", listed["entry"])
        assert status["services"] == ["sbe-control", "sbe-doorbell"]
        assert "sbe-control, sbe-doorbell" in sbe.says("list")
        assert sbe.says("log", parts.NAME) == "up\n"
        assert sbe.json("log", parts.NAME)["log"] == {"trace0": "up\n"}
        busy = sbe.says("load", parts.NAME, "sbe-userproc.elf", status=exit_codes.FAILED)
        assert "stop it before loading firmware" in busy
        assert "runs already" in sbe.says("start", parts.NAME, status=exit_codes.FAILED)
        assert "offline" in sbe.says("stop", parts.NAME)
        assert "offline" in sbe.says("stop", parts.NAME)
    assert "has no trace buffer: it is offline" in sbe.says("log", parts.NAME)


def test_firmware_is_chosen_by_name_or_path(sbe: Sbe, tmp_path: Path):
    (tmp_path / "other.elf").write_bytes((tmp_path / "sbe-userproc.elf").read_bytes())
    assert sbe.json("load", parts.NAME, str(tmp_path / "other.elf"))["firmware"] == "other.elf"
    with parts.core_process():
        assert sbe.json("start", parts.NAME, "--image", "sbe-userproc.elf")["state"] == "running"
        assert sbe.json("stop", parts.NAME)["firmware"] == "sbe-userproc.elf"


def test_each_fault_is_one_line_that_names_it(sbe: Sbe, tmp_path: Path):
    usage, no_link = exit_codes.USAGE, exit_codes.NO_LINK
    missing = sbe.says("load", parts.NAME, "none.elf", status=usage)
    assert f"no firmware 'none.elf' in {tmp_path}, /lib/firmware" in missing
    assert "copy /etc/passwd to" in sbe.says("load", parts.NAME, "/etc/passwd", status=usage)
    assert "did not answer its start" in sbe.says("start", parts.NAME, status=no_link)
    assert parts.NAME in sbe.says("reset", parts.NAME, status=no_link)  # nor its next one
    nobody = sbe.says("stop", "nobody", status=usage)
    assert f"no emulated board 'nobody'; there are: {parts.NAME}" in nobody
    other = sbe.says("start", parts.NAME, "--board", "mps2-an521", status=usage)
    assert "give the emulated board another name" in other
    image = (tmp_path / "sbe-userproc.elf").read_bytes()
    (tmp_path / "bare.elf").write_bytes(image.replace(b".resource_table\0", b".resource_xxxxx\0"))
    with parts.core_process():
        bare = sbe.says("start", parts.NAME, "--image", "bare.elf", status=usage)
    assert "has no resource table (ELF section .resource_table)" in bare
    for line in (missing, nobody, other, bare):
        assert line.count("\n") == 1
    assert remoteproc.find(parts.NAME).state == "offline"


def test_foreign_user_gets_the_exit_code_for_it(sbe: Sbe):
    pid = os.fork()
    if pid == 0:
        os.setgid(65534)
        os.setuid(65534)
        os._exit(app.run(["firmware", "start", parts.NAME]))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == exit_codes.PERMISSION


def test_crash_without_recovery_is_shown_with_its_log(sbe: Sbe):
    processor = remoteproc.find(parts.NAME)
    with parts.core_process():
        processor.start()
        parts.wait_for_service("sbe-doorbell")
        (processor.folder / "recovery").write_text("disabled")
        Path(f"/sys/kernel/debug/remoteproc/{processor.entry}/crash").write_text("1")
        parts.until(lambda: processor.state == "crashed")
        assert "stays down after a crash" in sbe.says("status", parts.NAME)
        assert sbe.says("log", parts.NAME) == "up\n"
        (processor.folder / "recovery").write_text("enabled")  # which recovers it at once
        parts.until(lambda: processor.state == "running")
        assert "offline" in sbe.says("stop", parts.NAME)
