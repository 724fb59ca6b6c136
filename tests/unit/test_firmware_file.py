"""Firmware files as the kernel's loader sees them; the file may hold anything."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from sbe import errors
from sbe.kernel import firmware_file

MAKER = Path(__file__).resolve().parents[2] / "linux" / "kernel" / "make_firmware.py"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "firmware.elf"
    subprocess.run([sys.executable, MAKER, path], check=True)
    return path


def test_resource_table_is_found(image: Path):
    assert firmware_file.has_resource_table(image) is True
    data = bytearray(image.read_bytes())
    place = data.index(b".resource_table\0")
    data[place] = ord("x")
    image.write_bytes(data)
    assert firmware_file.has_resource_table(image) is False


def test_fault_is_told_in_words(image: Path, tmp_path: Path):
    assert firmware_file.fault(image) is None
    data = image.read_bytes()
    foreign = 2 if sys.byteorder == "little" else 1
    words = {2: "big", 1: "little"}[foreign]
    image.write_bytes(data[:5] + bytes([foreign]) + data[6:])
    assert firmware_file.fault(image) == (
        f"the firmware is {words}-endian, this kernel takes {sys.byteorder}-endian files only"
    )
    image.write_bytes(data[:5] + b"\7" + data[6:])
    assert "is neither little nor big-endian" in str(firmware_file.fault(image))
    image.write_bytes(data.replace(b".resource_table\0", b".resource_tabel\0"))
    assert "has no resource table" in str(firmware_file.fault(image))
    image.write_text("text")
    assert firmware_file.fault(image) == "the firmware is no ELF image"
    assert firmware_file.fault(image.rename(tmp_path / "firmware.xz")) is None  # only seen inside
    assert firmware_file.fault(tmp_path / "missing") is None


@pytest.mark.parametrize(
    "content", [b"", b"\x7fELF", b"text" * 100, b"\x7fELF\x02\x01" + bytes(58)]
)
def test_no_elf_file_is_no_verdict(tmp_path: Path, content: bytes):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert firmware_file.has_resource_table(path) is None
    assert firmware_file.has_resource_table(tmp_path) is None
    assert firmware_file.has_resource_table(tmp_path / "missing") is None


def test_damaged_files_are_survived(image: Path):
    whole = image.read_bytes()
    dice = random.Random(4)
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(dice.randrange(1, 8)):
            data[dice.choice((dice.randrange(64), dice.randrange(len(data) - 192, len(data))))] = (
                dice.randrange(256)
            )
        image.write_bytes(data[: dice.randrange(60, len(data) + 1)])
        assert firmware_file.has_resource_table(image) in (True, False, None)


def test_names_are_below_the_kernels_folders():
    assert firmware_file.name_of("vendor/m4.elf") == "vendor/m4.elf"
    assert firmware_file.name_of("/lib/firmware/vendor/m4.elf") == "vendor/m4.elf"
    for name in ("", "../m4.elf", "/lib/firmware/../m4.elf"):
        with pytest.raises(errors.BadArgument, match="no name of a firmware file"):
            firmware_file.name_of(name)
    with pytest.raises(errors.BadArgument, match=r"copy /home/me/m4\.elf to /lib/firmware"):
        firmware_file.name_of("/home/me/m4.elf")
