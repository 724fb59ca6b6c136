"""A board in QEMU: a process whose RAM is a file and whose serial lines are sockets."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sbe import _native, errors
from sbe.boards.image import BOARDS, Board, check_image, find_image
from sbe.heaps import Heap
from sbe.transports.carveout import CarveoutTransport, Window, describe_crash, open_doorbell

__all__ = ["QemuBoard", "qmp"]

_PROGRAM = "qemu-system-arm"
_INSTALL = "sudo apt install qemu-system-arm"
_DEATH_S = 0.5  # from the end of a stream to the end of the process
_QMP_S = 5.0
_SOCKETS = ("db", "console", "qmp")  # names in the directory, all below 100 bytes with it


def qmp(path: Path, command: str, arguments: dict[str, Any] | None = None) -> Any:
    """Run a command of QEMU's machine protocol at this socket. Raises LinkError."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(_QMP_S)
            sock.connect(str(path))
            with sock.makefile("rw") as stream:
                json.loads(stream.readline())
                _ask(stream, "qmp_capabilities", {})
                return _ask(stream, command, arguments or {})
    except (OSError, ValueError) as error:
        raise errors.LinkError(f"QEMU does not take {command!r}: {error}") from error


def _ask(stream: Any, command: str, arguments: dict[str, Any]) -> Any:
    stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
    stream.flush()
    while True:
        answer = json.loads(stream.readline())
        if "return" in answer:
            return answer["return"]
        if "error" in answer:
            raise ValueError(answer["error"].get("desc", "refused"))


class QemuBoard:
    """One emulated board: load is a new process, the RAM file outlives it.

    `image` is an ELF file, by default what `make firmware` built. `directory` holds the sockets,
    the console's log and the RAM; None makes one, which `close()` removes. Not thread-safe.

    Pass `connect` to a Link: each call ends the former process and starts a new one.
    """

    def __init__(
        self,
        board: str = "mps2-an521",
        image: str | os.PathLike[str] | None = None,
        *,
        directory: str | os.PathLike[str] | None = None,
        die_with_parent: bool | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        """Checks board, image and QEMU. Raises BadArgument, LinkError; starts nothing."""
        if board not in BOARDS:
            raise errors.BadArgument(f"no board {board!r}; there are: {', '.join(BOARDS)}")
        self.board: Board = BOARDS[board]
        self.name = board
        self.uri = f"qemu:{board}"
        self.transport = "qemu"
        self.image = Path(image) if image is not None else find_image(self.board)
        check_image(self.image, self.board)
        if shutil.which(_PROGRAM) is None:
            raise errors.LinkError(f"{_PROGRAM} is not installed ({_INSTALL})")
        self._arguments = tuple(arguments)
        self._die_with_parent = die_with_parent
        self._temporary = directory is None
        shm = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.directory = Path(directory or tempfile.mkdtemp(prefix="sbe-", dir=shm))
        self.directory.mkdir(parents=True, exist_ok=True)
        self.ram = self.directory / "ram"
        self._process: subprocess.Popen[bytes] | None = None
        self._window: Window | None = None
        self._last_crash: str | None = None

    # -- life cycle ------------------------------------------------------------------------------

    def connect(self) -> CarveoutTransport:
        """End the former process, start a new one, begin a life of this end."""
        self._note_crash()
        window = self.window
        self.start()
        try:
            stream = self.open_doorbell()
        except errors.LinkError as error:
            how = self._obituary()
            if self.alive:
                raise
            raise errors.LinkError(f"the board died as it started: {how}") from error
        return CarveoutTransport(window, stream, end=self._obituary)

    def open_doorbell(self) -> int:
        """Open the doorbell's stream; its descriptor, the caller's."""
        return open_doorbell(f"unix:{self.directory / 'db'}")

    def start(self) -> None:
        """Load the image into a new process, the RAM as it is. Raises LinkError."""
        self.stop()
        self._last_crash = None
        check_image(self.image, self.board)
        self._prepare_ram()
        listeners: list[socket.socket] = []
        try:
            for name in _SOCKETS:
                listeners.append(self._listen(self.directory / name))
            with open(self.directory / "qemu.log", "wb") as log:
                self._process = subprocess.Popen(
                    self._command(*(each.fileno() for each in listeners)),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[each.fileno() for each in listeners],
                    start_new_session=True,
                )
        except OSError as error:
            raise errors.LinkError(
                f"{_PROGRAM} can't be started: {error.strerror}", error.errno
            ) from error
        finally:
            for each in listeners:
                each.close()

    def stop(self) -> None:
        """End the process at once. One that has ended is fine."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def kill(self) -> bool:
        """Let the process die, as in a crash of QEMU, unnoticed here. False: it was dead."""
        process = self._process
        alive = process is not None and process.poll() is None
        if process is not None:
            process.kill()
        return alive

    def quit(self) -> None:
        """End the process in order: QEMU writes what it has buffered."""
        process = self._process
        if process is not None:
            self.qmp("quit")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_QMP_S)
        self.stop()

    def reset(self) -> None:
        """Reset the core: the firmware begins another life, RAM stays."""
        self.qmp("system_reset")

    def freeze(self) -> None:
        """Stop the core where it is."""
        self.qmp("stop")

    def thaw(self) -> None:
        """Let a frozen core go on."""
        self.qmp("cont")

    def close(self) -> None:
        """Stop, and remove what `directory=None` made. Calling twice is fine."""
        self.stop()
        if self._window is not None:
            self._window.close()
            self._window = None
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- facts -----------------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """Process id of QEMU, None while there is none."""
        return self._process.pid if self._process is not None else None

    @property
    def alive(self) -> bool:
        """The process runs; the core in it may be frozen or have crashed."""
        return self._process is not None and self._process.poll() is None

    @property
    def window(self) -> Window:
        """The shared RAM."""
        if self._window is None:
            self._prepare_ram()
            self._window = Window(self.ram, 0, self.board.window_size)
        return self._window

    @property
    def heaps(self) -> dict[str, Heap]:
        """The arena of the shared RAM."""
        return {self.window.heap.name: self.window.heap}

    @property
    def exit_description(self) -> str | None:
        """Why the core is of no use: how it crashed, or how QEMU ended; None while it runs."""
        self._note_crash()
        if self._last_crash is not None:
            return self._last_crash
        if self._process is None:
            return "not started"
        code = self._process.poll()
        if code is None:
            return None
        if code >= 0:
            words = (self.directory / "qemu.log").read_text(errors="replace").strip()
            return f"QEMU exited with status {code}" + (f": {words[-300:]}" if words else "")
        with contextlib.suppress(ValueError):
            return f"QEMU killed by signal {-code} ({signal.Signals(-code).name})"
        return f"QEMU killed by signal {-code}"

    def crash(self) -> dict[str, Any] | None:
        """The crash record of the firmware's present or last life, None if it did not crash."""
        return _native.read_crash(self.window.memory)

    def console(self) -> str:
        """What the firmware has written to its console since the start."""
        try:
            return (self.directory / "console.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def qmp(self, command: str, **arguments: Any) -> Any:
        """Run a command of QEMU's machine protocol. Raises LinkError."""
        return qmp(self.directory / "qmp", command, arguments)

    # -- inside ----------------------------------------------------------------------------------

    def _prepare_ram(self) -> None:
        size = self.board.window_size
        try:
            there = os.stat(self.ram).st_size
        except FileNotFoundError:
            with open(self.ram, "xb") as file:
                file.truncate(size)
            return
        if there != size:
            raise errors.LinkError(
                f"the RAM file {self.ram} has {there} bytes, the board {self.name} has {size}: "
                "remove it"
            )

    @staticmethod
    def _listen(path: Path) -> socket.socket:
        path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(str(path))
            sock.listen(4)
        except OSError:
            sock.close()
            raise
        return sock

    def _command(self, doorbell: int, console: int, qmp: int) -> list[str]:
        die = self._die_with_parent
        if die is None:  # the kernel means the thread that forked, not the process
            die = threading.current_thread() is threading.main_thread()
        setpriv = shutil.which("setpriv") if die else None
        log = self.directory / "console.log"
        log.unlink(missing_ok=True)
        return [
            *([setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []),
            _PROGRAM,
            "-machine",
            f"{self.name},memory-backend=ram",
            "-accel",
            "tcg,thread=multi",
            "-object",
            f"memory-backend-file,id=ram,size={self.board.window_size},mem-path={self.ram},share=on",
            "-nodefaults",
            "-display",
            "none",
            "-chardev",
            f"socket,id=con,fd={console},server=on,wait=off,logfile={log}",
            "-serial",
            "chardev:con",
            "-chardev",
            f"socket,id=db,fd={doorbell},server=on,wait=off",
            "-serial",
            "chardev:db",
            "-chardev",
            f"socket,id=qmp,fd={qmp},server=on,wait=off",
            "-mon",
            "chardev=qmp,mode=control",
            "-kernel",
            str(self.image),
            *self._arguments,
        ]

    def _note_crash(self) -> None:
        if self._window is None or self._process is None or self._last_crash is not None:
            return
        crash = self.crash()
        if crash is not None:
            self._last_crash = f"the firmware crashed: {describe_crash(crash)}"

    def _obituary(self) -> str:
        """Say what became of a process whose stream has ended."""
        if self._process is not None:
            deadline = time.monotonic() + _DEATH_S
            while self._process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.005)
        return self.exit_description or "QEMU closed the doorbell and went on"
