"""Forked children of a test, and what ends them with it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from ctypes import CDLL
from pathlib import Path

__all__ = ["alive", "end_with_parent", "in_child"]

_LIBC = CDLL(None)  # before a child is made: there it may be too late
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """SIGKILL for this process, or what it executes, when the one that forked it dies."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def in_child(work: Callable[[], object]) -> int:
    """Exit status of a forked child that runs work: 0 if it returns."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def alive(pid: int) -> bool:
    """A process is there, and not only its status for who started it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
