"""One place says the version: firmware/core/version.h. All else reads it or is compared here."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import sbe
from sbe import _native, extras
from tests.pages import ROOT

HEADER = (ROOT / "firmware" / "core" / "version.h").read_text()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_package_and_its_metadata_have_the_versions_of_the_header():
    parts = re.findall(r"^#define SBE_RELEASE_(?:MAJOR|MINOR|PATCH) (\d+)$", HEADER, re.M)
    assert len(parts) == 3
    assert sbe.__version__ == _native.RELEASE == ".".join(parts)
    assert metadata.version(extras.DISTRIBUTION) == sbe.__version__


def test_the_build_reads_the_header():
    """Each number from its own line, also where they have two digits."""
    settings = PYPROJECT["tool"]["scikit-build"]["metadata"]["version"]
    header = (ROOT / settings["input"]).read_text()
    for name, number in {"MAJOR": 12, "MINOR": 34, "PATCH": 56}.items():
        header = re.sub(rf"(_{name}) \d+$", rf"\1 {number}", header, flags=re.M)
    match = re.search(settings["regex"], header, re.M)
    assert match is not None
    assert settings["result"].format(**match.groupdict()) == "12.34.56"
    assert "version" not in PYPROJECT["project"]
    assert PYPROJECT["project"]["dynamic"] == ["version"]


PROTOCOL = f", protocol {_native.VERSION_MIN} to {_native.VERSION_MAX}"
BUILT = Path(_native.__file__).parent


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ([BUILT / "sbe-remote"], f"sbe-remote {sbe.__version__}{PROTOCOL}"),
        ([BUILT / "sbe-remote-rpmsg"], f"sbe-remote-rpmsg {sbe.__version__}{PROTOCOL}"),
        ([sys.executable, "-m", "sbe"], f"sbe {sbe.__version__}"),
        ([sys.executable, "-m", "sbe.daemon"], f"sbe-daemon {sbe.__version__}"),
    ],
    ids=["sbe-remote", "sbe-remote-rpmsg", "sbe", "sbe-daemon"],
)
def test_programs_tell_it(command: list[str | Path], says: str):
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{says}\n", "")


def test_nothing_else_says_it():
    """What is built or run; words for people are compared by test_release.py."""
    tops = ("firmware", "linux", "sbe", "zephyr")
    files = [ROOT / "pyproject.toml", ROOT / "Makefile"]
    files += [path for top in tops for path in (ROOT / top).rglob("*")]
    written = re.compile(rf"(?<![\d.]){re.escape(sbe.__version__)}(?![\d.])")
    kinds = {".c", ".h", ".py", ".pyi", ".toml", ".txt", ".cmake", ".yml", ".yaml", ""}
    found = [
        path.relative_to(ROOT).as_posix()
        for path in files
        if path.is_file() and path.suffix in kinds and written.search(path.read_text())
    ]
    assert not found
    assert written.search(f'version = "{sbe.__version__}"')  # what it would have found
