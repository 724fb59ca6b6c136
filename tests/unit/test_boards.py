"""Records and images of emulated boards, as somebody else may have made them. No QEMU needed."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sbe import errors
from sbe.cli import app
from sbe.host import files
from sbe.remotes.boards import BOARDS, Resident, check_image, resident

NOBODY = 65534
BOARD = BOARDS["mps2-an521"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    path = tmp_path / "sbe"
    (path / "one").mkdir(mode=0o700, parents=True)
    path.chmod(0o700)
    return path


@pytest.fixture
def innocent() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is no board."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def record(home: Path, **changed: Any) -> dict[str, Any]:
    values = {"name": "one", "board": BOARD.name, "image": "/x.elf", "pid": 4000000, "started": 1}
    values |= changed
    (home / "one" / "board.json").write_text(json.dumps(values))
    return values


def test_record_that_names_an_innocent_process(home: Path, innocent: subprocess.Popen[bytes]):
    """Its number and its start are right, so only looking at the process itself tells."""
    record(home, pid=innocent.pid, started=resident._started(innocent.pid))
    board = Resident.find("one")
    assert not board.alive
    board.stop()
    board.remove()
    assert innocent.poll() is None
    assert not board.directory.exists()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"pid": "1"}, "it has not just name, board, image, pid, started"),
        ({"pid": True}, "it has not just"),
        ({"pid": 0}, "there can't be such a process"),
        ({"pid": -1}, "there can't be such a process"),
        ({"pid": 1 << 40}, "there can't be such a process"),
        ({"started": -1}, "there can't be such a process"),
        ({"image": None}, "it has not just"),
        ({"image": "a\0b"}, "there can't be such"),
        ({"more": 1}, "it has not just"),
        ({"name": "../../etc"}, "it is of '../../etc' on a board"),
        ({"board": "pdp-11"}, "on a board 'pdp-11'"),
    ],
)
def test_damaged_record(
    changed: dict[str, Any], words: str, home: Path, caplog: pytest.LogCaptureFixture
):
    record(home, **changed)
    with pytest.raises(errors.BadArgument) as raised:
        Resident.find("one")
    assert f"the record of the board one, {home}/one/board.json, is damaged" in str(raised.value)
    assert words in str(raised.value)
    assert "`sbe firmware start one` writes a new one" in str(raised.value)
    assert Resident.all() == []
    assert words in caplog.text


@pytest.mark.parametrize("text", ["", "[" * 5000, "[]", "null", "\xff", '{"pid": NaN}'])
def test_record_that_is_no_record(text: str, home: Path):
    (home / "one" / "board.json").write_text(text, "latin-1")
    with pytest.raises(errors.BadArgument, match="is damaged"):
        Resident.find("one")


@pytest.mark.parametrize("name", ["", "..", "../one", "/etc", "a/b", "-x", "a" * 41, "a\n"])
def test_name_that_is_none(name: str, home: Path):
    record(home)
    with pytest.raises(errors.BadArgument, match="is no name for a board"):
        Resident.find(name)


def test_folder_that_somebody_else_can_write(
    home: Path, capsys: pytest.CaptureFixture[str], innocent: subprocess.Popen[bytes]
):
    record(home, pid=innocent.pid, started=resident._started(innocent.pid))
    home.chmod(0o777)
    for act in (lambda: Resident.find("one"), Resident.all, lambda: Resident.start("one")):
        with pytest.raises(errors.PermissionDenied, match=f"others can write the folder {home}"):
            act()
    assert app.run(["firmware", "stop", "one"]) == 5
    assert capsys.readouterr().err.startswith("sbe: error: others can write the folder")
    # Nobody's doing keeps a user from looking at the rest.
    assert app.run(["--uri", "loopback:", "list"]) == 0
    assert "sbe: warning: emulated boards are not shown: others can" in capsys.readouterr().err
    assert innocent.poll() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="a folder of another user needs root")
def test_folder_that_somebody_else_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As in /tmp, whose names anybody can guess."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(resident, "_SHARED", tmp_path)
    tmp_path.chmod(0o1777)
    planted = tmp_path / f"sbe-{os.geteuid()}"
    (planted / "one").mkdir(parents=True)
    planted.chmod(0o700)
    record(planted)
    os.chown(planted, NOBODY, -1)
    for act in (lambda: Resident.find("one"), Resident.all, lambda: Resident.start("one")):
        with pytest.raises(errors.PermissionDenied, match="belongs to user nobody, not to"):
            act()


def test_place_that_cant_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "relative")
    with pytest.raises(errors.BadArgument, match="XDG_RUNTIME_DIR='relative' is no absolute path"):
        Resident.all()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))
    assert Resident.all() == []
    with pytest.raises(errors.LinkError, match=r"boards can't be kept in .*missing/sbe: No such"):
        Resident.start("one")


def test_start_and_stop_take_turns(home: Path, monkeypatch: pytest.MonkeyPatch):
    record(home)
    monkeypatch.setattr(resident, "_LOCK_S", 0.0)
    board = Resident.find("one")
    with files.private_folder(home) as fd:
        resident._lock(fd)
        for act in (lambda: Resident.start("two"), board.stop, board.remove):
            with pytest.raises(errors.Busy, match="another process of this user is starting"):
                act()
    board.remove()


# Images


def elf(order: int = 1, bits: int = 1, machine: int = 40) -> bytes:
    head = bytes([0x7F, *b"ELF", bits, order]) + bytes(12)
    return head + machine.to_bytes(2, "big" if order == 2 else "little") + bytes(100)


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (elf(order=2), "Arm, 32-bit big-endian"),
        (elf(bits=2), "Arm, 64-bit little-endian"),
        (elf(order=2, bits=2), "Arm, 64-bit big-endian"),
        (elf(bits=2, machine=183), "AArch64, 64-bit little-endian"),
        (elf(machine=243), "RISC-V, 32-bit little-endian"),
        (elf(order=2, machine=8), "MIPS, 32-bit big-endian"),
        (elf(machine=999), "machine 999, 32-bit little-endian"),
        (elf(order=0), "Arm, 32-bit byte order 0"),
        (elf(bits=7), "Arm, class 7 little-endian"),
    ],
)
def test_image_for_another_core(image: bytes, what: str, tmp_path: Path):
    path = tmp_path / "image.elf"
    path.write_bytes(image)
    with pytest.raises(errors.BadArgument) as raised:
        check_image(path, BOARD)
    assert str(raised.value) == (
        f"{path} is for {what}, the core of mps2-an521 is Arm, 32-bit little-endian"
    )


def test_image_that_is_no_file(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", tmp_path, tmp_path / "pipe"):
        with pytest.raises(errors.BadArgument, match=f"the image {path} is no plain file"):
            check_image(path, BOARD)
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(errors.BadArgument, match="huge has 1,099,511,627,776 bytes, more than"):
        check_image(tmp_path / "huge", BOARD)
    with pytest.raises(errors.BadArgument, match="the image /no/such: No such file"):
        check_image("/no/such", BOARD)


def test_image_whose_sections_are_all_of_it(tmp_path: Path):
    """What is looked at grows with the file, not with its sections times the file."""
    path = tmp_path / "image.elf"
    count, size = 65535, 64 << 20
    head = bytearray(elf())
    struct.pack_into("<I", head, 32, 256)  # where the sections are
    struct.pack_into("<HH", head, 46, 40, count)
    with open(path, "wb") as file:
        file.write(head)
        file.seek(256)
        file.write(struct.pack("<10I", 0, 7, 0, 0, 1, size, 0, 0, 0, 0) * count)
        file.truncate(size)
    check = (
        "import sys; from sbe.remotes.boards import BOARDS, check_image; "
        f"check_image(sys.argv[1], BOARDS[{BOARD.name!r}])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", check, str(path)], capture_output=True, timeout=60, check=False
    )
    assert b"has nothing to load" in ran.stderr
