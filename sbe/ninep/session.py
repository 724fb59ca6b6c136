"""A session of 9P2000.L that serves a folder: each message is answered at once."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass

from sbe.ninep import wire
from sbe.ninep.attributes import attributes, is_shown, qid, statistics
from sbe.ninep.folder import Folder, Names, check_name
from sbe.ninep.listing import entries
from sbe.ninep.wire import malformed, pack
from sbe.sdk import ninep_wire
from sbe.sdk.ninep_wire import MSIZE_LEAST, MSIZE_MAX, READ_HEAD, VERSION, Kind, refusal

__all__ = ["Quota", "Session"]

_ENTRY_BYTES = 4096  # that making a file counts as

_ACCESS = 3
_TRUNCATE = 0o1000
_REMOVE_DIRECTORY = 0x200
_SET_MODE, _SET_UID, _SET_GID, _SET_SIZE = 0x1, 0x2, 0x4, 0x8
_SET_ATIME, _SET_MTIME, _SET_ATIME_TO, _SET_MTIME_TO = 0x10, 0x20, 0x80, 0x100
_S = 1_000_000_000


@dataclass
class Quota:
    """What an export may still take, all its sessions together; it is the export's from then on."""

    sessions: int = 16
    fids: int = 256
    open_files: int = 64
    written_bytes: int = 1 << 30
    """By which files may grow and be made; what is removed is not given back."""

    def take(self, field: str) -> None:
        """One of what a field counts. Raises OSError, ENFILE, when there is none left."""
        left = getattr(self, field)
        if left <= 0:
            raise OSError(errno.ENFILE, f"the export's quota of {field} is used up")
        setattr(self, field, left - 1)

    def give_back(self, field: str) -> None:
        """One that was taken."""
        setattr(self, field, getattr(self, field) + 1)

    def grow(self, size: int) -> None:
        """Takes so many bytes. Raises OSError, EDQUOT."""
        if size > self.written_bytes:
            raise OSError(errno.EDQUOT, "the export's quota of bytes is used up")
        self.written_bytes -= max(size, 0)


@dataclass
class _Fid:
    names: Names
    fd: int  # only names the file
    opened: int = -1


@dataclass
class _Asked:
    """A message at hand: its fields, what follows them, and buffers beside it."""

    numbers: list[int]
    texts: list[bytes]
    rest: memoryview
    data: memoryview | None
    room: memoryview | None
    elsewhere: int = 0  # bytes of the answer, in `room`


class Session:
    """The fids of one client of a folder. Not thread-safe.

    A client that lies gets an error for its message and harms nobody else: paths stay below the
    folder, sizes are checked, and fids, open files and bytes count against the quota.
    """

    def __init__(
        self, folder: Folder, quota: Quota, *, writable: bool = False, room: int = MSIZE_MAX
    ) -> None:
        """`room`: bytes of an answer at most, but for data in a buffer."""
        self._folder = folder
        self._quota = quota
        self._writable = writable
        self._room = room
        self._msize = 0
        self._fids: dict[int, _Fid] = {}
        self._handlers: dict[int, tuple[str, Callable[[_Asked], bytes]]] = {
            Kind.ATTACH: ("IIssI", self._attach),
            Kind.WALK: ("IIH", self._walk),
            Kind.CLUNK: ("I", self._clunk),
            Kind.FLUSH: ("H", self._flush),
            Kind.LOPEN: ("II", self._lopen),
            Kind.READ: ("IQI", self._read),
            Kind.READDIR: ("IQI", self._readdir),
            Kind.GETATTR: ("IQ", self._getattr),
            Kind.STATFS: ("I", self._statfs),
            Kind.READLINK: ("I", self._readlink),
            Kind.FSYNC: ("I", self._fsync),
            Kind.WRITE: ("IQI", self._write),
            Kind.LCREATE: ("IsIII", self._lcreate),
            Kind.MKDIR: ("IsII", self._mkdir),
            Kind.UNLINKAT: ("IsI", self._unlinkat),
            Kind.RENAMEAT: ("IsIs", self._renameat),
            Kind.SETATTR: ("IIIIIQQQQQ", self._setattr),
        }

    def close(self) -> None:
        """Lets go of all fids and of their descriptors. Idempotent."""
        for number in list(self._fids):
            self._remove(number)
        self._msize = 0

    def answer(
        self, message: bytes, data: memoryview | None = None, room: memoryview | None = None
    ) -> bytes:
        """The answer to a T-message. `data` is the end of it that lies elsewhere; `room` is where
        the data of an answer go instead of behind it, its size counting them.

        Raises `sbe.Error`, EBADMSG, for what is no message of the protocol.
        """
        [size, kind, tag], _, rest = wire.unpack("IBH", memoryview(message))
        whole = len(message) + (0 if data is None else len(data))
        if size != whole or (self._msize and size > self._msize):
            raise malformed(f"a 9P message of {whole} bytes says that it has {size}")
        try:
            if kind == Kind.VERSION:
                return ninep_wire.message(kind + 1, tag, self._version(rest))
            form, handle = self._handlers.get(kind, ("", None))
            if handle is None:
                raise OSError(errno.EOPNOTSUPP, "not served")
            if not self._msize:
                raise OSError(errno.EPROTO, "no version was agreed")
            asked = _Asked(*wire.unpack(form, rest), data, room)
            answer = ninep_wire.message(kind + 1, tag, handle(asked), asked.elsewhere)
            if len(answer) > min(self._msize, self._room):  # a link's target may be long
                raise OSError(errno.EMSGSIZE, "longer than a message may be")
            return answer
        except OSError as error:
            number = error.errno or errno.EIO
        return refusal(tag, number)

    # -- fids ---------------------------------------------------------------------------------

    def _version(self, rest: memoryview) -> bytes:
        [msize], [name], _ = wire.unpack("Is", rest)
        self.close()
        if msize < MSIZE_LEAST:
            raise OSError(errno.EINVAL, "too small for an answer")
        msize = min(msize, MSIZE_MAX)
        if name != VERSION:
            return pack("Is", msize, b"unknown")
        self._msize = msize
        return pack("Is", msize, name)

    def _fid(self, number: int) -> _Fid:
        found = self._fids.get(number)
        if found is None:
            raise OSError(errno.EBADF, "no such fid")
        return found

    def _opened(self, number: int) -> int:
        fid = self._fid(number)
        if fid.opened < 0:
            raise OSError(errno.EBADF, "it was not opened")
        return fid.opened

    def _add(self, number: int, names: Names, fd: int) -> None:
        """Takes over the descriptor."""
        try:
            self._quota.take("fids")
        except OSError:
            os.close(fd)
            raise
        self._fids[number] = _Fid(names, fd)

    def _remove(self, number: int) -> None:
        fid = self._fids.pop(number)
        os.close(fid.fd)
        self._quota.give_back("fids")
        if fid.opened >= 0:
            os.close(fid.opened)
            self._quota.give_back("open_files")

    def _check_new(self, number: int) -> None:
        if number == wire.NOFID or number in self._fids:
            raise OSError(errno.EINVAL, "a fid that is in use, or none")

    def _attach(self, asked: _Asked) -> bytes:
        number, auth, _ = asked.numbers
        self._check_new(number)
        if auth != wire.NOFID:
            raise OSError(errno.EBADF, "nobody is asked for a password")
        if asked.texts[1] not in (b"", b"/"):
            raise OSError(errno.ENOENT, "there is one tree")
        fd = self._folder.find(())
        self._add(number, (), fd)
        return pack("q", qid(os.fstat(fd)))

    def _walk(self, asked: _Asked) -> bytes:
        number, new, count = asked.numbers
        fid = self._fid(number)
        if count > wire.WALK_MAX:
            raise malformed(f"a walk of {count} names")
        _, steps, _ = wire.unpack("s" * count, asked.rest)
        if new != number:
            self._check_new(new)
        elif fid.opened >= 0:
            raise OSError(errno.EINVAL, "an open file does not walk")
        names, qids, fd = self._follow(fid, steps)
        if len(qids) < count:
            os.close(fd)
        elif new == number:
            os.close(fid.fd)
            fid.names, fid.fd = names, fd
        else:
            self._add(new, names, fd)
        return pack("H" + "q" * len(qids), len(qids), *qids)

    def _follow(self, fid: _Fid, steps: list[bytes]) -> tuple[Names, list[tuple[int, ...]], int]:
        """As far as the names lead: where to, the qids on the way, and a descriptor.

        Raises OSError where the first leads nowhere.
        """
        names, qids, fd = fid.names, list[tuple[int, ...]](), self._folder.find(fid.names)
        for step in steps:
            try:
                there = names[:-1] if step == b".." else (*names, step)
                if step != b"..":
                    check_name(step)
                following = self._folder.find(there)
                found = os.fstat(following)
                if not is_shown(found.st_mode):
                    os.close(following)
                    raise OSError(errno.EPERM, "neither a file, a directory nor a link")
            except OSError:
                if qids:
                    return names, qids, fd
                os.close(fd)
                raise
            os.close(fd)
            names, fd = there, following
            qids.append(qid(found))
        return names, qids, fd

    def _clunk(self, asked: _Asked) -> bytes:
        [number] = asked.numbers
        self._fid(number)
        self._remove(number)
        return b""

    def _flush(self, asked: _Asked) -> bytes:
        """All that came before has been answered."""
        return b""

    # -- reading --------------------------------------------------------------------------------

    def _lopen(self, asked: _Asked) -> bytes:
        number, flags = asked.numbers
        fid = self._fid(number)
        self._open(fid, flags, lambda how: self._folder.open(fid.names, how))
        return pack("qI", qid(os.fstat(fid.opened)), 0)

    def _open(self, fid: _Fid, flags: int, opener: Callable[[int], int]) -> None:
        if fid.opened >= 0:
            raise OSError(errno.EINVAL, "it is open")
        access = flags & _ACCESS
        if access == _ACCESS:
            raise OSError(errno.EINVAL, "no such access")
        # Not for appending: each message says where, and growth is counted by that.
        how = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)[access]
        if access or flags & _TRUNCATE:
            self._check_writable()
        how |= os.O_TRUNC if flags & _TRUNCATE else 0
        self._quota.take("open_files")
        try:
            fid.opened = opener(how)
        except BaseException:
            self._quota.give_back("open_files")
            raise

    def _limit(self, count: int, room: memoryview | None) -> int:
        """Bytes of data that an answer holds."""
        there = self._room - READ_HEAD if room is None else len(room)
        return max(0, min(count, self._msize - READ_HEAD, there))

    def _read(self, asked: _Asked) -> bytes:
        number, offset, count = asked.numbers
        fd = self._opened(number)
        count = self._limit(count, asked.room)
        if offset >= 1 << 63:
            raise OSError(errno.EINVAL, "beyond any file")
        if asked.room is None:
            data = os.pread(fd, count, offset)
            return pack("I", len(data)) + data
        asked.elsewhere = os.preadv(fd, [asked.room[:count]], offset) if count else 0
        return pack("I", asked.elsewhere)

    def _readdir(self, asked: _Asked) -> bytes:
        number, place, count = asked.numbers
        fd = self._opened(number)
        data = entries(fd, place, self._limit(count, asked.room))
        if asked.room is None:
            return pack("I", len(data)) + data
        asked.room[: len(data)] = data
        asked.elsewhere = len(data)
        return pack("I", len(data))

    def _getattr(self, asked: _Asked) -> bytes:
        return attributes(os.fstat(self._fid(asked.numbers[0]).fd))

    def _statfs(self, asked: _Asked) -> bytes:
        return statistics(os.fstatvfs(self._fid(asked.numbers[0]).fd))

    def _readlink(self, asked: _Asked) -> bytes:
        fd = self._fid(asked.numbers[0]).fd
        if qid(os.fstat(fd))[0] != wire.QID.LINK:
            raise OSError(errno.EINVAL, "no link")
        return pack("s", os.readlink(b"", dir_fd=fd))

    # -- writing --------------------------------------------------------------------------------

    def _check_writable(self) -> None:
        if not self._writable:
            raise OSError(errno.EROFS, "exported to be read")

    def _fsync(self, asked: _Asked) -> bytes:
        os.fsync(self._opened(asked.numbers[0]))
        return b""

    def _write(self, asked: _Asked) -> bytes:
        number, offset, count = asked.numbers
        data = asked.rest if asked.data is None else asked.data
        if len(data) != count:
            raise malformed(f"a 9P message of {len(data)} bytes to write says {count}")
        fd = self._opened(number)
        self._check_writable()
        if offset + count >= 1 << 63:
            raise OSError(errno.EFBIG, "beyond any file")
        self._quota.grow(offset + count - os.fstat(fd).st_size)
        return pack("I", os.pwrite(fd, data, offset))

    def _child(self, number: int, name: bytes) -> Names:
        """What a message changes in a directory."""
        fid = self._fid(number)
        self._check_writable()
        check_name(name)
        return (*fid.names, name)

    def _lcreate(self, asked: _Asked) -> bytes:
        number, flags, mode, _ = asked.numbers
        names = self._child(number, asked.texts[0])
        fid = self._fid(number)
        self._quota.grow(_ENTRY_BYTES)
        self._open(fid, flags & ~_TRUNCATE, lambda how: self._folder.create(names, how, mode))
        before = fid.fd
        fid.names, fid.fd = names, os.open(f"/proc/self/fd/{fid.opened}", os.O_PATH | os.O_CLOEXEC)
        os.close(before)
        return pack("qI", qid(os.fstat(fid.opened)), 0)

    def _mkdir(self, asked: _Asked) -> bytes:
        number, mode, _ = asked.numbers
        names = self._child(number, asked.texts[0])
        self._quota.grow(_ENTRY_BYTES)
        with self._folder.mkdir(names, mode) as made:
            return pack("q", qid(os.fstat(made)))

    def _unlinkat(self, asked: _Asked) -> bytes:
        number, flags = asked.numbers
        names = self._child(number, asked.texts[0])
        self._folder.remove(names, directory=bool(flags & _REMOVE_DIRECTORY))
        return b""

    def _renameat(self, asked: _Asked) -> bytes:
        source, target = asked.numbers
        old = self._child(source, asked.texts[0])
        new = self._child(target, asked.texts[1])
        self._folder.rename(old, new)
        for fid in self._fids.values():
            if fid.names[: len(old)] == old:
                fid.names = (*new, *fid.names[len(old) :])
        return b""

    def _setattr(self, asked: _Asked) -> bytes:
        number, valid, mode, uid, gid, size, *times = asked.numbers
        fid = self._fid(number)
        self._check_writable()
        found = os.fstat(fid.fd)
        if not is_shown(found.st_mode) or qid(found)[0] == wire.QID.LINK:
            raise OSError(errno.EPERM, "a link stays as it is")
        if (valid & _SET_UID and uid != found.st_uid) or (valid & _SET_GID and gid != found.st_gid):
            raise OSError(errno.EPERM, "files stay the exporter's")
        path = f"/proc/self/fd/{fid.fd}"
        if valid & _SET_SIZE:
            if size >= 1 << 63:
                raise OSError(errno.EFBIG, "beyond any file")
            self._quota.grow(size - found.st_size)
            os.truncate(path, size)
        if valid & _SET_MODE:
            os.chmod(path, mode & 0o777)
        if valid & (_SET_ATIME | _SET_MTIME):
            os.utime(path, ns=self._times(valid, times, found))
        return b""

    @staticmethod
    def _times(valid: int, times: list[int], found: os.stat_result) -> tuple[int, int]:
        import time

        now = time.time_ns()
        at_s, at_ns, m_s, m_ns = (min(each, 1 << 33) for each in times)
        atime, mtime = found.st_atime_ns, found.st_mtime_ns
        if valid & _SET_ATIME:
            atime = at_s * _S + at_ns % _S if valid & _SET_ATIME_TO else now
        if valid & _SET_MTIME:
            mtime = m_s * _S + m_ns % _S if valid & _SET_MTIME_TO else now
        return atime, mtime
