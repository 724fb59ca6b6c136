# SPDX-License-Identifier: Apache-2.0
"""The kernel's own 9P client at a bridge, and behind that a server of others, and one that lies."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import signal
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import sbe
from sbe.kernel.mounts import mount_9p, unmount
from tests.integration import ninep
from tests.integration.ninep import LIMIT_S, Served, text
from tests.integration.ninep_service import DATA, Asked, Diod, Liar, Service, lying
from tests.integration.test_ninep import refused
from tests.integration.test_ninep_diod import ByPath
from tests.integration.test_ninep_lies import LIES, with_data
from tests.rigs.kernel.test_ninep import make_tree, same
from tests.rigs.kernel.test_ninep_random import Calls

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(150)]


@pytest.fixture
def liar(tmp_path: Path) -> Iterator[Liar]:
    (tmp_path / "folder").mkdir()
    with lying(tmp_path / "folder") as found:
        yield found


@contextmanager
def mounted(place: Path, link: sbe.Connection) -> Iterator[Served]:
    """What its service serves, at a place."""
    place.mkdir(exist_ok=True)
    served = Served(link)
    try:
        mount_9p(served.client.socket, place, msize=1 << 20)
        served.client.socket.close()  # the kernel has it
        try:
            yield served
        finally:
            unmount(place)
    finally:
        served.close()


def test_a_server_that_others_wrote(tmp_path: Path) -> None:
    exported, tree = tmp_path / "exported", tmp_path / "tree"
    (exported / "ram").mkdir(parents=True)
    make_tree(tree, 5)
    with (
        contextlib.closing(Diod(exported)) as diod,
        Service(diod.handler) as remote,
        remote.link() as link,
        mounted(tmp_path / "mnt", link) as served,
    ):
        place = tmp_path / "mnt"
        subprocess.run(["cp", "-r", tree, place / "tree"], check=True)
        same(tree, place / "tree")
        same(tree, exported / "tree")
        subprocess.run(["rm", "-r", place / "tree"], check=True)
        both = ByPath(Calls(place), random.Random(1))
        for _ in range(80):
            both.step()
        both.check()
        both.clear()
        assert os.listdir(exported) == ["ram"]
    assert served.error is None


def use(place: Path) -> None:
    """What has each type of message sent that a lie is told about."""
    assert "data" in os.listdir(place)
    assert (place / "data").read_bytes() == DATA
    os.statvfs(place)


def fails(function: Callable[[Path], object], place: Path) -> bool:
    try:
        function(place)
    except OSError:
        return True
    return False


def test_lies(tmp_path: Path, liar: Liar) -> None:
    """A program gets an error, the bridge says why, and it is unmounted as ever."""
    for kind, lie, words in LIES:

        def tell(asked: Asked, honest: bytes, lie: Callable[[bytes], bytes] = lie) -> None:
            asked.answer(lie(honest))

        with mounted(tmp_path / "mnt", liar.link) as served:
            use(tmp_path / "mnt")
            liar.lies = {kind: tell}
            assert fails(use, tmp_path / "mnt"), words
            assert fails(os.stat, tmp_path / "mnt" / "folder")  # the session is over
            liar.lies.clear()
        assert isinstance(served.error, sbe.ProtocolError)


@pytest.mark.parametrize("name", [b"a/b", b"../../etc/passwd", b""])
def test_names_that_can_not_be(tmp_path: Path, liar: Liar, name: bytes) -> None:
    entry = struct.pack("<BIQQB", 0, 0, 1, 1, 8) + text(name)
    with mounted(tmp_path / "mnt", liar.link):
        liar.lies = {ninep.READDIR: lambda asked, honest: asked.answer(with_data(honest, entry))}
        with refused(errno.EIO):
            os.listdir(tmp_path / "mnt")
        liar.lies.clear()
        use(tmp_path / "mnt")


@pytest.mark.parametrize("first", ["Rflush", "Rread"])
def test_a_signal_in_the_middle_of_a_read(tmp_path: Path, liar: Liar, first: str) -> None:
    """The kernel sends Tflush; what it flushes is answered before that or behind it."""
    with mounted(tmp_path / "mnt", liar.link):
        for _ in range(9):  # more often than there are places for data
            liar.lies = {ninep.READ: liar.hold, ninep.FLUSH: liar.hold}
            with subprocess.Popen(["cat", tmp_path / "mnt" / "data"]) as reader:
                read = liar.take_held()
                reader.kill()
                flush = liar.take_held()
                assert flush[0].kind == ninep.FLUSH
                liar.lies.clear()  # it may go on for some messages more
                answers = [read, flush] if first == "Rread" else [flush, read]
                for asked, honest in answers:
                    asked.answer(honest)
                assert reader.wait(LIMIT_S) == -signal.SIGKILL
            use(tmp_path / "mnt")
