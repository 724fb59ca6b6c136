# SPDX-License-Identifier: Apache-2.0
"""The virtual SoC: a guest and the Cortex-M33 beside it, which share RAM and a serial line."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator

from sbe.remotes.boards import QemuBoard
from tests.rigs.soc import machine

BOARD = "mps2-an521"
BOOT_S = 120.0
LOG_SHOWN = 6000  # characters
PYTHON = "python3"


class Soc:
    """One boot of both, and commands in the guest. Used by one thread."""

    def __init__(
        self, parts: machine.Parts, board: QemuBoard, size_bytes: int | None = None
    ) -> None:
        """The guest shares so many bytes of the board's RAM, all by default."""
        self.board = board
        size_bytes = size_bytes or board.board.window_size
        neighbour = machine.Neighbour(board.ram, board.directory / "db", size_bytes)
        agent = [PYTHON, "-m", "tests.rigs.soc.inside"]
        self.guest = machine.Guest(parts, agent, neighbour=neighbour)
        try:
            assert self.guest.receive(BOOT_S) == "ready"
        except BaseException:
            self.guest.close()
            raise

    @property
    def log(self) -> str:
        """What commands wrote to stderr last."""
        return (self.guest.work / "log").read_text(errors="replace")[-LOG_SHOWN:]

    def begin(self, *argv: str) -> None:
        """Start a command, whose stdin and stdout are `guest.send()` and `guest.receive()`."""
        self.guest.send(json.dumps(argv))

    def end(self, timeout_s: float) -> list[str]:
        """What the command still says. Fails when it does not end well in time."""
        lines: list[str] = []
        deadline = time.monotonic() + timeout_s
        while not (lines[-1:] and lines[-1].startswith("exit ")):
            lines.append(self.guest.receive(max(deadline - time.monotonic(), 0.0)))
        said = "\n".join(lines)
        assert lines.pop() == "exit 0", f"{said}\n-- stderr:\n{self.log}"
        return lines

    def run(self, *argv: str, timeout_s: float) -> list[str]:
        """Run a command to its end; the lines that it wrote."""
        self.begin(*argv)
        return self.end(timeout_s)

    def close(self) -> None:
        """End the guest, not the board."""
        self.guest.close()


@contextlib.contextmanager
def booted_board() -> Iterator[QemuBoard]:
    """The Cortex-M33, running until the end of the block."""
    with QemuBoard(BOARD) as board:
        board.start()
        yield board
