"""What tests on emulated boards need, and boards with handles on what happens to them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BOARDS = ("mps2-an521", "mps2-an385")


def require(ready: bool, reason: str) -> None:
    """Skip with the reason, or fail where every rig must be there."""
    if ready:
        return
    if os.environ.get("SBE_RIGS") == "required":
        pytest.fail(f"{reason}, and SBE_RIGS=required")
    pytest.skip(reason)


def image(board: str, name: str = "sbe-firmware") -> Path:
    """An image that `make firmware` builds."""
    return ROOT / "build" / "firmware" / board / f"{name}.elf"


def require_board(board: str) -> None:
    """QEMU and the board's firmware are there."""
    require(
        shutil.which("qemu-system-arm") is not None,
        "qemu-system-arm is not installed (sudo apt install qemu-system-arm)",
    )
    require(
        image(board).is_file(),
        f"no firmware for {board}: make firmware "
        "(sudo apt install gcc-arm-none-eabi libnewlib-arm-none-eabi)",
    )
