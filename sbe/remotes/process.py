"""The embedded remote: the program sbe-remote, a child process at the end of a socket pair."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

from sbe import _native, errors
from sbe.host.descriptors import close_all, socket_above_streams
from sbe.remotes import Memory, Remote
from sbe.transports.deathwatch import Deathwatch
from sbe.transports.seqpacket import SeqpacketTransport

__all__ = ["RemoteProcess"]

_DEATH_S = 1.0  # from the end of its connection to the end of the process; usually below 1 ms
_GOODBYE_S = 0.2  # before SIGTERM: it ends by itself when the link was closed
_TERMINATE_S = 0.5  # from SIGTERM to SIGKILL
_KILL_S = 5.0  # from there to its end; usually below 10 ms
_LOG_BYTES = 65536  # what the pipe holds; lines beyond it are lost, the remote never waits


class RemoteProcess(Remote):
    """Starts sbe-remote, and starts it again after its end. Not thread-safe: the owner serialises.

    The program is `path`, else the environment variable SBE_REMOTE, else the one in this package.
    It runs in a session of its own, so that Ctrl-C in the terminal reaches only the application,
    and ends by itself when the transport closes. `arguments` follow those of this class.
    `die_with_parent` also ends it with the thread that starts it, so the default says so only in
    the main thread. `huge_pages`: areas may come from the heap "hugetlb" too, for applications that
    are trusted; it is not the default.

    Each `connect()` ends the former process and starts a new one.
    """

    name = "loopback"
    uri = "loopback:"
    transport = "embedded"

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        arguments: Sequence[str] = (),
        die_with_parent: bool | None = None,
        huge_pages: bool = False,
    ) -> None:
        self._huge_pages = huge_pages
        self._path = path
        self._arguments = tuple(arguments)
        self._die_with_parent = die_with_parent
        self._child: _Child | None = None

    @property
    def path(self) -> Path:
        """The program that the next `connect()` starts."""
        chosen = self._path or os.environ.get("SBE_REMOTE")
        return Path(chosen) if chosen else Path(_native.__file__).with_name("sbe-remote")

    @property
    def memory(self) -> Memory:
        """Sealed memfds, and huge pages where that was said."""
        usual = Memory.memfds()
        if not self._huge_pages:
            return usual
        from sbe.heaps.memfd import HugeHeap  # whoever only reads the URIs needs no heap

        return Memory({**usual.heaps, HugeHeap.name: HugeHeap()})

    @property
    def pid(self) -> int | None:
        """The process id of the last one started, None before."""
        return self._child.process.pid if self._child else None

    @property
    def alive(self) -> bool:
        """The process runs."""
        return self._child is not None and self._child.process.poll() is None

    @property
    def exit_description(self) -> str | None:
        """How the last process ended, as in "killed by signal 9 (SIGKILL)"; None while it runs."""
        return self._child.exit_description() if self._child else None

    def connect(self) -> SeqpacketTransport:
        """Ends the former process, starts a new one, returns its end of the socket pair.

        Raises LinkError when the program is missing or can't be started. One that dies at once
        shows as the transport's LinkError, which quotes what it wrote to stderr.
        """
        self.close()
        crash = self._child.crash() if self._child else None
        path = self.path
        named = None if self._path else os.environ.get("SBE_REMOTE")
        if named and not path.is_file():
            raise errors.LinkError(
                f"the embedded remote is missing: SBE_REMOTE={named!r} names no file; unset it for "
                "the one that `make build` makes",
                errno.ENOENT,
            )
        if not path.is_file():
            raise errors.LinkError(
                f"the embedded remote is missing: {path} (build it with `make build`, or name "
                "another one in SBE_REMOTE)",
                errno.ENOENT,
            )
        ours: socket.socket | None = None
        try:
            with errors.resources(f"the embedded remote {path} can't be started"):
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                ours = socket_above_streams(ours)
                with socket_above_streams(theirs) as theirs:
                    command = self._command(path, theirs.fileno())
                    self._child = _Child(command, theirs.fileno(), crash)
                return _ProcessTransport(ours, self._child)
        except BaseException:
            if ours is not None:
                ours.close()
            raise

    def read_log(self) -> str:
        """Returns what the last process has written to stderr since the last call."""
        return self._child.read_log() if self._child else ""

    def kill(self) -> None:
        """Ends a process that can't be relied on, at once; it is reaped by the next call."""
        if self._child is not None and self.alive:
            self._child.signal(signal.SIGKILL)

    def restart(self) -> None:
        """Kills the process and waits for its end."""
        if self._child is not None:
            self._child.kill()

    @property
    def awaited(self) -> str | None:
        """That it runs, while it has sent nothing."""
        child = self._child
        if child is None or child.has_spoken:
            return None
        return f"{self.path.name} (process {child.process.pid}) runs and has sent nothing yet"

    def close(self) -> None:
        """Ends the process and reaps it. Calling twice is fine.

        Close the link first: a remote whose connection has ended stops by itself. One that does not
        is terminated, then killed, within a second; one that has never said a word at once.
        """
        if self._child:
            self._child.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _command(self, path: Path, fd: int) -> list[str]:
        die = self._die_with_parent
        if die is None:
            # The kernel means the thread that forked, not the process.
            die = threading.current_thread() is threading.main_thread()
        return [
            os.fspath(path),
            "--control-fd",
            str(fd),
            *([f"--die-with-parent={os.getpid()}"] if die else []),
            *(("--huge-pages",) if self._huge_pages else ()),
            *self._arguments,
        ]


class _Child:
    """One process, from its start until it is reaped."""

    def __init__(self, command: Sequence[str], control_fd: int, last_crash: str | None) -> None:
        self._name = Path(command[0]).name
        self._ended_here = False  # with a signal of ours
        self.has_spoken = False  # over its connection
        self._last_words = b""
        self._killed_at = 0.0  # for having closed its connection and gone on
        # Never wait for a reader: this end looks only now and then.
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            self._log = open(reader, "rb", buffering=0)  # noqa: SIM115 - closed by end()
        except BaseException:
            close_all((reader, writer))
            raise
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=writer,
                pass_fds=(control_fd,),
                start_new_session=True,
                env={**os.environ, "SBE_LAST_CRASH": last_crash or ""},
            )
        except BaseException:
            self._log.close()
            raise
        finally:
            os.close(writer)

    def exit_description(self) -> str | None:
        code = self.process.poll()
        if code is None:
            return None
        if code >= 0:
            return f"exited with status {code}"
        try:
            return f"killed by signal {-code} ({signal.Signals(-code).name})"
        except ValueError:
            return f"killed by signal {-code}"

    def read_log(self) -> str:
        try:
            log = b"" if self._log.closed else self._log.read(_LOG_BYTES) or b""
        except MemoryError:  # it stays in the pipe: the end of a remote can be told without it
            log = b""
        if log:
            self._last_words = log[-1024:]
        return log.decode(errors="replace")

    def obituary(self, late: bool) -> str | None:
        """Says what became of a process whose connection has ended, None while it is ending.

        One that is `late` is killed.
        """
        if self.process.poll() is None:
            if not late:
                return None
            if not self._killed_at:
                self._killed_at = monotonic()
                self.process.kill()
            if monotonic() < self._killed_at + _DEATH_S:
                return None
        told = "it closed its connection and went on; " if self._killed_at else ""
        how = self.exit_description() or "it does not end although it was killed"
        self.read_log()
        words = self._last_words.decode(errors="replace").strip().splitlines()
        last = f": {words[-1]}" if words else ""
        return f"{self._name} (process {self.process.pid}) {told}{how}{last}"

    def crash(self) -> str | None:
        """How it ended, if that was nobody's wish: a line for the file /crash of the next one."""
        code = self.process.poll()
        if self._ended_here or code in (None, 0):
            return None
        return f"{self.obituary(late=False)}\n"

    def signal(self, number: signal.Signals) -> None:
        """Ends one that runs."""
        self._ended_here = self._ended_here or self.process.poll() is None
        self.process.send_signal(number)

    def kill(self) -> None:
        """Raises LinkError where the kernel can't end it."""
        self.signal(signal.SIGKILL)
        if not self._ends_within(_KILL_S):
            raise errors.LinkError(
                f"{self._name} (process {self.process.pid}) stays, though killed"
            )

    def end(self) -> None:
        if not self.has_spoken:
            self.signal(signal.SIGKILL)
            self.process.wait()
        elif not self._ends_within(_GOODBYE_S):
            self.signal(signal.SIGTERM)
            if not self._ends_within(_TERMINATE_S):
                self.signal(signal.SIGKILL)
                self.process.wait()
        self.read_log()
        self._log.close()

    def _ends_within(self, seconds: float) -> bool:
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True


class _ProcessTransport(SeqpacketTransport):
    """Knows why its peer is gone, and tells it once that is known; until then there is nothing."""

    def __init__(self, sock: socket.socket, child: _Child) -> None:
        super().__init__(sock)
        self._child = child
        self._watch: Deathwatch | None = None

    def send(self, message: bytes, fds: Sequence[int] = ()) -> None:
        """As the base's. What a peer that is gone would not read is dropped: `receive()` tells."""
        with self._watching():
            if self._watch is None:
                super().send(message, fds)

    def flush(self) -> None:
        """The same."""
        with self._watching():
            if self._watch is None:
                super().flush()

    def receive(self) -> tuple[bytes, list[int]] | None:
        """As the base's; the end comes when it is known how the process ended."""
        with self._watching():
            message = super().receive()
            self._child.has_spoken = self._child.has_spoken or message is not None
            if message is not None or self._watch is None:
                return message
        words = self._watch.look() if self._watch is not None else None
        if words is not None:
            raise errors.LinkError(words)
        return None

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        try:
            yield
        except errors.ProtocolError:
            raise  # one message
        except errors.LinkError:
            if self._watch is None:
                self._watch = Deathwatch(self._child.obituary, _DEATH_S)

    @property
    def wants_write(self) -> bool:
        """Something is queued for a peer that is there."""
        return self._watch is None and super().wants_write

    def fileno(self) -> int:
        """The socket's descriptor; after its end that of a timer."""
        watched = -1 if self._watch is None else self._watch.fileno()
        return watched if watched >= 0 else super().fileno()

    def close(self) -> None:
        """Closes everything. Closing twice is fine."""
        super().close()
        if self._watch is not None:
            self._watch.close()
