"""The command `sbe`: its group, and how every error ends it."""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click
from click.exceptions import NoArgsIsHelpError

import sbe
from sbe import extras
from sbe.cli import exit_codes
from sbe.cli.bench import bench
from sbe.cli.call import call
from sbe.cli.check import check
from sbe.cli.console import console
from sbe.cli.demo import demo
from sbe.cli.firmware import firmware
from sbe.cli.listing import list_
from sbe.cli.melody import demo_stream
from sbe.cli.ninep import ninep
from sbe.cli.ping import ping
from sbe.cli.screen import SCHEMA, printable
from sbe.cli.serving import serve
from sbe.cli.session import common_options
from sbe.cli.stat import stat
from sbe.cli.waves import play, record
from sbe.host.streams import OutputError, run_program

__all__ = ["app", "run"]

_COMMANDS = (
    demo,
    demo_stream,
    ping,
    call,
    list_,
    stat,
    check,
    bench,
    play,
    record,
    firmware,
    console,
    ninep,
    serve,
)


class _Interrupted(Exception):
    """Ctrl-C, where click would print a line of its own and forget the exit code."""


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _Interrupted from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [command.name or "" for command in _COMMANDS]


def _epilog() -> str:
    lines = [f"  {code:>3}  {meaning}" for code, meaning in exit_codes.EXIT_CODES.items()]
    return "\n".join(
        [
            "\b",
            "Exit codes:",
            *lines,
            "",
            "\b",
            "Completion, in the start file of your shell:",
            '  bash  eval "$(_SBE_COMPLETE=bash_source sbe)"',
            '  zsh   eval "$(_SBE_COMPLETE=zsh_source sbe)"',
            "  fish  _SBE_COMPLETE=fish_source sbe | source",
            "",
            "\b",
            "SBE_SOCKET names the daemon's socket. SBE_DEBUG=1 shows where an error came from.",
        ]
    )


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    click.echo(f"sbe {sbe.__version__}")
    if trouble := extras.trouble():
        click.echo(f"sbe: warning: {trouble}", err=True)
    ctx.exit()


@click.group(
    cls=_Group,
    epilog=_epilog(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@common_options
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and exit.",
)
def app() -> None:
    """Exchange buffers with a co-processor, by reference.

    Without a daemon and without --uri each command starts a remote of its own, so everything works
    without a board.
    """


for _command in _COMMANDS:
    app.add_command(_command)


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and prints how it ended; an exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return run_program("sbe", lambda: _run(given))


def _run(given: list[str]) -> int:
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks is no reason to fail.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    handler = _log_to_stderr()
    try:
        code = app.main(given, prog_name="sbe", standalone_mode=False)
        return code if isinstance(code, int) else exit_codes.OK
    except OutputError:
        raise
    except NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        return exit_codes.USAGE
    except Exception as error:
        return _report(error, given)
    finally:
        logging.getLogger("sbe").removeHandler(handler)


def _debugging() -> bool:
    return os.environ.get("SBE_DEBUG", "") not in ("", "0")


def _log_to_stderr() -> logging.Handler:
    class Format(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return f"sbe: {record.levelname.lower()}: {printable(record.getMessage())}"

    handler = logging.StreamHandler()
    handler.setFormatter(Format())
    handler.setLevel(logging.DEBUG if _debugging() else logging.WARNING)
    logging.getLogger("sbe").addHandler(handler)
    return handler


def _report(error: Exception, given: Sequence[str]) -> int:
    if _debugging():
        traceback.print_exc()
    code, message = _explain(error)
    message = printable(" ".join(message.split()))
    if "--json" in given[: given.index("--")] if "--" in given else "--json" in given:
        try:
            _print_json_error(error, code, message, given)
            return code
        except OutputError as unsaid:
            if unsaid.silent:
                return code
    if code == exit_codes.INTERRUPTED:
        print("sbe: interrupted", file=sys.stderr)
    else:
        print(f"sbe: error: {message}", file=sys.stderr)
    return code


def _print_json_error(error: Exception, code: int, message: str, given: Sequence[str]) -> None:
    import json

    number = error.code if isinstance(error, sbe.Error) else getattr(error, "errno", None)
    command = next((word for word in given if word in app.commands), None)
    cause = "Usage" if isinstance(error, click.ClickException) else type(error).__name__
    described = {
        "type": "Interrupted" if code == exit_codes.INTERRUPTED else cause,
        "errno": errno.errorcode.get(number) if isinstance(number, int) else None,
        "message": message,
    }
    head: dict[str, object] = {"schema": SCHEMA, "command": command, "ok": False}
    print(json.dumps({**head, "exit_code": code, "error": described}), flush=True)


def _explain(error: Exception) -> tuple[int, str]:
    """The exit code, and one line that says what to do."""
    if isinstance(error, (_Interrupted, click.Abort)):
        return exit_codes.INTERRUPTED, "interrupted"
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "sbe"
        text = error.format_message().rstrip(".")
        return exit_codes.USAGE, f"{text} (`{command} --help` shows the usage)"
    if isinstance(error, click.ClickException):
        return exit_codes.FAILED, error.format_message()
    code = exit_codes.exit_code_of(error)
    if isinstance(error, sbe.UnknownService):
        return code, f"{error}; `sbe list` shows the services"
    if isinstance(error, sbe.NoRoom):
        return code, f"{error}; an OUT buffer has too little room, or the reply"
    if isinstance(error, sbe.Error):
        return code, str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        name = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        return code, f"{name}{error.strerror}"
    if isinstance(error, MemoryError):
        return code, "not enough memory"
    hint = "" if _debugging() else "; SBE_DEBUG=1 shows where"
    return code, f"unexpected {type(error).__name__}: {error}{hint}"
