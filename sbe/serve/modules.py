"""The services of a Python module: what `sbe serve` is told by one word."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from sbe.errors import BadArgument
from sbe.serve.handlers import Handler, check_handler

__all__ = ["GROUP", "check_services", "load_services"]

GROUP = "sbe.services"
"""Entry points of this group are services that an installed package brings."""
_TABLE = "SERVICES"
_NAME_MAX = 31  # bytes, SBE_NAME_SIZE of firmware/core/wire.h without its NUL


def load_services(module: str) -> dict[str, Handler]:
    """The services of an entry point, of a module that can be imported, or of a file FILE.py.

    They are what the module's SERVICES says, handlers by name; without one all of its own public
    functions. Raises BadArgument which says what is wrong; what the module raises is its own.
    """
    found = _entry_point(module)
    if found is None:
        found = _module(module)
    if isinstance(found, ModuleType):
        found = getattr(found, _TABLE, None) or _functions(found)
    return check_services(found, module)


def check_services(services: Any, where: str) -> dict[str, Handler]:
    """A copy. Raises BadArgument for names or handlers that can't be."""
    if not isinstance(services, Mapping):
        raise BadArgument(f"{where}: services are handlers by name, not {services!r:.80}")
    if not services:
        raise BadArgument(
            f"{where}: there is no service in it: define a function def name(payload, *buffers), "
            f"or {_TABLE} = {{'name': function}}"
        )
    for name, handler in services.items():
        if not isinstance(name, str) or not name or "\0" in name or len(name.encode()) > _NAME_MAX:
            raise BadArgument(
                f"{where}: {name!r:.80} can't name a service: 1 to {_NAME_MAX} bytes, none of them "
                "0"
            )
        check_handler(f"service {name!r}", handler)
    return dict(services)


def _entry_point(name: str) -> Any:
    for each in entry_points(group=GROUP):
        if each.name == name:
            return each.load()
    return None


def _module(module: str) -> ModuleType:
    if module.endswith(".py") or os.sep in module:
        return _file(module)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, what it imports is not
        known = ", ".join(sorted(each.name for each in entry_points(group=GROUP)))
        raise BadArgument(
            f"{module!r:.80} is no module that can be imported, and no entry point of the group "
            f"{GROUP} ({known or 'there are none'}); a file is given with its .py"
        ) from error
    except ValueError as error:  # as of "a..b"
        raise BadArgument(f"{module!r:.80} is no name of a module: {error}") from error


def _file(path: str) -> ModuleType:
    name = f"served_{os.path.splitext(os.path.basename(path))[0]}"  # may be json.py
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not os.path.isfile(path):
        raise BadArgument(f"{path!r:.200} is no Python file")
    folder = os.path.dirname(os.path.abspath(path))
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as for a program: what lies beside it can be imported
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as for an import: dataclasses and pickles look there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _functions(module: ModuleType) -> dict[str, Handler]:
    return {
        name: function
        for name, function in vars(module).items()
        if inspect.isfunction(function)
        and function.__module__ == module.__name__
        and not name.startswith("_")
    }
