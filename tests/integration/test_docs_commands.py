"""The commands that the pages show: each runs here literally, or is listed with why it does not.

The commands of a page run one after the other in one shell, in a folder that looks like a checkout.
A new command that can't run fails the test until it is listed; an entry that matches none, too.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sbe.remotes.boards import Resident
from tests.pages import ROOT, blocks_of, pages
from tests.rigs.boards import image, require_board
from tests.rigs.missing import require

LANGUAGES = {"sh", "python", "c", "dts", "toml", "text"}
LIMIT_S = 100

# Beginnings of commands, by page, and why they can't run here.
KERNEL_TREE = "in the tree of a board's kernel"
MODULES = "builds for and loads into the running kernel; the rig's tests do so with theirs"
ROOTS = "changes this machine, as root"
BOARD = "needs a remote processor of the machine; tests/rigs/kernel has one"
RIG = "boots the rig's kernel; `make test` runs what is marked `kernel`"
RIG_SOC = "boots the virtual SoC; `make test` runs these with the others"
WEST = "needs a workspace of Zephyr's"
OPENAMP = "needs an OpenAMP, which Debian has not"
ELSEWHERE: dict[str, dict[str, str]] = {
    "docs/tutorials/asg.md": {
        ".venv/bin/python -c": "asks a service of the page: test_services_of_the_tutorials",
    },
    "docs/tutorials/bring-up.md": {
        "scripts/kconfig/merge_config.sh": KERNEL_TREE,
        "make olddefconfig": KERNEL_TREE,
        "grep -F -x -v -f .config": KERNEL_TREE,
        "make -C /lib/modules/": MODULES,
        "insmod ": MODULES,
        "systemd-sysusers": ROOTS,
        "udevadm ": ROOTS,
        "usermod ": ROOTS,
        "cp firmware.elf /lib/firmware/": ROOTS,
        "sbe firmware ": BOARD,
        "systemctl ": ROOTS,
        "echo 1 > /sys/kernel/debug/": BOARD,
    },
    "docs/tutorials/cortex-m.md": {"sudo apt install": ROOTS},
    "docs/tutorials/daemon.md": {
        "python3 -m venv /opt/sbe": ROOTS,
        "/opt/sbe/bin/pip install": ROOTS,
        "ln -s /opt/sbe/bin/": ROOTS,
        "systemd-sysusers": ROOTS,
        "systemctl ": ROOTS,
        "usermod ": ROOTS,
        "varlinkctl ": "asks the system's daemon; Debian 12 has no varlinkctl",
    },
    "docs/tutorials/9p-export.md": {
        ".venv/bin/python -c": "asks a service of the page: test_services_of_the_tutorials",
    },
    "docs/tutorials/linux-remote.md": {
        ".venv/bin/sbe serve services.py --carveout": "needs RAM that another system has too",
    },
    "docs/tutorials/own-board.md": {
        ".venv/bin/python -m pytest tests/conformance": "runs with the other ends, as tests",
    },
    "docs/tutorials/writing-a-service.md": {
        ".venv/bin/python -c": "asks services of the page: test_services_of_the_tutorials",
    },
    "docs/tutorials/streams.md": {
        ".venv/bin/python -c": "asks a service of the page: test_services_of_the_tutorials",
    },
    "docs/tutorials/zephyr.md": {
        "west build": WEST,
        "sudo apt install": ROOTS,
        "cmake -S firmware -B build/openamp": OPENAMP,
        "SBE_REMOTE_RPMSG=": OPENAMP,
    },
    "linux/kernel/README.md": {
        "make -C /lib/modules/": MODULES,
        "insmod ": MODULES,
        "./make_firmware.py /lib/firmware/": ROOTS,
        "sbe-remote-rpmsg &": BOARD,
        "echo start > /sys/class/remoteproc/": BOARD,
        "ls /sys/bus/rpmsg/devices": BOARD,
    },
    "tests/rigs/kernel/README.md": {
        ".venv/bin/python -m pytest -m kernel": RIG,
        "python3 -m tests.rigs.kernel": RIG,
    },
    "tests/rigs/soc/README.md": {".venv/bin/python -m pytest tests/rigs/soc": RIG_SOC},
}

# Targets of ours that .ci/run does not make; the others are run there, not here.
NOT_IN_CI = {
    "build": "what every other target of CI's needs",
    ".venv/.dev": "the same for the tests",
    "release": "a person's; CI makes it dry",
    "rig-soc": "minutes; CI runs a part of it with the other tests",
    "rig-zephyr": WEST,
    "bench-kernel": "minutes, for figures",
}

# These run until Ctrl-C: what they say once they work, and whether Ctrl-C comes then or at the
# page's end.
FOREGROUND = {
    ".venv/bin/sbe console ": ("sbe-firmware on mps2-an521", "then"),
    ".venv/bin/sbe-daemon --socket ": ("listening at", "at the end"),
    ".venv/bin/sbe serve services.py --socket": ("connect to socket:", "at the end"),
}

# For who has installed the package: its commands are in PATH. The others are for a checkout.
INSTALLED = {"docs/tutorials/bring-up.md", "docs/tutorials/daemon.md"}


def commands_of(page: Path) -> list[str]:
    """As they are written; one that goes on in the next line is one, a comment alone is none."""
    found = []
    for block in blocks_of(page.read_text(), "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip() and not line.startswith("#"):
                shlex.split(line, comments=True)  # complete, or it raises
                found.append(line.strip())
    return found


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


PAGES = {name_of(page): page for page in sorted(pages()) if commands_of(page)}


def listed(page: str, command: str) -> bool:
    return any(command.startswith(known) for known in ELSEWHERE.get(page, {}))


def of_make(command: str) -> bool:
    """Of this project's Makefile; ELSEWHERE has what is made of others'."""
    return command.startswith("make ")


def here(page: str) -> list[str]:
    """The commands of a page that this machine runs."""
    commands = commands_of(PAGES[page])
    return [each for each in commands if not listed(page, each) and not of_make(each)]


def script(commands: list[str]) -> str:
    """One for bash, which says where it failed and lets nothing of its own live on."""
    lines = ["set -m", "set -e", "waiting=()", "trap 'echo \"failed: $BASH_COMMAND\" >&2' ERR"]
    lines += [
        "ended() {",
        '    kill -INT "$1"; local code=0; wait "$1" || code=$?',
        "    [ $code = 0 ] || [ $code = 130 ]",
        "}",
        "trap '[ ${#waiting[@]} = 0 ] || kill \"${waiting[@]}\"' EXIT",
    ]
    for number, command in enumerate(commands):
        known = next((each for each in FOREGROUND if command.startswith(each)), None)
        if known is None:
            lines.append(command)
            continue
        says, end = FOREGROUND[known]
        plain, said = command.partition(" #")[0], f"said{number}"
        lines.append(f"{plain} >{said} 2>&1 &")
        lines.append("waiting+=($!)")
        lines.append(f"until grep -q '{says}' {said}; do")
        lines.append(
            f'    kill -0 "${{waiting[-1]}}" || {{ cat {said} >&2; false; }}; sleep 0.02; done'
        )
        if end == "then":
            lines += ['ended "${waiting[-1]}"', 'unset "waiting[-1]"']
    lines.append('for pid in "${waiting[@]}"; do ended "$pid"; done; waiting=()')
    return "\n".join(lines) + "\n"


@pytest.fixture
def checkout() -> Iterator[Path]:
    """A folder with what a checkout has that was built, and what a reader brings."""
    with tempfile.TemporaryDirectory(prefix="sbe") as name:  # short: sockets lie in it
        folder = Path(name)
        (folder / ".venv").symlink_to(sys.prefix)
        for top in ("docs", "firmware", "linux", "tests", "Makefile"):
            (folder / top).symlink_to(ROOT / top)
        (folder / "build").mkdir()
        (folder / "run").mkdir(mode=0o700)
        shutil.copy(ROOT / "linux" / "etc" / "daemon.toml", folder / "daemon.toml")
        yield folder


def run(page: str, commands: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    own = Path(sys.prefix, "bin")
    path = [part for part in os.environ.get("PATH", "").split(":") if Path(part) != own]
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("SBE_")},
        "PATH": ":".join([str(own), *path] if page in INSTALLED else path),
        "XDG_RUNTIME_DIR": str(folder / "run"),
        "SBE": str(ROOT),
    }
    return subprocess.run(
        ["bash", "-c", script(commands)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
        timeout=LIMIT_S,
    )


@contextlib.contextmanager
def of_boards(folder: Path) -> Iterator[None]:
    require_board("mps2-an521")
    (folder / "build" / "firmware").symlink_to(ROOT / "build" / "firmware")
    shutil.copy(image("mps2-an521"), folder / "my.elf")
    try:
        yield
    finally:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_RUNTIME_DIR", str(folder / "run"))
            for board in Resident.all():  # none, unless a command failed
                board.remove()


@contextlib.contextmanager
def of_bring_up(folder: Path) -> Iterator[None]:
    for tool in ("dtc", "fdtoverlay"):
        ready = shutil.which(tool) is not None
        require(ready, f"no {tool} (sudo apt install device-tree-compiler)")
    board = "/dts-v1/; / { reserved-memory { }; };"
    command = ["dtc", "-q", "-@", "-I", "dts", "-O", "dtb", "-o", "board.dtb"]
    subprocess.run(command, input=board, text=True, cwd=folder, check=True, timeout=20)
    yield


@contextlib.contextmanager
def of_services(folder: Path) -> Iterator[None]:
    first, *_ = blocks_of(PAGES["docs/tutorials/linux-remote.md"].read_text(), "python")
    (folder / "services.py").write_text(first)
    yield


# What a reader of the page has besides.
READERS: dict[str, Callable[[Path], contextlib.AbstractContextManager[None]]] = {
    "docs/tutorials/cortex-m.md": of_boards,
    "docs/tutorials/bring-up.md": of_bring_up,
    "docs/tutorials/linux-remote.md": of_services,
}


@pytest.mark.parametrize("page", [page for page in PAGES if here(page)])
def test_commands_run(page: str, checkout: Path):
    with READERS.get(page, contextlib.nullcontext)(checkout):
        done = run(page, here(page), checkout)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_targets_are_made_by_ci_and_there():
    """What pages make, down to the arguments; make -n makes nothing."""
    ci = (ROOT / ".ci" / "run").read_text()
    commands = [
        command.partition(" #")[0].strip()
        for page in PAGES
        for command in commands_of(PAGES[page])
        if of_make(command) and not listed(page, command)
    ]
    assert {"make demo", "make test", "make build"} <= set(commands)
    for command in sorted(set(commands)):
        target = command.split()[1]
        assert target in NOT_IN_CI or re.search(rf"^ *(\w+=\S+ )*{command}( #|$)", ci, re.M), (
            f"{command}: neither in .ci/run nor in NOT_IN_CI"
        )
        subprocess.run(
            [*shlex.split(command), "-n"],
            cwd=ROOT,
            env={key: value for key, value in os.environ.items() if not key.startswith("MAKE")},
            check=True,
            capture_output=True,
            timeout=60,
        )


def test_what_is_listed_is_there():
    for page, known in ELSEWHERE.items():
        for beginning in known:
            assert any(command.startswith(beginning) for command in commands_of(PAGES[page])), (
                f"{page} has no command {beginning!r} any more"
            )
    every = [command for page in PAGES for command in commands_of(PAGES[page])]
    for beginning in FOREGROUND:
        assert any(command.startswith(beginning) for command in every)
    made = {command.split()[1] for command in every if of_make(command)}
    assert NOT_IN_CI.keys() <= made


def test_blocks_say_what_they_are():
    """A block in no language, or in another shell's, would be looked at by nobody."""
    for page in pages():
        fences = re.findall(r"^```(.*)$", page.read_text(), re.M)
        assert len(fences) % 2 == 0, page
        assert set(fences[::2]) <= LANGUAGES, page
        assert set(fences[1::2]) <= {""}, page


@pytest.mark.parametrize(
    ("commands", "why"),
    [
        (["true", "sbe ping -c 1"], "failed: sbe ping -c 1"),  # of a checkout, not in PATH
        (["true", ".venv/bin/sbe ping --nonsense", "true"], "No such option '--nonsense'"),
        ([".venv/bin/sbe-daemon --socket s --nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_a_command_that_does_not_run_is_found(commands: list[str], why: str, checkout: Path):
    done = run("README.md", commands, checkout)
    assert done.returncode != 0
    assert why in done.stderr


def test_a_page_that_is_new_is_looked_at(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("```sh\n# why\nnonsense \\\n  --all   # now\n\nexport A=1\n```\n")
    assert commands_of(page) == ["nonsense    --all   # now", "export A=1"]
