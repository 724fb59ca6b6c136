"""Either end dies at each of its points, and again while both get well: nothing is lost or kept.

Both ends are in one process (`world.c`), which says what was wrong and how to replay it.
"""

from __future__ import annotations

import re

import pytest

from tests.deaths import build

SEEDS = range(1, 5)  # schedules, clocks, and what becomes of what is under way
STRIDE = 31  # of pairs; all of them are `make deaths`
AROUND = 40  # points from the start and around a new epoch, each with each of what follows
LEAST = 30_000  # deaths over one binding


def deaths(*arguments: str) -> int:
    """How many there were."""
    programs = build.programs()
    done = build.world(programs, programs, *arguments)
    assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stderr}"
    print(f"{' '.join(arguments)}: {done.stdout}", end="")
    found = re.match(r"(\d+) deaths; host (\d+) and remote (\d+) points", done.stdout)
    assert found, done.stdout
    assert min(int(found[2]), int(found[3])) > 500  # the points are there
    return int(found[1])


@pytest.mark.parametrize("binding", build.BINDINGS)
def test_a_death_at_each_point_and_another_one_after_it(binding: str) -> None:
    count = deaths(binding, "1", "around", str(AROUND))
    for seed in SEEDS:
        count += deaths(binding, str(seed), "singles", "0", "1")
        count += deaths(binding, str(seed), "pairs", str(STRIDE), str(seed))
    print(f"{count} deaths over {binding}")
    assert count >= LEAST
