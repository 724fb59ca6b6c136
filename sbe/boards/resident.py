"""Emulated boards that outlive the process which started them, by name."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sbe import _native, errors
from sbe.boards.image import BOARDS, check_image
from sbe.boards.qemu import QemuBoard, qmp
from sbe.transports.carveout import Window

__all__ = ["Resident"]

_STOP_S = 5.0


def _home() -> Path:
    """Where the boards of this user live: memory, for RAM files and short socket paths."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "sbe" if runtime else Path(f"/tmp/sbe-{os.getuid()}")


def _started(pid: int) -> int:
    """When a process was started, in the kernel's ticks; -1 when there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError as error:
        if not os.path.exists("/proc/self"):
            raise errors.LinkError(
                "boards that outlive the process which started them are known by their entry in "
                "/proc, which is not mounted here",
                error.errno,
            ) from error
        return -1
    return -1 if fields[0] in "ZX" else int(fields[19])


@dataclass
class Resident:
    """A board that runs by itself; any process of its user may drive it."""

    name: str
    board: str
    image: str
    pid: int
    started: int

    @classmethod
    def start(
        cls, name: str, board: str = "mps2-an521", image: str | os.PathLike[str] | None = None
    ) -> Resident:
        """Load an image into a new process under a name; RAM of a former one stays as it is.

        Raises BadArgument for a name that can't be one, board or image that do not fit, Busy when
        that board runs, LinkError.
        """
        if not name or not name.replace("-", "").replace("_", "").isalnum() or len(name) > 40:
            raise errors.BadArgument(f"{name!r} is no name for a board: letters, digits, - and _")
        with contextlib.suppress(errors.BadArgument):
            if cls.find(name).alive:
                raise errors.Busy(f"the board {name} runs already: stop it first")
        directory = _home() / name
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        emulated = QemuBoard(board, image, directory=directory, die_with_parent=False)
        emulated.start()
        pid = emulated.pid or 0
        resident = cls(name, board, str(emulated.image.resolve()), pid, _started(pid))
        resident._keep()
        (directory / "link.toml").write_text(
            f'memory = "{emulated.ram}"\ndoorbell = "unix:{directory / "db"}"\n'
        )
        return resident

    @classmethod
    def find(cls, name: str) -> Resident:
        """Return the board of this name, alive or not. Raises BadArgument."""
        try:
            return cls(**json.loads((_home() / name / "board.json").read_text()))
        except (OSError, ValueError, TypeError) as error:
            there = ", ".join(each.name for each in cls.all()) or "none"
            raise errors.BadArgument(
                f"no board {name!r} was started; there are: {there}"
            ) from error

    @classmethod
    def all(cls) -> list[Resident]:
        """Return all boards, alive or not, by name."""
        found = []
        for path in sorted(_home().glob("*/board.json")):
            with contextlib.suppress(OSError, ValueError, TypeError):
                found.append(cls(**json.loads(path.read_text())))
        return found

    @property
    def directory(self) -> Path:
        """Where its sockets, RAM and logs are."""
        return _home() / self.name

    @property
    def uri(self) -> str:
        """What `sbe.connect()` takes."""
        return f"carveout:{self.directory / 'link.toml'}"

    @property
    def alive(self) -> bool:
        """Its process runs."""
        return self.started >= 0 and _started(self.pid) == self.started

    @property
    def state(self) -> str:
        """running, frozen, crashed or stopped."""
        if not self.alive:
            return "stopped"
        if self.crash() is not None:
            return "crashed"
        return "running" if qmp(self.directory / "qmp", "query-status")["running"] else "frozen"

    def crash(self) -> dict[str, Any] | None:
        """Return the crash record of the firmware's present life, None if there is none."""
        window = Window(self.directory / "ram", 0, BOARDS[self.board].window_size)
        try:
            return _native.read_crash(window.memory)
        finally:
            window.close()

    def console(self) -> str:
        """Return what the firmware has written to its console since the start."""
        try:
            return (self.directory / "console.log").read_text(errors="replace")
        except OSError:
            return ""

    def load(self, image: str | os.PathLike[str]) -> None:
        """Choose the image of the next start. Raises Busy while it runs, BadArgument."""
        if self.alive:
            raise errors.Busy(f"the board {self.name} runs: stop it before loading firmware")
        check_image(image, BOARDS[self.board])
        self.image = str(Path(image).resolve())
        self._keep()

    def reset(self) -> None:
        """Reset the core; the image in its memory and the RAM stay."""
        self._tell("system_reset")
        self._tell("cont")

    def freeze(self) -> None:
        """Stop the core where it is."""
        self._tell("stop")

    def thaw(self) -> None:
        """Let a frozen core go on."""
        self._tell("cont")

    def stop(self) -> None:
        """End the process. One that has ended is fine."""
        if self.alive:
            os.kill(self.pid, signal.SIGKILL)
        end = time.monotonic() + _STOP_S
        while self.alive and time.monotonic() < end:
            time.sleep(0.005)

    def remove(self) -> None:
        """Stop it and forget it, RAM and logs included."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _keep(self) -> None:
        (self.directory / "board.json").write_text(json.dumps(asdict(self)))

    def _tell(self, command: str) -> None:
        if not self.alive:
            raise errors.LinkError(f"the board {self.name} does not run")
        qmp(self.directory / "qmp", command)
