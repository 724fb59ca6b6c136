"""What `sbe serve MODULE` finds, and what it says of what can't be served."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sbe
from sbe.serve import modules

PLAIN = """
from os.path import join  # somebody else's is no service
def double(payload):
    return payload * 2
def _helper(payload):
    return None
class Not:
    pass
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to import from; what was imported is forgotten."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("sbe_test_"):
            del sys.modules[name]


def written(place: Path, name: str, text: str) -> str:
    path = place / f"{name}.py"
    path.write_text(text)
    return str(path)


def test_a_file_serves_its_public_functions(place: Path) -> None:
    services = modules.load_services(written(place, "sbe_test_plain", PLAIN))
    assert list(services) == ["double"]
    assert services["double"](b"ab") == b"abab"


def test_a_module_says_what_it_serves(place: Path) -> None:
    written(place, "sbe_test_table", PLAIN + "SERVICES = {'twice': double}\n")
    assert list(modules.load_services("sbe_test_table")) == ["twice"]


def test_an_entry_point(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(place, "sbe_test_entry", PLAIN + "SERVICES = {'twice': double}\n")
    points = [
        importlib.metadata.EntryPoint("whole", "sbe_test_entry", modules.GROUP),
        importlib.metadata.EntryPoint("table", "sbe_test_entry:SERVICES", modules.GROUP),
    ]
    monkeypatch.setattr(modules, "entry_points", lambda group: points)
    assert list(modules.load_services("whole")) == list(modules.load_services("table")) == ["twice"]
    with pytest.raises(sbe.BadArgument, match=r"entry point .* sbe.services .table, whole."):
        modules.load_services("nothing_of_that_name")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "there is no service in it: define a function"),
        ("SERVICES = 3", "handlers by name, not 3"),
        ("SERVICES = {'n' * 32: print}", "can't name a service: 1 to 31 bytes"),
        ("SERVICES = {'': print}", "can't name a service"),
        ("SERVICES = {'a\\0': print}", "can't name a service"),
        ("SERVICES = {1: print}", "can't name a service"),
        ("SERVICES = {'name': 1}", "the handler of service 'name' is to be called"),
        ("async def name(payload): pass", "is a coroutine function"),
        ("def name(payload): yield", "is a generator"),
    ],
)
def test_what_is_no_service(place: Path, text: str, words: str) -> None:
    with pytest.raises(sbe.BadArgument, match=words):
        modules.load_services(written(place, "sbe_test_wrong", text))


def test_what_is_no_module(place: Path) -> None:
    def refused(what: str) -> str:
        with pytest.raises(sbe.BadArgument) as raised:
            modules.load_services(what)
        return str(raised.value)

    assert "no module that can be imported" in refused("nothing_of_that_name")
    assert "no module that can be imported" in refused("nothing.of.that_name")
    assert "is no name of a module" in refused("")
    assert "is no Python file" in refused(str(place / "nothing.py"))
    assert "is no Python file" in refused(str(place))
    assert "no module that can be imported" in refused("json.nothing")


@pytest.mark.parametrize(
    "text", ["import nothing_of_that_name", "raise ZeroDivisionError", "def ("]
)
def test_what_a_module_raises_is_its_own(place: Path, text: str) -> None:
    expected: Any = {"i": ImportError, "r": ZeroDivisionError, "d": SyntaxError}[text[0]]
    with pytest.raises(expected):
        modules.load_services(written(place, "sbe_test_broken", text))
    with pytest.raises(expected):
        modules.load_services("sbe_test_broken")
