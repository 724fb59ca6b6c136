"""Emulated boards that outlive the process which started them, by name."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import select
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from sbe import _native, errors
from sbe.host import files
from sbe.remotes.boards.image import BOARDS, check_image
from sbe.remotes.boards.qemu import QemuBoard, memory_option, qmp, reset
from sbe.transports.window import Window

__all__ = ["Resident"]

_log = logging.getLogger("sbe.remotes.boards")

_SHARED = Path("/tmp")  # where there is no XDG_RUNTIME_DIR; every user can write there
_STOP_S = 5.0
_LOCK_S = 10.0  # for another process to start or stop a board; it takes some milliseconds
_RECORD_MAX = 64 * 1024  # bytes: two paths and some numbers


def _home() -> Path:
    """Where the boards of this user live: memory, for RAM files."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if not runtime:
        return _SHARED / f"sbe-{os.geteuid()}"
    if not os.path.isabs(runtime):
        raise errors.BadArgument(f"XDG_RUNTIME_DIR={runtime!r} is no absolute path")
    return Path(os.path.realpath(runtime)) / "sbe"


@contextlib.contextmanager
def _checked_home(*, lock: bool = False) -> Iterator[Path]:
    """The home, which is nobody else's inside the block; with `lock` made, and for us alone.

    Raises PermissionDenied, Busy, LinkError, FileNotFoundError while there is none.
    """
    home = _home()
    with contextlib.ExitStack() as stack:
        try:
            fd = stack.enter_context(files.private_folder(home, make=lock))
            if lock:
                _lock(fd)
        except OSError as error:
            if isinstance(error, errors.Error) or (
                isinstance(error, FileNotFoundError) and not lock
            ):
                raise
            raise errors.LinkError(
                f"boards can't be kept in {home}: {error.strerror}; name a folder of yours in "
                "XDG_RUNTIME_DIR",
                error.errno,
            ) from error
        yield home


def _lock(fd: int) -> None:
    """Held until the descriptor is closed."""
    end = time.monotonic() + _LOCK_S
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise errors.Busy(
                    "another process of this user is starting or stopping a board, and does not "
                    "come to an end"
                ) from None
            time.sleep(0.01)


def _check_name(name: str) -> None:
    if not re.fullmatch(r"\w[\w-]{0,39}", name):
        raise errors.BadArgument(f"{name!r} is no name for a board: letters, digits, - and _")


def _started(pid: int) -> int:
    """When a process was started, in the kernel's ticks; -1 when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError as error:
        if not os.path.exists("/proc/self"):
            raise errors.LinkError(
                "boards that outlive the process which started them are known by their entry in "
                "/proc, which is not mounted here",
                error.errno,
            ) from error
        return -1
    return -1 if stat[0] in "ZX" else int(stat[19])


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
        """Loads an image into a new process under a name; RAM of a former one stays as it is.

        Raises BadArgument for a name that can't be one, board or image that do not fit, Busy when
        that board runs, PermissionDenied when others can write where boards are kept, LinkError.
        """
        _check_name(name)
        with _checked_home(lock=True) as home:
            with contextlib.suppress(FileNotFoundError, errors.BadArgument):
                if cls._read(home / name).alive:
                    raise errors.Busy(f"the board {name} runs already: stop it first")
            emulated = QemuBoard(board, image, directory=home / name, die_with_parent=False)
            emulated.start()
            try:
                pid = emulated.pid or 0
                resident = cls(name, board, str(emulated.image.resolve()), pid, _started(pid))
                resident._save()
                _write(home / name / "link.toml", _link_file(emulated))
                resident._wait_until_it_shows(emulated)
            except BaseException:
                emulated.stop()
                raise
            return resident

    @classmethod
    def find(cls, name: str) -> Resident:
        """Returns the board of this name, alive or not. Raises BadArgument."""
        with contextlib.suppress(FileNotFoundError), _checked_home() as home:
            _check_name(name)
            return cls._read(home / name)
        there = ", ".join(each.name for each in cls.all()) or "none"
        raise errors.BadArgument(f"no board {name!r} was started; there are: {there}")

    @classmethod
    def all(cls) -> list[Resident]:
        """Returns all boards, alive or not, by name. Raises PermissionDenied as `start`."""
        found: list[Resident] = []
        with contextlib.suppress(FileNotFoundError), _checked_home() as home:
            for path in sorted(home.glob("*/board.json")):
                try:
                    found.append(cls._read(path.parent))
                except errors.BadArgument as error:
                    _log.warning("%s", error)
        return found

    @classmethod
    def _read(cls, directory: Path) -> Self:
        """The record of a board. Raises FileNotFoundError, BadArgument for one that is damaged."""
        path = directory / "board.json"
        try:
            record = files.parse_json(files.read_file(path, _RECORD_MAX))
            kinds = {"name": str, "board": str, "image": str, "pid": int, "started": int}
            if not isinstance(record, dict) or {k: type(v) for k, v in record.items()} != kinds:
                raise ValueError(f"it has not just {', '.join(each.name for each in fields(cls))}")
            board = cls(**record)
            if board.name != directory.name or board.board not in BOARDS:
                raise ValueError(f"it is of {board.name!r} on a board {board.board!r}")
            if not 0 < board.pid < 1 << 22 or board.started < 0 or "\0" in board.image:
                raise ValueError("there can't be such a process or image")
            return board
        except FileNotFoundError:
            raise
        except (OSError, ValueError) as error:
            raise errors.BadArgument(
                f"the record of the board {directory.name}, {path}, is damaged: {error}; "
                f"`sbe firmware start {directory.name}` writes a new one"
            ) from error

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
        """Its process runs: the one of the record, ours, and QEMU with the RAM of this board."""
        if _started(self.pid) != self.started:
            return False
        place = Path(f"/proc/{self.pid}")
        option = memory_option(self.directory / "ram", BOARDS[self.board].window_size)
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
            return place.stat().st_uid == os.geteuid() and os.fsencode(option) in words
        except OSError:
            return False

    @property
    def state(self) -> str:
        """running, frozen, crashed or stopped."""
        if not self.alive:
            return "stopped"
        if self.crash() is not None:
            return "crashed"
        return "running" if qmp(self.directory / "qmp", "query-status")["running"] else "frozen"

    def crash(self) -> dict[str, Any] | None:
        """Returns the crash record of the firmware's present life, None if there is none."""
        window = Window(self.directory / "ram", 0, BOARDS[self.board].window_size)
        try:
            return _native.read_crash(window.memory)
        finally:
            window.close()

    def console(self) -> str:
        """Returns what the firmware has written to its console since the start."""
        try:
            return (self.directory / "console.log").read_text(errors="replace")
        except OSError:
            return ""

    def load(self, image: str | os.PathLike[str]) -> None:
        """Chooses the image of the next start. Raises Busy while it runs, BadArgument."""
        with _checked_home(lock=True):
            if self.alive:
                raise errors.Busy(f"the board {self.name} runs: stop it before loading firmware")
            check_image(image, BOARDS[self.board])
            self.image = str(Path(image).resolve())
            self._save()

    def reset(self) -> None:
        """Resets the core; the image in its memory and the RAM stay."""
        if not self.alive:
            raise errors.LinkError(f"the board {self.name} does not run")
        reset(self.directory / "qmp")

    def freeze(self) -> None:
        """Stops the core where it is."""
        self._tell("stop")

    def thaw(self) -> None:
        """Lets a frozen core go on."""
        self._tell("cont")

    def stop(self) -> None:
        """Ends the process. One that has ended is fine. Raises LinkError when it does not end."""
        with _checked_home(lock=True):
            self._end()

    def remove(self) -> None:
        """Stops it and forgets it, RAM and logs included."""
        with _checked_home(lock=True) as home:
            self._end()
            shutil.rmtree(home / self.name, ignore_errors=True)

    def _end(self) -> None:
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if not self.alive:  # looked at while the descriptor holds: no other gets the signal
                return
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            ended = select.poll()
            ended.register(fd, select.POLLIN)
            if not ended.poll(_STOP_S * 1000):
                raise errors.LinkError(f"QEMU of the board {self.name}, process {self.pid}, stays")
        finally:
            os.close(fd)

    def _wait_until_it_shows(self, board: QemuBoard) -> None:
        """exec() lets its caller go on some moments before /proc has the new program's words."""
        end = time.monotonic() + _STOP_S
        while not self.alive and board.alive and time.monotonic() < end:
            time.sleep(0.001)

    def _save(self) -> None:
        _write(self.directory / "board.json", json.dumps(asdict(self)))

    def _tell(self, command: str) -> None:
        if not self.alive:
            raise errors.LinkError(f"the board {self.name} does not run")
        qmp(self.directory / "qmp", command)


def _write(path: Path, text: str) -> None:
    """At once: who reads it finds all of it, or what was there."""
    new = path.with_suffix(".new")
    new.write_text(text, "utf-8", "surrogateescape")
    new.replace(path)


def _link_file(board: QemuBoard) -> str:
    """What `CarveoutConfig.load()` takes. A string of JSON is one of TOML."""
    values = {
        "memory": str(board.ram),
        "doorbell": f"unix:{board.directory / 'db'}",
        "reset": f"qmp:{board.directory / 'qmp'}",
    }
    return "".join(
        f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items()
    )
