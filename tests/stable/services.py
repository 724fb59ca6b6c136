"""What firmware's services and ports are written against: the declarations, without comments."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["lines"]

CORE = Path(__file__).resolve().parents[2] / "firmware" / "core"
HEADERS = ("service.h", "port.h", "status.h", "version.h")


def lines() -> list[str]:
    """One declaration or directive each, of every header."""
    found = [f"{name}: {line}" for name in HEADERS for line in _declarations(CORE / name)]
    # Of this one a handler sees nothing else.
    buffer = [line for line in _declarations(CORE / "area.h") if "struct sbe_buffer:" in line]
    return found + [f"area.h: {line}" for line in buffer]


def _declarations(header: Path) -> list[str]:
    text = re.sub(r"/\*.*?\*/", " ", header.read_text(), flags=re.S).replace("\\\n", " ")
    text = re.sub(
        r"^#\s*(include|ifndef \w+_H|define \w+_H|define SBE_VERSION_M|define SBE_RELEASE).*$",
        "",
        text,
        flags=re.M,
    )
    found, depth, current = [], 0, ""
    for line in text.splitlines():
        line = re.sub(r"\s+", " ", line).strip()
        if not line or (line == "#endif" and depth == 0):
            continue
        if line.startswith("#"):
            found.append(line)
            continue
        current = f"{current} {line}".strip()
        depth += line.count("{") - line.count("}")
        if depth == 0 and line.endswith((";", "}")):
            found += _members(current)
            current = ""
    return found


def _members(declaration: str) -> list[str]:
    """A structure and each of its fields, an enumeration and each of its values; else itself."""
    match = re.fullmatch(r"(struct|enum) ?(__attribute__\(\(\w+\)\))? (\w+) \{(.*)\};", declaration)
    if match is None:
        return [declaration]
    kind, name = match[1], match[3]
    parts = match[4].split(";" if kind == "struct" else ",")
    return [f"{kind} {name}: {part.strip()}" for part in parts if part.strip()]
