"""Shared RAM of a carve-out link: a mapping of all of it, its arena and the remote's regions."""

from __future__ import annotations

import errno
import mmap
import os
from typing import Any

from sbe import _native, errors
from sbe.heaps import Allocation
from sbe.heaps.carveout import CarveoutHeap
from sbe.host.descriptors import above_streams, duplicate
from sbe.kernel import uio

__all__ = ["Window", "describe_crash"]


class Window:
    """The shared RAM: one mapping of all of it, and the heap of its arena. Lives through losses."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        offset_bytes: int = 0,
        size_bytes: int | None = None,
        uio_map: int | None = None,
    ) -> None:
        """Opens it. Raises BadArgument when it is too small or not as large as said.

        `uio_map` is the number of a UIO device's map, from which `offset_bytes` count then.
        """
        self.path = os.fspath(path)
        with errors.resources(f"the shared RAM {self.path}"):
            fd = above_streams(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_SYNC))
        try:
            there = os.fstat(fd).st_size - offset_bytes
            regular = os.path.isfile(path)
            at, size_bytes = uio.place(fd, self.path, uio_map, offset_bytes, size_bytes)
            if size_bytes is None:
                size_bytes = there
            elif not regular:
                there = size_bytes
            if (regular and there < size_bytes) or size_bytes < _native.CARVEOUT_WINDOW_MIN:
                raise errors.BadArgument(
                    f"the shared RAM {self.path} has {max(there, 0)} bytes from {offset_bytes}, "
                    f"{max(size_bytes, _native.CARVEOUT_WINDOW_MIN)} are needed"
                )
            self.size_bytes = size_bytes
            with errors.resources(f"the shared RAM {self.path} can't be mapped"):
                self.memory = _native.Memory(fd, size_bytes, trusted=True, offset=at)
            arena = _native.CARVEOUT_ARENA
            self.heap = CarveoutHeap(fd, at + arena, size_bytes - arena)
        except BaseException:
            os.close(fd)
            raise
        self._fd, self._offset = fd, at
        self._address = 0
        self._regions: dict[str, tuple[int, int]] = {}

    def agree(self, info: dict[str, Any]) -> None:
        """Takes the remote's word on the window. Raises LinkError when it is another one."""
        if info["window_size"] != self.size_bytes:
            raise errors.LinkError(
                f"the firmware on {info['board']} shares {info['window_size']} bytes of RAM, this "
                f"end {self.size_bytes} of {self.path}: give both the same"
            )
        self._regions = {name: (offset, size) for name, offset, size in info["regions"]}
        self._address = info["window_address"]
        address = info["window_address"] + _native.CARVEOUT_ARENA
        if self.heap.address not in (None, address):
            raise errors.LinkError(
                f"the firmware now sees the arena at {address:#x}, its former life at "
                f"{self.heap.address:#x}: connect again"
            )
        self.heap.address = address

    @property
    def regions(self) -> dict[str, int]:
        """Bytes of each region that the remote owns and offers, by name."""
        return {name: size for name, (_, size) in self._regions.items()}

    def open_region(self, name: str) -> Allocation:
        """Memory of the remote, to be looked at.

        Raises LinkError for one that can't be. The name is one of `regions`.
        """
        offset, size = self._regions[name]
        first, end = _native.CARVEOUT_REGIONS, _native.CARVEOUT_ARENA
        if size == 0 or offset < first or offset + size > end or offset % mmap.PAGESIZE:
            raise errors.LinkError(
                f"the firmware's region {name!r}, {size} bytes at {offset:#x} of the shared RAM, "
                f"can't be mapped: regions lie from {first:#x} to {end:#x} and begin on a page of "
                f"{mmap.PAGESIZE} bytes"
            )
        (fd,) = duplicate((self._fd,), f"the firmware's region {name!r}")
        return Allocation(
            fd,
            size,
            coherent=True,
            offset_bytes=self._offset + offset,
            segments=((self._address + offset, size),),
            trusted=True,
            readonly=True,
        )

    def map_part(self, offset: int, size: int, *, readonly: bool = False) -> _native.Memory:
        """A mapping of a part of the arena: what the other end has allocated there.

        Raises Error with code ERANGE outside of it, or where no page of this machine begins.
        """
        first = _native.CARVEOUT_ARENA
        if not first <= offset <= self.size_bytes - size or offset % mmap.PAGESIZE:
            raise errors.Error(
                f"{size} bytes at {offset:#x} of the shared RAM {self.path}: its arena goes from "
                f"{first:#x} to {self.size_bytes:#x}, in pages of {mmap.PAGESIZE} bytes",
                errno.ERANGE,
            )
        with errors.resources(f"mapping {size} bytes of the shared RAM {self.path}"):
            return _native.Memory(
                self._fd, size, readonly=readonly, trusted=True, offset=self._offset + offset
            )

    def close(self) -> None:
        """Lets go; mappings of areas live on."""
        self.heap.close()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


_KINDS = {
    "access": "illegal access",
    "execute": "execution of what is no code",
    "stack": "stack overflow",
    "alignment": "unaligned access",
    "division": "division by zero",
    "instruction": "undefined instruction",
}
# In Arm's CFSR: the address register that belongs to the fault holds its address.
_ADDRESSES = {"mmfar": 1 << 7, "bfar": 1 << 15}


def describe_crash(crash: dict[str, Any]) -> str:
    """One line for people."""
    where = ""
    if crash["service"]:
        where = f", in service {crash['service']!r}, transaction {crash['transaction']}"
    if crash["backtrace"]:
        where += ", called from " + " ".join(f"{each:#010x}" for each in crash["backtrace"])
    if crash["kind"] == "assert":
        return f"{crash['text']} (near {crash['pc']:#010x}){where}"
    what = crash["text"]
    if crash["kind"] in _KINDS:
        at = [crash[key] for key, valid in _ADDRESSES.items() if crash["cfsr"] & valid]
        address = f" at {at[0]:#010x}" if at and crash["kind"] == "access" else ""
        what = f"{_KINDS[crash['kind']]}{address} ({crash['text']})"
    return (
        f"{what} at pc {crash['pc']:#010x}, lr {crash['lr']:#010x}{where} "
        f"(CFSR {crash['cfsr']:#010x}, HFSR {crash['hfsr']:#010x})"
    )
