"""Anonymous shared memory whose size is sealed, so that no holder can make another one fault."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os

from sbe import errors
from sbe.heaps import Allocation
from sbe.host.descriptors import above_streams, close_all

__all__ = ["HugeHeap", "MemfdHeap", "check_seals"]

_SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


class MemfdHeap:
    """Allocates sealed memfds: coherent memory for ends that share the machine. Thread-safe."""

    name = "memfd"

    def allocate(self, size_bytes: int) -> Allocation:
        """Returns zeroed memory, a whole number of pages.

        Raises BadArgument for a size below one byte, OutOfResources when the size is more than the
        machine's memory or the process has no file descriptor left.
        """
        if size_bytes <= 0:
            raise errors.BadArgument(f"memfd: a size of {size_bytes} bytes; at least 1 is needed")
        machine = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE
        if size_bytes > machine:
            # The kernel would promise it all the same, and kill somebody when it is touched.
            raise errors.OutOfResources(
                f"memfd: {size_bytes} bytes asked for, this machine has {machine}"
            )
        size = -(-size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        fd = -1
        try:
            with errors.resources(f"memfd of {size} bytes"):
                flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
                fd = above_streams(os.memfd_create("sbe-area", flags))
                os.ftruncate(fd, size)
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SIZE_SEALS | fcntl.F_SEAL_SEAL)
        except BaseException:
            close_all((fd,))
            raise
        return Allocation(fd, size, coherent=True)


class HugeHeap:
    """Sealed memfds of huge pages, which the administrator has reserved. Thread-safe.

    First touches cost a fraction, and large areas take few entries of a TLB. Whoever holds the
    descriptor can punch a hole which no page may be left to fill: clients must be trusted.
    """

    name = "hugetlb"

    def allocate(self, size_bytes: int) -> Allocation:
        """Returns zeroed memory, whole huge pages of the machine's default size, all of them there.

        Raises BadArgument for a size below one byte, OutOfResources when too few pages are free,
        LinkError where the kernel has none.
        """
        if size_bytes <= 0:
            raise errors.BadArgument(f"hugetlb: a size of {size_bytes} bytes; at least 1 is needed")
        page, free = _huge_pages()
        count = -(-size_bytes // page)
        refused = errors.OutOfResources(
            f"hugetlb: {size_bytes} bytes asked for, {count} huge pages of {page} bytes; {free} "
            "are free: `sysctl vm.nr_hugepages=N` reserves N of them"
        )
        if count > free:
            raise refused
        fd = -1
        try:
            with errors.resources(f"memfd of {count} huge pages"):
                flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | os.MFD_HUGETLB
                fd = above_streams(os.memfd_create("sbe-area", flags))
                os.ftruncate(fd, count * page)
                os.posix_fallocate(fd, 0, count * page)  # else an access may find none
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SIZE_SEALS | fcntl.F_SEAL_SEAL)
        except errors.OutOfResources:
            close_all((fd,))
            raise refused from None  # somebody else was quicker
        except BaseException:
            close_all((fd,))
            raise
        return Allocation(fd, count * page, coherent=True)


def _huge_pages() -> tuple[int, int]:
    """Bytes of one, and how many are free and nobody's yet. Raises LinkError."""
    found: dict[str, int] = {}
    with errors.resources("hugetlb: /proc/meminfo"), open("/proc/meminfo") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key in ("Hugepagesize", "HugePages_Free", "HugePages_Rsvd"):
                found[key] = int(value.split()[0])
    if len(found) < 3:
        raise errors.LinkError("hugetlb: this kernel has no huge pages", errno.EOPNOTSUPP)
    free = found["HugePages_Free"] - found["HugePages_Rsvd"]
    return found["Hugepagesize"] * 1024, free


def check_seals(fd: int, size_bytes: int) -> None:
    """Checks that mapping this many bytes of a received descriptor can never fault.

    Raises BadArgument when it is no memfd, is not sealed against shrinking and growing, or is
    smaller. The descriptor stays the caller's, also on error.
    """
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        size = os.fstat(fd).st_size
    except OSError as error:
        raise errors.BadArgument(
            f"file descriptor {fd} is not a sealed memfd: {error.strerror}"
        ) from error
    if seals & _SIZE_SEALS != _SIZE_SEALS:
        raise errors.BadArgument(
            f"the memfd {fd} can still change its size: seal it with F_SEAL_SHRINK and F_SEAL_GROW"
        )
    if size_bytes <= 0 or size_bytes > size:
        raise errors.BadArgument(f"the memfd {fd} holds {size} bytes, {size_bytes} are claimed")
