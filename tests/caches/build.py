"""Builds the remote with a cache, the host's agent and an extension: once for each source.

What is built lies in build/caches, and a mutant, with one call less, in a folder of its own.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PLACE = ROOT / "build" / "caches"
LIMITED_API = "0x030B0000"
FLAGS = ("-O1", "-fPIC", "-std=c11", "-D_GNU_SOURCE", "-DSBE_POOL=64u", "-DSBE_POOL_SHARE=8u")
OF_REMOTE = (
    "firmware/asg",
    "firmware/core",
    "firmware/ninep",
    "firmware/pieces",
    "firmware/power",
    "firmware/services",
    "firmware/streams",
)
OF_PORT = ("firmware/ports/host",)
OF_EXTENSION = ("sbe/native",)
BESIDE = ("firmware/asg", "firmware/core", "firmware/carveout", "firmware/mirror")  # the extension


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


def sources(*folders: str) -> list[Path]:
    """All of these folders."""
    return [path for folder in folders for path in sorted((ROOT / folder).glob("*.c"))]


def remote_sources() -> list[Path]:
    """Of the remote, the port's with what comes between it and the engine."""
    ours = [HERE / f"{name}.c" for name in ("lines", "remote", "services")]
    return [*ours, *sources(*OF_REMOTE, *OF_PORT)]


def extension_sources() -> list[Path]:
    """Of the extension."""
    return sources(*OF_EXTENSION, *BESIDE)


def object_of(source: Path, folder: Path) -> Path:
    """Where its object is; two folders have files of one name."""
    return folder / f"{source.parent.name}-{source.stem}.o"


def compile_all(
    files: Iterable[Path], folder: Path, root: Path = ROOT, flags: Sequence[str] = FLAGS
) -> None:
    """An object of each in the folder. `root`: what is there is found before what is in ROOT."""
    include = [root / "firmware", ROOT / "firmware", ROOT / "linux" / "kernel"]
    include.append(Path(sysconfig.get_path("include")))
    command = ("-c", *flags, f"-DPy_LIMITED_API={LIMITED_API}", *(f"-I{path}" for path in include))
    cc = compiler()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        steps = [
            pool.submit(run, cc, *command, file, "-o", object_of(file, folder)) for file in files
        ]
    for step in steps:
        step.result()


def remote_with(services: Path) -> Path:
    """The program sbe-remote with the services of one more file."""
    files = [services, *sources(*OF_REMOTE, *OF_PORT)]

    def make(folder: Path) -> None:
        compile_all(files, folder)
        run(compiler(), *(object_of(file, folder) for file in files), "-o", folder / "remote")

    return once(services.stem, files, make) / "remote"


def link_remote(objects: Iterable[Path], to: Path) -> None:
    """sbe-remote, with what comes between its port and the engine."""
    run(compiler(), "-Wl,--wrap=sbe_engine_init", *objects, "-o", to)


def link_extension(objects: Iterable[Path], to: Path) -> None:
    """A package of the name sbe in the folder `to`: this one's Python, and another extension."""
    package = to / "sbe"
    package.mkdir(parents=True)
    for entry in (ROOT / "sbe").iterdir():
        if not entry.name.startswith(("_native.", "__pycache__")) or entry.suffix == ".pyi":
            (package / entry.name).symlink_to(entry)
    run(compiler(), "-shared", "-pthread", *objects, "-o", package / "_native.abi3.so")


def once(name: str, inputs: list[Path], make: Callable[[Path], None]) -> Path:
    """The folder that make() fills, unless somebody has with the same inputs."""
    digest = hashlib.sha256()
    headers = [*(ROOT / "firmware").rglob("*.h"), *(ROOT / "sbe/native").glob("*.h")]
    for path in sorted({*inputs, *headers, *HERE.glob("*.h"), Path(__file__)}):
        digest.update(path.read_bytes())
    made = PLACE / f"{name}-{digest.hexdigest()[:16]}"
    if made.exists():
        return made
    PLACE.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=PLACE))  # others may build the same: one is kept
    try:
        make(folder)
        try:
            folder.rename(made)
        except OSError:
            assert made.exists()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return made


def programs() -> Path:
    """The folder with `remote`, `agent` and the remote's objects."""
    agent = [HERE / "agent.c", HERE / "lines.c"]

    def make(folder: Path) -> None:
        files = remote_sources()
        compile_all([*files, agent[0]], folder)
        link_remote([object_of(file, folder) for file in files], folder / "remote")
        run(compiler(), *(object_of(file, folder) for file in agent), "-o", folder / "agent")

    return once("remote", [*remote_sources(), *agent], make)


def extension() -> Path:
    """The folder with a package `sbe`, and the objects of its extension."""

    def make(folder: Path) -> None:
        files = extension_sources()
        compile_all(files, folder)
        link_extension([object_of(file, folder) for file in files], folder / "package")

    return once("extension", extension_sources(), make)
