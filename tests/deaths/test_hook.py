"""The points at which an end may die cost a build nothing that does not ask for them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sbe import _native
from tests.caches.build import ROOT, compiler

FIRMWARE = ROOT / "firmware"
HOOK = re.compile(r"^[ ]*SBE_STEP\(.*\);\n", re.M)
BLOCK = re.compile(r"^/\*\n \* A point at which.*?^#endif\n", re.M | re.S)


def sources_with_points() -> list[Path]:
    """Relative to firmware; what stores words of a ring has them by its header."""
    used = re.compile(r"SBE_STEP\(|sbe_store_re")
    return [
        path.relative_to(FIRMWARE)
        for path in sorted(FIRMWARE.rglob("*.c"))
        if used.search(path.read_text()) and "zephyr" not in path.parts and "mps2" not in path.parts
    ]


def assembly(root: Path, source: Path, level: str) -> str:
    """What the compiler makes of it, of one name wherever it lies."""
    command = [compiler(), "-S", level, "-std=c11", "-ffreestanding", "-D_GNU_SOURCE", "-I."]
    done = subprocess.run(
        [*command, source, "-o", "-"], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("level", ["-O2", "-Os"])
def test_a_build_without_it_is_the_code_without_it(level: str, tmp_path: Path) -> None:
    without = tmp_path / "firmware"
    shutil.copytree(FIRMWARE, without)
    header = without / "core/atomic.h"
    header.write_text(BLOCK.sub("", header.read_text()))
    sources = sources_with_points()
    assert len(sources) > 8
    for source in sources:
        path = without / source
        path.write_text(HOOK.sub("", path.read_text()))
    assert not any("SBE_STEP" in path.read_text() for path in without.rglob("*.[ch]"))
    for source in sources:
        assert assembly(FIRMWARE, source, level) == assembly(without, source, level), source


def test_what_is_installed_knows_nothing_of_it() -> None:
    installed = Path(_native.__file__).parent
    for program in [Path(_native.__file__), installed / "sbe-remote"]:
        content = program.read_bytes()
        assert b"a control message is taken" not in content
        assert b"deaths_step" not in content
