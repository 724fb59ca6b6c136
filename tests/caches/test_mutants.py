"""Each call that maintains a cache is missed: one of the exchanges fails without it.

The calls are found in the sources; each mutant has one of them replaced by a constant.
"""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.caches import build

LIMIT_S = 120.0
SEEDS = (0, 1)
"""A line that was not moved is not seen as long as none moves by chance, which mends what is missed
at times; a dirty line that should not be there does harm only where one does."""
HOOKS = (
    "sbe_engine_hand_over",
    "sbe_engine_maintain",
    "sbe_cache_handover",
    "native_handover",
    "port->cache_clean",
    "port->cache_invalidate",
    "maintain",
    "native_maintain",
    "sbe_stream_clean",
    "sbe_stream_invalidate",
)
CALL = re.compile(rf"(?<![\w>])(?:{'|'.join(HOOKS)})\(")
FOLDERS = ("firmware/core", "firmware/pieces", "firmware/streams", "sbe/native")
NOT_MISSED: dict[str, str] = {
    "firmware/streams/block.h:sbe_stream_see:2": "test_streams.c misses it, by a restless writer",
}
"""Calls that nothing misses, and why they are there."""


class Site(NamedTuple):
    """One call: its file below the repository, and where in the text."""

    file: str
    begin: int
    end: int
    name: str


def end_of_call(text: str, at: int) -> int:
    """Behind the parenthesis that closes the one before `at`."""
    depth = 1
    while depth:
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        at += 1
    return at


def calls_of(file: str) -> Iterator[Site]:
    """Those in one file; what begins a line is a definition, or a comment about one."""
    text = (build.ROOT / file).read_text()
    function, number = "", 0
    for line in re.finditer(r"^.*$", text, re.MULTILINE):
        if found := re.match(r"[A-Za-z].*?(\w+)\([^;]*$", line[0]):
            function, number = found[1], 0
        for call in CALL.finditer(line[0]):
            if line[0][:1] != " " or line[0].lstrip().startswith("*"):
                continue
            number += 1
            begin, at = line.start() + call.start(), line.start() + call.end()
            name = f"{file}:{function}" + (f":{number}" if number > 1 else "")
            yield Site(file, begin, end_of_call(text, at), name)


def all_calls() -> list[Site]:
    """In all of the code that maintains caches."""
    files = [
        str(path.relative_to(build.ROOT))
        for folder in FOLDERS
        for path in sorted((build.ROOT / folder).glob("*.[ch]"))
    ]
    return [site for file in files for site in calls_of(file)]


def mutant(site: Site, folder: Path) -> list[Path]:
    """Copies the folders below `folder`, one call less. What has to be compiled anew."""
    for name in FOLDERS:
        shutil.copytree(build.ROOT / name, folder / name, ignore=shutil.ignore_patterns("*.txt"))
    changed = folder / site.file
    text = changed.read_text()
    changed.write_text(f"{text[: site.begin]}0{text[site.end :]}")
    if changed.suffix == ".c":
        return [changed]
    near = [path for name in FOLDERS for path in (folder / name).glob("*.[ch]")]
    headers = {changed.name}
    while more := {path.name for path in near if path.suffix == ".h" and uses(path, headers)}:
        if more <= headers:
            break
        headers |= more
    return [path for path in near if path.suffix == ".c" and uses(path, headers)]


def uses(path: Path, headers: set[str]) -> bool:
    """It includes one of them."""
    found = re.findall(r'#include "(?:\w+/)?(\w+\.h)"', path.read_text())
    return not headers.isdisjoint(found)


def objects(files: list[Path], base: Path, changed: list[Path], folder: Path) -> list[Path]:
    """Those of the base, but for what was changed."""
    anew = {build.object_of(path, folder) for path in changed}
    made = [build.object_of(path, base) for path in files]
    return [folder / path.name if folder / path.name in anew else path for path in made]


def exchange(remote: Path, package: Path, seed: int) -> subprocess.CompletedProcess[str]:
    """All exchanges in a process with that extension, and that remote."""
    path = [package, build.ROOT, *site.getsitepackages()]
    # -S, -P: this checkout's own package, installed in place, must not come first
    python = [sys.executable, "-S", "-P"]
    return subprocess.run(
        [*python, "-m", "tests.caches.exchanges", build.programs(), remote, "64"],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, path)),
            "SBE_CACHE_SEED": str(seed),
        },
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        cwd=build.ROOT,
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_the_exchanges_pass_with_all_calls(seed: int):
    done = exchange(build.programs() / "remote", build.extension() / "package", seed)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("call", [pytest.param(each, id=each.name) for each in all_calls()])
def test_a_call_is_missed(call: Site, tmp_path: Path):
    if call.name in NOT_MISSED:
        pytest.skip(NOT_MISSED[call.name])
    remote, package = build.programs() / "remote", build.extension() / "package"
    changed = mutant(call, tmp_path)
    ours = [path for path in changed if "native" in path.parts]
    theirs = [path for path in changed if build.object_of(path, build.programs()).exists()]
    if call.file.startswith("firmware") and theirs:
        remote = tmp_path / "remote"
        base, files = build.programs(), build.remote_sources()
        build.compile_all(theirs, tmp_path, tmp_path)
        build.link_remote(objects(files, base, theirs, tmp_path), remote)
    if ours:  # a header may be of both
        package = tmp_path / "package"
        base, files = build.extension(), build.extension_sources()
        build.compile_all(ours, tmp_path, tmp_path)
        build.link_extension(objects(files, base, ours, tmp_path), package)
    for seed in SEEDS:
        done = exchange(remote, package, seed)
        if done.returncode != 0:
            break
    assert done.returncode == 1, f"all exchanges pass without this call\n{done.stderr}"
    assert "AssertionError" in done.stderr, done.stderr


def test_the_calls_are_found():
    names = {call.name for call in all_calls()}
    assert names >= {
        "firmware/core/engine.c:call_service",
        "firmware/core/engine_base.c:sbe_engine_respond",
        "firmware/pieces/pieces.c:drop",
        "sbe/native/request.c:give_back",
    }
    assert set(NOT_MISSED) <= names
