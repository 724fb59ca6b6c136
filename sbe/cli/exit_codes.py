"""The exit codes of `sbe`: stable, in one table that help, documents and tests share."""

from __future__ import annotations

from typing import Final

from sbe import errors

__all__ = [
    "EXIT_CODES",
    "FAILED",
    "INTERRUPTED",
    "NO_LINK",
    "OK",
    "PERMISSION",
    "TIMEOUT",
    "UNKNOWN_SERVICE",
    "USAGE",
    "exit_code_of",
]

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NO_LINK: Final = 3
TIMEOUT: Final = 4
PERMISSION: Final = 5
UNKNOWN_SERVICE: Final = 6
INTERRUPTED: Final = 130

EXIT_CODES: Final[dict[int, str]] = {
    OK: "done, and every check passed",
    FAILED: "the operation failed, or a check did",
    USAGE: "the command line is wrong or asks for what can't be; nothing was sent",
    NO_LINK: "no link: no daemon, no remote, or it was lost",
    TIMEOUT: "no answer in time",
    PERMISSION: "not permitted: the daemon's socket, a quota, a file",
    UNKNOWN_SERVICE: "the remote has no such service",
    INTERRUPTED: "interrupted by Ctrl-C, a recording or a mount by SIGTERM or SIGHUP as well",
}

# The first that matches; a class stands before its bases.
_BY_CLASS: Final[tuple[tuple[type[BaseException], int], ...]] = (
    (errors.UnknownService, UNKNOWN_SERVICE),
    (errors.PermissionDenied, PERMISSION),
    (errors.Timeout, TIMEOUT),
    (errors.LinkError, NO_LINK),
    (errors.BadArgument, USAGE),
    (errors.Error, FAILED),
    (KeyboardInterrupt, INTERRUPTED),
    (PermissionError, PERMISSION),
)


def exit_code_of(error: BaseException) -> int:
    """The exit code of a command that ended with this exception."""
    for kind, code in _BY_CLASS:
        if isinstance(error, kind):
            return code
    return FAILED
