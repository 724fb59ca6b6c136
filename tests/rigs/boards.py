"""What tests on emulated boards need, and boards with handles on what happens to them."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sbe
from sbe.remotes.boards import QemuBoard
from sbe.sdk.direct import DirectBackend
from tests.rigs.missing import require

ROOT = Path(__file__).resolve().parents[2]
BOARDS = ("mps2-an521", "mps2-an385")
BOOT_S = 10.0


def image(board: str, name: str = "sbe-firmware") -> Path:
    """An image that `make firmware` builds."""
    return ROOT / "build" / "firmware" / board / f"{name}.elf"


def faulty_image(board: str) -> Path:
    """One whose services can break it and ask about power, or what SBE_FIRMWARE names."""
    named = os.environ.get("SBE_FIRMWARE")
    return Path(named) if named else image(board, "sbe-firmware-faults")


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


def check_works(link: sbe.Connection) -> None:
    """A call is answered."""
    assert link.call("echo", payload=b"alive", timeout=BOOT_S).payload == b"alive"


def wait_for(what: Callable[[], object], seconds: float = BOOT_S) -> None:
    """Until another process has done something, of which there is no event."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"still not so after {seconds} s"
        time.sleep(0.005)


class Line:
    """A thread between a host and a board's doorbell that can lose, repeat and make up bytes."""

    def __init__(self, board_fd: int) -> None:
        self._board = socket.socket(fileno=board_fd)
        self._host, host = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.host_fd = host.detach()
        self.drop_to_board = self.drop_to_host = 0
        """Channel doorbells (each a byte for small ids) to lose from now on."""
        self.deaf = False
        """Every second control doorbell is lost, each way."""
        self._heard = 0
        self.repeat = 1
        """How often each byte arrives."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def inject(self, to_board: bytes = b"", to_host: bytes = b"") -> None:
        """Bytes that nobody sent."""
        self._board.sendall(to_board)
        self._host.sendall(to_host)

    def _run(self) -> None:
        with self._board, self._host:
            while True:
                ready, _, _ = select.select([self._board, self._host], [], [])
                for source in ready:
                    try:
                        data = source.recv(4096)
                    except OSError:
                        return
                    if not data:
                        return
                    self._pass_on(source, data)

    def _lose(self) -> bool:
        self._heard += 1
        return self._heard % 2 == 1

    def _pass_on(self, source: socket.socket, data: bytes) -> None:
        for value in data:
            to_board = source is self._host
            doorbell = value & 0x81 == 0x80
            if doorbell and to_board and self.drop_to_board > 0:
                self.drop_to_board -= 1
            elif doorbell and not to_board and self.drop_to_host > 0:
                self.drop_to_host -= 1
            elif self.deaf and not doorbell and self._lose():
                pass
            else:
                with contextlib.suppress(OSError):
                    target = self._board if to_board else self._host
                    target.sendall(bytes([value]) * self.repeat)


class FaultyBoard(QemuBoard):
    """A board whose doorbell runs through a Line."""

    line: Line

    def open_doorbell(self) -> int:
        self.line = Line(super().open_doorbell())
        return self.line.host_fd


def connect(board: QemuBoard, timeout: float = 10.0, **how: Any) -> sbe.Connection:
    """What `sbe.connect("qemu:...")` does, over a board that the test holds."""
    return sbe.Connection(DirectBackend(timeout, board), **how)


def check_log_region(link: sbe.Connection, board: QemuBoard) -> None:
    """The board's log is an area to be looked at, by the application and the firmware alike."""
    assert link.regions() == {"log": 0x4000}
    with link.region("log") as log:
        seen = bytes(log)
        written = int.from_bytes(seen[:4], "little")
        assert seen[4 : 4 + written].decode() == board.console()
        assert not np.frombuffer(log, np.uint8).flags.writeable
        with pytest.raises(sbe.PermissionDenied, match="read-only"):
            log[:1] = b"x"
        # Its owner sees the same bytes, and is not made to write them.
        reply = link.call("crc32", sbe.In(log), timeout=10.0)
        assert reply.payload == zlib.crc32(seen).to_bytes(4, "little")
        with pytest.raises(sbe.PermissionDenied):
            link.call("fill", sbe.Out(log), payload=b"x", timeout=10.0)
        listed = [row for row in link.list()["areas"] if row["id"] == log.id]
        assert [row["heap"] for row in listed] == ["remote:log"]
    assert bytes(link.region("log")) == seen  # the arena's heap never got it
    with pytest.raises(sbe.BadArgument, match="no region 'sensor'; it offers: log"):
        link.region("sensor")
