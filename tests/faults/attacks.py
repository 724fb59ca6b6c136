"""Which attack is of which class, said at the tests themselves: marks, and the table made of them.

    python -m tests.faults.attacks

prints how many cases each class has from an application's side and from a remote's, and how many
bugs of it tests/proof puts back; then what fell under attacks, and which tests keep it up.
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

__all__ = ["BY", "FOUND", "Case", "application", "cases", "remote", "table"]

FOUND = {
    "one client's legal requests stop everyone and get the remote killed": [
        "tests/faults/test_shares.py::test_a_bystander_is_served_in_between",
        "tests/faults/test_attack_holding.py::test_every_slot_of_many_channels_is_full_of_long_work",
    ],
    "a doorbell of address 0 reaches the freed rings of an rpmsg port": [
        "tests/core/test_rpmsg_link.c::send_strange(1); /* closed in good order */",
    ],
    "a bell that is full and blocking leaks a thread and a descriptor": [
        "tests/integration/test_daemon.py::test_full_bells_that_block_stop_nobody_and_leave_nothing",
    ],
    "a flood of connects locks honest users out": [
        "tests/faults/test_daemon_floods.py::test_a_flood_of_connects_locks_nobody_out",
        "tests/faults/test_daemon_floods.py::test_a_crowd_finds_room_before_it_is_accepted",
    ],
    "places of services are everybody's": [
        "tests/faults/test_shares.py::test_one_context_does_not_have_all_places_of_a_service",
        "tests/faults/test_attack_holding.py::test_places_of_services_held_by_many_contexts",
    ],
    "a remote that dies during OpenChannel is a bad file descriptor": [
        "tests/faults/test_daemon_races.py::test_a_channel_that_died_before_it_was_handed_over",
        "tests/faults/test_daemon_races.py::test_a_channel_that_died_before_its_context_went_on",
    ],
    "a call's timeout does not bound the look-up of its name": [
        "tests/faults/test_deadlines.py::test_look_up_of_a_name_at_a_frozen_remote",
    ],
    "a greedy user takes the descriptors of a daemon that has few": [
        "tests/faults/test_daemon_floods.py::"
        "test_a_user_who_takes_all_descriptors_leaves_some_for_others",
    ],
    "refused connections are logged without limit": [
        "tests/faults/test_daemon_floods.py::test_refusals_do_not_fill_the_log",
        "tests/unit/test_daemon_log.py::test_lines_of_one_kind_are_bounded",
    ],
    "a configuration or a program that everybody can write is taken": [
        "tests/unit/test_daemon_config.py::test_a_configuration_that_others_can_change",
        "tests/unit/test_daemon_config.py::test_a_program_that_others_can_change",
    ],
    "the check of an image is quadratic": [
        "tests/fuzz/test_parsers.py::test_an_image_whose_tables_name_all_of_it_again_and_again",
    ],
    "a channel that the remote has shut looks alive": [
        "tests/faults/test_shut_channels.py::test_it_is_told_and_goes_on",
    ],
    "a call for which the daemon has no memory is never answered": [
        "tests/unit/test_daemon_connection.py::"
        "test_a_call_for_which_there_is_no_memory_ends_the_connection",
        "tests/unit/test_daemon_connection.py::"
        "test_a_connection_for_which_there_is_no_memory_is_closed",
    ],
    "a NUL in a URI or in a link's file is an error of Python's": [
        "tests/faults/test_refusals.py::test_uri_with_what_no_path_has",
        "tests/unit/test_hostile_config.py::test_every_value_at_every_key_of_a_link",
    ],
}
"""What fell under attacks, by the tests that failed then."""

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
    files.sort()
    with tempfile.NamedTemporaryFile("r") as told:
        command = [sys.executable, "-m", "tests.faults.attacks", told.name, *files]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stdout[-4000:] + done.stderr)
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
    for words, tests in FOUND.items():
        print(f"\n{words}:", *tests, sep="\n    ")
