"""Firmware files as remoteproc loads them: where the kernel looks, and whether a file says what its
processor is to be given (drivers/remoteproc/remoteproc_elf_loader.c).
"""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from sbe import errors

__all__ = ["fault", "find", "folders", "has_resource_table", "name_of"]

FIRMWARE = Path("/lib/firmware")
EXTRA_FIRMWARE = Path("/sys/module/firmware_class/parameters/path")
_SECTION = b".resource_table\0"
_NAMES_MAX = 1 << 20  # bytes of section names that anybody has
_COMPRESSED = ("", ".xz", ".zst")


class _Layout(NamedTuple):
    """Where ELF32 and ELF64 keep what we read; little-endian, like every such processor."""

    sections: str  # offset of the section table, in the header at `sections_at`
    sections_at: int
    sizes_at: int  # e_shentsize, e_shnum, e_shstrndx
    section: str  # name, offset and size of an entry
    section_size: int


_LAYOUTS = {
    1: _Layout("<I", 32, 46, "<I12xII16x", 40),
    2: _Layout("<Q", 40, 58, "<I20xQQ24x", 64),
}


def folders() -> list[Path]:
    """Returns where the kernel looks for firmware (drivers/base/firmware_loader/main.c)."""
    extra = EXTRA_FIRMWARE.read_text().strip() if EXTRA_FIRMWARE.exists() else ""
    release = os.uname().release
    updates = [FIRMWARE / "updates" / release, FIRMWARE / "updates", FIRMWARE / release, FIRMWARE]
    return ([Path(extra)] if extra else []) + updates


def name_of(file: str) -> str:
    """Returns what the kernel calls this file: it takes names below its folders, not paths.

    Raises BadArgument for a path elsewhere.
    """
    path = PurePosixPath(file)
    if ".." in path.parts or not path.parts:
        raise errors.BadArgument(f"{file!r} is no name of a firmware file")
    if not path.is_absolute():
        return file
    for folder in folders():
        if path.is_relative_to(folder):
            return str(path.relative_to(folder))
    places = ", ".join(map(str, folders()))
    raise errors.BadArgument(
        f"the kernel loads firmware from {places} only: copy {file} to {FIRMWARE} and give its name"
    )


def find(name: str) -> Path | None:
    """Returns the file that the kernel would load; compressed ones count."""
    for folder in folders():
        for end in _COMPRESSED:
            path = folder / f"{name}{end}"
            try:
                if path.is_file():
                    return path
            except PermissionError:
                return path  # only the kernel can tell
    return None


def fault(path: Path) -> str | None:
    """Says what the kernel can't like about a firmware file; None when nothing is seen."""
    try:
        with open(path, "rb") as file:
            head = file.read(6)
    except OSError:
        return None
    if path.suffix in _COMPRESSED[1:]:
        return None
    if len(head) < 6 or head[:4] != b"\x7fELF":
        return "the firmware is no ELF image"
    order = {1: "little", 2: "big"}.get(head[5])
    if order != sys.byteorder:
        return (
            f"the firmware is {order or 'neither little nor big'}-endian, this kernel takes "
            f"{sys.byteorder}-endian files only"
        )
    if has_resource_table(path) is False:
        return "the firmware has no resource table (ELF section .resource_table)"
    return None


def has_resource_table(path: Path) -> bool | None:
    """Says whether an ELF file has a resource table, without which there is no rpmsg.

    None: not ELF as we know it, compressed, or not readable for this user.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(64)
            layout = _LAYOUTS.get(head[4]) if head[:4] == b"\x7fELF" and len(head) == 64 else None
            if layout is None or head[5] != 1:
                return None
            return _find_table(file.fileno(), layout, head)
    except (OSError, struct.error, OverflowError):
        return None


def _find_table(fd: int, layout: _Layout, head: bytes) -> bool | None:
    [at] = struct.unpack_from(layout.sections, head, layout.sections_at)
    size, count, names_index = struct.unpack_from("<HHH", head, layout.sizes_at)
    if size != layout.section_size or names_index >= count:
        return None
    table = os.pread(fd, size * count, at)
    entries = list(struct.iter_unpack(layout.section, table))
    _, names_at, names_size = entries[names_index] if names_index < len(entries) else (0, 0, 0)
    names = os.pread(fd, min(names_size, _NAMES_MAX), names_at)
    return any(names.startswith(_SECTION, name) for name, _, _ in entries)
