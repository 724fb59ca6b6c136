"""Signals that end a command which would go on."""

from __future__ import annotations

import signal

__all__ = ["ending"]


def ending() -> list[signal.Signals]:
    """Ctrl-C, SIGTERM and SIGHUP, but for those that whoever started this has it ignore."""
    every = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return [each for each in every if signal.getsignal(each) != signal.SIG_IGN]
