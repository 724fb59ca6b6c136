"""The command line of sbe-daemon."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from sbe import extras
from sbe._native import RELEASE
from sbe.daemon import log
from sbe.daemon.config import DEFAULT_PATH, Config, ConfigError, load
from sbe.daemon.policy import descriptors_needed
from sbe.daemon.server import ListenError, serve
from sbe.daemon.systemd import InheritedError, listen_sockets
from sbe.errors import Error
from sbe.host.streams import run_program

__all__ = ["main"]

EXIT_FAILURE = 1
EXIT_CONFIG = 78  # EX_CONFIG, which systemd names and does not restart after


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sbe-daemon",
        description="Negotiates memory and channels with co-processors on behalf of applications.",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="PATH",
        help=f"configuration file (default: {DEFAULT_PATH} if it exists)",
    )
    parser.add_argument(
        "--socket", metavar="PATH", help="socket to listen at, instead of the file's"
    )
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        help="instead of the file's",
    )
    parser.add_argument(
        "--check-config", action="store_true", help="check the configuration file and exit"
    )
    parser.add_argument("--version", action="version", version=f"sbe-daemon {RELEASE}")
    return parser


def _configuration(options: argparse.Namespace) -> Config:
    config = load(options.config, socket=options.socket)
    if options.log_level is None:
        return config
    changed = config.log.model_copy(update={"level": options.log_level})
    return config.model_copy(update={"log": changed})


def _raise_descriptor_limit(config: Config) -> None:
    """Areas and channels are descriptors; the usual soft limit would stop at some 300 areas."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    needed = descriptors_needed(config.policy.default)
    if hard < needed:
        logging.getLogger(__name__).warning(
            "at most %d file descriptors may be open, what [policy.default] gives one user takes "
            "%d: raise the limit (LimitNOFILE= in the unit, or ulimit -Hn), or lower areas and "
            "channels",
            hard,
            needed,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the daemon; an exit status."""
    return run_program("sbe-daemon", lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    try:
        config = _configuration(options)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    if options.check_config:
        path = options.config or (DEFAULT_PATH if DEFAULT_PATH.exists() else None)
        where = f"there is no {DEFAULT_PATH}: the defaults" if path is None else str(path)
        print(f"{where}: the configuration is fine")
        return 0
    try:
        inherited = listen_sockets()  # before a descriptor of ours can be taken for one of them
        log.setup(config.log)
        if trouble := extras.trouble():
            logging.getLogger(__name__).warning("%s", trouble)
        _raise_descriptor_limit(config)
        with contextlib.closing(serve(config, inherited)) as running:  # also one that never ran
            asyncio.run(running)
    except (InheritedError, ListenError, Error) as error:
        print(f"sbe-daemon: {error}", file=sys.stderr)
        return EXIT_FAILURE
    except OSError as error:
        print(f"sbe-daemon: can't run: {error.strerror or error}", file=sys.stderr)
        logging.getLogger(__name__).debug("where it happened", exc_info=True)
        return EXIT_FAILURE
    return 0
