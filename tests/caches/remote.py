"""A remote with a cache, and memory that this end has a cache before: simulated, in lines."""

from __future__ import annotations

import array
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sbe.heaps import Allocation
from sbe.heaps.memfd import MemfdHeap
from sbe.remotes import Memory
from sbe.remotes.process import RemoteProcess

__all__ = ["CachedHeap", "CachedRemote", "cached_remotes"]

_ORDER = struct.Struct("=QQQ")
_SYNC = struct.Struct("=QQII")
_FOR_DEVICE, _FOR_CPU = 1, 2


class _Attachment:
    """This end's cache of one allocation; asks the agent, as the extension does."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def fileno(self) -> int:
        return self._sock.fileno()

    def sync_for_device(self, offset: int, size_bytes: int) -> None:
        self._ask(offset, size_bytes, _FOR_DEVICE)

    def sync_for_cpu(self, offset: int, size_bytes: int) -> None:
        self._ask(offset, size_bytes, _FOR_CPU)

    def _ask(self, offset: int, size_bytes: int, flags: int) -> None:
        self._sock.send(_SYNC.pack(offset, size_bytes, flags, 0))
        (status,) = struct.unpack("=i", self._sock.recv(4))
        if status:
            raise OSError(-status, os.strerror(-status))


class CachedHeap:
    """Memfds of two halves: the first is memory, the second what this end sees of it.

    Thread-safe. The agent, a process of its own, moves lines between them.
    """

    name = "cached"

    def __init__(self, agent: socket.socket, line: int, seed: int) -> None:
        self._agent = agent
        self._line = line
        self._seed = seed
        self._lock = threading.Lock()

    def allocate(self, size_bytes: int) -> Allocation:
        """Returns zeroed memory, whole pages."""
        page = os.sysconf("SC_PAGESIZE")
        size = -(-size_bytes // page) * page
        whole = MemfdHeap().allocate(2 * size if size_bytes > 0 else size_bytes)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, self._lock:
            if self._seed:  # else nothing moves by chance
                self._seed += 1
            order = _ORDER.pack(size, self._seed << 20, self._line)
            rights = array.array("i", (whole.fd, theirs.fileno()))
            beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
            self._agent.sendmsg([order], beside)
        return Allocation(
            whole.fd,
            size,
            coherent=False,
            offset_bytes=size,
            release=ours.close,
            attachment=_Attachment(ours),
        )


class CachedRemote(RemoteProcess):
    """sbe-remote with a cache of its own, and a host whose memory is not coherent."""

    name = "cached"
    uri = "cached:"

    def __init__(self, program: Path, heap: CachedHeap, line: int) -> None:
        super().__init__(program, arguments=("--cache-line", str(line)))
        self._heap = heap

    @property
    def memory(self) -> Memory:
        """Cached memory; rings, and what is asked for by name, are coherent."""
        coherent = MemfdHeap()
        return Memory({self._heap.name: self._heap, coherent.name: coherent}, coherent)


@contextmanager
def agent_of(programs: Path) -> Iterator[socket.socket]:
    """The process that moves this end's lines, for any number of heaps."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        fd = theirs.fileno()
        agent = subprocess.Popen([programs / "agent", str(fd)], pass_fds=(fd,))
    with agent:
        with ours:
            yield ours
        agent.wait(10)


@contextmanager
def cached_remotes(
    programs: Path, line: int, seed: int = 1, *, program: Path | None = None
) -> Iterator[CachedRemoteMaker]:
    """Makes remotes over one agent: with lines of this many bytes at both ends.

    The seed is of what moves by chance; 0: nothing does.
    """
    with agent_of(programs) as agent:
        yield CachedRemoteMaker(program or programs / "remote", agent, line, seed)


class CachedRemoteMaker:
    """Each call is one more remote, with a heap of its own."""

    def __init__(self, program: Path, agent: socket.socket, line: int, seed: int) -> None:
        self._program = program
        self._agent = agent
        self._line = line
        self._seed = seed

    def __call__(self) -> CachedRemote:
        if self._seed:
            self._seed += 1
        heap = CachedHeap(self._agent, self._line, self._seed << 12)
        return CachedRemote(self._program, heap, self._line)
