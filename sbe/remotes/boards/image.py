"""Which boards there are, and whether an image is for one of them."""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from sbe import errors
from sbe.host import files

__all__ = ["BOARDS", "Board", "check_image", "find_image"]

_ARM = 40
_MACHINES = {
    3: "x86",
    8: "MIPS",
    20: "PowerPC",
    40: "Arm",
    62: "x86-64",
    94: "Xtensa",
    183: "AArch64",
    243: "RISC-V",
}
_NOTE_MAX = 256  # bytes: ours has a board's name
_IMAGE_MAX = 256 << 20  # bytes: with all that debuggers want


@dataclass(frozen=True)
class Board:
    """A board as QEMU emulates it. Addresses are the core's."""

    name: str
    core: str
    code: range
    window_address: int
    window_size: int


BOARDS = {
    board.name: board
    for board in (
        Board("mps2-an521", "Cortex-M33", range(0x10000000, 0x10400000), 0x80000000, 16 << 20),
        Board("mps2-an385", "Cortex-M3", range(0, 0x400000), 0x21000000, 16 << 20),
    )
}


def find_image(board: Board) -> Path:
    """Returns the image that `make firmware` builds, or what SBE_FIRMWARE names.

    Raises LinkError which says how to get one, BadArgument when the one that is named is not there.
    """
    named = os.environ.get("SBE_FIRMWARE")
    if named:
        if not os.path.exists(named):
            raise errors.BadArgument(f"SBE_FIRMWARE={named!r} names no file")
        return Path(named)
    top = Path(__file__).resolve().parents[3]
    path = top / "build" / "firmware" / board.name / "sbe-firmware.elf"
    if not path.is_file():
        checkout = (top / "Makefile").is_file()
        where = (
            f"{path} is missing; build it with `make firmware`"
            if checkout
            else ("the package brings none; build it in a checkout with `make firmware`")
        )
        raise errors.LinkError(
            f"no firmware for {board.name}: {where}, or name an image: qemu:{board.name},IMAGE or "
            "SBE_FIRMWARE=IMAGE"
        )
    return path


def check_image(path: str | os.PathLike[str], board: Board) -> None:
    """Checks that this is firmware for this board. Raises BadArgument, which says what it is."""
    name = os.fspath(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # QEMU reads it once more
            raise errors.BadArgument(f"the image {name} is no plain file")
        data = files.read_file(path, _IMAGE_MAX)
    except OSError as error:
        raise errors.BadArgument(f"the image {name}: {error.strerror}", error.errno) from error
    if len(data) < 52 or data[:4] != b"\x7fELF":
        raise errors.BadArgument(f"{name} is no ELF file, so no firmware for {board.name}")
    if data[4:6] != b"\1\1" or int.from_bytes(data[18:20], "little") != _ARM:
        raise errors.BadArgument(
            f"{name} is for {_target(data)}, the core of {board.name} is Arm, 32-bit little-endian"
        )
    meant = _note(data)
    if meant is not None and meant != board.name:
        raise errors.BadArgument(f"{name} is firmware for {meant}, the board is {board.name}")
    loads = [(address, size) for kind, address, size in _segments(data) if kind == 1 and size]
    if not loads:
        raise errors.BadArgument(f"{name} has nothing to load")
    for address, size in loads:
        if address < board.code.start or address + size > board.code.stop:
            raise errors.BadArgument(
                f"{name} loads {size} bytes at {address:#x}, the memory that {board.name} boots "
                f"from is {board.code.start:#x} to {board.code.stop:#x}: it is for another board"
            )


def _target(data: bytes) -> str:
    """What a header says that the file is for."""
    bits = {1: "32-bit", 2: "64-bit"}.get(data[4], f"class {data[4]}")
    order = {1: "little-endian", 2: "big-endian"}.get(data[5], f"byte order {data[5]}")
    machine = int.from_bytes(data[18:20], "big" if data[5] == 2 else "little")
    return f"{_MACHINES.get(machine, f'machine {machine}')}, {bits} {order}"


def _table(data: bytes, at: int, entry: int, count: int, used: int) -> list[bytes]:
    """The first bytes of each entry, as far as they are read; nothing where entries are shorter."""
    if entry < used:
        return []
    rows = [data[at + i * entry : at + i * entry + used] for i in range(count)]
    return [row for row in rows if len(row) == used]


def _segments(data: bytes) -> list[tuple[int, int, int]]:
    """(type, physical address, bytes in the file) of each program header."""
    (at,) = struct.unpack_from("<I", data, 28)
    entry, count = struct.unpack_from("<HH", data, 42)
    rows = _table(data, at, entry, count, 32)
    return [
        (kind, physical, size)
        for kind, _, _, physical, size in (struct.unpack_from("<5I", row) for row in rows)
    ]


def _note(data: bytes) -> str | None:
    """The board that our own note names."""
    (at,) = struct.unpack_from("<I", data, 32)
    entry, count = struct.unpack_from("<HH", data, 46)
    rows = _table(data, at, entry, count, 40)
    for row in rows:
        kind, _, _, place, size = struct.unpack_from("<5I", row, 4)
        note = data[place : place + min(size, _NOTE_MAX)]  # every section may be all of the file
        if kind == 7 and len(note) >= 16 and note[12:16] == b"SBE\0":
            return note[16:].split(b"\0")[0].decode(errors="replace")
    return None
