"""Text that others have written, before people see it."""

from __future__ import annotations

__all__ = ["one_line"]


def one_line(text: str, most: int) -> str:
    """Printable characters of it, at most so many: `?` stands for each that is not printable."""
    cut = text if len(text) <= most else text[: most - 3] + "..."
    return "".join(char if char.isprintable() else "?" for char in cut)
