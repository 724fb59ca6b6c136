"""`sbe 9p mount` where it can't: one line that says what to do. The rest needs a kernel with 9P."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sbe import errors
from sbe.cli import exit_codes
from sbe.kernel import mounts
from tests.integration.test_cli import Run, environment

__all__ = ["environment"]

HAS_9P = "\t9p\n" in Path("/proc/filesystems").read_text()


@pytest.mark.skipif(
    HAS_9P and os.geteuid() == 0, reason="it would mount: tests/rigs/kernel does that"
)
def test_without_privilege_or_kernel(environment: dict[str, str], tmp_path: Path) -> None:
    done = Run(environment, ["9p", "mount", "loopback:", tmp_path])
    assert done.out == ""
    assert done.err.count("\n") == 1
    assert f"mounting on {tmp_path}" in done.err
    if done.code == exit_codes.PERMISSION:
        assert "needs CAP_SYS_ADMIN: run it as root" in done.err
    else:
        assert done.code == exit_codes.FAILED
        assert "modprobe 9p 9pnet_fd" in done.err
    assert not os.path.ismount(tmp_path)


def test_what_can_not_be_mounted(environment: dict[str, str], tmp_path: Path) -> None:
    for words, code, said in [
        (["loopback:", tmp_path / "nowhere"], exit_codes.USAGE, "does not exist"),
        (["nowhere:", tmp_path], exit_codes.USAGE, "nowhere"),
        (["loopback:", tmp_path, "--msize", 1], exit_codes.USAGE, "--msize"),
        (["loopback:", tmp_path, "--service", "x"], exit_codes.UNKNOWN_SERVICE, "sbe list"),
        (["loopback:", tmp_path, "--service", "echo"], exit_codes.NO_LINK, "service of 9P files"),
    ]:
        done = Run(environment, ["9p", "mount", *words])
        assert (done.code, done.out) == (code, ""), done.err
        assert said in done.err


@pytest.mark.parametrize(
    ("code", "kind", "said"),
    [
        (errno.EPERM, errors.PermissionDenied, "CAP_SYS_ADMIN"),
        (errno.ENODEV, errors.Error, "this kernel has no 9P"),
        (errno.ENOTDIR, errors.BadArgument, "Not a directory"),
        (errno.EIO, errors.LinkError, "Input/output error"),
    ],
)
def test_refusals_of_the_kernel(code: int, kind: type[errors.Error], said: str) -> None:
    refused = mounts._refused(code, "/mnt")
    assert isinstance(refused, kind)
    assert (said in str(refused), refused.code) == (True, code)


def test_unmounting_what_is_not_mounted(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"Invalid|not permitted"):
        mounts.unmount(tmp_path)
