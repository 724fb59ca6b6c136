"""Instructions of an empty call and of a batch, held to the record, and those of one among many:
tests/bench/instructions.py, growth.py."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.bench import growth, instructions
from tests.bench.model import UnavailableError
from tests.rigs.missing import give_up

PROFILE = """\
version: 1
events: Ir

ob=/lib/_native.abi3.so
fl=ring.c
fn=publish
10 5
11
cob=/lib/libc.so.6
cfn=write
calls=2 0
12 40

ob=/lib/libc.so.6
fn=write
0 40

totals: 45
"""


@pytest.mark.rig
@pytest.mark.timeout(1200)
def test_no_count_grows_beyond_the_record(tmp_path: Path) -> None:
    if os.environ.get("SBE_RIGS") != "required":
        pytest.skip("a minute or two under valgrind: set SBE_RIGS=required, as CI does")
    record = json.loads(instructions.RECORD.read_text())
    if reason := instructions.differs(record):
        give_up(f"counts can't be compared: {reason}")
    try:
        counted = instructions.count(tmp_path)
    except UnavailableError as error:
        give_up(str(error))
    found = instructions.faults(record, counted)
    assert not found, "\n".join([*found, instructions.HOW_TO_RECORD])


@pytest.mark.rig
@pytest.mark.timeout(1200)
def test_work_for_one_does_not_grow_with_how_many_others_there_are(tmp_path: Path) -> None:
    if os.environ.get("SBE_RIGS") != "required":
        pytest.skip("half a minute under valgrind: set SBE_RIGS=required, as CI does")
    try:
        found = {work: growth.count(tmp_path, work).fault(work) for work in growth.WORK}
    except UnavailableError as error:
        give_up(str(error))
    assert not any(found.values()), "\n".join(fault for fault in found.values() if fault)


def test_growth_is_judged_by_ratio_or_by_what_each_adds() -> None:
    assert growth.Growth(105, 100).fault("doorbell") == ""
    assert growth.Growth(106, 100).fault("doorbell") == (
        "doorbell: 106 instructions among 1,000, 100 alone "
        "(an empty call on one of so many channels)"
    )
    assert growth.Growth(15_100, 100).fault("bind") == ""
    assert growth.Growth(15_101, 100).fault("bind") != ""


def test_a_profile_is_read_by_object_and_by_callee() -> None:
    profile = instructions.Profile(PROFILE)
    assert dict(profile.by_object) == {"_native.abi3.so": 5, "libc.so.6": 40}
    assert (profile.inclusive["write"], profile.total) == (40, 45)


@pytest.mark.parametrize(
    ("now", "said"),
    [(1050, []), (1051, ["core_host_call: 1,051 instructions, 1,000 in the record (+5.1%)"])],
)
def test_growth_beyond_five_percent_is_a_fault(now: int, said: list[str]) -> None:
    record = {
        "made_with": instructions.surroundings(),
        "figures": {"core_host_call": 1000, "python_call": 10},
    }
    counted = {"core_host_call": now, "python_call": 10}
    assert instructions.faults(record, counted) == said


def test_a_new_figure_must_be_recorded_and_another_python_is_not_compared() -> None:
    record = {
        "made_with": instructions.surroundings() | {"python": "3.11.0"},
        "figures": {"python_call": 10},
    }
    counted = {"python_call": 99, "core_new": 5}
    assert instructions.faults(record, counted) == ["core_new: 5 instructions, not in the record"]


def test_another_compiler_is_named() -> None:
    made = instructions.surroundings()
    assert instructions.differs({"made_with": made}) == ""
    other = {"made_with": made | {"compiler": "1"}}
    assert "made with compiler 1, this is" in instructions.differs(other)
