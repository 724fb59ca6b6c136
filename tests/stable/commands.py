"""`sbe`, `sbe-daemon`, `sbe-remote`: commands, options, exit codes and the form of their JSON."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from sbe import _native
from sbe.cli import exit_codes
from sbe.cli.app import app

__all__ = ["lines"]

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 60.0

SHOWN = (
    ("ping", "-c", "2"),
    ("call", "echo", "--payload", "text:x"),
    ("call", "crc32", "--in", "text:x", "--unpack", "<I"),
    ("call", "nobody"),
    ("list",),
    ("stat",),
    ("firmware", "list"),
)
"""Commands whose JSON is recorded; quick ones, of an embedded remote."""


def lines() -> list[str]:
    """Each exit code, option and key of JSON."""
    return [
        *sorted({f"environment {name}" for name in _environment()}),
        *(f"exit {code}: {meaning}" for code, meaning in exit_codes.EXIT_CODES.items()),
        *_options(app, "sbe"),
        *_printed_options("sbe-daemon", [sys.executable, "-m", "sbe.daemon", "--help"]),
        *_printed_options("sbe-remote", [_remote(), "--help"]),
        *(line for command in SHOWN for line in _json(command)),
    ]


def _environment() -> Iterator[str]:
    """What the programs read of it, by the text of their source."""
    for path in (ROOT / "sbe").rglob("*.py"):
        for line in path.read_text().splitlines():
            if "environ" in line or "getenv" in line:
                yield from re.findall(r'"(SBE_[A-Z_]+)"', line)


def _remote() -> str:
    return str(Path(_native.__file__).with_name("sbe-remote"))


def _options(command: click.Command, path: str) -> Iterator[str]:
    for parameter in command.params:
        many = " ..." if parameter.nargs != 1 or parameter.multiple else ""
        flag = isinstance(parameter, click.Option) and parameter.is_flag
        kind = "" if flag else f" {parameter.type.name}"
        default = parameter.default
        said = f" = {default}" if isinstance(default, int | float | str) and not flag else ""
        yield f"{path} {', '.join(parameter.opts)}{kind}{many}{said}"
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            found = command.get_command(click.Context(command), name)
            assert found is not None
            yield from _options(found, f"{path} {name}")


def _printed_options(name: str, command: list[str]) -> Iterator[str]:
    said = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=True)
    for option in sorted({*re.findall(r"(?<![\w-])--?[a-z][\w-]*", said.stdout)}):
        yield f"{name} {option}"


def _json(arguments: tuple[str, ...]) -> list[str]:
    command = [sys.executable, "-m", "sbe", "--uri", "loopback:", "--json", *arguments]
    named = {name: value for name, value in os.environ.items() if not name.startswith("SBE_")}
    said = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT_S, check=False, env=named
    )
    return sorted({f"{' '.join(arguments)} {line}" for line in _form(json.loads(said.stdout), "")})


def _form(value: Any, path: str) -> Iterator[str]:
    if path in (".cores", ".boards", ".processors"):
        yield f"{path}[]"  # what they hold depends on the machine
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _form(each, f"{path}.{key}")
    elif isinstance(value, list):
        yield f"{path}[]"
        for each in value:
            yield from _form(each, f"{path}[]")
    else:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        yield f"{path}: {'number' if number else type(value).__name__}"
