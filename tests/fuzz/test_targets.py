"""The libFuzzer targets, each for a fixed number of executions from a fixed seed."""

from __future__ import annotations

import re

import pytest

from tests.fuzz import targets
from tests.fuzz.targets import TARGETS, Target
from tests.rigs import missing

EXECUTIONS = 5_000_000  # of all together, at least


@pytest.fixture(scope="session", autouse=True)
def built() -> None:
    reason = targets.missing()
    missing.require(reason is None, reason or "")
    targets.build()


def test_every_target_is_run():
    names = {path.stem.removeprefix("fuzz_") for path in targets.HERE.glob("fuzz_*.c")}
    assert names == {target.name for target in TARGETS}
    assert sum(target.runs for target in TARGETS) >= EXECUTIONS


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@pytest.mark.timeout(targets.LIMIT_S + 180)
def test_fuzz(target: Target):
    """Each kept input first, so what was found once is a regression case."""
    outcome = targets.fuzz(target)
    assert outcome.failure is None, outcome.failure
    assert outcome.executions >= target.runs, outcome.said


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_kept_inputs_pass(target: Target):
    outcome = targets.replay(target)
    assert outcome.failure is None, outcome.failure
    assert outcome.executions >= len(list(target.seeds.iterdir())), outcome.said


def test_a_crash_says_how_to_replay_it():
    """The ring's program, allowed less memory than it has: any fault ends in this way."""
    ring = next(target for target in TARGETS if target.name == "ring")
    # It looks once a second, so not until a number of executions.
    outcome = targets._execute(ring, ["-max_total_time=60", "-rss_limit_mb=1"], [])
    assert outcome.failure is not None
    replayed = re.search(r"Replay it with\n +(\S+) (\S+)\n", outcome.failure)
    assert replayed is not None
    assert (targets.ROOT / replayed[1]).samefile(ring.program())
    assert (targets.ROOT / replayed[2]).is_relative_to(targets.CRASHES)
