"""An honest client beside every attack: its answers are right, its memory stays, it gets on.

    python -m tests.faults.bystander URI PROGRESS

goes round and round over the daemon until it is killed. Each round is one call of each kind, and
is counted in the file PROGRESS, so that whoever attacks can tell how far it has come without a
clock. The first wrong byte, error or hang ends it, with words on stderr.
"""

from __future__ import annotations

import mmap
import subprocess
import sys
import time
import zlib
from pathlib import Path

import sbe

__all__ = ["SECRET", "Bystander"]

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60.0  # a generous limit that turns a hang into a failure
SECRET = b"the bystander's own"  # all of its memory is full of it, and nobody else may see it
_ODD = 8  # rounds after each of which areas and services are asked for as well
_MARGIN = 4096  # bytes of canaries on either side of what is worked on
_WORKED = 8192


class Bystander:
    """The process, seen from the test."""

    def __init__(self, uri: str, folder: Path) -> None:
        self._errors = folder / "bystander.err"
        progress = folder / "bystander.rounds"
        progress.write_bytes(bytes(8))
        with progress.open("r+b") as file:
            self._rounds = mmap.mmap(file.fileno(), 8)
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.bystander", uri, str(progress)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stderr=errors,
            )

    @property
    def rounds(self) -> int:
        """That it has done, each of them right."""
        self.check()
        return int.from_bytes(self._rounds, "little")

    def check(self) -> None:
        """It has met nothing wrong so far."""
        assert self.process.poll() is None, self._errors.read_text()

    def goes_on(self, rounds: int = 3) -> None:
        """Waits until it has done so many more."""
        until, goal = time.monotonic() + SECONDS, self.rounds + rounds
        while self.rounds < goal:
            assert time.monotonic() < until, f"{self.rounds} rounds, not {goal}"
            time.sleep(0.001)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._rounds.close()


def _full(size: int) -> bytes:
    return (SECRET * (size // len(SECRET) + 1))[:size]


class _Rounds:
    """What is done in each, and what must come of it."""

    def __init__(self, link: sbe.Connection) -> None:
        self.link = link
        size = _WORKED + 2 * _MARGIN
        self.area = link.allocate(size)
        self.area[:] = _full(size)
        self.expected = bytearray(_full(size))

    def echo(self, count: int) -> None:
        payload = SECRET + count.to_bytes(8, "little")
        assert self.link.call("echo", payload=payload, timeout=SECONDS).payload == payload

    def invert(self, count: int) -> None:
        worked = slice(_MARGIN, _MARGIN + _WORKED)
        self.link.call("invert", sbe.InOut(self.area[worked]), timeout=SECONDS)
        self.expected[worked] = bytes(byte ^ 0xFF for byte in self.expected[worked])

    def crc32(self, count: int) -> None:
        reply = self.link.call("crc32", sbe.In(self.area), timeout=SECONDS)
        assert int.from_bytes(reply.payload, "little") == zlib.crc32(self.expected)

    def inline(self, count: int) -> None:
        """By way of memory that all contexts share in the remote: of what is in a frame."""
        target = bytearray(len(SECRET))
        self.link.call("copy", sbe.In(SECRET), sbe.Out(target), timeout=SECONDS)
        assert target == SECRET

    def control(self, count: int) -> None:
        if count % _ODD == 0:
            other = self.link.allocate(4096)
            assert not any(bytes(other))
            other.free()
            assert self.link.find("echo").name == "echo"

    def run(self, progress: mmap.mmap) -> None:
        count = 0
        while True:
            for part in (self.echo, self.invert, self.crc32, self.inline, self.control):
                part(count)
            assert bytes(self.area) == self.expected, "its memory was changed"
            assert self.link.stat()["connection"]["losses"] == 0
            count += 1
            progress[:] = count.to_bytes(8, "little")
            time.sleep(0.001)  # there are others on this machine


def main(uri: str, path: str) -> None:
    with open(path, "r+b") as file:
        progress = mmap.mmap(file.fileno(), 8)
    with sbe.connect(uri, timeout=SECONDS) as link:
        _Rounds(link).run(progress)


if __name__ == "__main__":
    main(*sys.argv[1:])
