"""Where a command writes: text for people on stdout, or one JSON object for programs.

On a terminal, with rich installed, tables and the progress bar are drawn by rich. Everywhere else
the text is plain: aligned columns, no colour, no control character.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TextIO

__all__ = ["SCHEMA", "Screen", "printable"]

SCHEMA: Final = 1
"""Of the JSON objects. It grows when a key changes its meaning or goes; new keys may come."""


def printable(text: str) -> str:
    """The text with everything escaped that a terminal would obey: names come from firmware."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _on_terminal(stream: TextIO | None) -> bool:
    # None: the descriptor was closed before this program started.
    return stream is not None and stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _console(stream: TextIO | None) -> Any:
    """A rich console, or None where the text is to be plain."""
    if not _on_terminal(stream):
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=stream, highlight=False)


class Screen:
    """One command's output. Used by one thread."""

    def __init__(self, command: str, as_json: bool = False) -> None:
        self.command = command
        self.as_json = as_json
        self._console = None if as_json else _console(sys.stdout)

    def line(self, text: str = "") -> None:
        """A line for people."""
        if not self.as_json:
            print(printable(text), flush=True)

    def title(self, text: str) -> None:
        """A heading, after an empty line."""
        if self._console is not None:
            from rich.text import Text

            self._console.print()
            self._console.print(Text(printable(text), style="bold"))
        elif not self.as_json:
            print(f"\n{printable(text)}", flush=True)

    def verdict(self, ok: bool, text: str) -> None:
        """PASS or FAIL, and of what."""
        word = "PASS" if ok else "FAIL"
        if self._console is not None:
            from rich.text import Text

            style = "bold green" if ok else "bold red"
            self._console.print(Text.assemble((word, style), " ", printable(text)))
        else:
            self.line(f"{word} {text}")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Rows under headings. A heading that begins with ">" has its column flush right."""
        if self.as_json:
            return
        cells = [["-" if cell is None else printable(str(cell)) for cell in row] for row in rows]
        right = [name.startswith(">") for name in columns]
        names = [name.removeprefix(">") for name in columns]
        if self._console is None:
            _plain_table(names, right, cells)
            return
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
        for name, flush in zip(names, right, strict=True):
            table.add_column(name, justify="right" if flush else "left", overflow="fold")
        for row in cells:
            table.add_row(*(Text(cell) for cell in row))
        self._console.print(table)

    def result(self, ok: bool, **values: Any) -> None:
        """The command's JSON object."""
        if self.as_json:
            head = {"schema": SCHEMA, "command": self.command, "ok": ok}
            print(json.dumps({**head, **values}), flush=True)

    @contextlib.contextmanager
    def live(self) -> Iterator[Callable[[str, bool], None]]:
        """A line on stderr that changes; gives show(text, alarm). None where nobody looks."""
        if self.as_json or not _on_terminal(sys.stderr):
            yield lambda text, alarm: None
            return

        def show(text: str, alarm: bool) -> None:
            red, plain = ("\x1b[31m", "\x1b[0m") if alarm else ("", "")
            sys.stderr.write(f"\r{red}{printable(text)}{plain}\x1b[K")
            sys.stderr.flush()

        try:
            yield show
        finally:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def raw(self, data: bytes) -> None:
        """Bytes as they are."""
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    @contextlib.contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar on stderr while the block runs; gives advance(steps). None where nobody looks."""
        console = None if self.as_json else _console(sys.stderr)
        if console is not None:
            with _rich_bar(console, label, total) as advance:
                yield advance
        elif not self.as_json and _on_terminal(sys.stderr):
            yield from _plain_bar(label, total)
        else:
            yield lambda steps: None


def _plain_table(names: Sequence[str], right: Sequence[bool], cells: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    for row in [names, *cells]:
        padded = [
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right, strict=True)
        ]
        print("  ".join(padded).rstrip(), flush=True)


@contextlib.contextmanager
def _rich_bar(console: Any, label: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich import progress
    from rich.text import Text

    class Speed(progress.ProgressColumn):
        def render(self, task: progress.Task) -> Text:
            return Text(f"{task.speed:,.0f}/s" if task.speed else "")

    bar = progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(40),
        progress.MofNCompleteColumn(),
        Speed(),
        progress.TimeRemainingColumn(),
        console=console,
        transient=True,
        refresh_per_second=8,
        speed_estimate_period=2,
    )
    with bar:
        task = bar.add_task(label, total=total)
        waiting = 0

        def advance(steps: int) -> None:
            nonlocal waiting
            waiting += steps
            if waiting >= total // 100:  # the bar shall not cost what it shows
                bar.advance(task, waiting)
                waiting = 0

        yield advance


def _plain_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    import click

    with click.progressbar(
        length=total, label=label, file=sys.stderr, show_pos=True, update_min_steps=total // 50 or 1
    ) as bar:
        yield bar.update
