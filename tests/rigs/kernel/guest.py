# SPDX-License-Identifier: Apache-2.0
"""Boots the rig's kernel, for one command or for many requests, and reads what it left behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.rigs import guest
from tests.rigs.guest import ROOT, GuestDied, Result, RigMissing, faults

__all__ = ["HERE", "ROOT", "Guest", "GuestDied", "Result", "RigMissing", "faults"]

HERE = Path(__file__).resolve().parent
PRELOAD = ROOT / "build" / "kernel" / "uml_ptrace.so"
"""Without it no process of the guest starts on CPUs with AMX: see uml_ptrace.c."""
BOARD = ROOT / "build" / "kernel" / "board.dtb"
MEMORY = "640M"  # room for contiguous memory after hundreds of tests: there is no compaction


def build() -> Path:
    """The folder of the kernel that is built, which takes minutes if there is none yet."""
    done = subprocess.run([HERE / "build.sh", "build"], capture_output=True, text=True)
    if done.returncode != 0:
        raise RigMissing(done.stderr.strip())
    return Path(done.stdout.strip())


def find() -> Path:
    """The folder of the kernel, which must be there. Raises RigMissing."""
    done = subprocess.run([HERE / "build.sh", "path"], capture_output=True, text=True)
    if done.returncode != 0:
        raise RigMissing(done.stderr.strip())
    return Path(done.stdout.strip())


class Guest(guest.Guest):
    """One boot of the kernel as a process, with this machine's file system as its root."""

    def __init__(
        self,
        kernel: Path,
        argv: Sequence[str],
        *,
        cwd: Path = ROOT,
        environment: Mapping[str, str] | None = None,
        memory: str = MEMORY,
        check_leaks: bool = False,
        kernel_arguments: Sequence[str] = (),
        inherited: Sequence[int] = (),
    ) -> None:
        """`inherited` are descriptors that `kernel_arguments` name, closed here."""
        environment = {"SBE_RIG_KERNEL": str(kernel), **(environment or {})}
        super().__init__(argv, cwd=cwd, environment=environment, check_leaks=check_leaks)
        guest_in, to_guest = os.pipe()
        from_guest, guest_out = os.pipe()
        command: list[str | Path] = [
            kernel / "linux",
            f"mem={memory}",
            "root=host",  # no block device: mount_nodev_root() of init/do_mounts.c
            "rootfstype=hostfs",
            "rw",
            "panic=-1",
            f"init={HERE / 'guest_init.py'}",
            f"uml_dir={self.work}",
            f"dtb={BOARD}",
            f"ssl0=fd:{guest_in},fd:{guest_out}",
            f"SBE_RIG_WORK={self.work}",
            *kernel_arguments,
        ]
        preload = {"LD_PRELOAD": str(PRELOAD)}
        self._boot(command, (to_guest, from_guest), (guest_in, guest_out, *inherited), preload)


def run(
    kernel: Path, argv: Sequence[str], *, timeout_s: float, check_leaks: bool = False
) -> Result:
    """Run one command in a guest of its own."""
    with Guest(kernel, argv, check_leaks=check_leaks) as guest:
        return guest.wait(timeout_s)
