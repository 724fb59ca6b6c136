"""Files as they come: without an end, with a byte order mark, in folders that others can write."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from sbe import errors
from sbe._native import SignalsLet

__all__ = [
    "check_unshared",
    "is_path",
    "owner",
    "parse_json",
    "private_folder",
    "read_file",
    "read_stream",
    "read_toml",
]

_CHUNK = 1 << 20
_LINKS_MAX = 40  # that the kernel follows
_CONFIG_MAX = 1 << 20  # bytes of a configuration; real ones have a few thousand


def read_file(path: str | os.PathLike[str], limit: int, hint: str = "") -> bytes:
    """All of a file. Raises OSError with its name, BadArgument when it has more than `limit` bytes.

    `hint` ends that message: what to do then.
    """
    try:
        # It may wait: a pipe that nobody writes, a disk that is gone.
        with SignalsLet(), open(path, "rb", buffering=0) as file:
            return read_stream(file, os.fspath(path), limit, hint)
    except OSError as error:
        error.filename = os.fspath(path)  # a read that fails does not say of what
        raise


def read_stream(file: BinaryIO, name: str, limit: int, hint: str = "") -> bytes:
    """What comes until the end of a stream, which may have none: at most `limit` bytes are taken.

    Raises BadArgument when there is more, OSError.
    """
    size = _size(file)
    pieces: list[bytes] = []
    taken = 0
    while size <= limit and taken <= limit:
        piece = file.read(min(max(size + 1 - taken, _CHUNK), limit + 1 - taken))
        if not piece:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.append(piece)
        taken += len(piece)
    has = (
        f"{size:,} bytes, more than the {limit:,} that are taken"
        if size > limit
        else f"no end, or more than the {limit:,} bytes that are taken"
    )
    raise errors.BadArgument(f"{name} has {has}{f': {hint}' if hint else ''}", errno.EFBIG)


def _size(file: BinaryIO) -> int:
    """Bytes of a plain file; 0 where only reading tells."""
    try:
        found = os.fstat(file.fileno())
    except OSError:  # of a stream that is no file
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


def parse_json(data: str | bytes) -> Any:
    """What JSON stands for. Raises ValueError for all that is none, however deep it is nested."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None


def is_path(text: str) -> bool:
    """Whether it could be one: no NUL, nothing that has no bytes."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The tables of a TOML file. Raises BadArgument which says why not."""
    import tomllib  # on use: few programs have a configuration

    name = os.fspath(path)
    try:
        data = read_file(path, _CONFIG_MAX)
    except OSError as error:
        raise errors.BadArgument(f"{name}: can't be read: {error.strerror}", error.errno) from error
    try:
        return tomllib.loads(data.decode("utf-8-sig"))  # editors leave marks
    except UnicodeDecodeError as error:
        why = f"no UTF-8 from byte {error.start} on; save it as UTF-8"
    except RecursionError:
        why = "its brackets are nested too deeply"
    except ValueError as error:  # TOMLDecodeError, and numbers with too many digits
        why = str(error)
    raise errors.BadArgument(f"{name}: is no valid TOML: {why}")


def owner(path: str | os.PathLike[str]) -> str:
    """Whose a file is, for people; a link is looked at itself."""
    try:
        uid = os.lstat(path).st_uid
    except OSError:
        return "nobody that can be seen"
    return user(uid)


def user(uid: int) -> str:
    """A user for people: its name where it has one."""
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"


@contextlib.contextmanager
def private_folder(path: Path, *, make: bool = False) -> Iterator[int]:
    """A descriptor of a folder in which nobody else can put anything, inside the block.

    What is inside may be relied on as this user's own. Raises PermissionDenied for one that others
    made or can write, FileNotFoundError for one that is not there, OSError.
    """
    if make:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
    _check_parent(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise errors.PermissionDenied(
                f"{path} is a link or a file of {owner(path)}, a folder of {user(os.geteuid())} is "
                "needed there: remove it, or name another place in XDG_RUNTIME_DIR"
            ) from error
        raise
    try:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid():
            raise errors.PermissionDenied(
                f"the folder {path} belongs to {user(found.st_uid)}, not to "
                f"{user(os.geteuid())}: what is in it can't be trusted; have it removed, or name "
                "another place in XDG_RUNTIME_DIR"
            )
        if found.st_mode & 0o022:
            raise errors.PermissionDenied(
                f"others can write the folder {path} (mode {found.st_mode & 0o7777:04o}): what is "
                f"in it can't be trusted; look at it, then `chmod 700 {path}`"
            )
        os.fchmod(fd, 0o700)
        yield fd
    finally:
        os.close(fd)


def _check_parent(path: Path) -> None:
    """Where others can rename what is ours, the check of a folder is worth nothing."""
    found = os.stat(path.parent)
    shared = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
    if shared or found.st_uid not in (0, os.geteuid()):
        raise errors.PermissionDenied(
            f"the folder {path.parent} is {user(found.st_uid)}'s with mode "
            f"{found.st_mode & 0o7777:04o}: others could replace {path.name} in it; name another "
            "place in XDG_RUNTIME_DIR"
        )


def check_unshared(path: str | os.PathLike[str]) -> None:
    """Checks that nobody but root and this user can change a file, or put another in its place.

    Links are followed as the kernel does, each folder on the way counts. What is not there, or is
    no plain file (a device, a pipe that a shell has made), is for who opens it. Raises
    PermissionDenied which names the file or folder and says what to do.
    """
    names = ["/", *Path(os.path.abspath(path)).parts[1:]]
    names.reverse()
    here, links = "/", 0
    while names and links <= _LINKS_MAX:
        name = names.pop()
        place = os.path.dirname(here) if name == ".." else os.path.join(here, name)
        try:
            found = os.lstat(place)
            target = os.readlink(place) if stat.S_ISLNK(found.st_mode) else None
        except OSError:
            return
        _check_own(place, found)
        if target is None:
            here = place
            continue
        links += 1
        here = "/" if target.startswith("/") else here
        names += reversed([part for part in target.split("/") if part not in ("", ".")])


def _check_own(path: str, found: os.stat_result) -> None:
    """What is found there has no other masters. In folders like /tmp each has his own entries."""
    kind = "folder" if stat.S_ISDIR(found.st_mode) else "file"
    if found.st_uid not in (0, os.geteuid()):
        raise errors.PermissionDenied(
            f"the {kind} {path} belongs to {user(found.st_uid)}, who could change what "
            f"{user(os.geteuid())} does: give it to root, or name a place of your own"
        )
    if kind == "file" and not stat.S_ISREG(found.st_mode):
        return
    if kind == "folder" and found.st_mode & stat.S_ISVTX:
        return
    trusted = found.st_gid in (0, os.getegid())
    if found.st_mode & (0o002 if trusted else 0o022):
        raise errors.PermissionDenied(
            f"others can write the {kind} {path} (mode {found.st_mode & 0o7777:04o}), and so "
            f"decide what {user(os.geteuid())} does: look at it, then `chmod go-w {path}`"
        )
