"""Buffers, payloads and numbers as they are written on the command line."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sbe.cli.figures import parse_size
from sbe.errors import BadArgument
from sbe.host.files import read_file, read_stream

__all__ = [
    "INPUT_MAX",
    "PAYLOAD_MAX",
    "Output",
    "hex_dump",
    "pack",
    "parse_output",
    "read_data",
    "write_file",
]

_ITEM = re.compile(r"(\d*)([xcbB?hHiIlLqQnNefdsp])")


INPUT_MAX = min(1 << 30, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 8)
"""Bytes of all buffers of a call: they are in memory twice, once as an area."""
PAYLOAD_MAX = 1 << 20
"""Bytes of a payload that are looked at; no frame holds as many."""


def read_data(text: str, limit: int = INPUT_MAX, hint: str = "") -> bytes:
    """What hex:..., text:..., - (standard input) or a file's name stands for.

    Raises BadArgument for more than `limit` bytes, which ends with `hint`.
    """
    kind, separator, rest = text.partition(":")
    if separator and kind == "hex":
        try:
            return bytes.fromhex(rest)
        except ValueError:
            raise BadArgument(f"{text!r}: hex: takes pairs of hexadecimal digits") from None
    if separator and kind == "text":
        return os.fsencode(rest)
    if text == "-":
        if sys.stdin is None:
            raise BadArgument("standard input is closed")
        return read_stream(sys.stdin.buffer, "standard input", limit, hint)
    return read_file(rest if separator and kind == "file" else text, limit, hint)


@dataclass(frozen=True)
class Output:
    """Room for a result; without a file it is shown."""

    size: int
    file: Path | None


def parse_output(text: str) -> Output:
    """N or FILE:N."""
    name, separator, size = text.rpartition(":")
    if separator and not name:
        raise BadArgument(f"{text!r}: say N or FILE:N")
    try:
        output = Output(parse_size(size), Path(name) if separator else None)
    except BadArgument:
        raise BadArgument(f"{text!r}: say N or FILE:N, with N bytes as in 4096 or 16K") from None
    if output.file is not None and not output.file.parent.is_dir():
        raise BadArgument(f"{text!r}: there is no folder {output.file.parent}")
    return output


def write_file(path: Path, data: Any) -> None:
    """Writes the whole file, or leaves what there was. What is no plain file is written to."""
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    target = path.resolve()
    try:
        fd, name = tempfile.mkstemp(prefix=f".{target.name[:100]}.", dir=target.parent)
    except OSError as error:
        error.filename = os.fspath(path)
        raise
    try:
        with open(fd, "wb") as file:
            file.write(data)
        os.chmod(name, _mode(target))
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _mode(path: Path) -> int:
    """The mode of the file that is replaced, or that of a new one."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mode & 0o7777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def pack(form: str, values: Sequence[str]) -> bytes:
    """struct.pack() of words of the command line. Raises BadArgument."""
    kinds = _kinds(form)
    if len(kinds) != len(values):
        raise BadArgument(f"--struct {form!r} takes {len(kinds)} values, {len(values)} are given")
    converted = [_convert(kind, value) for kind, value in zip(kinds, values, strict=True)]
    try:
        return struct.pack(form, *converted)
    except (struct.error, OverflowError) as error:
        raise BadArgument(f"--struct {form!r}: {error}") from None


def _kinds(form: str) -> str:
    """The format character of each value."""
    try:
        if struct.calcsize(form) > 1 << 20:
            raise BadArgument(f"--struct {form!r} is larger than any frame")
    except struct.error as error:
        raise BadArgument(f"--struct {form!r}: {error}; as Python's struct, '<II' say") from None
    kinds = ""
    for count, kind in _ITEM.findall(form):
        if kind in "sp":
            kinds += kind
        elif kind != "x":
            kinds += kind * (int(count) if count else 1)
    return kinds


def _convert(kind: str, value: str) -> int | float | bytes | bool:
    try:
        if kind in "spc":
            return os.fsencode(value)
        if kind in "efd":
            return float(value)
        number = int(value, 0)
        return bool(number) if kind == "?" else number
    except ValueError:
        raise BadArgument(f"{value!r} is no number for {kind!r} of --struct") from None


def hex_dump(data: bytes, limit: int = 256) -> list[str]:
    """Lines of offset, 16 bytes in hexadecimal and as ASCII; what is left out is said."""
    lines = []
    for offset in range(0, min(len(data), limit), 16):
        row = data[offset : min(offset + 16, limit)]
        digits = f"{row[:8].hex(' ')}  {row[8:].hex(' ')}".rstrip()
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{offset:08x}  {digits:<48}  |{text}|")
    if len(data) > limit:
        lines.append(f"... and {len(data) - limit:,} bytes more")
    return lines
