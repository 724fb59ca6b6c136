"""The C programs of this folder: built with the core's own flags, run within a bound."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench import procs
from tests.bench.model import ROOT, Settings, UnavailableError

_HERE = Path(__file__).parent
_BUILD_S = 300.0


def build(folder: Path, name: str) -> Path:
    """The program `name`, built into `folder` when a source is newer; UnavailableError says why
    not."""
    program = folder.resolve() / "bench-c" / name
    folders = (_HERE, _HERE.parent / "core", ROOT / "firmware")
    sources = [path for folder in folders for path in folder.rglob("*.[ch]")]
    newest = max(path.stat().st_mtime for path in sources)
    if program.exists() and program.stat().st_mtime > newest:
        return program
    if shutil.which("cc") is None:
        raise UnavailableError("no C compiler: `cc` is not installed (apt install gcc)")
    cmake, ninja = _tool("cmake"), _tool("ninja")
    configure = [cmake, "-S", str(ROOT / "firmware"), "-B", str(program.parent), "-G", "Ninja"]
    configure += [f"-DCMAKE_MAKE_PROGRAM={ninja}", "-DSBE_BUILD_BENCH=ON", "-DSBE_BUILD_HOST=OFF"]
    for command in (configure, [cmake, "--build", str(program.parent)]):
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=_BUILD_S
        )
        if done.returncode != 0:
            raise UnavailableError(
                f"{name} does not build: {procs.last_line(done.stderr or done.stdout)}"
            )
    program.touch()  # what was built already is newer than the sources now
    return program


def _tool(name: str) -> str:
    """A build tool of this virtual environment, else of the system."""
    own = Path(sys.executable).with_name(name)
    found = str(own) if own.exists() else shutil.which(name)
    if found is None:
        raise UnavailableError(f"{name} is not installed (pip install {name})")
    return found


def run(settings: Settings, name: str, *arguments: str, limit_s: float = 40.0) -> list[list[float]]:
    """The lines that a program prints, each a list of numbers."""
    program = build(Path(settings.build), name)
    return numbers([str(program), *arguments], limit_s)


def numbers(command: Sequence[str], limit_s: float) -> list[list[float]]:
    """The lines of numbers that any command prints."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise UnavailableError(
            f"{Path(command[0]).name} gave no answer within {limit_s:g} s"
        ) from None
    except OSError as error:
        raise UnavailableError(f"{command[0]}: {error.strerror}") from None
    if done.returncode != 0:
        reason = procs.last_line(done.stderr) or f"exit status {done.returncode}"
        raise UnavailableError(f"{Path(command[0]).name}: {reason}")
    try:
        return [[float(word) for word in line.split()] for line in done.stdout.splitlines() if line]
    except ValueError as error:
        raise UnavailableError(f"{Path(command[0]).name} printed no numbers: {error}") from None


def cores(settings: Settings) -> tuple[str, str]:
    """Where the two ends go, as arguments of ring_bench; -1 leaves it to the scheduler."""
    near, far = procs.cores(settings) or (-1, -1)
    return str(near), str(far)
