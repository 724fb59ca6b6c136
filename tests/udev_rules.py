"""udev's rules as far as linux/udev uses them: matches by ==, assignments, one line each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RULES = ROOT / "linux" / "udev" / "60-sbe.rules"

_PART = re.compile(r'([A-Z]+)(?:\{(\w+)\})?(==|=|\+=)"([^"]*)"')


class Rule:
    """One line: what a device must be, and what it gets."""

    def __init__(self, line: str) -> None:
        self.match: dict[str, str] = {}
        self.assign: dict[str, str] = {}
        for part in line.split(", "):
            found = _PART.fullmatch(part.strip())
            assert found, f"not a rule: {part}"
            name = found[1] if found[2] is None else f"{found[1]}.{found[2]}"
            (self.match if found[3] == "==" else self.assign)[name] = found[4]

    def devices(self) -> Iterator[Path]:
        """The devices of this machine that it is for, as folders in /sys."""
        folder = Path("/sys/class", self.match["SUBSYSTEM"])
        for device in folder.iterdir() if folder.is_dir() else ():
            if all(self._fits(device, *one) for one in self.match.items()):
                yield device

    def _fits(self, device: Path, name: str, pattern: str) -> bool:
        kind, _, attribute = name.partition(".")
        if kind == "KERNEL":
            return fnmatchcase(device.name, pattern)
        if kind == "ATTR":
            file = device / attribute
            return file.exists() and fnmatchcase(file.read_text().strip(), pattern)
        return kind in ("SUBSYSTEM", "ACTION")


def rules() -> list[Rule]:
    """Those for devices, in order."""
    lines = RULES.read_text().splitlines()
    return [Rule(line) for line in lines if line.startswith("SUBSYSTEM")]
