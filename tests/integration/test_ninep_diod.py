"""diod, a 9P server that others wrote: what our client expects of one, and the bridge of it."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

import sbe
from tests.integration import ninep
from tests.integration import test_ninep as ours
from tests.integration.ninep import Client, served
from tests.integration.ninep_service import Diod, Service
from tests.integration.test_ninep import refused
from tests.integration.test_ninep_model import Both


class Older(Client):
    """As the kernel's client asks a server that lacks Tunlinkat and Trenameat, and opens what is
    there unless it is told not to."""

    def create(
        self, path: str, flags: int = os.O_RDWR | os.O_EXCL, mode: int = 0o644, gid: int = 0
    ) -> int:
        return super().create(path, flags, mode, gid)

    def unlink(self, path: str, flags: int = 0) -> None:
        self.ask(ninep.REMOVE, struct.pack("<I", self.walk(path)))

    def rename(self, old: str, new: str) -> None:
        folder, _, name = new.rpartition("/")
        with self.fid(old) as fid, self.fid(folder) as there:
            self.ask(ninep.RENAME, struct.pack("<II", fid, there) + ninep.text(name))


class ByPath(Both):
    """The model of a server that has files by their paths: none is open as those change."""

    def close_all(self) -> None:
        for fid in self.model.opened:
            self.client.clunk(fid)
        self.model.opened.clear()

    def remove(self) -> None:
        self.close_all()
        super().remove()

    def rename(self) -> None:
        self.close_all()
        super().rename()


@pytest.fixture
def link(tmp_path: Path) -> Iterator[sbe.Connection]:
    """A link whose service of files is diod's, with one folder, `ram`."""
    (tmp_path / "ram").mkdir()
    with (
        contextlib.closing(Diod(tmp_path)) as diod,
        Service(diod.handler) as remote,
        remote.link() as connection,
    ):
        yield connection


@contextlib.contextmanager
def client_of(link: sbe.Connection, msize: int = 1 << 20) -> Iterator[Client]:
    with served(link, msize) as client:
        client.__class__ = Older
        yield client


@pytest.mark.parametrize("msize", [4096 + 24, 8192, 65536, 1 << 20])
def test_content(link: sbe.Connection, msize: int, tmp_path: Path) -> None:
    data = random.Random(msize).randbytes(300_001)
    with client_of(link, msize) as client:
        assert client.msize == min(msize, 65536)  # the most it has
        client.write("ram/file", data)
        assert client.read("ram/file") == data == (tmp_path / "ram" / "file").read_bytes()
        client.mkdir("ram/folder")
        assert client.names("ram") == {"file", "folder"}
        with refused(errno.ENOENT):
            client.read("ram/nothing")
        with refused(errno.EEXIST):
            client.mkdir("ram/folder")


def test_append_and_truncate(link: sbe.Connection) -> None:
    with client_of(link) as client:
        ours.test_append_and_truncate(client)


def test_many_at_once(link: sbe.Connection) -> None:
    """They are answered in any order: it has many threads."""
    source = random.Random(1)
    data = source.randbytes(1 << 20)
    with client_of(link) as client:
        client.write("ram/file", data)
        with client.opened("ram/file") as fid:
            expected = {}
            for tag in range(64):
                offset, count = source.randrange(1 << 20), source.choice([1, 500, 5000, 60_000])
                client.send(ninep.READ, struct.pack("<IQI", fid, offset, count), tag)
                expected[tag] = data[offset : offset + count]
            while expected:
                kind, tag, body = client.receive()
                assert (kind, body[4:]) == (ninep.READ + 1, expected.pop(tag))


@pytest.mark.parametrize("seed", range(3))
def test_operations_at_random(link: sbe.Connection, seed: int) -> None:
    with client_of(link) as client:
        both = ByPath(client, random.Random(seed))
        for number in range(600):
            both.step()
            if number % 200 == 0:
                both.check()
        both.check()
        both.clear()
        assert client.names("ram") == set()
