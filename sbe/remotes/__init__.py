"""Remotes: whoever can be at the other end of a link.

A kind of remote is a class that implements `Remote`, in a file of its own:

    process.py    sbe-remote, a child process at the end of a socket pair
    rpmsg.py      a co-processor behind the kernel's rpmsg
    carveout.py   firmware that shares a window of RAM and a byte stream, nothing else
    listening.py  a process that listens at a socket, such as `sbe serve`
    boards/       emulated boards: qemu.py of this process; resident.py outlives it, and is reached
                  as a carve-out
    uris.py       what `sbe.connect()` takes, one line for each kind

To add one, say a remote that talks over TCP: write tcp.py here with a class TcpRemote(Remote) and
add its line to uris.py. How messages travel is a `Transport` (sbe/transports, where the ready ones
are), where memory comes from a `Heap` (sbe/heaps). docs/tutorials/own-board.md goes through it.
"""

from __future__ import annotations

import errno
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from sbe.errors import Error

if TYPE_CHECKING:
    from sbe.heaps import Heap, Offering
    from sbe.transports import Endpoint, Transport

__all__ = ["Memory", "Remote", "cannot_restart"]


class Memory(NamedTuple):
    """What both this end and a remote can reach. Sizes are in bytes.

    `heaps` are where areas come from, by name, the first choice first. `ring_heap` is for rings:
    None takes the first of `heaps`, or if there is none memory that this end alone sees, for
    transports which carry frames as messages. `slot_size_max` is the largest slot of a ring, beside
    what the link agrees on. `offering` are regions that the remote owns and lets others look at.
    """

    heaps: Mapping[str, Heap]
    ring_heap: Heap | None = None
    slot_size_max: int | None = None
    offering: Offering | None = None

    @property
    def rings(self) -> Heap:
        """Where ring memory comes from."""
        return self.ring_heap or next(iter(self.heaps.values()), None) or _memfd()

    @classmethod
    def memfds(cls) -> Memory:
        """Sealed memfds, for a remote on this machine that takes descriptors."""
        heap = _memfd()
        return cls({heap.name: heap})


class Remote(Protocol):
    """One remote: found or started by `connect()`, let go by `close()`.

    Derive from this class: only `name`, `uri`, `transport`, `connect()` and `close()` must be
    written, the rest has defaults that suit a process on this machine. Not thread-safe: the owner
    of the link serialises.
    """

    name: str
    """What listings call the link."""
    uri: str
    """What `sbe.connect()` takes for the same remote."""
    transport: str
    """The kind in one word, for listings."""

    @abstractmethod
    def connect(self) -> Transport:
        """Begins a new life of the remote, or of this end with it; `Link` calls it, each time anew.

        Returns only when the former life is gone for good: what that had mapped counts as free.
        Raises LinkError, BadArgument with what is missing.
        """
        ...

    @abstractmethod
    def close(self) -> None:
        """Lets go of everything, after the link was closed. Calling twice is fine."""
        ...

    def restart(self) -> None:
        """Ends its present life for good, also where it hangs: it takes nothing and writes nothing
        of it any more. `connect()` comes next.

        By default `Error` with code EOPNOTSUPP: nothing here can. May block for seconds.
        """
        raise cannot_restart(self, "start it anew where it runs")

    @property
    def memory(self) -> Memory:
        """Memory that it reaches, asked for once for each context. Sealed memfds by default.

        Raises LinkError when there should be some and is not.
        """
        return Memory.memfds()

    def open_endpoint(self, name: str) -> Endpoint:
        """An endpoint of its own for messages of firmware that has another format, by the name that
        the firmware announces.

        By default `Error` with code EOPNOTSUPP. Raises LinkError, BadArgument.
        """
        raise Error(
            f"{self.uri} (a {self.transport} remote) has no endpoints for raw messages: rpmsg has",
            errno.EOPNOTSUPP,
        )

    @property
    def awaited(self) -> str | None:
        """What it has not done yet, for whoever gives up waiting for its first answer."""
        return None

    @property
    def pid(self) -> int | None:
        """The process that is the remote, or runs it; None where there is none."""
        return None

    @property
    def exit_description(self) -> str | None:
        """How its last life ended, in words that follow "the remote died"; None: not known."""
        return None


def cannot_restart(remote: Remote, instead: str) -> Error:
    """What `restart()` raises where nothing can; `instead` says what to do."""
    return Error(
        f"nothing here can restart {remote.uri} (a {remote.transport} remote): {instead}",
        errno.EOPNOTSUPP,
    )


def _memfd() -> Heap:
    from sbe.heaps.memfd import MemfdHeap  # whoever only reads the URIs needs no heap

    return MemfdHeap()
