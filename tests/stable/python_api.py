"""The Python API: a line for each public name, with its signature. Read, not run (griffe)."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

import sbe

__all__ = ["lines"]

ROOT = Path(__file__).resolve().parents[2]

MODULES = (
    "sbe",
    "sbe.asg",
    "sbe.ninep",
    "sbe.raw",
    "sbe.testing",
    "sbe.remotes",
    "sbe.transports",
    "sbe.heaps",
)
"""Everything in their `__all__` is promised: for applications, their tests, and remotes of others'
own."""

BEYOND = (
    "sbe.errors.resources",
    "sbe.remotes.process.RemoteProcess",
    "sbe.transports.carveout.CarveoutTransport",
    "sbe.transports.carveout.Window",
    "sbe.transports.seqpacket.SeqpacketTransport",
)
"""What the page on remotes of one's own tells to use besides."""

GIVEN = {"Connection", "Area"}
"""Classes whose objects are handed out by others: how they are made is nobody's business."""

_SPECIAL = {
    "__aenter__", "__aexit__", "__await__", "__buffer__", "__enter__", "__exit__", "__getitem__",
    "__init__", "__len__", "__new__", "__setitem__",
}  # fmt: skip


def lines() -> list[str]:
    """Sorted, one name each."""
    loader = griffe.GriffeLoader(search_paths=[ROOT], allow_inspection=False)
    package = loader.load("sbe", try_relative_path=False)
    loader.resolve_aliases()
    found: list[str] = []
    for name in MODULES:
        module = package if name == "sbe" else package[name.removeprefix("sbe.")]
        for public in module.exports or ():
            found += _describe(f"{name}.{public}", _target(module[str(public)]))
    for path in BEYOND:
        found += _describe(path, _target(package[path.removeprefix("sbe.")]))
    return sorted(found)


def _target(thing: Any) -> Any:
    return thing.final_target if thing.is_alias else thing


def _describe(path: str, thing: Any) -> Iterator[str]:
    if thing.is_function:
        yield f"{path}{_signature(thing)}"
    elif thing.is_class:
        bases = ", ".join(str(base) for base in thing.bases if _is_known(str(base)))
        yield f"class {path}({bases})"
        for name, member in thing.all_members.items():
            if not name.startswith("_") or (name in _SPECIAL and not _is_made(path, name)):
                yield from _describe(f"{path}.{name}", _target(member))
    elif thing.annotation is not None:
        yield f"{path}: {thing.annotation}"
    else:
        yield f"{path} = {thing.value}" if path.endswith(".default_code") else path


def _is_known(base: str) -> bool:
    """What else a class is made of may change."""
    return base in sbe.__all__ or hasattr(builtins, base) or base in ("NamedTuple", "Protocol")


def _is_made(path: str, name: str) -> bool:
    return name in ("__init__", "__new__") and path.rpartition(".")[2] in GIVEN


def _signature(function: Any) -> str:
    parts, kinds = [], griffe.ParameterKind
    keyword_only = False
    for parameter in function.parameters:
        if parameter.kind is kinds.keyword_only and not keyword_only:
            keyword_only = True
            parts.append("*")
        name = parameter.name
        if parameter.kind is kinds.var_positional:
            name, keyword_only = f"*{name}", True
        elif parameter.kind is kinds.var_keyword:
            name = f"**{name}"
        if parameter.annotation is not None:
            name += f": {parameter.annotation}"
        if parameter.default is not None and not name.startswith("*"):
            name += f" = {_value(function, str(parameter.default))}"
        parts.append(name)
        if parameter.kind is kinds.positional_only and _is_last_positional(function, parameter):
            parts.append("/")
    return f"({', '.join(parts)}) -> {function.returns}"


def _is_last_positional(function: Any, parameter: Any) -> bool:
    only = [each for each in function.parameters if each.kind is parameter.kind]
    return only[-1] is parameter


def _value(function: Any, default: str) -> str:
    """A constant of the module counts by its value."""
    module = function.module
    found = module.members.get(default)
    found = None if found is None else _target(found)
    return default if found is None or not found.is_attribute else str(found.value)
