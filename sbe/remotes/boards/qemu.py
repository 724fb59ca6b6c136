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
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from sbe import _native, errors
from sbe.host import files, sockets
from sbe.host.descriptors import socket_above_streams
from sbe.remotes import Memory, Remote
from sbe.remotes.boards.image import BOARDS, Board, check_image, find_image
from sbe.transports.carveout import CarveoutTransport
from sbe.transports.doorbell import open_unix
from sbe.transports.window import Window, describe_crash

__all__ = ["QemuBoard", "memory_option", "qmp", "reset"]

_PROGRAM = "qemu-system-arm"
_MEMORY = "/dev/shm"  # where the RAM is a file in memory
_INSTALL = "sudo apt install qemu-system-arm"
_DEATH_S = 0.5  # from a doorbell that can't be opened to the end of the process
_QMP_S = 5.0
_QMP_LINE = 1 << 20  # bytes of an answer, the longest of which have some thousands
_SOCKETS = ("db", "console", "qmp")  # names in the directory


def qmp(
    path: Path, command: str, arguments: dict[str, Any] | None = None, *, event: str | None = None
) -> Any:
    """Runs a command of QEMU's machine protocol at this socket. Raises LinkError.

    With `event` it returns when that has come of it.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(_QMP_S)
            with sockets.address(path) as address:
                sock.connect(address)
            with sock.makefile() as answers:
                _listen_to(answers)
                _ask(sock, answers, "qmp_capabilities", {})
                return _ask(sock, answers, command, arguments or {}, event)
    except (OSError, ValueError) as error:
        raise errors.LinkError(f"QEMU does not take {command!r}: {error}") from error


def reset(path: Path) -> None:
    """Resets the core of a board, which then runs. When this returns its former life is over.

    Raises LinkError.
    """
    qmp(path, "system_reset", event="RESET")
    qmp(path, "cont")


def _listen_to(answers: TextIO) -> dict[str, Any]:
    answer = files.parse_json(answers.readline(_QMP_LINE))
    if not isinstance(answer, dict):
        raise ValueError("what answers is not QEMU")
    return answer


def _ask(
    sock: socket.socket,
    answers: TextIO,
    command: str,
    arguments: dict[str, Any],
    event: str | None = None,
) -> Any:
    question = json.dumps({"execute": command, "arguments": arguments}) + "\n"
    # The application may have SIGPIPE as the system gives it.
    sock.sendall(question.encode(), socket.MSG_NOSIGNAL)
    returned: list[Any] = []
    while not returned or event is not None:
        answer = _listen_to(answers)
        if "return" in answer:
            returned.append(answer["return"])
        elif event is not None and answer.get("event") == event:
            event = None
        if isinstance(answer.get("error"), dict):
            raise ValueError(answer["error"].get("desc", "refused"))
    return returned[0]


def _option(value: str | os.PathLike[str]) -> str:
    """A value among QEMU's options, where a comma ends it unless it is doubled."""
    return os.fspath(value).replace(",", ",,")


def memory_option(ram: Path, size_bytes: int) -> str:
    """QEMU's option for RAM that is this file: a process that has it is the board of that file."""
    return f"memory-backend-file,id=ram,size={size_bytes},mem-path={_option(ram)},share=on"


class QemuBoard(Remote):
    """One emulated board: load is a new process, the RAM file outlives it.

    `image` is an ELF file, by default what `make firmware` built. `directory` holds the sockets,
    the console's log and the RAM; None makes one, which `close()` removes. Not thread-safe.

    Each `connect()` ends the former process and starts a new one.
    """

    transport = "qemu"

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
        self.uri = f"qemu:{board}" if image is None else f"qemu:{board},{os.fspath(image)}"
        self.image = Path(image) if image is not None else find_image(self.board)
        check_image(self.image, self.board)
        if shutil.which(_PROGRAM) is None:
            raise errors.LinkError(f"{_PROGRAM} is not installed ({_INSTALL})")
        self._arguments = tuple(arguments)
        self._die_with_parent = die_with_parent
        self._temporary = directory is None
        self.directory = _directory(directory)
        self.ram = self.directory / "ram"
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._window: Window | None = None
        self._last_crash: str | None = None
        self._transport: CarveoutTransport | None = None

    # -- life cycle ------------------------------------------------------------------------------

    def connect(self) -> CarveoutTransport:
        """Ends the former process, starts a new one, begins a life of this end."""
        self._note_crash()
        window = self.window
        self.start()
        try:
            stream = self.open_doorbell()
        except errors.LinkError as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert self._process is not None, "it was started just now"
                self._process.wait(_DEATH_S)
            if self.alive:
                raise
            how = self.exit_description
            raise errors.LinkError(f"the board died as it started: {how}") from error
        self._transport = CarveoutTransport(window, stream, end=self._obituary)
        return self._transport

    def open_doorbell(self) -> int:
        """Opens the doorbell's stream; its descriptor, the caller's."""
        return open_unix(str(self.directory / "db"))

    def start(self) -> None:
        """Loads the image into a new process, the RAM as it is. Raises LinkError."""
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
                f"{_PROGRAM} can't be started in {self.directory}: {error.strerror}", error.errno
            ) from error
        finally:
            for each in listeners:
                each.close()

    def stop(self) -> None:
        """Ends the process at once. One that has ended is fine."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def kill(self) -> bool:
        """Lets the process die, as in a crash of QEMU, unnoticed here. False: it was dead."""
        process = self._process
        alive = process is not None and process.poll() is None
        if process is not None:
            process.kill()
        return alive

    def quit(self) -> None:
        """Ends the process in order: QEMU writes what it has buffered."""
        process = self._process
        if process is not None:
            self.qmp("quit")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_QMP_S)
        self.stop()

    def restart(self) -> None:
        """Ends the process; `connect()` starts another."""
        self._note_crash()
        self.stop()

    def reset(self) -> None:
        """Resets the core: the firmware begins another life, RAM stays."""
        reset(self.directory / "qmp")

    def freeze(self) -> None:
        """Stops the core where it is."""
        self.qmp("stop")

    def thaw(self) -> None:
        """Lets a frozen core go on."""
        self.qmp("cont")

    def close(self) -> None:
        """Stops, and removes what `directory=None` made. Calling twice is fine.

        In a forked child it does nothing: the board is the parent's.
        """
        if os.getpid() != self._owner:
            return
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
        """The process id of QEMU, None while there is none."""
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
    def memory(self) -> Memory:
        """The arena of the shared RAM, and the regions that the firmware offers."""
        return Memory({self.window.heap.name: self.window.heap}, offering=self.window)

    @property
    def awaited(self) -> str | None:
        """That the firmware shows itself."""
        if self._transport is None or self._transport.met:
            return None
        return f"QEMU (process {self.pid}) runs, its firmware has not shown itself yet"

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
        """Runs a command of QEMU's machine protocol. Raises LinkError."""
        return qmp(self.directory / "qmp", command, arguments)

    # -- inside ----------------------------------------------------------------------------------

    def _prepare_ram(self) -> None:
        size = self.board.window_size
        try:
            there = _file_of(self.ram, size)
        except OSError as error:
            raise errors.LinkError(
                f"the RAM file {self.ram} can't be made: {error.strerror}", error.errno
            ) from error
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
            with sockets.address(path) as address:
                sock.bind(address)
            sock.listen(4)
        except OSError:
            sock.close()
            raise
        return socket_above_streams(sock)

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
            memory_option(self.ram, self.board.window_size),
            "-nodefaults",
            "-display",
            "none",
            "-chardev",
            f"socket,id=con,fd={console},server=on,wait=off,logfile={_option(log)}",
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

    def _obituary(self, late: bool) -> str | None:
        """Says what became of a process whose stream has ended, None while it is ending."""
        if self.alive and not late:
            return None
        return self.exit_description or "QEMU closed the doorbell and went on"


def _directory(named: str | os.PathLike[str] | None) -> Path:
    """The folder of a board; None: a new one, in memory where there is any."""
    try:
        if named is None:
            shm = _MEMORY if os.access(_MEMORY, os.W_OK | os.X_OK) else None
            return Path(tempfile.mkdtemp(prefix="sbe-", dir=shm))
        os.makedirs(named, exist_ok=True)
        return Path(named)
    except OSError as error:
        raise errors.LinkError(
            f"no folder for the board, {error.filename or named}: {error.strerror}", error.errno
        ) from error


def _file_of(path: Path, size_bytes: int) -> int:
    """Bytes of a file, which is made with so many if there is none."""
    with contextlib.suppress(FileNotFoundError):
        return os.stat(path).st_size
    with open(path, "xb") as file:
        file.truncate(size_bytes)
    return size_bytes
