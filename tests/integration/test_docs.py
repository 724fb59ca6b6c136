"""The Python of README and tutorials: each page's blocks, one after the other, are a program.

Their commands are tests/integration/test_docs_commands.py's.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.ends import daemon
from tests.pages import ROOT, blocks_of, pages

TUTORIALS = (
    "first-steps",
    "own-board",
    "testing-your-app",
    "checking-your-remote",
    "raw",
    "linux-remote",
)
PAGES = ["README.md", *(f"docs/tutorials/{name}.md" for name in TUTORIALS)]
WITH_SERVICES = [f"docs/tutorials/{name}.md" for name in ("writing-a-service", "streams", "asg")]


def run(program: str, folder: Path, **environment: str) -> str:
    """What a program prints. It finds no daemon unless SBE_SOCKET leads to one."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, "SBE_SOCKET": "", "PYTHONPATH": str(ROOT), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    assert not ended.stderr
    return ended.stdout


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run(page: str, tmp_path: Path):
    run("\n".join(blocks_of((ROOT / page).read_text(), "python")), tmp_path)


def test_program_of_the_readme_in_both_forms(tmp_path: Path):
    """Unchanged: with an embedded remote, and with a daemon."""
    [connects] = [
        block
        for block in blocks_of((ROOT / "README.md").read_text(), "python")
        if "sbe.connect" in block
    ]
    program = f"{connects}\nprint('by', type(link._core.backend).__name__)\n"
    assert "by DirectBackend" in run(program, tmp_path)
    with daemon() as connect:
        with connect() as link:
            path = link._core.backend.uri.removeprefix("unix:")
        assert "by DaemonBackend" in run(program, tmp_path, SBE_SOCKET=path)


@pytest.mark.parametrize("page", [*PAGES, *WITH_SERVICES])
def test_python_blocks_are_typed(page: str, tmp_path: Path):
    """As someone writes them who checks types, at the oldest Python that there may be."""
    program = tmp_path / "program.py"
    program.write_text("\n".join(blocks_of((ROOT / page).read_text(), "python")))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-version", "3.11", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("writing-a-service.md", ["b'*'", "b'here'", r"b'\x03'"]),
        ("streams.md", [r"b'\x00\x01\x02\x03\x04'"]),
        ("asg.md", ["b'HELLO'", "(294,)", "taken"]),
        ("9p-export.md", ["b'-----BEGIN CERTIFICATE-----'"]),
    ],
)
def test_services_of_the_tutorials(name: str, printed: list[str], tmp_path: Path):
    """A tutorial's C compiles without a warning, and answers the tutorial's Python."""
    page = (ROOT / "docs" / "tutorials" / name).read_text()
    sources = [
        path
        for folder in (
            "asg",
            "core",
            "ninep",
            "pieces",
            "power",
            "services",
            "streams",
            "ports/host",
        )
        for path in (ROOT / "firmware" / folder).glob("*.c")
    ]
    for number, block in enumerate(blocks_of(page, "c")):
        (tmp_path / f"service{number}.c").write_text(block)
        sources.append(tmp_path / f"service{number}.c")
    remote = tmp_path / "sbe-remote"
    flags = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-D_GNU_SOURCE"]
    compiler = os.environ.get("CC", "cc").split()
    subprocess.run(
        [*compiler, *flags, f"-I{ROOT / 'firmware'}", *sources, "-o", remote],
        check=True,
        timeout=60,
    )
    [command] = re.findall(r"^\.venv/bin/python -c '(.*)'$", page, re.M)
    program = "\n".join([*blocks_of(page, "python"), command])
    assert run(program, tmp_path, SBE_REMOTE=str(remote)).splitlines()[-len(printed) :] == printed


def test_folders_of_the_tests_are_there():
    text = (ROOT / "tests" / "README.md").read_text()
    named = set(re.findall(r"^\| `(\w+)` \|", text, re.M))
    there = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    assert named == there - {"__pycache__"}


def test_folders_of_the_project_are_there():
    text = (ROOT / "README.md").read_text()
    named = set(re.findall(r"^\| `([\w/]+)` \|", text, re.M))
    assert all((ROOT / name).is_dir() for name in named)
    made = {name.strip("/") for name in (ROOT / ".gitignore").read_text().split()}
    there = {path.name for path in ROOT.glob("[a-z]*") if path.is_dir()}
    assert there - made == {name.partition("/")[0] for name in named}


def test_pages_say_where_commands_that_debian_lacks_come_from():
    """Of Debian 12: no varlinkctl; libmetal's package of headers is not OpenAMP's."""
    for page in pages():
        text = page.read_text()
        assert "varlinkctl" not in text or "systemd 255" in " ".join(text.split()), page
        assert "SBE_OPENAMP=ON" not in text or "libsysfs-dev" in text, page


def test_links_lead_somewhere():
    dead = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages()
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not dead, "\n".join(dead)
