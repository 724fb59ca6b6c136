"""Heaps of dma-bufs: memory that a remote processor reaches by device addresses.

Each allocation is attached to the device that will use it, through our kernel module sbe_dmabuf
(linux/kernel), and stays attached until it is closed: until then its segments are valid.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

from sbe import errors
from sbe.heaps import Allocation
from sbe.kernel import dma_heap, importer, ioctl, ion, udmabuf

__all__ = [
    "Budget",
    "CoherentHeap",
    "DmaHeap",
    "IonHeap",
    "UdmabufHeap",
    "ion_heap",
    "is_protected",
    "published",
]

_ION = "ion:"
_PROTECTED = {"protected", "restricted", "secure", "svp"}  # "secure video path"
_KEEP_FREE = 16 << 20  # bytes of the machine's memory that no allocation takes


def _available_bytes() -> int:
    with contextlib.suppress(OSError):  # there may be no /proc
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * mmap.PAGESIZE  # without what caches could give back


class Budget:
    """Bytes that heaps may have out together. Thread-safe.

    A dma-heap that is exhausted wakes the OOM killer, which kills somebody else; so each allocation
    is checked before, against this limit and what the machine has left. None: half of its memory.
    """

    def __init__(self, limit_bytes: int | None = None) -> None:
        machine = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE
        self.limit_bytes = machine // 2 if limit_bytes is None else limit_bytes
        self.used_bytes = 0
        self._lock = threading.Lock()

    def take(self, size_bytes: int, heap: str) -> None:
        """Reserves bytes. Raises OutOfResources, which says how much there would be."""
        with self._lock:
            left = self.limit_bytes - self.used_bytes
            if size_bytes > left:
                raise errors.OutOfResources(
                    f"{heap}: {size_bytes} bytes asked for, the budget of {self.limit_bytes} "
                    f"bytes has {left} left"
                )
            free = _available_bytes() - _KEEP_FREE
            if size_bytes > free:
                raise errors.OutOfResources(
                    f"{heap}: {size_bytes} bytes asked for, this machine can spare {max(free, 0)}"
                )
            self.used_bytes += size_bytes

    def give(self, size_bytes: int) -> None:
        """Gives bytes back."""
        with self._lock:
            self.used_bytes -= size_bytes


def is_protected(name: str) -> bool:
    """Whether a heap of this name has memory that processes may not map.

    As kernels name them: "protected,secure-video", "restricted_mtk_cma", "qcom,secure-pixel",
    "mtk_svp_region". Mainline has no other word of it.
    """
    return not _PROTECTED.isdisjoint(re.split(r"[^a-z0-9]+", name.lower()))


def _whole_pages(name: str, size_bytes: int) -> int:
    if size_bytes <= 0:
        raise errors.BadArgument(f"{name}: a size of {size_bytes} bytes; at least 1 is needed")
    return -(-size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE


def _attached(
    fd: int,
    size_bytes: int,
    coherent: bool,
    device: str,
    on_close: Callable[[], None],
    *,
    mappable: bool = True,
) -> Allocation:
    try:
        attachment = importer.Attachment(fd, device)
    except BaseException:
        os.close(fd)
        raise
    try:
        segments = tuple(attachment.segments())
    except BaseException:
        attachment.close()
        os.close(fd)
        raise

    def close() -> None:
        attachment.close()
        on_close()

    return Allocation(
        fd,
        size_bytes,
        coherent,
        segments=segments,
        trusted=True,  # a dma-buf can't shrink
        mappable=mappable,
        release=close,
        attachment=attachment,
    )


class _KernelHeap:
    """A heap of the kernel's, by whichever interface."""

    name = ""

    def __init__(
        self, protected: bool, device: str, *, coherent: bool, budget: Budget | None
    ) -> None:
        self.mappable = not protected
        self._device, self._coherent = device, coherent
        self.budget = budget or Budget()

    def allocate(self, size_bytes: int) -> Allocation:
        """Returns zeroed memory, whole pages. Raises BadArgument, OutOfResources, LinkError."""
        size = _whole_pages(self.name, size_bytes)
        self.budget.take(size, self.name)
        try:
            return _attached(
                self._create(size),
                size,
                self._coherent,
                self._device,
                lambda: self.budget.give(size),
                mappable=self.mappable,
            )
        except BaseException:
            self.budget.give(size)
            raise

    def _create(self, size: int) -> int:
        raise NotImplementedError


class DmaHeap(_KernelHeap):
    """A heap that the kernel publishes below /dev/dma_heap. Thread-safe.

    `device` is the platform device that shares the memory. `coherent`: it sees the processor's
    caches, or has none between it and memory. One that `is_protected()` is not `mappable`: its
    memory is nobody's to map, zeroed as far as its kernel says.
    """

    def __init__(
        self, heap: str, device: str = "", *, coherent: bool = False, budget: Budget | None = None
    ) -> None:
        super().__init__(is_protected(heap), device, coherent=coherent, budget=budget)
        self.name = f"dma-heap:{heap}"
        self._heap = heap

    def _create(self, size: int) -> int:
        return dma_heap.allocate(self._heap, size)


class IonHeap(_KernelHeap):
    """A heap of ION's, by its id; else as a DmaHeap. Thread-safe."""

    def __init__(
        self,
        number: int,
        heap: str = "",
        device: str = "",
        *,
        coherent: bool = False,
        budget: Budget | None = None,
    ) -> None:
        super().__init__(is_protected(heap), device, coherent=coherent, budget=budget)
        self.name = f"{_ION}{heap or number}"
        self._mask = 1 << number

    def _create(self, size: int) -> int:
        return ion.allocate(self._mask, size)


def ion_heap(
    name: str, device: str = "", *, coherent: bool = False, budget: Budget | None = None
) -> IonHeap | None:
    """The heap "ion:ID", for kernels before 4.12, which do not name theirs; None: no such name."""
    number = name.removeprefix(_ION)
    if number == name or not re.fullmatch(r"[0-9]|[12][0-9]|3[01]", number):
        return None
    return IonHeap(int(number), "", device, coherent=coherent, budget=budget)


class UdmabufHeap:
    """Pages of the system as a dma-buf, where no dma-heap suits. Thread-safe.

    Its memory is scattered: up to one segment for each page.
    """

    name = "udmabuf"

    def __init__(
        self, device: str = "", *, coherent: bool = False, budget: Budget | None = None
    ) -> None:
        self._device, self._coherent = device, coherent
        self.budget = budget or Budget()

    def allocate(self, size_bytes: int) -> Allocation:
        """Returns zeroed memory, whole pages. Raises BadArgument, OutOfResources, LinkError."""
        size = _whole_pages(self.name, size_bytes)
        self.budget.take(size, self.name)
        try:
            fd = self._create(size)
            return _attached(fd, size, self._coherent, self._device, lambda: self.budget.give(size))
        except BaseException:
            self.budget.give(size)
            raise

    def _create(self, size: int) -> int:
        try:
            memfd = os.memfd_create("sbe-area", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        except OSError as error:
            raise ioctl.translate(error, f"{self.name}: memfd") from error
        try:
            os.ftruncate(memfd, size)
            fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            return udmabuf.create(memfd, 0, size)
        except OSError as error:
            raise ioctl.translate(error, f"{self.name}: memfd of {size} bytes") from error
        finally:
            os.close(memfd)


class CoherentHeap:
    """Memory that needs no cache maintenance at either end, as rings do. Thread-safe.

    The kernel module bounds it (its parameter coherent_limit).
    """

    name = "coherent"

    def __init__(self, device: str = "") -> None:
        self._device = device

    def allocate(self, size_bytes: int) -> Allocation:
        """Returns zeroed memory, whole pages. Raises BadArgument, OutOfResources, LinkError."""
        size = _whole_pages(self.name, size_bytes)
        fd = importer.allocate_coherent(size, self._device)
        return _attached(fd, size, True, self._device, lambda: None)


def published(
    device: str = "", *, coherent: bool = False, budget: Budget | None = None
) -> dict[str, DmaHeap | IonHeap | UdmabufHeap]:
    """Returns what this machine has for a device, by name, the first choice first.

    Heaps of memory that is reserved for remote processors come before the system's, udmabuf then,
    and last those that may not be mapped, which have to be asked for. Empty without the kernel
    module, which alone knows device addresses.
    """
    if not importer.available():
        return {}
    budget = budget or Budget()
    found: list[DmaHeap | IonHeap | UdmabufHeap] = [
        DmaHeap(name, device, coherent=coherent, budget=budget) for name in dma_heap.names()
    ]
    for each in ion.heaps():
        found.append(IonHeap(each.number, each.name, device, coherent=coherent, budget=budget))
    if os.path.exists(udmabuf.DEVICE):
        found.append(UdmabufHeap(device, coherent=coherent, budget=budget))
    return {heap.name: heap for heap in sorted(found, key=_order)}


def _order(heap: DmaHeap | IonHeap | UdmabufHeap) -> tuple[bool, bool, bool, str]:
    if isinstance(heap, UdmabufHeap):
        return False, True, True, heap.name
    of_system = heap.name.partition(":")[2].startswith("system")
    return not heap.mappable, False, of_system, heap.name
