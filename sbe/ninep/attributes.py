"""What 9P2000.L says of a file: qids, attributes."""

from __future__ import annotations

import os
import stat

from sbe.ninep.wire import ATTRIBUTES, QID, pack

__all__ = ["Qid", "attributes", "is_shown", "number", "qid", "statistics"]

Qid = tuple[int, int, int]
"""Kind, version, and a number that no other file has."""
_S = 1_000_000_000


def is_shown(mode: int) -> bool:
    """It is a file, a directory or a link: whatever else there is stays closed."""
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)


def qid(found: os.stat_result) -> Qid:
    """Of a file. Its version changes with its content."""
    kind = QID.FILE
    if stat.S_ISDIR(found.st_mode):
        kind = QID.DIR
    elif stat.S_ISLNK(found.st_mode):
        kind = QID.LINK
    version = (found.st_mtime_ns ^ found.st_size) & 0xFFFFFFFF
    return kind, version, number(found.st_ino, found.st_dev)


def number(inode: int, device: int) -> int:
    """Of a qid."""
    return (inode ^ device << 44) & 0xFFFFFFFFFFFFFFFF


def attributes(found: os.stat_result) -> bytes:
    """The fields of Rgetattr; what stat() does not show is 0."""
    times = (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns, 0)
    return pack(
        "QqIIIQQQQQ" + "QQ" * len(times) + "QQ",
        *(ATTRIBUTES, qid(found), found.st_mode, found.st_uid, found.st_gid, found.st_nlink),
        *(found.st_rdev, found.st_size, found.st_blksize, found.st_blocks),
        *(part for time in times for part in divmod(max(time, 0), _S)),
        *(0, 0),
    )


def statistics(found: os.statvfs_result) -> bytes:
    """The fields of Rstatfs."""
    v9fs = 0x01021997
    return pack(
        "IIQQQQQQI",
        *(v9fs, found.f_bsize, found.f_blocks, found.f_bfree, found.f_bavail),
        *(found.f_files, found.f_ffree, found.f_fsid, found.f_namemax),
    )
