# SPDX-License-Identifier: Apache-2.0
"""Puts the bugs of bugs.py back one by one; each must turn its test red.

`make prove-tests` does all of them, `make prove-tests SAMPLE=5` some, which ones says the commit.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from collections.abc import Sequence

from tests.proof.bugs import BUGS, Bug
from tests.proof.tree import ROOT, BuildError, Tree


def fault(tree: Tree, bug: Bug) -> str | None:
    """What is wrong with this bug, for instance that nothing notices it."""
    try:
        tree.edit(bug.file, bug.old, bug.new)
        outcome = tree.run(bug.red)
    except ValueError as error:
        return f"the edit does not apply: {error}"
    except BuildError as error:
        return f"the edit does not build: {error}"
    finally:
        tree.restore()
    if outcome.odd:
        return f"it ends neither well nor with a failed check:\n{outcome.said}"
    if not outcome.red:
        return "nothing notices it"
    if bug.says not in outcome.said:
        return f"it fails without saying {bug.says!r}:\n{outcome.said}"
    return None


def baseline(tree: Tree, tests: Sequence[str]) -> list[str]:
    """What fails without any bug."""
    faults = []
    for test in tests:
        outcome = tree.run(test)
        if outcome.red or outcome.odd:
            faults.append(f"{test} fails without any bug:\n{outcome.said}")
    return faults


def chosen(sample: int, seed: str, only: str) -> list[Bug]:
    some = [bug for bug in BUGS if only in f"{bug.number} {bug.file} {bug.red} {bug.breaks}"]
    return random.Random(seed).sample(some, min(sample, len(some))) if sample else some


def commit() -> str:
    command = ["git", "rev-parse", "HEAD"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return said.stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.proof", description=__doc__)
    parser.add_argument("--sample", type=int, default=0, help="so many of them; 0: all")
    parser.add_argument("--seed", default=commit(), help="which ones; the commit's id by default")
    parser.add_argument("--only", default="", help="those with this text in them")
    chosen_ = parser.parse_args()
    bugs = chosen(chosen_.sample, chosen_.seed, chosen_.only)
    tree = Tree(ROOT / "build" / "proof")
    begun = time.monotonic()
    faults = baseline(tree, sorted({bug.red for bug in bugs}))
    print(f"{time.monotonic() - begun:6.1f} s  the tests pass without a bug" * (not faults))
    for bug in bugs:
        begun = time.monotonic()
        found = fault(tree, bug)
        state = "NOT SHOWN" if found else "red"
        print(
            f"{time.monotonic() - begun:6.1f} s  {bug.number:2} {state}: {bug.breaks} ({bug.red})",
            flush=True,
        )
        if found:
            faults.append(f"{bug.number} {bug.file}, {bug.breaks}\n{found}")
    for line in faults:
        print(f"\n{line}", file=sys.stderr)
    print(f"{len(bugs)} bugs, {len(faults)} faults; seed {chosen_.seed!r}")
    return 1 if faults or not bugs else 0


if __name__ == "__main__":
    sys.exit(main())
