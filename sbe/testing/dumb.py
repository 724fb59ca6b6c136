"""For tests: firmware that does not know this protocol, as functions in threads of this process.

    def add(message, bus):                              # 32-bit address, size
        address, size = struct.unpack("<II", message)
        return sum(bus[address : address + size]).to_bytes(4, "little")

    with sbe.testing.DumbFirmware({"adder": add}) as firmware, firmware.link() as link:
        area = link.allocate(4096)
        with link.raw("adder", sbe.raw.InOrder()) as raw:
            total = raw.call(bytes(8), [AddressOf(0), SizeOf(4)], sbe.In(area))

Device addresses are places in a window of memory, `bus`, that the functions see.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType

from sbe import _native, remotes
from sbe.errors import BadArgument, LinkError, MessageTooLarge
from sbe.heaps.carveout import CarveoutHeap
from sbe.heaps.memfd import MemfdHeap
from sbe.kernel.rpmsg import MTU
from sbe.sdk import Connection, connect
from sbe.transports.standin import StandIn

__all__ = ["Bus", "DumbFirmware"]

_log = logging.getLogger(__name__)

Answers = bytes | Iterable[bytes] | None


class Bus:
    """Memory by device address: `bus[0x8000_0000 : 0x8000_0010]`, a memoryview."""

    def __init__(self, memory: memoryview, address: int) -> None:
        self._memory, self._address = memory, address

    def __setitem__(self, addresses: slice, data: bytes) -> None:
        self[addresses][:] = data

    def __getitem__(self, addresses: slice) -> memoryview:
        first, end = addresses.start - self._address, addresses.stop - self._address
        if not 0 <= first <= end <= len(self._memory):
            raise IndexError(f"a bus error at {addresses.start:#x} to {addresses.stop:#x}")
        return self._memory[first:end]


class SocketEndpoint:
    """An endpoint whose firmware is at the other end of a socket. Not thread-safe."""

    address = 0

    def __init__(self, sock: socket.socket, name: str = "") -> None:
        self.name = name
        sock.setblocking(False)
        self._socket = sock

    def fileno(self) -> int:
        """The socket."""
        return self._socket.fileno()

    def send(self, message: bytes) -> bool:
        """Sends a message, as large as rpmsg carries."""
        if not 0 < len(message) <= MTU:
            raise MessageTooLarge(f"a message of {len(message)} bytes: rpmsg carries 1 to {MTU}")
        try:
            self._socket.send(message)
        except BlockingIOError:
            return False
        except OSError as error:
            raise LinkError(f"the firmware is gone: {error.strerror}") from error
        return True

    def receive(self) -> bytes | None:
        """The next message."""
        try:
            message = self._socket.recv(MTU)
        except BlockingIOError:
            return None
        except OSError as error:
            raise LinkError(f"the firmware is gone: {error.strerror}") from error
        if not message:
            raise LinkError("the firmware is gone")
        return message

    def close(self) -> None:
        """Lets go of it."""
        self._socket.close()


Handler = Callable[[bytes, Bus], Answers]


class DumbFirmware(remotes.Remote):
    """Firmware of functions by the endpoint's name: handler(message, bus) -> bytes, several, None.

    Each endpoint that is opened has a thread. Its memory begins at `address` and has `size_bytes`.
    `restart()` is a crash. Thread-safe as the connection that uses it.
    """

    name = "dumb"
    uri = "dumb:"
    transport = "testing"

    def __init__(
        self,
        endpoints: Mapping[str, Handler],
        *,
        address: int = 0x8000_0000,
        size_bytes: int = 1 << 20,
    ) -> None:
        self.endpoints = dict(endpoints)
        with MemfdHeap().allocate(size_bytes) as memory:
            self._heap = CarveoutHeap(memory.fd, 0, memory.size_bytes, address=address)
            self._window = _native.Memory(memory.fd, memory.size_bytes)
        self.bus = Bus(memoryview(self._window), address)
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._owner = os.getpid()

    @property
    def memory(self) -> remotes.Memory:
        """The window; rings are nobody's."""
        return remotes.Memory({self._heap.name: self._heap}, MemfdHeap())

    def connect(self) -> StandIn:
        """Begins another life. `Link` calls it."""
        self.restart()
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ends.append(far)
        return StandIn(self.name, SocketEndpoint(near))

    def open_endpoint(self, name: str) -> SocketEndpoint:
        """One more of this name."""
        if name not in self.endpoints:
            raise BadArgument(f"the firmware announces no {name!r}")
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ends.append(far)
        thread = threading.Thread(
            target=self._serve, args=(self.endpoints[name], far), name=f"dumb-{name}", daemon=True
        )
        self._threads.append(thread)
        thread.start()
        return SocketEndpoint(near, name)

    def _serve(self, handler: Handler, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while message := sock.recv(MTU):
                try:
                    answers = handler(message, self.bus)
                except Exception:
                    _log.exception("the firmware's handler failed")
                    continue
                for answer in [answers] if isinstance(answers, bytes) else answers or ():
                    if answer:  # one of no bytes is none, as with rpmsg
                        sock.send(answer)

    def link(self, *, timeout: float = 10.0) -> Connection:
        """A connection to it."""
        return connect(self, timeout=timeout)

    def restart(self) -> None:
        """Ends its present life, as a crash would."""
        ours = os.getpid() == self._owner
        while self._ends:
            end = self._ends.pop()
            if ours:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            end.close()
        while self._threads:
            thread = self._threads.pop()
            if ours:
                thread.join()

    def close(self) -> None:
        """Ends it; waits for handlers that run."""
        self.restart()

    def __enter__(self) -> DumbFirmware:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
