"""The daemon's log: one line for each event, as text or as JSON, on stderr."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sbe.daemon.config import LogConfig

__all__ = ["LINES_MAX", "WINDOW_SECONDS", "Sparing", "setup"]

LINES_MAX = 100  # of one kind ...
WINDOW_SECONDS = 10.0  # ... in so long
_KINDS_MAX = 1000

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _extras(record: logging.LogRecord) -> dict[str, object]:
    """What the caller gave as `extra`."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


class _TextFormatter(logging.Formatter):
    """Time, level, logger, message, then key=value. Whatever a client put in stays one line."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{self.formatTime(record)} {record.levelname.lower()} {record.name}: "
        line += record.getMessage()
        line += "".join(f" {key}={value!r}" for key, value in _extras(record).items())
        line = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in line)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class _JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the event's own keys."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key, value in _extras(record).items():
            event.setdefault(key, value)
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(event, default=str)


class Sparing(logging.Filter):
    """Lines of one kind, at most so many in so long: clients decide how many there would be.

    What is left out is counted, and told with the next one that is not (`left_out`). A kind is a
    message before its arguments, so there are as many as places in the code. Any thread may log.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[tuple[str, object], _Kind] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is written."""
        now = self._clock()
        with self._lock:
            if len(self._kinds) > _KINDS_MAX:  # a library that puts its arguments in itself
                self._kinds.clear()
            kind = self._kinds.setdefault((record.name, record.msg), _Kind(now))
            if now - kind.since >= WINDOW_SECONDS:
                if kind.left_out:
                    record.left_out = kind.left_out
                kind.since, kind.count, kind.left_out = now, 0, 0
            kind.count += 1
            if kind.count > LINES_MAX:
                kind.left_out += 1
            return kind.count <= LINES_MAX


@dataclass
class _Kind:
    since: float
    count: int = 0
    left_out: int = 0


def setup(config: LogConfig) -> None:
    """Sends the log to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if config.format == "json" else _TextFormatter())
    handler.addFilter(Sparing())
    logging.basicConfig(level=config.level.upper(), handlers=[handler], force=True)
    # Their debug lines are about asyncio and varlink, not about this daemon.
    for noisy in ("asyncio", "asyncvarlink"):
        logging.getLogger(noisy).setLevel(max(logging.INFO, logging.getLogger().level))
