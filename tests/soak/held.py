"""What a process holds by the kernel's word."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Held", "resident_bytes"]


@dataclass(frozen=True)
class Held:
    """Descriptors by kind, mappings of shared memory, threads; not the resident bytes."""

    descriptors: Counter[str]
    mappings: int
    threads: int

    @classmethod
    def by(cls, pid: int | str) -> Held:
        found: Counter[str] = Counter()
        folder = f"/proc/{pid}/fd"
        for fd in os.listdir(folder):
            with contextlib.suppress(OSError):  # the one that lists
                found[os.readlink(f"{folder}/{fd}").partition(":[")[0]] += 1
        if pid == "self":
            found[f"/proc/{os.getpid()}/fd"] = 0
        maps = Path(f"/proc/{pid}/maps").read_text()
        return cls(+found, maps.count("/memfd:"), len(os.listdir(f"/proc/{pid}/task")))


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
