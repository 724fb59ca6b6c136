"""UIO devices: include/linux/uio_driver.h, Documentation/driver-api/uio-howto.rst.

Such a device has up to 5 maps. The offset of its mmap() is no place in a file: it selects a map, a
page for each, and the mapping begins with the map. So a place in one is written as a number of its
own, from `place()`, which `sbe._native.Memory` takes for an offset.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import sys
from pathlib import Path
from typing import NamedTuple

from sbe import _native, errors
from sbe.kernel import ioctl

__all__ = ["Map", "find", "open_interrupt", "place", "register"]

_DEVICES = Path("/sys/dev/char")


class Map(NamedTuple):
    """A range of memory that a device shows: `size_bytes` from a physical address.

    `offset_bytes`: the device's own memory begins so far into the first page. A name may be empty.
    """

    number: int
    name: str
    address: int
    size_bytes: int
    offset_bytes: int


def find(fd: int) -> list[Map] | None:
    """Returns the maps of an open UIO device; None: it is none, or sysfs is not mounted."""
    status = os.fstat(fd)
    if not stat.S_ISCHR(status.st_mode):
        return None
    entry = _DEVICES / f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    try:
        if os.path.basename(os.readlink(entry / "subsystem")) != "uio":
            return None
        folders = list((entry / "maps").glob("map[0-9]*"))
    except OSError:
        return None
    return sorted(_read(folder) for folder in folders)


def _read(folder: Path) -> Map:
    def number(name: str) -> int:
        return int((folder / name).read_text(), 16)

    try:
        name = (folder / "name").read_text().strip()
        return Map(
            int(folder.name.removeprefix("map")),
            name,
            number("addr"),
            number("size"),
            number("offset"),
        )
    except (OSError, ValueError) as error:
        raise errors.LinkError(f"{folder}: {error}") from error


def place(
    fd: int, path: str, number: int | None, offset_bytes: int, size_bytes: int | None
) -> tuple[int, int | None]:
    """Returns where `size_bytes` (None: all) from `offset_bytes` of a map lie, and how many it is.

    What is no UIO device has no maps: it is returned as it was given. `number` None: map 0. Raises
    BadArgument for a map that there isn't, and for what lies beyond its end.
    """
    maps = find(fd)
    if maps is None:
        if number is not None:
            raise errors.BadArgument(f"{path} is no UIO device: it has no map {number}")
        if offset_bytes >= _native.MEMORY_MAP:
            raise errors.BadArgument(f"{path} at {offset_bytes}: no file is so long")
        return offset_bytes, size_bytes
    found = _select(maps, path, number or 0)
    if found.offset_bytes % mmap.PAGESIZE:
        raise errors.BadArgument(
            f"map {found.number} of {path} begins {found.offset_bytes} bytes into a page: what is "
            "shared has to begin on one"
        )
    left = found.size_bytes - offset_bytes
    wanted = left if size_bytes is None else size_bytes
    if wanted > left or left <= 0:
        raise _too_short(path, found, offset_bytes, max(wanted, 1))
    return _number(found, offset_bytes), wanted


def open_interrupt(path: str) -> int:
    """Opens a device for its interrupt, which is enabled; the descriptor, which does not block.

    It is readable once the interrupt has come; then 4 bytes are read, and a 1 of 4 bytes enables
    it again. Raises BadArgument for what is no UIO device, or has no interrupt.
    """
    fd = ioctl.open_device(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        if find(fd) is None:
            raise errors.BadArgument(f"{path} is no UIO device: it has no interrupt")
        try:  # whoever had it before may have left it off
            os.write(fd, (1).to_bytes(4, sys.byteorder))
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EIO):  # never off; none
                raise
        os.read(fd, 4)
    except BlockingIOError:
        return fd  # as it should be: it has not come yet
    except OSError as error:
        os.close(fd)
        if error.errno == errno.EIO:
            raise errors.BadArgument(f"{path} has no interrupt") from error
        raise ioctl.translate(error, path) from error
    except BaseException:
        os.close(fd)
        raise
    return fd


def register(fd: int, path: str, number: int, offset_bytes: int) -> _native.Slice:
    """Returns the 4 bytes at an offset of a map. Raises BadArgument where there are none."""
    found = _select(find(fd) or [], path, number)
    if offset_bytes % 4:
        raise errors.BadArgument(f"a register at {offset_bytes:#x}: a multiple of 4 is needed")
    if offset_bytes + 4 > found.size_bytes:
        raise _too_short(path, found, offset_bytes, 4)
    at = _number(found, found.offset_bytes + offset_bytes)
    with errors.resources(f"map {number} of {path} can't be mapped"):
        return _native.Memory(fd, 4, trusted=True, offset=at)[:]


def _select(maps: list[Map], path: str, number: int) -> Map:
    for each in maps:
        if each.number == number:
            return each
    there = ", ".join(f"{each.number} ({_describe(each)})" for each in maps) or "none"
    raise errors.BadArgument(f"{path} has no map {number}; there are: {there}")


def _too_short(path: str, found: Map, offset: int, wanted: int) -> errors.BadArgument:
    return errors.BadArgument(
        f"map {found.number} of {path} ({_describe(found)}) has "
        f"{max(found.size_bytes - offset, 0)} bytes from {offset}, {wanted} are needed"
    )


def _number(found: Map, offset: int) -> int:
    return _native.MEMORY_MAP + found.number * _native.MEMORY_MAP_STEP + offset


def _describe(each: Map) -> str:
    name = f"{each.name}, " if each.name else ""
    return f"{name}{each.size_bytes} bytes at {each.address:#x}"
