"""The daemon's log: one line for each event, as text or as JSON, on stderr."""

from __future__ import annotations

import json
import logging
import sys
import time

from sbe.daemon.config import LogConfig

__all__ = ["setup"]

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


def setup(config: LogConfig) -> None:
    """Sends the log to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if config.format == "json" else _TextFormatter())
    logging.basicConfig(level=config.level.upper(), handlers=[handler], force=True)
    # Their debug lines are about asyncio and varlink, not about this daemon.
    for noisy in ("asyncio", "asyncvarlink"):
        logging.getLogger(noisy).setLevel(max(logging.INFO, logging.getLogger().level))
