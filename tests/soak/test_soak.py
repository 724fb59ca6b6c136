"""`make soak` for a short while: everything has happened, and all of it is accounted for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.pages import ROOT

MINUTES = 1.2  # two rounds; coming and going takes its time on top
SEED = 1  # the same choices each time; `make soak` makes new ones
LIMIT_S = 600

# Runs in every Python process of the soak, as sitecustomize does; the daemon is what it concerns.
LEAKS = {
    "a descriptor of each client": (
        "from sbe.daemon.bell import Bell\nkept = []\nBell.close = lambda me: kept.append(me)\n",
        "held now",
    ),
    "what an area is charged": (
        "import sbe.daemon.policy as policy\n"
        "release = policy.Charge.release\n"
        "def keep(self):\n"
        "    if 'areas' not in self._amounts: release(self)\n"
        "policy.Charge.release = keep\n",
        "what clients held is not back",
    ),
}


def soak(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: it forks its clients, and pytest's has threads."""
    # Behind the tests beside it, which are alone with theirs.
    command = ["nice", "-n", "5", sys.executable, "-m", "tests.soak", "--seed", str(SEED)]
    with tempfile.TemporaryDirectory() as folder:  # shorter than tmp_path: for a socket's address
        return subprocess.run(
            [*command, *arguments],
            cwd=ROOT,
            env=os.environ | {"TMPDIR": folder} | environment,
            capture_output=True,
            text=True,
        )


@pytest.mark.timeout(LIMIT_S)
def test_a_short_soak(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = soak("--minutes", str(MINUTES), "--json", str(report))
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(report.read_text())
    assert told["rounds"] == 2
    assert set(told["deeds"]) == {"client", "remote", "twice", "stop", "deaths"}
    assert sum(told["restarted"].values()) > 0, told
    assert sum(told["audits"].values()) > 0, told
    assert sum(told["streams"].values()) > 0, told
    assert sum(told["stream_bytes"].values()) > sum(told["stream_lost"].values()) > 0, told


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("what", LEAKS)
def test_it_finds_what_a_daemon_keeps(what: str, tmp_path: Path) -> None:
    leak, words = LEAKS[what]
    (tmp_path / "sitecustomize.py").write_text(leak)
    few = ("--minutes", "0.05", "--kinds", "plain,greedy")
    done = soak(*few, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"seed {SEED}: Failed: " in done.stderr
    assert words in done.stderr, done.stderr
