"""What `make release` finds wrong, on fabricated trees and packages; CI runs it dry on this one."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import sbe
from tests.pages import ROOT
from tests.tools import release

NOW = sbe.__version__
HEADER = "firmware/core/version.h"


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    identity += ["-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false"]
    subprocess.run(["git", "-C", folder, *identity, *words], check=True, capture_output=True)


def edit(path: Path, pattern: str, new: str) -> None:
    text, count = re.subn(pattern, new, path.read_text(), count=1, flags=re.M)
    assert count == 1
    path.write_text(text)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What the state of a release is read from, ready and committed."""
    folder = tmp_path / "tree"
    for name in ("pyproject.toml", "CHANGELOG.md", "README.md", HEADER):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    edit(folder / "CHANGELOG.md", r"^## .*$", f"## {NOW} (2027-01-31)")
    edit(folder / "README.md", r"^Version [\d.]+.*?\. ", f"Version {NOW}. ")
    git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "release")
    return folder


def test_this_tree_agrees_on_its_version():
    assert release.version() == NOW
    assert release.disagreements() == []


def test_a_tree_that_is_ready(tree: Path):
    assert release.disagreements(tree) == []
    assert release.unready(tree) == []


def forget(tree: Path) -> None:
    (tree / "novel.c").touch()


def tag(tree: Path) -> None:
    git(tree, "tag", f"v{NOW}")


def undate(tree: Path) -> None:
    edit(tree / "CHANGELOG.md", r"\(2027-01-31\)", "(unreleased)")
    git(tree, "commit", "-am", "not yet")


def deny(tree: Path) -> None:
    edit(tree / "README.md", rf"^Version {NOW}\.", f"Version {NOW}, not released.")
    git(tree, "commit", "-am", "not yet")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (forget, "the tree is not clean: ?? novel.c, 1 in all"),
        (tag, f"the tag v{NOW} is there: a release is never made again"),
        (undate, f"CHANGELOG.md: no date, as in '## {NOW} (2027-01-31)'"),
        (deny, "README.md: still says 'not released'"),
    ],
)
def test_a_tree_that_is_not_ready(spoil: Callable[[Path], None], says: str, tree: Path):
    spoil(tree)
    assert release.unready(tree) == [says]


def test_pages_of_another_version(tree: Path):
    edit(tree / HEADER, r"_MAJOR \d+$", "_MAJOR 98")
    now = release.version(tree)
    assert now.startswith("98.")
    assert release.disagreements(tree) == [
        f"CHANGELOG.md: the first heading is not '## {now}'",
        f"README.md: the state is not that of 'Version {now}'",
    ]


# Packages


INFO = f"structured_buffer_exchange-{NOW}.dist-info/"
METADATA = (
    f"Metadata-Version: 2.1\nName: {release.NAME}\nVersion: {NOW}\n"
    f"Description-Content-Type: text/markdown\n\n{(ROOT / 'README.md').read_text()}"
)


def wheel(
    folder: Path, *more: str, without: str = "", tag: str = "cp311-abi3-linux_x86_64"
) -> Path:
    path = folder / f"structured_buffer_exchange-{NOW}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in {*release.IN_WHEEL, f"{INFO}licenses/LICENSE", *more} - {without}:
            archive.writestr(name, "")
        archive.writestr(f"{INFO}METADATA", METADATA)
    return path


def test_a_whole_wheel_passes(tmp_path: Path):
    release.check_wheel(wheel(tmp_path), NOW)


@pytest.mark.parametrize(
    ("more", "how", "says"),
    [
        (["tests/conftest.py"], {}, "also has tests/conftest.py"),
        ([], {"without": "sbe/sbe-remote"}, "lacks sbe/sbe-remote"),
        ([], {"without": f"{INFO}licenses/LICENSE"}, "no LICENSE"),
        ([], {"tag": "cp311-cp311-linux_x86_64"}, "not for every Python"),
    ],
)
def test_a_wheel_that_is_wrong(more: list[str], how: dict[str, str], says: str, tmp_path: Path):
    with pytest.raises(release.Unfit, match=re.escape(says)):
        release.check_wheel(wheel(tmp_path, *more, **how), NOW)


def sdist(tree: Path, *more: str, without: str = "") -> Path:
    path = tree.parent / "sdist.tar.gz"
    (tree.parent / "PKG-INFO").write_text(METADATA)
    with tarfile.open(path, "w:gz") as archive:
        names = {"pyproject.toml", "CHANGELOG.md", "README.md", HEADER, "../PKG-INFO", *more}
        for name in names - {without}:
            top = f"structured_buffer_exchange-{NOW}"
            archive.add(tree / name, f"{top}/{name.removeprefix('../')}")
    return path


def test_an_sdist_is_what_git_has(tree: Path):
    (tree / ".ci").mkdir()
    (tree / ".ci" / "run").touch()  # left out by pyproject.toml
    release.check_sdist(sdist(tree), NOW, tree)
    with pytest.raises(release.Unfit, match=f"too few or too many: {re.escape(HEADER)}$"):
        release.check_sdist(sdist(tree, without=HEADER), NOW, tree)
    (tree / ".gitignore").write_text("secret\n")
    (tree / "secret").touch()
    with pytest.raises(release.Unfit, match=r"too few or too many: secret$"):
        release.check_sdist(sdist(tree, ".gitignore", "secret"), NOW, tree)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (f"Version: {NOW}", "Version: 98.0.0", "98.0.0 instead of"),
        (f"Name: {release.NAME}", "Name: sbe", "metadata of sbe "),
        ("text/markdown", "text/plain", "text/plain"),
        ("# Structured Buffer Exchange", "# Something else", "not README.md"),
    ],
)
def test_metadata_of_something_else(old: str, new: str, says: str):
    release.check_metadata(METADATA.encode(), NOW)
    assert old in METADATA
    with pytest.raises(release.Unfit, match=re.escape(says)):
        release.check_metadata(METADATA.replace(old, new, 1).encode(), NOW)


def test_ci_makes_it_dry():
    assert "make release DRY=1" in (ROOT / ".ci" / "run").read_text().splitlines()
