"""`make soak` for a short while: everything has happened, and all of it is accounted for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import ROOT

MINUTES = 1.2  # two rounds; coming and going takes its time on top
SEED = 1  # the same choices each time; `make soak` makes new ones
LIMIT_S = 600


@pytest.mark.timeout(LIMIT_S)
def test_a_short_soak(tmp_path: Path) -> None:
    """A process of its own: it forks its clients, and pytest's has threads."""
    report = tmp_path / "report.json"
    arguments = ("--minutes", str(MINUTES), "--seed", str(SEED), "--json", str(report))
    done = subprocess.run(
        # Behind the tests beside it, which are alone with theirs.
        ["nice", "-n", "5", sys.executable, "-m", "tests.soak", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(report.read_text())
    assert told["rounds"] == 2
    assert set(told["deeds"]) == {"client", "remote", "twice", "stop", "deaths"}
    # No matter how slow the machine is; who is killed soonest gets the least done.
    idle = {kind for kind, calls in told["calls"].items() if calls < 3}
    assert not idle - {"mortal"}, told
    assert sum(told["restarted"].values()) > 0, told
    assert sum(told["audits"].values()) > 0, told
