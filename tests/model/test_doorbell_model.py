# SPDX-License-Identifier: Apache-2.0
"""The doorbells' proof: spin looks at every order of events in doorbell.pml.

Each configuration must end without an error and have looked at as many states as it has; each step
that is broken must be found. The C code says under the same names where it does the steps.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.rigs.missing import require

ROOT = Path(__file__).resolve().parents[2]
MODEL = Path(__file__).with_name("doorbell.pml")

RING: tuple[str, ...] = ()
CALLS = ("CALLS=2", "DEPTH=3")
RELAY = ("RELAY",)
CRASH = ("CALLS=1", "DEPTH=3", "CRASHES=1")

# Definitions, and a bound below the number of states; a model that does nothing has few.
PROVEN = {
    "ring": (RING, 2_400_000),
    "ring, spurious doorbell": (("SPURIOUS=1", "DEPTH=3"), 10_000_000),
    "calls": (CALLS, 9_000_000),
    "calls, spurious doorbell": (("CALLS=1", "DEPTH=3", "SPURIOUS=1"), 1_300_000),
    "relay": (RELAY, 4_900_000),
    "calls, crash": (CRASH, 5_800_000),
}

# The configuration in which a broken step must show.
BROKEN = {
    "ORDER_CONTENTS": RING,
    "PUBLISH_INDEX": RING,
    "PUBLISH_FENCE": RING,
    "LOOK_AT_WISH": RING,
    "RING": RING,
    "ARM_SPACE": RING,
    "ARM_SPACE_VALUE": RING,
    "ARM_SPACE_FENCE": RING,
    "LOOK_AT_SPACE": RING,
    "ARM_DATA": RING,
    "ARM_DATA_FENCE": RING,
    "LOOK_AT_DATA": RING,
    "LOOK_AT_INDEX": RING,
    "READ_FRAME": RING,
    "IDLE_PUBLISH": CALLS,
    "IDLE_RETURN": RING,
    "ROOM_PUBLISH": RING,
    "ROOM_RETURN": RELAY,
    "ROOM_FIRST": CALLS,
    "TURN_AGAIN": CALLS,
    "SLEEP": RING,
    "CLEAR": CRASH,
}

BUILD = ["-O2", "-w", "-DSAFETY", "-DNOFAIR", "-DCOLLAPSE", "-DVECTORSZ=256", "-DMEMLIM=1500"]
LIMIT_S = 600


@cache
def text() -> str:
    return MODEL.read_text()


def verify(folder: Path, defined: tuple[str, ...]) -> str:
    """Return what the verifier says of the model with these definitions."""
    for tool in ("spin", "gcc"):
        require(shutil.which(tool) is not None, f"no {tool} (sudo apt install spin gcc)")
    for command in (
        ["spin", "-a", *(f"-D{name}" for name in defined), str(MODEL)],
        ["gcc", *BUILD, "-o", "pan", "pan.c"],
        ["./pan", "-E", "-m2000000"],  # -E: what a standstill must be, the model asserts itself
    ):
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.rig
@pytest.mark.timeout(2 * LIMIT_S)
@pytest.mark.parametrize("name", PROVEN)
def test_no_wake_up_is_lost(name: str, tmp_path: Path) -> None:
    defined, least = PROVEN[name]
    said = verify(tmp_path, defined)
    assert "errors: 0" in said, said
    # Neither the depth nor the memory has cut it short.
    assert "max search depth too small" not in said, said
    assert "reached -DMEMLIM bound" not in said, said
    assert "Search not completed" not in said, said
    stored = re.search(r"(\d+) states, stored", said)
    assert stored is not None, said
    assert int(stored[1]) >= least, said


@pytest.mark.rig
@pytest.mark.timeout(2 * LIMIT_S)
@pytest.mark.parametrize("step", BROKEN)
def test_a_broken_step_is_found(step: str, tmp_path: Path) -> None:
    said = verify(tmp_path, (*BROKEN[step], f"BREAK_{step}"))
    assert "errors: 1" in said, said
    assert "assertion violated" in said, said


def steps(of: str) -> set[str]:
    """Return the names in the step comments of a text."""
    named = re.findall(r"\bstep: ([a-z-]+(?:, [a-z-]+)*)", of)
    return {name for names in named for name in names.split(", ")}


def test_the_c_code_has_the_steps_of_the_model() -> None:
    files = [
        path
        for top in ("firmware", "sbe/native")
        for path in sorted((ROOT / top).rglob("*.[ch]"))
        if "step:" in path.read_text()
    ]
    code = set().union(*(steps(path.read_text()) for path in files))
    modelled = steps(text())
    assert len(modelled) > 20
    assert code == modelled


def test_each_step_can_be_broken() -> None:
    assert set(re.findall(r"def(?:ined)?.BREAK_(\w+)", text())) == set(BROKEN)
    broken = {step.removesuffix("_VALUE").lower().replace("_", "-") for step in BROKEN}
    # These have no other way to be done wrong: write-frame is ORDER_CONTENTS, wait-turn is an idle.
    assert broken == steps(text()) - {"attach", "write-frame", "wait-turn"}
