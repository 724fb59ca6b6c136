"""No #include and no import goes up. The floors are the two tables below; edit them, not the code.

A floor is a list of groups, lowest floor first. A file may use its own group and any floor
beneath; groups that share a floor are siblings and may not use each other. NEVER forbids single
pairs beyond that. A file that no group names fails: give it a floor. A pattern that names no file
fails too, and so does the picture in docs/design/README.md if it shows other floors.
"""

import ast
import graphlib
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

Floors = list[list[list[str]]]

# Paths below the repository. A star also spans folders.
C_FLOORS: Floors = [
    [[f"firmware/core/{name}.*" for name in ("status", "port", "atomic", "version")]],
    [["firmware/core/wire.*"]],
    [["firmware/core/ring.*"]],
    [["firmware/core/area.*", "firmware/core/cache.*"]],
    [["firmware/core/channel.*"]],
    [["firmware/core/session*.*"]],
    [["firmware/core/service.*", "firmware/core/engine*.*", "firmware/core/kept.*"]],
    [
        ["firmware/asg/*"],
        ["firmware/carveout/*"],
        ["firmware/mirror/*"],
        ["firmware/ninep/*"],
        ["firmware/pieces/*"],
        ["firmware/streams/*"],
        ["firmware/power/*"],
        ["firmware/patience/*"],
        ["linux/kernel/*"],
    ],
    [["firmware/services/*"], ["sbe/native/*"]],
    [["firmware/ports/carveout/*"], ["firmware/ports/rpmsg/*"], ["firmware/ports/virtio/*"]],
    [["firmware/ports/openamp/*"]],
    [
        ["firmware/ports/host/*"],
        ["firmware/ports/mps2/*"],
        ["firmware/ports/userproc/*"],
        ["firmware/zephyr/*"],
    ],
]
C_NEVER = [
    ("firmware/ports/*", "sbe/native/*"),
    ("firmware/zephyr/*", "sbe/native/*"),
    ("firmware/services/*", "linux/*"),
    ("linux/*", "firmware/*"),  # modules are built in a kernel's tree, from their own folder
]

# Modules, `sbe` itself being the SDK's face.
PYTHON_FLOORS: Floors = [
    [["sbe._native", "sbe.errors", "sbe.extras"]],
    [["sbe.host", "sbe.host.*"]],
    [["sbe.kernel", "sbe.kernel.*"]],
    [["sbe.heaps", "sbe.heaps.*"]],
    [["sbe.transports", "sbe.transports.*"]],
    [["sbe.remotes", "sbe.remotes.*"]],
    [["sbe.link", "sbe.link.*"]],
    [["sbe.control"]],
    [["sbe.serve", "sbe.serve.*"]],
    [
        ["sbe.daemon", "sbe.daemon.*"],
        ["sbe", "sbe.asg", "sbe.ninep", "sbe.ninep.*", "sbe.raw", "sbe.sdk", "sbe.sdk.*"],
    ],
    [["sbe.testing", "sbe.testing.*"]],
    [["sbe.cli", "sbe.cli.*", "sbe.__main__"]],
]
PYTHON_NEVER = [
    *((f"sbe.link.{name}", "sbe.link.context") for name in ("session", "link", "rings", "grants")),
    *((f"sbe.link.{name}", "sbe.link.link") for name in ("session", "pending", "power", "rings")),
    ("sbe.link.grants", "sbe.link.link"),  # who only attaches to rings needs no link
]


def place(name: str, floors: Floors) -> tuple[int, int] | None:
    """Return floor and group of a file or module; None when no group names it."""
    for floor, groups in enumerate(floors):
        for group, patterns in enumerate(groups):
            if any(fnmatchcase(name, pattern) for pattern in patterns):
                return floor, group
    return None


def fault(
    user: str, used: str, floors: Floors, never: list[tuple[str, str]] | None = None
) -> str | None:
    """Return what is wrong with user's use of used; None when it is allowed."""
    above, below = place(user, floors), place(used, floors)
    if above is None or below is None:
        return f"{user if above is None else used} has no floor in {__file__}"
    if below[0] > above[0]:
        return f"{user} uses {used}, which lies above it"
    if below[0] == above[0] and below[1] != above[1]:
        return f"{user} uses its sibling {used}"
    for one, other in never or []:
        if fnmatchcase(user, one) and fnmatchcase(used, other):
            return f"{user} may never use {used}"
    return None


# C


def c_includes(path: Path, text: str) -> Iterator[str]:
    """Yield what a C file includes of ours, as paths below the repository.

    Looked up as the compiler does: beside the file, then where the include paths lead. An include
    in quotes that is in none of these is yielded as written, and so fails for having no floor.
    """
    code = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
    for quote, name in re.findall(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', code, re.M):
        for folder in (path.parent, ROOT / "firmware", ROOT / "linux" / "kernel"):
            found = (folder / name).resolve()
            if found.is_file() and found.is_relative_to(ROOT):
                yield found.relative_to(ROOT).as_posix()
                break
        else:
            if quote == '"':
                yield name


def c_files() -> list[Path]:
    return sorted(
        path
        for top in ("firmware", "sbe/native", "linux")
        for path in (ROOT / top).rglob("*")
        if path.suffix in {".c", ".h"}
    )


def c_faults(path: Path, text: str) -> list[str]:
    user = path.relative_to(ROOT).as_posix()
    found = [fault(user, used, C_FLOORS, C_NEVER) for used in [user, *c_includes(path, text)]]
    return [line for line in found if line]


# Python


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(name: str) -> bool:
    base = ROOT.joinpath(*name.split("."))
    return base.is_dir() or any(base.with_suffix(end).is_file() for end in (".py", ".pyi"))


def imported(package: str, base: str | None, level: int) -> str:
    """Return the absolute name of the module that a from-import names."""
    if level == 0:
        return base or ""
    parents = package.split(".")
    return ".".join(parents[: len(parents) - (level - 1)] + ([base] if base else []))


def python_imports(path: Path, text: str) -> Iterator[str]:
    """Yield the modules of ours that a file imports, wherever in the file it does.

    Functions, TYPE_CHECKING blocks and import_module("literal") count like any other.
    """
    name = module_name(path)
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names if alias.name.split(".")[0] == "sbe")
            case ast.ImportFrom(module=base, names=names, level=level):
                source = imported(package, base, level)
                if source.split(".")[0] != "sbe":
                    continue
                # `from sbe import errors` uses sbe.errors; `from sbe import connect` uses sbe.
                for alias in names:
                    inner = f"{source}.{alias.name}"
                    yield inner if is_module(inner) or place(inner, PYTHON_FLOORS) else source
            case ast.Call(
                func=ast.Attribute(attr="import_module" | "__import__")
                | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(target)), *_],
            ):
                stripped = target.lstrip(".")
                source = imported(package, stripped, len(target) - len(stripped))
                if source.split(".")[0] == "sbe":
                    yield source


def python_files() -> list[Path]:
    return sorted((ROOT / "sbe").rglob("*.py"))


def python_faults(path: Path, text: str) -> list[str]:
    user = module_name(path)
    used = [user, *python_imports(path, text)]
    found = [fault(user, name, PYTHON_FLOORS, PYTHON_NEVER) for name in used]
    return [line for line in found if line]


# The tests


def test_no_include_goes_up():
    faults = [line for path in c_files() for line in c_faults(path, path.read_text())]
    assert not faults, "\n".join(faults)


def test_no_import_goes_up():
    faults = [line for path in python_files() for line in python_faults(path, path.read_text())]
    assert not faults, "\n".join(faults)


# Circles: also within a floor no file needs, even for its types, one that needs it


def modules_of(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the same by file: `sbe.link.Link` is used from the file of `sbe.link`."""

    def file_of(name: str) -> str:
        while not is_module(name):
            name = name.rpartition(".")[0]
        return name

    return {user: {file_of(name) for name in used} - {user} for user, used in imports.items()}


def circle(imports: dict[str, set[str]]) -> list[str]:
    """Return the modules of one circle, first and last the same; empty when there is none."""
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_no_file_imports_another_in_a_circle():
    imports = {
        module_name(path): set(python_imports(path, path.read_text())) for path in python_files()
    }
    assert circle(modules_of(imports)) == []


def test_a_circle_is_caught():
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from sbe.sdk.area import Area"
    used = set(python_imports(ROOT / "sbe" / "sdk" / "core.py", text))
    imports = {"sbe.sdk.area": {"sbe.sdk.core.Core"}, "sbe.sdk.core": used}
    assert set(circle(modules_of(imports))) == {"sbe.sdk.area", "sbe.sdk.core"}


def calls_between(texts: dict[str, str]) -> dict[str, set[str]]:
    """Return which files of the core each of them calls: a header shows more than is called."""
    defined = {
        name: where
        for where, text in texts.items()
        for name in re.findall(r"^(?!static )[a-z][\w ]*?[ *](sbe_\w+)\([^;{]*\)\n\{", text, re.M)
    }
    return {
        where: {defined[name] for name in set(re.findall(r"\bsbe_\w+", text)) & defined.keys()}
        - {where}
        for where, text in texts.items()
    }


def test_the_core_calls_in_one_direction():
    texts = {path.name: path.read_text() for path in (ROOT / "firmware/core").glob("*.c")}
    calls = calls_between(texts)
    assert calls["session.c"] >= {"session_peer.c", "session_base.c"}  # it sees calls
    TopologicalSorter(calls).prepare()
    two = {
        "one.c": "int sbe_one(int a,\n            int b)\n{\n    return sbe_two();\n}\n",
        "two.c": "static int x(void)\n{\n    return sbe_one(1, 2);\n}\nint sbe_two(void)\n{\n}\n",
    }
    with pytest.raises(CycleError):
        TopologicalSorter(calls_between(two)).prepare()


def test_no_header_of_the_extension_shows_all():
    headers = (ROOT / "sbe" / "native").glob("*.h")
    shown = {
        path.name: set(re.findall(r'^#include "(\w+\.h)"', path.read_text(), re.M))
        for path in headers
    }
    TopologicalSorter(shown).prepare()  # no circle
    assert shown["native.h"] == set()
    assert shown["channel.h"] == {"memory.h", "native.h", "table.h"}


# The tables: nothing in them is left over, and the page shows them


def left_over(floors: Floors, never: list[tuple[str, str]], names: list[str]) -> list[str]:
    """Return the patterns that name none of these files or modules."""
    patterns = [pattern for groups in floors for group in groups for pattern in group]
    patterns += [pattern for pair in never for pattern in pair]
    return [each for each in patterns if not any(fnmatchcase(name, each) for name in names)]


def test_every_pattern_names_something():
    files = [path.relative_to(ROOT).as_posix() for path in c_files()]
    modules = [module_name(path) for path in [*python_files(), *(ROOT / "sbe").glob("*.pyi")]]
    assert left_over(C_FLOORS, C_NEVER, files) == []
    assert left_over(PYTHON_FLOORS, PYTHON_NEVER, modules) == []
    assert left_over([[["sbe.link", "sbe.novel.*"]]], [("sbe.old", "sbe.*")], modules) == [
        "sbe.novel.*",
        "sbe.old",
    ]


Picture = list[list[set[str]]]


def picture(floors: Floors) -> Picture:
    """Return the floors as the page shows them: highest first, names instead of patterns."""
    return [
        [
            {each.split("*")[0].removeprefix("firmware/").rstrip("./") for each in group}
            for group in groups
        ]
        for groups in reversed(floors)
    ]


def drawn(page: str, side: str) -> tuple[Picture, set[str]]:
    """Return the floors that a page shows for Python or C, and the pages it names beside them.

    A line is a floor: groups with `|` between them, then at least two spaces, then pages.
    """
    [block] = re.findall(rf"^  {side} .*?(?=^  --|^```$)", page, re.M | re.S)
    lines = [
        re.fullmatch(r"(\S.*?) {2,}(\S+\.md(?:, \S+\.md)*)", line[11:])
        for line in block.splitlines()
    ]
    assert all(lines), block
    found = [line for line in lines if line]
    floors = [[set(group.split(", ")) for group in line[1].split(" | ")] for line in found]
    return floors, {name for line in found for name in line[2].split(", ")}


def test_the_page_shows_the_floors():
    folder = ROOT / "docs" / "design"
    page = (folder / "README.md").read_text()
    python, python_pages = drawn(page, "Python")
    c, c_pages = drawn(page, "C")
    assert python == picture(PYTHON_FLOORS)
    assert c == picture(C_FLOORS)
    assert python_pages | c_pages == {each.name for each in folder.glob("*.md")} - {"README.md"}


# The test's own tests: fabricated files. An include that the compiler would not find keeps its
# spelling, so the paths below are written from the repository's top.


@pytest.mark.parametrize(
    ("user", "used", "wrong"),
    [
        ("firmware/core/ring.c", "firmware/core/session.h", "above"),
        ("firmware/core/wire.h", "firmware/core/ring.h", "above"),
        ("firmware/core/cache.c", "firmware/core/channel.h", "above"),
        ("firmware/core/engine.c", "firmware/services/echo.h", "above"),
        ("sbe/native/ring.c", "firmware/services/echo.h", "sibling"),
        ("sbe/native/ring.c", "firmware/ports/host/host.h", "above"),
        ("firmware/ports/host/main.c", "sbe/native/native.h", "never"),
        ("firmware/zephyr/src/rpmsg.c", "sbe/native/native.h", "never"),
        ("firmware/ports/rpmsg/link.c", "firmware/ports/userproc/bus.h", "above"),
        ("firmware/ports/host/main.c", "firmware/ports/mps2/board.h", "sibling"),
        ("firmware/core/ring.c", "linux/kernel/sbe_dmabuf.h", "above"),
        ("firmware/services/echo.c", "linux/kernel/sbe_dmabuf.h", "never"),
        ("linux/kernel/sbe_dmabuf.c", "firmware/core/wire.h", "never"),
        ("firmware/core/novel.c", "firmware/core/status.h", "no floor"),
        ("firmware/core/ring.c", "nowhere.h", "no floor"),
    ],
)
def test_forbidden_include_is_caught(user: str, used: str, wrong: str):
    [line, *_] = c_faults(ROOT / user, f'/* why */\n#  include "{used}" // here\n')
    assert wrong in line


@pytest.mark.parametrize(
    ("user", "used"),
    [
        ("firmware/core/ring.c", "firmware/core/ring.h"),
        ("firmware/core/session.c", "firmware/core/wire.h"),
        ("firmware/services/echo.c", "firmware/core/service.h"),
        ("firmware/ports/host/main.c", "firmware/core/engine.h"),
        ("sbe/native/ring.c", "firmware/core/engine.h"),
        ("sbe/native/cache.c", "linux/kernel/sbe_dmabuf.h"),
    ],
)
def test_downward_include_passes(user: str, used: str):
    text = f'#include <stdint.h>\n#include "{used}"\n// #include "firmware/services/x.h"\n'
    assert c_faults(ROOT / user, text) == []


@pytest.mark.parametrize(
    ("user", "statement", "wrong"),
    [
        ("sbe/errors.py", "import sbe.link", "above"),
        ("sbe/errors.py", "import sbe", "above"),
        ("sbe/link.py", "def f():\n    from sbe import control", "above"),
        ("sbe/link.py", "from sbe import connect", "above"),
        ("sbe/link.py", "from . import control", "above"),
        ("sbe/heaps/memfd.py", "from ..transports.unix import Socket", "above"),
        (
            "sbe/link.py",
            "import typing\nif typing.TYPE_CHECKING:\n    from sbe.sdk import Link",
            "above",
        ),
        ("sbe/link.py", "import importlib\nimportlib.import_module('sbe.cli')", "above"),
        ("sbe/link.py", "__import__('sbe.cli')", "above"),
        ("sbe/daemon/server.py", "from sbe.sdk import connect", "sibling"),
        ("sbe/daemon/server.py", "import sbe", "sibling"),
        ("sbe/sdk/client.py", "from sbe.daemon.config import Config", "sibling"),
        ("sbe/__init__.py", "from .testing import Remote", "above"),
        ("sbe/novel.py", "", "no floor"),
    ],
)
def test_forbidden_import_is_caught(user: str, statement: str, wrong: str):
    [line, *_] = python_faults(ROOT / user, statement)
    assert wrong in line


@pytest.mark.parametrize(
    ("user", "statement"),
    [
        ("sbe/errors.py", "import os, asyncio\nfrom collections import abc"),
        ("sbe/__init__.py", "from .sdk import connect\nfrom sbe import _native"),
        ("sbe/link.py", "from . import _native, errors\nfrom sbe.transports import unix"),
        ("sbe/daemon/server.py", "from sbe import control\nfrom . import config"),
        ("sbe/sdk/client.py", "from ..control import METHODS"),
        ("sbe/testing/remote.py", "import sbe\nfrom sbe.daemon import main"),
        ("sbe/cli/main.py", "import sbe.testing, sbe.daemon, sbe"),
    ],
)
def test_downward_import_passes(user: str, statement: str):
    assert python_faults(ROOT / user, statement) == []
