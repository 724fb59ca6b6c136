# SPDX-License-Identifier: Apache-2.0
"""The kernel's own 9P client mounts what a remote serves: `sbe 9p mount`."""

from __future__ import annotations

import contextlib
import errno
import filecmp
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.test_ninep import refused
from tests.rigs.kernel import parts

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(150)]
LIMIT_S = 60.0
LOST = (errno.EIO, errno.EPIPE, errno.ENOSPC)
"""What a writer is told when the transport is gone: v9fs passes on what its socket said, and the
disk may have been full before."""
MIB = 1 << 20


@contextmanager
def mounted(
    place: Path, uri: str = "loopback:", *, msize: int = MIB, expected: int = 130
) -> Iterator[subprocess.Popen[str]]:
    """The remote's files at a place, until Ctrl-C."""
    place.mkdir(exist_ok=True)
    with subprocess.Popen(
        [sys.executable, "-m", "sbe", "9p", "mount", uri, str(place), "--msize", str(msize)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        try:
            said = command.stdout.readline()
            assert said.startswith("mounted at"), said + command.stderr.read()
            yield command
            command.send_signal(signal.SIGINT)
            assert command.wait(LIMIT_S) == expected, command.stderr.read()
        finally:
            command.kill()
            command.wait(LIMIT_S)
    assert not os.path.ismount(place)


@pytest.fixture(params=["loopback", "rpmsg"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A remote of the guest's own, and a remote processor behind the kernel's rpmsg."""
    if request.param == "loopback":
        yield "loopback:"
        return
    with parts.running(tmp_path) as processor:
        yield f"rpmsg:{processor.name}"


def make_tree(top: Path, count: int) -> None:
    """So many files of several sizes, in directories."""
    source = random.Random(3)
    for number in range(count):
        folder = top / f"d{number % 3}" / f"e{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        size = source.choice([0, 1, 1000, 4096, 70_000, 300_000])
        (folder / f"file{number}").write_bytes(source.randbytes(size))
    (top / "d0" / "run").write_text("#!/bin/sh\necho it runs\n")
    (top / "d0" / "run").chmod(0o755)


def same(one: Path, other: Path) -> None:
    compared = filecmp.dircmp(one, other)
    assert [*compared.left_only, *compared.right_only, *compared.funny_files] == []
    _, mismatch, errors = filecmp.cmpfiles(one, other, compared.common_files, shallow=False)
    assert [*mismatch, *errors] == []
    for name in compared.common_dirs:
        same(one / name, other / name)


def test_a_tree_is_copied_and_compared(tmp_path: Path, uri: str) -> None:
    tree, place = tmp_path / "tree", tmp_path / "mnt"
    make_tree(tree, 18)
    with mounted(place, uri):
        assert set(os.listdir(place)) == {"log", "counters", "crash", "config", "ram"}
        subprocess.run(["cp", "-a", tree, place / "ram" / "tree"], check=True)
        same(tree, place / "ram" / "tree")
        copied = place / "ram" / "tree" / "d0" / "run"
        assert subprocess.run([copied], capture_output=True).stdout == b"it runs\n"
        assert copied.stat().st_mode & 0o7777 == 0o755
        os.rename(place / "ram" / "tree", place / "ram" / "moved")
        same(tree, place / "ram" / "moved")
        free = os.statvfs(place).f_bfree
        subprocess.run(["rm", "-r", place / "ram" / "moved"], check=True)
        assert os.listdir(place / "ram") == []
        assert os.statvfs(place).f_bfree > free
    if uri == "loopback:":
        return  # its remote ended with the command
    with mounted(place, uri):  # once more, and what one has written the next one finds
        (place / "ram" / "kept").write_text("here")
    with mounted(place, uri):
        assert (place / "ram" / "kept").read_text() == "here"
        (place / "ram" / "kept").unlink()


def write_refused(code: int) -> int:
    """What a program gets for a write that the server has refused so: from Linux 6.10 v9fs writes
    by netfs, which knows EIO alone. Opening says what was said in any case."""
    series = tuple(map(int, os.uname().release.split(".")[:2]))
    return errno.EIO if series >= (6, 10) else code


def test_files_of_the_firmware(tmp_path: Path) -> None:
    place = tmp_path / "mnt"
    with mounted(place):
        assert (place / "crash").read_bytes() == b""
        assert "messages" in (place / "counters").read_text()
        setting = place / "config" / "read_only"
        assert setting.read_text() == "0\n"
        with refused(write_refused(errno.ERANGE)):
            setting.write_text("7")
        assert setting.read_text() == "0\n"
        subprocess.run(["sh", "-c", f"echo 1 > {setting}"], check=True)
        with pytest.raises(OSError, match="Read-only file system"):
            (place / "ram" / "file").write_text("x")
        setting.write_text("0")
        assert "read-only" in (place / "log").read_text()
        with pytest.raises(PermissionError):
            (place / "new").write_text("x")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A file of 64 MiB, and what is in it. That much and more has the RAM of a remote on Linux."""
    path, data = tmp_path_factory.mktemp("large") / "file", random.Random(1).randbytes(64 * MIB)
    path.write_bytes(data)
    return path, data


@pytest.mark.parametrize("msize", [8192, 65536, MIB])
def test_large_files_at_each_size_of_messages(
    tmp_path: Path, uri: str, msize: int, large: tuple[Path, bytes]
) -> None:
    """By dd; all of it behind rpmsg, and the start of it in parts that fit no message. By messages
    of 8 KiB that is a quarter, unless there is time: SBE_NINEP_S."""
    source, data = large
    whole = 64 if msize > 8192 or "SBE_NINEP_S" in os.environ else 16
    with mounted(tmp_path / "mnt", uri, msize=msize):
        target = tmp_path / "mnt" / "ram" / "file"
        for block, count in ((MIB, 2 if uri == "loopback:" else whole), (50_000, 40)):
            dd = ["dd", f"bs={block}", f"count={count}", "status=none"]
            subprocess.run([*dd, f"if={source}", f"of={target}"], check=True)
            back = subprocess.run([*dd, f"if={target}"], stdout=subprocess.PIPE, check=True).stdout
            sums = [hashlib.sha256(each).digest() for each in (data[: block * count], back)]
            assert sums[0] == sums[1]
            target.unlink()


def test_eight_at_once_and_signals(tmp_path: Path) -> None:
    """Each copies, compares and removes; some are stopped by signals in the middle (Tflush)."""
    tree, place = tmp_path / "tree", tmp_path / "mnt"
    make_tree(tree, 6)
    script = 'cp -r "$0" "$1" && diff -r "$0" "$1" && rm -r "$1"'

    def copy_and_compare(to: Path) -> int:
        return subprocess.run(["sh", "-c", script, tree, to], timeout=120).returncode

    with mounted(place), ThreadPoolExecutor(16) as pool:
        runs = [pool.submit(copy_and_compare, place / "ram" / f"t{number}") for number in range(8)]
        for number in range(8):
            with subprocess.Popen(
                ["dd", "if=/dev/zero", f"of={place}/ram/z", "bs=64k", "count=400", "status=none"]
            ) as victim:
                time.sleep(number / 100)  # wherever it is then
                victim.send_signal(signal.SIGKILL if number % 2 else signal.SIGTERM)
                victim.wait(LIMIT_S)
        assert [run.result() for run in runs] == [0] * 8
        (place / "ram" / "z").unlink(missing_ok=True)
        assert os.listdir(place / "ram") == []


def children(parent: int) -> list[int]:
    """Processes that it has started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent:
                found.append(int(entry.name))
    return found


def test_the_remote_is_killed_under_load(tmp_path: Path) -> None:
    place = tmp_path / "mnt"
    with mounted(place, expected=3) as command:
        (remote,) = children(command.pid)
        writers = [
            subprocess.Popen(
                ["dd", "if=/dev/zero", f"of={place}/ram/{number}", "bs=256k", "status=none"],
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(4)
        ]
        parts.until(lambda: len(os.listdir(place / "ram")) == 4, LIMIT_S)
        os.kill(remote, signal.SIGKILL)
        for writer in writers:
            _, said = writer.communicate(timeout=LIMIT_S)
            assert writer.returncode == 1
            assert any(os.strerror(error) in said for error in LOST), said
        assert command.wait(LIMIT_S) == 3
    with mounted(place):
        assert os.listdir(place / "ram") == []
