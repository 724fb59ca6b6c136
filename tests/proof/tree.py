# SPDX-License-Identifier: Apache-2.0
"""A private copy of the tree, in which bugs may be: edited, built and tested, never the checkout.

Not thread-safe: the copy is locked against other processes as long as it is open.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "BuildError", "Outcome", "Tree"]

ROOT = Path(__file__).resolve().parents[2]

_LIMIT_S = 120  # of one test, for bugs that make it hang
_REPORT = re.compile(
    r"\.[ch]:\d+: |ERROR: \w+Sanitizer|runtime error: |Assertion .* failed|core dumped"
)


class BuildError(Exception):
    """What was edited does not compile."""


@dataclass(frozen=True)
class Outcome:
    """How a test ended: `red` by a check or a report, `odd` if neither so nor green."""

    red: bool
    odd: bool
    said: str


class Tree:
    """The tracked files in a folder of their own, with builds beside that are made anew in part."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = (folder / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._files = folder / "tree"
        self._folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        self._names = [name for name in listed.split("\0") if name and (ROOT / name).is_file()]
        self._bin = Path(sys.executable).parent
        self._remove_others()
        self.restore()
        self._environment = self._make_environment()

    def restore(self) -> None:
        """As in the checkout. What is the same is not touched, or all would be built again."""
        for name in self._names:
            there, here = self._files / name, ROOT / name
            content = here.read_bytes()
            if there.is_file() and there.read_bytes() == content:
                continue
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(content)
            shutil.copymode(here, there)

    def edit(self, file: str, old: str, new: str) -> None:
        """Puts one text in the place of another, which must be there once. Raises ValueError."""
        path = self._files / file
        text = path.read_text()
        if text.count(old) != 1:
            raise ValueError(f"{file} has {text.count(old)} times, not once: {old!r}")
        path.write_text(text.replace(old, new))

    def run(self, test: str) -> Outcome:
        """Builds what a test needs and runs it: a program of tests/core, or a test of pytest's.

        Raises BuildError.
        """
        return self._run_pytest(test) if "::" in test else self._run_program(test)

    # -- the programs of tests/core -----------------------------------------------------------

    def _run_program(self, name: str) -> Outcome:
        sanitizers = "thread" if name.endswith("_threads") else "address,undefined"
        place = self._folder / sanitizers.partition(",")[0]
        defined = ["-DSBE_BUILD_TESTS=ON", f"-DSBE_SANITIZE={sanitizers}"]
        self._build("firmware", place, [*defined, "-DCMAKE_BUILD_TYPE=Debug"], [name])
        where = {"SBE_REMOTE": str(place / "sbe-remote"), "ASAN_OPTIONS": "detect_leaks=1"}
        command = [*fixed_addresses(), str(place / name)]
        status, said = self._say(command, {**os.environ, **where})
        red = status not in (0, None) and _REPORT.search(said) is not None
        return Outcome(red, status != 0 and not red, said)

    # -- pytest -------------------------------------------------------------------------------

    def _run_pytest(self, test: str) -> Outcome:
        place = self._folder / "native"
        self._build("sbe/native", place, [f"-DPython_EXECUTABLE={sys.executable}"], ["all"])
        for built in (place / "_native.abi3.so", place / "firmware-build" / "sbe-remote"):
            into = self._files / "sbe" / built.name
            shutil.copy2(built, into.with_name("new"))
            into.with_name("new").rename(into)
        command = [str(self._folder / "venv/bin/python"), "-P", "-m", "pytest", "-p", "no:xdist"]
        command += ["-p", "no:cacheprovider", "--timeout", str(_LIMIT_S // 2), "-q", test]
        status, said = self._say(command, self._environment)
        # 1: a test failed. Others: it was not found, or did not even load.
        broken = re.search(r"^E +(Import|ModuleNotFound|Syntax)Error", said, re.M)
        red = status == 1 and re.search(r"^FAILED ", said, re.M) is not None and broken is None
        skipped = " passed" not in said
        return Outcome(red, not red and (status != 0 or skipped), said)

    def _make_environment(self) -> dict[str, str]:
        """A venv that sees this one's packages, but not its `sbe`."""
        venv = self._folder / "venv"
        if not (venv / "bin/python").exists():
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
        [site] = venv.glob("lib/python*/site-packages")
        [packages] = self._bin.parent.glob("lib/python*/site-packages")
        (site / "packages.pth").write_text(f"{packages}\n")
        chosen = {"PYTHONPATH": str(self._files), "PYTHONSAFEPATH": "1", "SBE_SOCKET": ""}
        # Else an edit of the same size and second as the one before would not be seen.
        chosen["PYTHONDONTWRITEBYTECODE"] = "1"
        return {**os.environ, **chosen}

    # -- both ---------------------------------------------------------------------------------

    def _build(self, source: str, place: Path, defined: list[str], targets: list[str]) -> None:
        make = f"-DCMAKE_MAKE_PROGRAM={self._bin / 'ninja'}"
        cmake = str(self._bin / "cmake")
        commands = [[cmake, "--build", str(place), "--target", *targets]]
        if not (place / "build.ninja").exists():
            where = ["-S", str(self._files / source), "-B", str(place)]
            commands.insert(0, [cmake, *where, "-G", "Ninja", make, *defined])
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise BuildError(f"{done.stdout}{done.stderr}")

    def _say(self, command: list[str], environment: dict[str, str]) -> tuple[int | None, str]:
        """Status, None when it took too long, and what was said."""
        with (self._folder / "said").open("w+") as said:
            process = subprocess.Popen(
                command, cwd=self._files, env=environment, stdin=subprocess.DEVNULL, stdout=said,
                stderr=said, start_new_session=True,
            )  # fmt: skip
            try:
                status: int | None = process.wait(_LIMIT_S)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, 9)
                    process.wait()
            said.seek(0)
            return status, said.read()

    def _remove_others(self) -> None:
        """Files that were here for a former state of the checkout."""
        known = {self._files / name for name in self._names}
        for path in self._files.rglob("*"):
            if "build" in path.relative_to(self._files).parts:
                continue  # what tests have built there, by what it was built from
            if path.is_file() and path not in known and path.parent != self._files / "sbe":
                path.unlink()


def fixed_addresses() -> list[str]:
    """See tests/tools/ctests.sh."""
    command = ["setarch", platform.machine(), "-R"]
    tried = subprocess.run([*command, "true"], check=False, capture_output=True)
    return command if tried.returncode == 0 else []
