"""The pages of this project, and what they show in blocks."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def blocks_of(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.M | re.S)


def pages() -> list[Path]:
    """Every Markdown file."""
    tops = (".github", "docs", "firmware", "linux", "tests", "zephyr")
    return [*ROOT.glob("*.md"), *(page for top in tops for page in ROOT.glob(f"{top}/**/*.md"))]
