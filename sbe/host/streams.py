"""The standard streams of a program: full disks, closed descriptors, readers that have left.

Python itself prints a traceback when the last flush fails, and lets the next file that is opened
take the number of a closed stream.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["OutputError", "run_program"]

_FAILED = 1


class OutputError(Exception):
    """Standard output can't be written. No OSError, which others would take for their own."""

    def __init__(self, error: OSError) -> None:
        closed = error.errno == errno.EBADF
        super().__init__(f"standard output: {'it is closed' if closed else error.strerror}")
        self.silent = error.errno == errno.EPIPE
        """Who read it has seen enough: nothing to be told."""


class _Output(io.RawIOBase):
    """A descriptor to write to; what comes after a failure is dropped."""

    def __init__(self, fd: int, *, required: bool) -> None:
        self._fd = fd
        self._required = required
        self._failed = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        if self._fd < 0:
            raise io.UnsupportedOperation("the stream was closed when the program started")
        return self._fd

    def isatty(self) -> bool:
        return self._fd >= 0 and os.isatty(self._fd)

    def write(self, data: ReadableBuffer) -> int:
        while not self._failed:
            try:
                return os.write(self._fd, data)
            except BlockingIOError:
                if not self._required:  # a log that is full shall stop nobody
                    break
                select.select([], [self._fd], [])
            except OSError as error:
                self._failed = True
                if self._required:
                    raise OutputError(error) from error
        return memoryview(data).nbytes


def _guarded(stream: TextIO | None, fd: int, *, required: bool) -> TextIO:
    raw = _Output(-1 if stream is None else fd, required=required)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding if stream else "utf-8",
        errors=stream.errors if stream else "backslashreplace",
        line_buffering=not required or raw.isatty(),
    )


@contextlib.contextmanager
def _standard_streams() -> Iterator[None]:
    """Streams of the process itself are guarded, those that a caller has put there are its own."""
    before = sys.stdout, sys.stderr
    if sys.stdout is sys.__stdout__:
        sys.stdout = _guarded(sys.stdout, 1, required=True)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _guarded(sys.stderr, 2, required=False)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _occupy() -> None:
    """Gives closed descriptors to /dev/null: a socket in their place would be written to."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest: this one


def run_program(name: str, body: Callable[[], int]) -> int:
    """Runs the body of a program; its exit status.

    Output that can't be written is one line on stderr, and none when its reader has left.
    """
    _occupy()
    with _standard_streams():
        try:
            try:
                status = body()
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else _FAILED if end.code else 0
                if isinstance(end.code, str):
                    print(end.code, file=sys.stderr)
            sys.stdout.flush()
        except OutputError as error:
            if not error.silent:
                print(f"{name}: error: {error}", file=sys.stderr)
            return _FAILED
        return status
