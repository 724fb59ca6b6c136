"""Which attack is of which class, said at the tests themselves: marks, and the table made of them.

    python -m tests.faults.attacks

prints how many cases each class has from an application's side and from a remote's, and by which
bugs of tests/proof it is shown that tests notice one of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.proof.bugs import BUGS, CLASSES

__all__ = ["BY", "Case", "application", "cases", "remote", "table"]

ROOT = Path(__file__).resolve().parents[2]
BY = ("application", "remote")
_MARK = "attack"


def application(*classes: int) -> pytest.MarkDecorator:
    """Mark of an attack by an application that owns its own descriptors and nothing else."""
    return pytest.mark.attack("application", *classes)


def remote(*classes: int) -> pytest.MarkDecorator:
    """Mark of an attack by a remote, on the daemon or on who calls it."""
    return pytest.mark.attack("remote", *classes)


class Case(NamedTuple):
    """One test as pytest runs it."""

    test: str
    by: str
    classes: tuple[int, ...]


class _Collected:
    """A plugin that notes what is marked."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            for mark in item.iter_markers(_MARK):
                by, *classes = mark.args
                self.found.append({"test": item.nodeid, "by": by, "classes": classes})


def cases() -> list[Case]:
    """All of them, as pytest collects them in a process of its own."""
    words = "attacks import"
    files = [str(path) for path in ROOT.glob("tests/**/test_*.py") if words in path.read_text()]
    with tempfile.NamedTemporaryFile("r") as told:
        command = [sys.executable, "-m", "tests.faults.attacks", told.name, *files]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stdout + done.stderr)
        found = json.load(told)
    return [Case(case["test"], case["by"], tuple(case["classes"])) for case in found]


def table(found: list[Case]) -> str:
    """A line for each class."""
    counts: dict[int, dict[str, int]] = defaultdict(lambda: dict.fromkeys(BY, 0))
    for case in found:
        for number in case.classes:
            counts[number][case.by] += 1
    lines = [
        "| class | | by an application | by a remote | bugs put back |",
        "|---|---|--:|--:|--:|",
    ]
    for number, words in CLASSES.items():
        bugs = sum(bug.number == number for bug in BUGS)
        by = counts[number]
        lines.append(f"| {number} | {words} | {by[BY[0]]} | {by[BY[1]]} | {bugs} |")
    each = [sum(case.by == by for case in found) for by in BY]
    lines.append(f"| | cases | {each[0]} | {each[1]} | {len(BUGS)} |")
    return "\n".join(lines)


def _collect(path: str, *files: str) -> int:
    collected = _Collected()
    arguments = ["--collect-only", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", *files]
    status = pytest.main(arguments, plugins=[collected])
    Path(path).write_text(json.dumps(collected.found))
    return int(status)


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit(_collect(*sys.argv[1:]))
    print(table(cases()))
