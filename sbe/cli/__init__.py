"""The command line, `sbe`. `main` is its entry point."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sbe.cli.exit_codes import FAILED, INTERRUPTED

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; an exit code of `sbe.cli.exit_codes`. Prints, never raises."""
    try:
        from sbe.cli.app import run
    except KeyboardInterrupt:
        return INTERRUPTED
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] != "click":
            raise
        print(
            "sbe: error: the command line needs the package click: pip install 'sbe[cli]'",
            file=sys.stderr,
        )
        return FAILED
    return run(arguments)
