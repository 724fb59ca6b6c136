"""A remote whose service of 9P files is a function: it may be honest, or lie, or ask others."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import random
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from sbe import _native
from sbe.ninep.folder import Folder
from sbe.ninep.session import Quota, Session
from sbe.sdk import ninep_wire as wire
from sbe.sdk.connection import Connection
from sbe.sdk.ninep_wire import Kind
from sbe.serve.life import Life
from sbe.testing.remote import Remote
from tests.integration.ninep import LIMIT_S, served, text
from tests.rigs import missing

_DATA = (Kind.READ + 1, Kind.READDIR + 1)


class Asked:
    """A message that came by SBE, whole, and how it is answered."""

    def __init__(self, request: _native.Request) -> None:
        self._request = request
        self.room = next((each for each in request.buffers if not each.readonly), None)
        written = next((bytes(each) for each in request.buffers if each.readonly), b"")
        self.message = request.payload[8:] + written
        _, self.kind, self.tag = struct.unpack_from("<IBH", self.message)

    def respond(self, payload: bytes, written: int = 0, status: int = 0) -> None:
        """With anything. The buffer, if there is one, is said to have so many bytes."""
        self._request.respond(payload, status, None if self.room is None else [written])

    def answer(self, answer: bytes) -> None:
        """With a message, whose data go where they belong."""
        head, data = answer, b""
        if self.room is not None and answer[4] in _DATA:
            head, data = answer[: wire.READ_HEAD], answer[wire.READ_HEAD :]
            self.room[: len(data)] = data
        self.respond(head, len(data))


class _Life(Life):
    """One that hands on all that is asked of the service, and what is given up of it."""

    def _hear(self, request: _native.Request) -> None:
        self._services["9p"](request)


class Service(Remote):
    """A remote with a service `9p`: each message goes to a function, which may answer when it
    likes, in any thread. `give_up` hears of those that the host has given up."""

    _life = _Life

    def __init__(
        self, handler: Callable[[Asked], None], give_up: Callable[[Asked], None] | None = None
    ) -> None:
        super().__init__({"9p": self._take})
        self._handler = handler
        self._give_up = give_up or (lambda asked: None)
        self._kept: dict[int, Asked | _native.Request] = {}

    def _take(self, request: _native.Request) -> None:
        """`OPEN` is kept until it is given up."""
        if request.type == _native.FRAME_CANCEL:
            given_up = self._kept.pop(request.transaction, None)
            if isinstance(given_up, Asked):
                self._give_up(given_up)
            elif given_up is not None:
                given_up.respond(b"", -errno.ECANCELED)
            return
        if struct.unpack_from("<I", request.payload)[0] == wire.OPEN:
            self._kept[request.transaction] = request
            return
        asked = self._kept[request.transaction] = Asked(request)
        self._handler(asked)


DATA = random.Random(1).randbytes(20_000)
"""Of a liar's file `data`; it has a directory beside that, `folder`."""


class Liar:
    """An honest service of files, but for messages of the types that `lies` has."""

    link: Connection

    def __init__(self, session: Session) -> None:
        self._session = session
        self.lies: dict[int, Callable[[Asked, bytes], None]] = {}
        self.held = queue.Queue[tuple[Asked, bytes]]()
        self.given_up = queue.Queue[Asked]()

    def handler(self, asked: Asked) -> None:
        """Of a service."""
        honest = self._session.answer(asked.message)
        self.lies.get(asked.kind, Asked.answer)(asked, honest)

    def hold(self, asked: Asked, honest: bytes) -> None:
        """A lie: answered when somebody takes it from `held`."""
        self.held.put((asked, honest))

    def take_held(self) -> tuple[Asked, bytes]:
        """What has been held for longest, and the honest answer."""
        return self.held.get(timeout=LIMIT_S)


@contextlib.contextmanager
def lying(place: Path) -> Iterator[Liar]:
    """A liar with a folder at this place, and a link to it, which is whole at the end."""
    (place / "data").write_bytes(DATA)
    (place / "folder").mkdir()
    folder = Folder(place)
    with contextlib.closing(folder), contextlib.closing(Session(folder, Quota())) as session:
        liar = Liar(session)
        with Service(liar.handler, liar.given_up.put) as remote, remote.link() as liar.link:
            yield liar
            liar.lies.clear()
            with served(liar.link) as client:  # whatever came before
                assert client.read("data") == DATA


class Diod:
    """Debian's 9P server for a folder, over a descriptor: a process of its own."""

    def __init__(self, folder: Path) -> None:
        """Skips the test where it is not there."""
        program = shutil.which("diod", path=f"/usr/sbin:/usr/local/sbin:{os.environ['PATH']}")
        if program is None:
            missing.give_up("diod is not installed. Install with: sudo apt install diod")
        self.folder = folder
        self._socket, theirs = socket.socketpair()
        self._waiting: dict[int, Asked] = {}
        with theirs:
            fd = str(theirs.fileno())
            usual = ["-f", "--no-auth", "--no-userdb", "-c", "/dev/null", "-L", "stderr"]
            self._process = subprocess.Popen(
                [program, *usual, "--rfdno", fd, "--wfdno", fd, "-e", folder],
                pass_fds=[theirs.fileno()],
                stderr=subprocess.DEVNULL,
                cwd=folder.parent,
            )
        # It lifts the limit of its core, and may abort when its client leaves: a small one, there.
        with contextlib.suppress(OSError):  # a kernel without cores, as the rig's
            Path(f"/proc/{self._process.pid}/coredump_filter").write_text("0")
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def handler(self, asked: Asked) -> None:
        """Of a service."""
        message = asked.message
        if asked.kind == Kind.ATTACH:  # it has many trees, and wants to know which
            (size,) = struct.unpack_from("<H", message, 15)
            body = message[7 : 17 + size] + text(str(self.folder)) + message[-4:]
            message = wire.message(asked.kind, asked.tag, body)
        self._waiting[asked.tag] = asked
        with contextlib.suppress(OSError):
            self._socket.sendall(message)

    def _read(self) -> None:
        incoming = wire.Incoming(self._socket)
        with contextlib.suppress(OSError):
            while (header := incoming.header()) is not None:
                self._waiting.pop(header.tag).answer(incoming.take(header.size))

    def close(self) -> None:
        """It ends as its client has left."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(LIMIT_S)
        self._process.wait(LIMIT_S)
        self._socket.close()
