"""`sbe firmware` on emulated boards; on a kernel's remote processors see kernel/."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sbe
from sbe.cli import app, exit_codes
from sbe.remotes.boards import QemuBoard, Resident
from tests.rigs.boards import image, require_board

pytestmark = [pytest.mark.rig, pytest.mark.timeout(120)]
BOARD = "mps2-an521"


def test_a_link_is_called_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    require_board(BOARD)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    def sbe(*words: str) -> str:
        assert app.run(words) == exit_codes.OK
        return capsys.readouterr().out

    own = f"qemu:{BOARD},{image(BOARD)}"
    assert f"{BOARD} (emulated board: sbe-firmware {BOARD}, process " in sbe("--uri", own, "ping")
    assert sbe("--uri", own, "list").endswith(
        "was started for this command alone and is gone now.\n"
    )
    sbe("firmware", "start", "one", "--board", BOARD)
    try:
        resident = Resident.find("one").uri
        assert f"link.toml (carve-out: sbe-firmware {BOARD})" in sbe("--uri", resident, "ping")
        assert sbe("--uri", resident, "list").endswith("alone; the remote runs on.\n")
    finally:
        Resident.find("one").remove()


def test_uri_of_a_board_leads_to_its_image(tmp_path: Path) -> None:
    require_board(BOARD)
    other = shutil.copy(image(BOARD), tmp_path / "other.elf")
    for uri in (f"qemu:{BOARD}", f"qemu:{BOARD},{other}"):
        with QemuBoard(*uri.removeprefix("qemu:").split(",")) as board:
            assert board.uri == uri


def test_life_of_a_board(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    require_board(BOARD)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    other = shutil.copy(image(BOARD), tmp_path / "other.elf")

    def sbe(*arguments: str, status: int = exit_codes.OK) -> dict[str, Any]:
        assert app.run(["firmware", *arguments, "--json"]) == status
        facts: dict[str, Any] = json.loads(capsys.readouterr().out)
        return facts

    assert sbe("start", "one")["board"] == BOARD  # a new name
    try:
        assert [board["name"] for board in sbe("list")["boards"]] == ["one"]
        assert app.run(["--uri", "loopback:", "list", "--json"]) == exit_codes.OK
        cores = json.loads(capsys.readouterr().out)["cores"]
        assert [core["name"] for core in cores if core["kind"] == "emulated"] == ["one"]
        assert set(sbe("log", "one")["log"]) == {"console"}
        assert sbe("freeze", "one")["state"] == "frozen"
        assert sbe("thaw", "one")["state"] == "running"
        busy = sbe("load", "one", str(other), status=exit_codes.FAILED)
        assert "stop it before loading" in busy["error"]["message"]
        assert sbe("stop", "one")["state"] == "stopped"
        wrong = sbe("load", "one", __file__, status=exit_codes.USAGE)
        assert "is no ELF file" in wrong["error"]["message"]
        assert sbe("load", "one", str(other))["firmware"] == str(other)
        started = sbe("start", "one")  # what is loaded, on the board that it was
        assert (started["state"], started["firmware"]) == ("running", str(other))
        assert sbe("remove", "one")["state"] == "removed"
    finally:
        for board in Resident.all():
            board.remove()


def test_boards_in_a_place_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deep, with a comma and a quote: it is listed, driven and connected to as anywhere."""
    require_board(BOARD)
    place = tmp_path / ("deep" * 30 + ',"\\')
    place.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    board = Resident.start("one", BOARD, image(BOARD))
    try:
        assert board.alive
        assert stat.S_IMODE(board.directory.parent.stat().st_mode) == 0o700
        monkeypatch.setenv("XDG_RUNTIME_DIR", f"{place}/.")
        found = Resident.find("one")
        assert (found, found.state) == (board, "running")
        with sbe.connect(found.uri) as link:
            assert link.call("echo", payload=b"x").payload == b"x"
        assert app.run(["console", "one", "--no-follow"]) == exit_codes.OK
        found.freeze()
        assert found.state == "frozen"
    finally:
        board.remove()
    assert not board.alive
    assert not board.directory.exists()


START = """
import sys
import sbe
from sbe.remotes.boards import Resident
sys.stdin.read()
try:
    print(Resident.start("one", sys.argv[1], sys.argv[2]).pid)
except sbe.Busy as error:
    print(error)
"""


def test_two_start_one_board_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_board(BOARD)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    command = [sys.executable, "-c", START, BOARD, str(image(BOARD))]
    starters = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    try:
        for process in starters:
            assert process.stdin is not None
            process.stdin.close()
        told = []
        for process in starters:
            assert process.stdout is not None
            told.append(process.stdout.read().strip())
            assert process.wait(60) == 0
        started = [words for words in told if words.isdigit()]
        assert len(started) == 1, told
        assert told.count("the board one runs already: stop it first") == 3
        assert Resident.find("one").pid == int(started[0])
    finally:
        for process in starters:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        Resident.find("one").remove()
