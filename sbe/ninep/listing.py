"""Entries of a directory by getdents64(2), a piece at a time from any place."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterator

from sbe.ninep.attributes import Qid, is_shown, number, qid
from sbe.ninep.wire import DT, QID, pack

__all__ = ["entries"]

_PIECE = 1 << 14  # bytes at a time: some hundred entries, for which others wait
_PIECE_MIN = 1 << 10  # the longest record fits
_RECORD = struct.Struct("=QqHB")  # d_ino, d_off, d_reclen, d_type of linux_dirent64
_QIDS = {DT.DIR: QID.DIR, DT.FILE: QID.FILE, DT.LINK: QID.LINK}
_UNKNOWN = 0  # to the file system: stat() says


_libc = ctypes.CDLL(None, use_errno=True)
# musl has the one name, glibc the other.
_libc_getdents = getattr(_libc, "getdents64", None) or _libc.getdents


def entries(fd: int, place: int, limit: int) -> bytes:
    """Entries of a directory as Rreaddir has them, from this place on, which is 0 or was told of an
    entry before: at most so many bytes, none at the end. What is not shown is left out. Raises
    OSError, EINVAL where there is no room for one.

    The kernel knows the places, so nothing is kept of a directory, however large it is.
    """
    if place >= 1 << 63:
        raise OSError(errno.EINVAL, "no such place")
    here = os.fstat(fd)
    os.lseek(fd, place, os.SEEK_SET)
    data = bytearray()
    while not data and (found := _getdents(fd, max(_PIECE_MIN, min(limit, _PIECE)))):
        for inode, following, kind, name in _records(found):
            shown = _shown(fd, here, inode, kind, name)
            if shown is None:
                continue
            entry = pack("qQBs", shown[1], following, shown[0], name)
            if len(data) + len(entry) > limit:
                if not data:
                    raise OSError(errno.EINVAL, "no room for an entry")
                return bytes(data)
            data += entry
    return bytes(data)


def _getdents(fd: int, size: int) -> bytes:
    buffer = ctypes.create_string_buffer(size)
    got = _libc_getdents(ctypes.c_int(fd), buffer, ctypes.c_size_t(size))
    if got < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return buffer.raw[:got]


def _records(found: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    at = 0
    while at < len(found):
        inode, following, size, kind = _RECORD.unpack_from(found, at)
        yield inode, following, kind, found[at + _RECORD.size : at + size].partition(b"\0")[0]
        at += size


def _shown(
    fd: int, here: os.stat_result, inode: int, kind: int, name: bytes
) -> tuple[int, Qid] | None:
    """Its kind and qid; None: it is neither a file, a directory nor a link, or has just gone."""
    if name in (b".", b".."):
        return DT.DIR, qid(here)
    if kind == _UNKNOWN:
        try:
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except OSError:
            return None
        kind = stat.S_IFMT(found.st_mode) >> 12 if is_shown(found.st_mode) else _UNKNOWN
    if kind not in _QIDS:
        return None
    return kind, (_QIDS[DT(kind)], 0, number(inode, here.st_dev))
