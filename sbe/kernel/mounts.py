"""Mounting what a socket serves by 9P, with mount(2)."""

from __future__ import annotations

import ctypes
import errno
import os
import socket

from sbe import errors

__all__ = ["mount_9p", "unmount"]

_DETACH = 2  # MNT_DETACH of sys/mount.h
_NOSUID, _NODEV = 2, 4


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def mount_9p(
    sock: socket.socket, place: str | os.PathLike[str], *, msize: int, cache: str = "none"
) -> None:
    """Mounts the file system that is served at the other end of a connected socket.

    Returns once that end has answered; the kernel keeps the socket, the caller may close its own.
    `cache` as in the documentation of v9fs: "none", or "mmap" for programs that map files. Raises
    PermissionDenied without CAP_SYS_ADMIN, `sbe.Error` with code ENODEV where the kernel has no 9P,
    BadArgument for a place that can't be.
    """
    fd = sock.fileno()
    options = (
        f"trans=fd,rfdno={fd},wfdno={fd},version=9p2000.L,msize={msize},access=user,"
        f"uname=root,cache={cache}"
    )
    target = os.fsencode(place)
    if b"\0" in target:
        raise errors.BadArgument(f"{place!r} is no path")
    done = _libc().mount(b"sbe", target, b"9p", _NOSUID | _NODEV, options.encode())
    if done != 0:
        raise _refused(ctypes.get_errno(), place)


def _refused(code: int, place: str | os.PathLike[str]) -> errors.Error:
    what = f"mounting on {os.fspath(place)}"
    if code in (errno.EPERM, errno.EACCES):
        return errors.PermissionDenied(f"{what} needs CAP_SYS_ADMIN: run it as root", code)
    if code in (errno.ENODEV, errno.EPROTONOSUPPORT):
        return errors.Error(
            f"{what}: this kernel has no 9P over descriptors (modprobe 9p 9pnet_fd)", code
        )
    if code in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
        return errors.BadArgument(f"{what}: {os.strerror(code)}", code)
    return errors.LinkError(f"{what}: {os.strerror(code)}", code)


def unmount(place: str | os.PathLike[str], *, detach: bool = False) -> None:
    """Unmounts it. Raises Busy while files there are open, unless it is only to leave the tree now,
    `detach`, and to end with the last of them. OSError for anything else.
    """
    if _libc().umount2(os.fsencode(place), _DETACH if detach else 0) != 0:
        code = ctypes.get_errno()
        if code == errno.EBUSY:
            raise errors.Busy(f"{os.fspath(place)} is in use", code)
        raise OSError(code, os.strerror(code), os.fspath(place))
