"""The conformance suite that is shipped: this project runs all of it, and it says what it needs."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import sbe.testing.conformance
from sbe.testing.conformance.parts import STANDARD

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(sbe.testing.conformance.__file__).parent
MODULES = sorted(path.stem for path in FOLDER.glob("test_*.py"))

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def suite_of(module: object) -> dict[str, object]:
    return {name: value for name, value in vars(module).items() if name.startswith("test_")}


@pytest.mark.parametrize("name", MODULES)
def test_each_is_run_here_too(name: str) -> None:
    shipped = suite_of(importlib.import_module(f"sbe.testing.conformance.{name}"))
    ours = suite_of(importlib.import_module(f"tests.conformance.{name}"))
    assert shipped
    assert {each for each, test in shipped.items() if ours.get(each) is not test} == set()


def called(node: ast.AST, beside: dict[str, Function], seen: set[str]) -> Iterator[str]:
    """The services that a test names: itself, in its fixtures, or in what it uses of its module."""
    for each in ast.walk(node):
        name = ""
        if isinstance(each, ast.Constant) and each.value in STANDARD:
            yield str(each.value)
        elif isinstance(each, ast.Name):
            name = each.id
        elif isinstance(each, ast.arg):
            name = each.arg
        if name == "relay":  # the fixture
            yield name
        if name == "answered":
            yield "echo"
        elif name in beside and name not in seen:
            seen.add(name)
            yield from called(beside[name], beside, seen)


@pytest.mark.parametrize("name", MODULES)
def test_each_says_which_services_it_calls(name: str) -> None:
    tree = ast.parse((FOLDER / f"{name}.py").read_text())
    beside = {each.name: each for each in tree.body if isinstance(each, Function)}
    module = importlib.import_module(f"sbe.testing.conformance.{name}")
    for test in suite_of(module):
        marks = getattr(getattr(module, test), "pytestmark", [])
        said = {each for mark in marks if mark.name == "needs" for each in mark.args}
        body = [each for each in ast.iter_child_nodes(beside[test]) if isinstance(each, ast.stmt)]
        parts = [*body, beside[test].args]  # type: ignore[union-attr]
        assert said == {each for part in parts for each in called(part, beside, {test})}, test
