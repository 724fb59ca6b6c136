"""The records, and what they are compared with."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from tests.stable import commands, python_api, services, varlink, wire

__all__ = ["PARTS", "adopt", "difference"]

FOLDER = Path(__file__).parent

PARTS: dict[str, Callable[[], list[str]]] = {
    "python.txt": python_api.lines,
    "wire.txt": wire.lines,
    "varlink.txt": varlink.lines,
    "commands.txt": commands.lines,
    "services.txt": services.lines,
}


def difference(name: str) -> list[str]:
    """Lines of the record that are gone, with "-", and new ones, with "+"."""
    recorded = (FOLDER / name).read_text().splitlines()
    found = difflib.unified_diff(recorded, PARTS[name](), lineterm="", n=0)
    return [line for line in found if line[0] in "+-" and not line.startswith(("+++", "---"))]


def adopt(name: str) -> None:
    """The record is what the code says now."""
    (FOLDER / name).write_text("\n".join(PARTS[name]()) + "\n")
