"""How one client is told that its remote was lost, or has come back."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from sbe.control import SHUT
from sbe.errors import resources
from sbe.host.descriptors import socket_above_streams
from sbe.host.text import one_line

__all__ = ["Bell"]

_KERNEL_BYTES = 4096  # that may wait for a client which does not read; the rest is a number
_AT_ONCE = 1024
_WORDS_MAX = 500  # characters of an event


class Bell:
    """Words for each event, ended by a NUL, over a pair of sockets. Not thread-safe: it belongs to
    the loop.

    Each end of a pair has flags and a queue of its own. So whatever the client does to its end, a
    write here never waits, and one that reads nothing costs a few KiB: of events that can't be sent
    only the last has words. An eventfd is one open file for all who hold it: its holders can make
    each other's writes wait for ever.
    """

    def __init__(self) -> None:
        with resources("making a bell"):
            self._socket, self._theirs = map(socket_above_streams, socket.socketpair())
        self._socket.setblocking(False)
        self._theirs.setblocking(False)
        self._socket.shutdown(socket.SHUT_RD)  # nobody listens to what a client says here
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BYTES)
        self._loop = asyncio.get_running_loop()
        self._rest = b""  # of what was sent in part; not empty: the loop waits for room
        self._owed = 0  # events behind it, the last of which has the words
        self._words = b""
        self.rung = 0
        """How many events were sent, or are about to be."""

    def hand_over(self) -> int:
        """The descriptor of the client's end, once: the caller's from now on."""
        return self._theirs.detach()

    def ring(self, words: str = "", *, shut: int | None = None) -> None:
        """Tells of an event, as soon as the client leaves room for it.

        `shut`: it is that the remote has shut this channel of the client's.
        """
        self.rung += 1
        self._owed += 1
        told = one_line(words, _WORDS_MAX) if shut is None else f"{SHUT}{shut}"
        self._words = told.encode()
        if not self._rest:
            self._send()

    def _send(self) -> None:
        waited = bool(self._rest)
        while self._rest or self._owed:
            if not self._rest:
                now = min(self._owed, _AT_ONCE)
                self._owed -= now
                last = self._words if self._owed == 0 else b""
                self._rest = b"\0" * (now - 1) + last + b"\0"
            try:
                self._rest = self._rest[self._socket.send(self._rest) :]
            except (BlockingIOError, InterruptedError):
                break
            except OSError:  # the client has closed its end
                self._rest, self._owed = b"", 0
        if self._rest and not waited:
            self._loop.add_writer(self._socket.fileno(), self._send)
        elif waited and not self._rest:
            self._loop.remove_writer(self._socket.fileno())

    def close(self) -> None:
        """Closes this end, and the other one if nobody has it. Twice is fine."""
        if self._rest:
            with contextlib.suppress(RuntimeError):  # the loop has gone first
                self._loop.remove_writer(self._socket.fileno())
        self._rest, self._owed = b"", 0
        self._socket.close()
        self._theirs.close()
