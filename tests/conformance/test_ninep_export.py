"""The remote reads files of Linux: its service `digest` says what it got."""

from __future__ import annotations

import errno
import os
import random
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import pytest

import sbe
from sbe.testing.conformance.parts import LIMIT_S
from tests.conformance.ends import Connector


@pytest.fixture(autouse=True)
def _has_digest(connect: Connector) -> None:
    if not connect.firmware:
        pytest.skip("the remote has no service digest")


class Digest(NamedTuple):
    """What the remote answers."""

    size: int
    crc: int
    error: int


def digest(link: sbe.Connection, path: str, *buffers: sbe.Out, timeout: float = LIMIT_S) -> Digest:
    payload = link.call("digest", *buffers, payload=path.encode(), timeout=timeout).payload
    return Digest(*struct.unpack("<QIi", payload))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "exported"
    (made / "sub").mkdir(parents=True)
    for name, size in (("empty", 0), ("one", 1), ("sub/some", 100_003), ("large", 3_000_001)):
        (made / name).write_bytes(random.Random(size).randbytes(size))
    (made / "inside").symlink_to("sub/some")
    (tmp_path / "secret").write_bytes(b"secret")
    (made / "outside").symlink_to("../secret")
    os.mkfifo(made / "fifo")
    return made


def expected(path: Path) -> Digest:
    data = path.read_bytes()
    return Digest(len(data), zlib.crc32(data), 0)


def test_files_in_frames(link: sbe.Connection, folder: Path) -> None:
    with link.export_9p(folder):
        for name in ("empty", "one", "sub/some", "/sub//./some", "inside"):
            assert digest(link, name) == expected(folder / name.lstrip("/"))


def test_files_by_reference(link: sbe.Connection, folder: Path) -> None:
    area = link.allocate(70_000)
    with link.export_9p(folder):
        for name in ("empty", "one", "large"):
            assert digest(link, name, sbe.Out(area[100:])) == expected(folder / name)


def test_what_is_refused(link: sbe.Connection, folder: Path) -> None:
    with link.export_9p(folder):
        assert digest(link, "nothing").error == -errno.ENOENT
        assert digest(link, "sub/nothing/more").error == -errno.ENOENT
        assert digest(link, "one/more").error == -errno.ENOENT
        assert digest(link, "outside").error == -errno.EXDEV
        assert digest(link, "fifo").error == -errno.EPERM
        assert digest(link, "sub").error == -errno.EISDIR
        assert digest(link, "../secret").error == -errno.ENOENT
        for path in ("a/" * 17, "p" * 256, ""):
            with pytest.raises(sbe.RemoteError) as caught:
                digest(link, path)
            assert caught.value.code == errno.EINVAL
        assert digest(link, "one") == expected(folder / "one")


def test_nobody_exports(link: sbe.Connection, folder: Path) -> None:
    with pytest.raises(sbe.UnknownService):
        digest(link, "one")
    with link.export_9p(folder):
        assert digest(link, "one") == expected(folder / "one")
    with pytest.raises(sbe.UnknownService):
        digest(link, "one")


def test_several_at_a_time(link: sbe.Connection, folder: Path) -> None:
    with link.export_9p(folder):
        for _ in range(3):
            calls = [link.submit("digest", payload=b"sub/some") for _ in range(2)]
            payload = struct.pack("<QIi", *expected(folder / "sub/some"))
            assert [call.result(LIMIT_S).payload for call in calls] == [payload, payload]


def test_another_connection_exports(connect: Connector, folder: Path) -> None:
    if connect.name not in ("unix", "mps2-an521-unix"):
        pytest.skip("one context has it")
    exporter, user = connect(), connect()
    with exporter.export_9p(folder, "mine") as exported:
        with pytest.raises(sbe.UnknownService):
            digest(user, "one")
        shared = exported.share()
        while exported.sessions == 0:
            assert not shared.done()
        assert digest(user, "sub/some") == expected(folder / "sub/some")
        assert digest(user, "sub/some", sbe.Out(user.allocate(50_000))).error == 0
        assert digest(user, "outside").error == -errno.EXDEV
        with pytest.raises(sbe.RemoteError) as caught:
            exported.share().result(LIMIT_S)
        assert caught.value.code == errno.EEXIST
        shared.cancel()
        with pytest.raises(sbe.Cancelled):
            shared.result(LIMIT_S)
