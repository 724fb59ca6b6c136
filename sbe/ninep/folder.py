"""A folder that nothing leads out of: files by their path below it, by openat2(2)."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterable, Iterator

from sbe.errors import BadArgument, Error

__all__ = ["Folder", "Names", "check_name"]

Names = tuple[bytes, ...]
"""A path below the folder; empty for the folder itself."""

_OPENAT2 = 437  # on every architecture
_NO_MAGICLINKS = 0x02
_BENEATH = 0x08
_TRIES = 8  # while somebody renames what lies on the way


class _How(ctypes.Structure):
    _fields_ = [
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    ]


def check_name(name: bytes) -> None:
    """Raises OSError for what is no name of an entry."""
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise OSError(errno.EINVAL, "no name of a file")
    if len(name) > 255:
        raise OSError(errno.ENAMETOOLONG, "a name has at most 255 bytes")


def _openat2(folder: int, path: bytes, flags: int, mode: int, resolve: int) -> int:
    how = _How(flags | os.O_CLOEXEC, mode, resolve)
    libc = ctypes.CDLL(None, use_errno=True)
    for left in range(_TRIES, 0, -1):
        fd: int = libc.syscall(
            ctypes.c_long(_OPENAT2),
            ctypes.c_int(folder),
            ctypes.c_char_p(path),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        number = ctypes.get_errno()
        if fd >= 0 or number not in (errno.EAGAIN, errno.EINTR) or left == 1:
            break
    if fd < 0:
        raise OSError(number, os.strerror(number), path)
    return fd


@contextlib.contextmanager
def _held(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


class Folder:
    """Opens what lies below a folder and nothing else, wherever links and `..` lead.

    Links to what lies below it are followed. Any thread may use it, and none while it is closed.
    """

    _fd = -1

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises BadArgument for what is no folder, `sbe.Error` where the kernel can't confine."""
        try:
            self._fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise BadArgument(f"{os.fspath(path)!r} can't be exported: {error.strerror}") from None
        try:
            os.close(self.find(()))
        except OSError as error:
            self.close()
            raise Error(
                "nothing can be exported: openat2(), which keeps a path inside a folder, fails "
                f"with {error.strerror!r}; it takes Linux 5.6 or later, and a sandbox that lets it",
                error.errno or errno.ENOSYS,
            ) from None

    def close(self) -> None:
        """Lets go of the folder. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    def find(self, names: Names, *, follow: bool = False) -> int:
        """A descriptor that only names a file. Raises OSError, EXDEV for what leads out.

        `follow`: where it is a link, what that leads to.
        """
        flags = os.O_PATH | (0 if follow else os.O_NOFOLLOW)
        return self._open(names, flags)

    def open(self, names: Names, flags: int) -> int:
        """Opens a file or a directory. Raises OSError; nothing else is opened, not even briefly."""
        with _held(self.find(names, follow=True)) as found:
            mode = os.fstat(found).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise OSError(errno.EPERM, "neither a file nor a directory")
            return os.open(f"/proc/self/fd/{found}", flags | os.O_CLOEXEC | os.O_NONBLOCK)

    def create(self, names: Names, flags: int, mode: int) -> int:
        """Makes a file that is not there yet, and opens it. Raises OSError."""
        flags |= os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        return self._open(names, flags, mode & 0o777)

    @contextlib.contextmanager
    def mkdir(self, names: Names, mode: int) -> Iterator[int]:
        """Makes a directory; a descriptor that names it, for as long as the block. OSError."""
        with _held(self._parent(names)) as parent:
            os.mkdir(names[-1], mode & 0o777, dir_fd=parent)
        with _held(self.find(names)) as made:
            yield made

    def remove(self, names: Names, *, directory: bool) -> None:
        """Removes a file, or an empty directory."""
        with _held(self._parent(names)) as parent:
            if directory:
                os.rmdir(names[-1], dir_fd=parent)
            else:
                os.unlink(names[-1], dir_fd=parent)

    def rename(self, old: Names, new: Names) -> None:
        """Gives a file another name, in place of what had that."""
        with _held(self._parent(old)) as source, _held(self._parent(new)) as target:
            os.rename(old[-1], new[-1], src_dir_fd=source, dst_dir_fd=target)

    def _parent(self, names: Names) -> int:
        if not names:
            raise OSError(errno.EBUSY, "the folder itself")
        return self.find(names[:-1], follow=True)

    def _open(self, names: Iterable[bytes], flags: int, mode: int = 0) -> int:
        path = b"/".join(names) or b"."
        return _openat2(self._fd, path, flags, mode, _BENEATH | _NO_MAGICLINKS)
