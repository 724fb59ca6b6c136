"""Builds the remote with a cache and the host's agent: into build/caches, once for each source."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PLACE = ROOT / "build" / "caches"
FLAGS = ("-O1", "-std=c11", "-D_GNU_SOURCE", "-DSBE_POOL=64u", "-DSBE_POOL_SHARE=8u")
INCLUDE = ("-I", str(ROOT / "firmware"), "-I", str(ROOT / "linux" / "kernel"))
OF_REMOTE = ("core", "pieces", "power", "services", "ports/host")


def compiler() -> str:
    """The C compiler; the test is skipped where there is none."""
    found = shutil.which(os.environ.get("CC", "cc"))
    if found is None:
        pytest.skip("no C compiler (sudo apt install gcc)")
    return found


def run(*command: str | Path) -> None:
    """A step of a build; what it says is the failure."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, f"{command}:\n{done.stderr}"


def sources() -> list[Path]:
    """Of the remote."""
    ours = [HERE / f"{name}.c" for name in ("lines", "remote", "services")]
    return [
        *ours,
        *(path for f in OF_REMOTE for path in sorted((ROOT / "firmware" / f).glob("*.c"))),
    ]


def compile_all(files: Iterable[Path], folder: Path, *flags: str) -> None:
    """An object of each in the folder."""
    cc = compiler()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = [
            pool.submit(
                run, cc, "-c", *FLAGS, *INCLUDE, *flags, file, "-o", object_of(file, folder)
            )
            for file in files
        ]
    for done in objects:
        done.result()


def object_of(source: Path, folder: Path) -> Path:
    """Where its object is; two folders have files of one name."""
    return folder / f"{source.parent.name}-{source.stem}.o"


def link_remote(objects: Iterable[Path], to: Path) -> None:
    """sbe-remote, with what comes between its port and the engine."""
    run(compiler(), "-Wl,--wrap=sbe_engine_init", *objects, "-o", to)


def programs() -> Path:
    """The folder with `remote`, `agent` and the remote's objects."""
    digest = hashlib.sha256(repr(FLAGS).encode())
    inputs = [*sources(), HERE / "agent.c", HERE / "lines.h", Path(__file__)]
    for path in [*inputs, *sorted((ROOT / "firmware").rglob("*.h"))]:
        digest.update(path.read_bytes())
    made = PLACE / digest.hexdigest()[:16]
    if made.exists():
        return made
    PLACE.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=PLACE))  # others may build the same: one is kept
    try:
        compile_all(sources(), folder)
        link_remote([object_of(file, folder) for file in sources()], folder / "remote")
        agent = (HERE / "agent.c", HERE / "lines.c")
        run(compiler(), *FLAGS, *INCLUDE, *agent, "-o", folder / "agent")
        try:
            folder.rename(made)
        except OSError:
            assert made.exists()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return made
