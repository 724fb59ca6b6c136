"""Print what the named extras of pyproject.toml require, one requirement a line.

`build` names the build system's own requirements. An extra that refers to another extra of this
project is expanded. Kept apart from installing the project itself, so that a changed C file costs
a compile and no resolver run.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def expand(extra: str, document: dict[str, dict[str, object]]) -> Iterator[str]:
    project = document["project"]
    if extra == "build":
        listed = document["build-system"]["requires"]
    else:
        optional = project["optional-dependencies"]
        assert isinstance(optional, dict)
        listed = optional[extra]
    assert isinstance(listed, list)
    for requirement in listed:
        own = re.fullmatch(rf"{project['name']}\[([\w\s,-]+)\]", requirement)
        if own is None:
            yield requirement
        else:
            for inner in own[1].split(","):
                yield from expand(inner.strip(), document)


def main() -> None:
    document = tomllib.loads(PYPROJECT.read_text())
    print("\n".join(sorted({line for extra in sys.argv[1:] for line in expand(extra, document)})))


if __name__ == "__main__":
    main()
