"""sbe-daemon: negotiates with remotes for many applications, and stays out of their data's way.

    config      the TOML file                       policy      quotas by user
    remote      one link, its remote kept running   client      one connection's context
    service     the varlink interface               status      its List and Stat
    connection  varlink within bounds               server      the socket, start and stop

Nothing here uses the SDK: applications and the daemon meet in sbe.control only.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sbe import extras

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the daemon; an exit status."""
    try:
        from sbe.daemon.app import main as run
    except ImportError as error:
        why = extras.missing("sbe-daemon", error, "daemon")
        if why is None:
            raise
        print(why, file=sys.stderr)
        return 1
    return run(arguments)
