"""The words of docstrings and of names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.pages import ROOT

FILES = [*sorted((ROOT / "sbe").rglob("*.py")), ROOT / "sbe" / "_native.pyi"]

# A docstring says what something does ("Returns ..."): these begin none.
IMPERATIVES = """
    Accept Acknowledge Act Add Allocate Answer Ask Await Begin Build Call Cancel Carry Charge Check
    Choose Clean Close Connect Convert Copy Correct Create Destroy Detach Do Drive Drop End Find
    Fire Forget Free Get Give Hand Have Initialise Interrupt Invalidate Keep Kill Know Leave Let
    Load Log Look Make Map Note Offer Open Own Print Process Put Queue Raise Read Refuse Register
    Remember Remove Report Reserve Reset Return Ring Run Say Send Serve Set Show Start Stop
    Sub-allocate Submit Take Tell Unmap Unregister Wait Withdraw Write Yield
"""

# No names of functions, parameters and attributes: each has a plainer word for what it is.
VAGUE = {"what", "reach", "again", "_keep", "_take", "_what", "_reach", "_again"}


def is_command(node: ast.AST) -> bool:
    """What click prints as the help of a command, in the imperative as all command lines."""
    names = {
        child.attr if isinstance(child, ast.Attribute) else getattr(child, "id", "")
        for decorator in getattr(node, "decorator_list", [])
        for child in ast.walk(decorator)
    }
    return bool(names & {"command", "group"})


def documented(path: Path) -> Iterator[tuple[str, str]]:
    """Where each docstring is, and its text."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text and not is_command(node):
                yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}", text


def first_word(text: str) -> str:
    return text.split()[0].rstrip(".,:;")


def test_docstrings_say_what_something_does():
    texts = [found for path in FILES for found in documented(path)]
    assert len(texts) > 1000
    imperatives = set(IMPERATIVES.split())
    found = [(where, text) for where, text in texts if first_word(text) in imperatives]
    assert found == []


def named(path: Path) -> Iterator[tuple[str, str]]:
    """Where each function, parameter and attribute is that gets a name there, and the name."""
    for node in ast.walk(ast.parse(path.read_text())):
        name = ""
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            name = node.name
        elif isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            name = node.attr
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        if name:
            yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}", name


def test_names_say_what_a_thing_is():
    names = [found for path in FILES for found in named(path)]
    assert len(names) > 1000
    assert [found for found in names if found[1] in VAGUE] == []
