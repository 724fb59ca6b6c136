"""The checks of `make lint` by their names, and the hooks that call them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

from tests.pages import ROOT

SCRIPT = "tests/tools/lint.sh"
CHECKS = set(re.findall(r'^ *check "([^"]+)"', (ROOT / SCRIPT).read_text(), re.M))


def lint(*checks: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """With tools that only say that they were asked."""
    for tool in ("ruff", "mypy", "stubtest"):
        path = folder / tool
        path.write_text(f'#!/bin/sh\necho "asked: {tool} $1"\n[ "$1" != format ]\n')
        path.chmod(0o755)
    return subprocess.run(
        [ROOT / SCRIPT, folder, *checks],
        env={**os.environ, "SBE_RIGS": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )


def asked(done: subprocess.CompletedProcess[str]) -> list[str]:
    return re.findall(r"^asked: (.*)$", done.stdout, re.M)


def test_checks_that_are_named_are_run_and_no_others(tmp_path: Path):
    done = lint("ruff check", "stubtest", folder=tmp_path)
    assert (done.returncode, asked(done)) == (0, ["ruff check", "stubtest sbe._native"])
    assert done.stdout.endswith("lint: all passed\n")


def test_a_check_that_fails_is_named(tmp_path: Path):
    done = lint("ruff format", "ruff check", folder=tmp_path)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "lint: FAILED: ruff format"


def test_a_check_that_there_is_not_fails(tmp_path: Path):
    done = lint("ruff", "ruff check", folder=tmp_path)
    assert (done.returncode, asked(done)) == (1, ["ruff check"])
    assert done.stdout.splitlines()[-1] == "lint: FAILED: ruff: there is no such check"


def test_hooks_are_the_checks_and_nothing_foreign():
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"^ *- repo: (.*)$", text, re.M) == ["local"]
    assert set(re.findall(r"^ *language: (.*)$", text, re.M)) == {"system"}
    named = set()
    for entry in re.findall(r"^ *entry: (.*)$", text, re.M):
        if entry != "make lint":
            script, folder, *checks = shlex.split(entry)
            assert (script, folder) == (SCRIPT, ".venv/bin")
            named.update(checks)
    assert "make lint" in text
    assert {"ruff check", "mypy --strict"} <= named <= CHECKS


def test_stubtest_is_asked_about_every_stub():
    stubs = {path.relative_to(ROOT) for path in (ROOT / "sbe").rglob("*.pyi")}
    modules = {".".join(path.with_suffix("").parts) for path in stubs}
    [asks] = re.findall(r'"\$bin/stubtest" ([\w. ]+?) --', (ROOT / SCRIPT).read_text())
    assert set(asks.split()) == modules
