"""The command line, `sbe`. `main` is its entry point."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sbe import extras
from sbe.cli.exit_codes import FAILED, INTERRUPTED

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; an exit code of `sbe.cli.exit_codes`. Prints, never raises."""
    if not extras.intact():
        return _refuse(extras.trouble())
    try:
        from sbe.cli.app import run
    except KeyboardInterrupt:
        return INTERRUPTED
    except ImportError as error:
        why = extras.missing("the command line", error, "cli")
        if why is None:
            raise
        return _refuse(why)
    return run(arguments)


def _refuse(why: str | None) -> int:
    print(f"sbe: error: {why}", file=sys.stderr)
    return FAILED
