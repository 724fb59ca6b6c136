# SPDX-License-Identifier: Apache-2.0
"""A machine of the virtual SoC: Debian's own arm64 kernel on an emulated core.

Its root is the folder that build.sh made, read-only; this checkout lies at /checkout, with the
cross-built package in the place of `sbe`, and the folder of the job at /work.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.rigs import guest
from tests.rigs.guest import ROOT, Result, RigMissing

__all__ = ["CHECKOUT", "Guest", "Neighbour", "Parts", "find", "run"]

HERE = Path(__file__).resolve().parent
CHECKOUT = Path("/checkout")
MEMORY = "512M"
LIFE_S = 3600
PROGRAM = "qemu-system-aarch64"


@dataclass(frozen=True)
class Parts:
    """What a guest is made of: the folder that build.sh made, and the cross-built package."""

    debian: Path
    package: Path


@dataclass(frozen=True)
class Neighbour:
    """A core beside the guest: its RAM, of which the guest gets so many bytes, and its doorbell."""

    ram: Path
    doorbell: Path
    size_bytes: int


def find(arch: str = "arm64") -> Parts:
    """What `make soc-parts` has built. Raises RigMissing."""
    done = subprocess.run([HERE / "build.sh", arch, "path"], capture_output=True, text=True)
    if done.returncode != 0:
        raise RigMissing(done.stderr.strip())
    package = ROOT / "build" / "soc" / arch / "package" / "sbe"
    if not package.is_dir():
        raise RigMissing(f"the package is not built for {arch}: make soc-parts")
    return Parts(Path(done.stdout.strip()), package)


class Guest(guest.Guest):
    """One boot of the kernel under emulation."""

    def __init__(
        self,
        parts: Parts,
        argv: Sequence[str],
        *,
        neighbour: Neighbour | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(argv, cwd=CHECKOUT, environment=environment)
        ours, theirs = socket.socketpair()
        command: list[str | Path] = [
            *("timeout", "--kill-after=3", str(LIFE_S)),  # whoever started it may be killed
            PROGRAM,
            *("-machine", "virt,gic-version=3", "-cpu", "cortex-a53", "-m", MEMORY),
            *("-accel", "tcg,thread=multi", "-nodefaults", "-display", "none", "-no-reboot"),
            *("-serial", "stdio", "-device", "virtio-rng-pci"),
            *("-kernel", parts.debian / "vmlinuz", "-initrd", parts.debian / "initramfs.gz"),
            *("-append", "console=ttyAMA0 quiet panic=-1 SBE_RIG_WORK=/work"),
            *("-chardev", f"socket,id=line,fd={theirs.fileno()}"),
            *("-device", "pci-serial,chardev=line,addr=0x10"),
            *_share("root", parts.debian / "root", readonly=True),
            *_share("checkout", ROOT, readonly=True),
            *_share("package", parts.package, readonly=True),
            *_share("work", self.work, readonly=False),
            *(_beside(neighbour) if neighbour is not None else ()),
        ]
        here, there = ours.detach(), theirs.detach()
        self._boot(command, (here, os.dup(here)), (there,))


def _share(tag: str, folder: Path, *, readonly: bool) -> tuple[str, ...]:
    access = ",readonly=on" if readonly else ""
    return (
        "-fsdev",
        f"local,id={tag},path={folder},security_model=none{access}",
        "-device",
        f"virtio-9p-pci,fsdev={tag},mount_tag={tag}",
    )


def _beside(neighbour: Neighbour) -> tuple[str, ...]:
    """RAM of the other core as a PCI device, its UART as a serial port that survives its ends."""
    memory = f"size={neighbour.size_bytes},mem-path={neighbour.ram},share=on"
    return (
        *("-object", f"memory-backend-file,id=shared,{memory}"),
        *("-device", "ivshmem-plain,memdev=shared,addr=0x12"),
        *("-chardev", f"socket,id=doorbell,path={neighbour.doorbell},reconnect=1"),
        *("-device", "pci-serial,chardev=doorbell,addr=0x11"),
    )


def run(
    parts: Parts, argv: Sequence[str], *, timeout_s: float, neighbour: Neighbour | None = None
) -> Result:
    """Run one command in a guest of its own."""
    with Guest(parts, argv, neighbour=neighbour) as box:
        return box.wait(timeout_s)
