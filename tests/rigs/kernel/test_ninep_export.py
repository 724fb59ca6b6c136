# SPDX-License-Identifier: Apache-2.0
"""The kernel's own 9P client uses a folder as it is exported to firmware."""

from __future__ import annotations

import errno
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sbe.kernel.mounts import mount_9p, unmount
from sbe.ninep import Quota
from tests.integration.test_ninep import refused
from tests.rigs.kernel.test_ninep import make_tree, same, write_refused
from tests.unit.test_ninep_session import Served

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(150)]


@contextmanager
def mounted(folder: Path, place: Path, *, msize: int = 1 << 20, **how: object) -> Iterator[Served]:
    """The folder once more, at a place."""
    place.mkdir(exist_ok=True)
    served = Served(folder, **how)  # type: ignore[arg-type]
    try:
        mount_9p(served.client.socket, place, msize=msize)
        try:
            yield served
        finally:
            unmount(place)
        assert served.quota.open_files == Quota().open_files
    finally:
        served.close()


@pytest.mark.parametrize("msize", [8192, 1 << 20])
def test_a_tree_is_read(tmp_path: Path, msize: int) -> None:
    folder, place = tmp_path / "exported", tmp_path / "mnt"
    make_tree(folder, 18)
    (folder / "many").mkdir()
    for number in range(500):
        (folder / "many" / f"a name that is somewhat longer {number}").touch()
    (folder / "link").symlink_to("d0/run")
    os.mkfifo(folder / "fifo")
    with mounted(folder, place, msize=msize):
        assert os.readlink(place / "link") == "d0/run"
        assert (place / "link").read_bytes() == (folder / "link").read_bytes()
        assert "fifo" not in os.listdir(place)
        with refused(errno.EPERM):
            (place / "fifo").stat()
        assert len(os.listdir(place / "many")) == 500
        subprocess.run(["cp", "-r", place, tmp_path / "copy"], check=True)
        for change in (
            lambda: (place / "new").touch(),
            lambda: (place / "link").unlink(),
            lambda: (place / "many").rename(place / "few"),
            lambda: (place / "d0" / "run").write_bytes(b""),
        ):
            with refused(errno.EROFS):
                change()
    (folder / "fifo").unlink()
    same(folder, tmp_path / "copy")


@pytest.mark.parametrize("msize", [8192, 1 << 20])
def test_a_tree_is_written(tmp_path: Path, msize: int) -> None:
    folder, place, tree = tmp_path / "exported", tmp_path / "mnt", tmp_path / "tree"
    folder.mkdir()
    make_tree(tree, 18)
    data = random.Random(7).randbytes(3_000_001)
    with mounted(folder, place, msize=msize, writable=True):
        subprocess.run(["cp", "-a", tree, place / "tree"], check=True)
        same(tree, folder / "tree")
        assert (folder / "tree" / "d0" / "run").stat().st_mode & 0o777 == 0o755
        (place / "large").write_bytes(data)
        assert (folder / "large").read_bytes() == data == (place / "large").read_bytes()
        with (place / "large").open("ab") as file:
            file.write(b"and more")
            os.fsync(file.fileno())
        assert (folder / "large").read_bytes()[-10:] == data[-2:] + b"and more"
        os.truncate(place / "large", 5)
        assert (folder / "large").read_bytes() == data[:5]
        os.rename(place / "tree", place / "moved")
        same(tree, folder / "moved")
        subprocess.run(["rm", "-r", place / "moved"], check=True)
        assert os.listdir(folder) == ["large"]


def test_quota_as_a_program_sees_it(tmp_path: Path) -> None:
    folder, place = tmp_path / "exported", tmp_path / "mnt"
    folder.mkdir()
    quota = Quota(written_bytes=100_000)
    with mounted(folder, place, writable=True, quota=quota):
        (place / "fits").write_bytes(bytes(50_000))
        with refused(write_refused(errno.EDQUOT)):
            (place / "more").write_bytes(bytes(60_000))
        assert (folder / "fits").stat().st_size == 50_000
