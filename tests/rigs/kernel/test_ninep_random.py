# SPDX-License-Identifier: Apache-2.0
"""Operations at random by the kernel's own 9P client, beside a model.

SBE_NINEP_S=60 runs each for so many seconds, from another seed each time; SBE_NINEP_SEED=n from
that one.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.integration.test_ninep_model import Both
from tests.rigs.kernel.test_ninep import MIB, mounted

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]
SECONDS = float(os.environ.get("SBE_NINEP_S", "0"))
LENGTH_MAX = 300_000  # of the one file: many messages of the smallest size


@contextmanager
def seeded(usual: int) -> Iterator[random.Random]:
    """The source of a run; what fails in it says from which seed."""
    given = os.environ.get("SBE_NINEP_SEED")
    seed = int(given) if given else random.SystemRandom().randrange(1 << 32) if SECONDS else usual
    try:
        yield random.Random(seed)
    except BaseException as error:
        error.add_note(f"again by SBE_NINEP_SEED={seed}")
        raise


def steps(usual: int) -> Iterator[int]:
    """So many, or as many as there is time for."""
    end = time.monotonic() + SECONDS
    number = 0
    while time.monotonic() < end if SECONDS else number < usual:
        yield number
        number += 1


class OneFile:
    """A file of that the kernel shows, several descriptors of it, and what has to be in it."""

    def __init__(self, path: Path, source: random.Random) -> None:
        self.path, self.source = path, source
        self.content = bytearray()
        self.fds = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)]

    def fd(self) -> int:
        return self.source.choice(self.fds)

    def size(self) -> int:
        """Often one at the edge of something."""
        near = self.source.choice([0, 512, 4096, 8192 - 24, 8192 - 11, 65536])
        return self.source.choice(
            [self.source.randrange(70_000), max(0, near + self.source.randint(-1, 1))]
        )

    def offset(self) -> int:
        return self.source.choice([self.source.randrange(LENGTH_MAX), len(self.content), 0])

    def write(self) -> None:
        offset = self.offset()
        data = self.source.randbytes(min(self.size(), LENGTH_MAX - offset))
        assert os.pwrite(self.fd(), data, offset) == len(data)
        if data:
            self.content.extend(bytes(max(0, offset - len(self.content))))
            self.content[offset : offset + len(data)] = data

    def append(self) -> None:
        data = self.source.randbytes(min(self.size(), LENGTH_MAX - len(self.content)))
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            assert os.write(fd, data) == len(data)
        finally:
            os.close(fd)
        self.content += data

    def read(self) -> None:
        offset, size = self.offset(), self.size()
        assert os.pread(self.fd(), size, offset) == self.content[offset : offset + size]

    def truncate(self) -> None:
        size = self.source.randrange(LENGTH_MAX)
        if self.source.random() < 0.5:
            os.ftruncate(self.fd(), size)
        else:
            os.truncate(self.path, size)
        self.content.extend(bytes(max(0, size - len(self.content))))
        del self.content[size:]

    def empty(self) -> None:
        os.close(os.open(self.path, os.O_RDWR | os.O_TRUNC))
        self.content.clear()

    def reopen(self) -> None:
        """Another descriptor; of more than three one is closed."""
        self.fds.append(os.open(self.path, os.O_RDWR))
        if len(self.fds) > 3:
            os.close(self.fds.pop(self.source.randrange(len(self.fds))))

    def sync(self) -> None:
        os.fsync(self.fd())

    def look(self) -> None:
        assert os.fstat(self.fd()).st_size == self.path.stat().st_size == len(self.content)

    def check(self) -> None:
        assert self.path.read_bytes() == self.content

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.path.unlink()


@pytest.mark.parametrize(("msize", "usual"), [(8192, 100), (MIB, 120)])
def test_one_file(tmp_path: Path, msize: int, usual: int) -> None:
    with mounted(tmp_path / "mnt", msize=msize), seeded(msize) as source:
        one = OneFile(tmp_path / "mnt" / "ram" / "file", source)
        seldom = [one.truncate, one.append, one.reopen, one.sync, one.look, one.empty]
        for number in steps(usual):
            source.choice([*seldom, *[one.write] * 4, *[one.read] * 4])()
            if number % 50 == 0:
                one.check()
        one.check()
        one.close()


class Size(NamedTuple):
    """What the model looks at of a file."""

    size: int


class Calls:
    """The calls that the model of a tree makes of a 9P client, made of the kernel."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def create(self, path: str) -> int:
        return os.open(self._place / path, os.O_RDWR | os.O_CREAT | os.O_EXCL)

    def clunk(self, fd: int) -> None:
        os.close(fd)

    def mkdir(self, path: str) -> None:
        (self._place / path).mkdir()

    def rmdir(self, path: str) -> None:
        (self._place / path).rmdir()

    def unlink(self, path: str) -> None:
        (self._place / path).unlink()

    def rename(self, old: str, new: str) -> None:
        os.rename(self._place / old, self._place / new)

    def truncate(self, path: str, size: int) -> None:
        os.truncate(self._place / path, size)

    def write_at(self, fd: int, offset: int, data: bytes) -> int:
        return os.pwrite(fd, data, offset)

    def read_at(self, fd: int, offset: int, count: int) -> bytes:
        return os.pread(fd, count, offset)

    def attributes_of(self, fd: int) -> Size:
        return Size(os.fstat(fd).st_size)

    def read(self, path: str) -> bytes:
        return (self._place / path).read_bytes()

    def names(self, path: str) -> set[str]:
        return set(os.listdir(self._place / path))


def use_tree(place: Path, source: random.Random, usual: int) -> None:
    """Many operations below `ram` of this place, which is there and empty again."""
    both = Both(Calls(place), source)
    for number in steps(usual):
        both.step()
        if number % 100 == 0:
            both.check()
    both.check()
    both.clear()


def test_a_tree(tmp_path: Path) -> None:
    place = tmp_path / "mnt"
    with mounted(place), seeded(1) as source:
        free = os.statvfs(place)
        use_tree(place, source, 400)
        left = os.statvfs(place)
        assert (left.f_bfree, left.f_ffree) == (free.f_bfree, free.f_ffree)


def test_eight_trees_at_once(tmp_path: Path) -> None:
    """By eight processes."""
    place = tmp_path / "mnt"
    with mounted(place), seeded(2) as source:
        children = []
        for number in range(8):
            (place / "ram" / str(number) / "ram").mkdir(parents=True)
            own = random.Random(source.randrange(1 << 32))
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    use_tree(place / "ram" / str(number), own, 60)
                    status = 0
                except BaseException:
                    import traceback

                    traceback.print_exc()
                finally:
                    os._exit(status)
            children.append(child)
        ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert ended == [0] * 8
        for number in range(8):
            (place / "ram" / str(number) / "ram").rmdir()
