"""Words for a package that is missing beside ours, and for one that is in the way.

The distribution is `structured-buffer-exchange`; `sbe` on PyPI is another project, whose package
has the import name of this one. So whatever proposes an installation takes its words from here.
Imported when something has failed or a command starts, never by `import sbe`.
"""

from __future__ import annotations

import sys
from typing import Final

__all__ = ["DISTRIBUTION", "install", "intact", "missing", "no_extension", "trouble"]

DISTRIBUTION: Final = "structured-buffer-exchange"

_NAMESAKE: Final = "sbe"
_REPAIR: Final = f"pip install --force-reinstall --no-deps {DISTRIBUTION}"

# Modules whose package has another name.
_PACKAGES: Final = {"PIL": "pillow", "serial": "pyserial"}


def install(extra: str) -> str:
    """The command that brings what an extra of pyproject.toml lists."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def missing(feature: str, error: ImportError, extra: str) -> str | None:
    """One line: which package the feature needs, and how to get it.

    None where no package is to blame: a module of ours or of Python's own.
    """
    module = (error.name or "").partition(".")[0]
    if module in ("", "sbe") or module in sys.stdlib_module_names:
        return None
    package = _PACKAGES.get(module, module)
    if not isinstance(error, ModuleNotFoundError):
        why = f" ({error})"  # it is there and can't be loaded
    elif package != module:
        why = f" (no module {module})"
    else:
        why = ""
    return f"{feature} needs {package}{why}: {install(extra)}"


def intact() -> bool:
    """The package that `import sbe` gives is this one; costs nothing."""
    return hasattr(sys.modules["sbe"], "connect")


def no_extension(error: ImportError) -> str:
    """Why `import sbe` ends, where sbe._native can't be imported."""
    return (
        f"the extension sbe._native can't be imported ({error}). In a checkout: `make build`, then "
        f".venv/bin/python; elsewhere: {trouble(ours=True) or _REPAIR}"
    )


def trouble(ours: bool | None = None) -> str | None:
    """What is wrong where the other project's `sbe` was installed over this one or beside it.

    None where nothing is. `ours`: sbe/__init__.py is known to be this project's; else it is looked
    at. Takes some milliseconds: it asks the installed distributions.
    """
    from importlib import metadata

    if ours is None:
        ours = intact()
    try:
        other = metadata.distribution(_NAMESAKE)
    except metadata.PackageNotFoundError:
        if ours:
            return None
        return f"sbe/__init__.py is gone or not ours, as after `pip uninstall sbe`: {_REPAIR}"
    found = f"the distribution {_NAMESAKE} {other.version} in {other.locate_file('')}"
    state = "may replace or remove files of this one" if ours else "has replaced sbe/__init__.py"
    return (
        f"{found} has the same import name and {state}. Keep them in separate environments, or "
        f"keep this one: pip uninstall {_NAMESAKE}, then {_REPAIR}"
    )
