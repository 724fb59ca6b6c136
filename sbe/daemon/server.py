"""The daemon's socket: who may connect, how many, and how all of it ends."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import gc
import grp
import json
import logging
import os
import resource
import signal
import socket
import stat
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sbe import control
from sbe.daemon import privileges, systemd
from sbe.daemon.client import Broker, Client
from sbe.daemon.config import Config, DaemonConfig
from sbe.daemon.connection import ClientConnection, ClientTransport, Misbehaviour
from sbe.daemon.policy import Accounts, Charge, Peer, Policy, descriptors_for_clients
from sbe.daemon.supervisor import Supervisor
from sbe.errors import Error, OutOfResources
from sbe.host import files
from sbe.kernel.uevents import Uevents

__all__ = ["ListenError", "Listener", "Server", "serve"]

_log = logging.getLogger(__name__)

# Who waits to be accepted. A crowd finds room, and who comes behind a flood has not the kernel's
# longest queue before it (net.core.somaxconn): with 4096 that took three times as long as with 128.
_BACKLOG = 512
_TURN = 256  # connections accepted before others get their turn
_RESERVED = 8  # one in so many connections is for users who have none yet
_ACCEPT_PAUSE_SECONDS = 1.0  # after running out of descriptors
_REFUSED_SECONDS = 0.1  # for so long a refusal goes for all of a user
_SO_PEERGROUPS = getattr(socket, "SO_PEERGROUPS", 59)
_UCRED = struct.Struct("3i")


class ListenError(Exception):
    """The daemon can't listen; says why and what to do."""


class Listener:
    """The listening socket, inherited from the service manager or made here. Not thread-safe."""

    def __init__(self, config: DaemonConfig, inherited: Sequence[socket.socket] = ()) -> None:
        self._config = config
        self._path = Path(config.socket)
        self._lock_fd = -1
        self._identity: tuple[int, int] | None = None
        try:
            self.inherited = bool(inherited)
            self.socket = self._check(inherited) if inherited else self._make()
        except BaseException:
            for sock in inherited:
                sock.close()
            self._unlock()
            raise
        self.socket.setblocking(False)

    def close(self) -> None:
        """Stops listening; a socket made here is removed."""
        self.socket.close()
        if self._identity is not None:
            with contextlib.suppress(OSError):
                found = self._path.lstat()
                if (found.st_dev, found.st_ino) == self._identity:
                    self._path.unlink()
        self._unlock()

    def _check(self, sockets: Sequence[socket.socket]) -> socket.socket:
        if len(sockets) != 1:
            raise ListenError(
                f"{len(sockets)} sockets inherited, one is expected: the .socket unit has one "
                "ListenStream=, and no other"
            )
        sock = sockets[0]
        wrong = None
        if sock.family != socket.AF_UNIX:
            wrong = "is no unix socket: ListenStream= takes a path"
        elif sock.type != socket.SOCK_STREAM:
            wrong = "is no stream socket: say ListenStream="
        elif not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            wrong = "does not listen: say Accept=no"
        if wrong:
            raise ListenError(f"the inherited socket (descriptor {sock.fileno()}) {wrong}")
        where = sock.getsockname()  # bytes where it is no path
        same = isinstance(where, str) and os.path.realpath(where) == os.path.realpath(self._path)
        if "socket" in self._config.model_fields_set and not same:
            raise ListenError(
                f"the inherited socket listens at {where}, the configuration says {self._path}: "
                "give the .socket unit's ListenStream= and the daemon the same, or the daemon none"
            )
        sock.listen(_BACKLOG)  # whatever the unit says
        return sock

    def _make(self) -> socket.socket:
        gid = grp.getgrnam(self._config.group).gr_gid if self._config.group else -1
        try:
            self._make_folder(gid)
            self._lock()
            self._remove_stale()
            return self._bind(gid)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise ListenError(
                f"can't listen at {self._path}: {where}{error.strerror or error}"
            ) from error

    def _make_folder(self, gid: int) -> None:
        folder = self._path.parent
        try:
            folder.mkdir(mode=0o750)
        except FileExistsError:
            self._check_folder(folder)
            return
        except FileNotFoundError:
            raise ListenError(
                f"can't listen at {self._path}: {folder.parent} does not exist"
            ) from None
        self._own(folder, gid, 0o750)

    def _check_folder(self, folder: Path) -> None:
        """Its owner can put another socket in the place of ours; root starts daemons anywhere."""
        uid = os.geteuid()
        if uid != 0 and folder.stat().st_uid not in (0, uid):
            raise ListenError(
                f"can't listen at {self._path}: the folder {folder} belongs to "
                f"{files.owner(folder / '.')}, who could answer in this daemon's place; choose a "
                "--socket in a folder of yours"
            )

    def _lock(self) -> None:
        """One daemon a socket, also when two start in the same moment."""
        path = self._path.with_name(f".{self._path.name}.lock")
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._lock_fd = os.open(path, flags, 0o600)
        except OSError as error:
            if not os.path.lexists(path):
                raise
            raise ListenError(
                f"can't listen at {self._path}: the lock file {path} belongs to "
                f"{files.owner(path)} and can't be taken ({error.strerror}): stop the daemon of "
                "that user and remove the file, or choose another --socket"
            ) from error
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._taken() from None

    def _unlock(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def _remove_stale(self) -> None:
        try:
            mode = self._path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise ListenError(f"can't listen at {self._path}: something else is there")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            try:
                probe.connect(str(self._path))
            except ConnectionRefusedError:
                self._path.unlink()
                return
            except PermissionError as error:
                raise ListenError(
                    f"can't listen at {self._path}: the socket there belongs to "
                    f"{files.owner(self._path)} and does not let this daemon in "
                    f"({error.strerror}): choose another --socket"
                ) from error
            except BlockingIOError:
                pass
        raise self._taken()

    def _taken(self) -> ListenError:
        return ListenError(
            f"another daemon answers at {self._path}: stop it, or choose another --socket"
        )

    def _bind(self, gid: int) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        before = os.umask(0o177)  # nobody else, until owner and mode are right
        try:
            sock.bind(str(self._path))
            found = self._path.lstat()
            self._identity = (found.st_dev, found.st_ino)
            self._own(self._path, gid, self._config.mode)
            sock.listen(_BACKLOG)
        except BaseException:
            sock.close()
            raise
        finally:
            os.umask(before)
        return sock

    def _own(self, path: Path, gid: int, mode: int) -> None:
        if gid != -1:
            try:
                os.chown(path, -1, gid)
            except PermissionError:
                if "group" in self._config.model_fields_set:
                    raise ListenError(
                        f"can't give {path} to group {self._config.group} (key daemon.group): "
                        "start the daemon as root or as a member of that group"
                    ) from None
        path.chmod(mode)


def _peer(sock: socket.socket) -> Peer:
    pid, uid, gid = _UCRED.unpack(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    )
    mask = 0xFFFFFFFF
    groups: tuple[int, ...] = ()
    with contextlib.suppress(OSError):
        data = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4096)
        groups = struct.unpack(f"={len(data) // 4}I", data)
    return Peer(pid, uid & mask, gid & mask, groups)


def _send_refusal(sock: socket.socket, reply: bytes) -> None:
    with sock, contextlib.suppress(OSError):
        sock.send(reply, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)


class Server:
    """Accepts connections and ends them. Not thread-safe: it belongs to the loop."""

    def __init__(self, config: Config, listener: Listener) -> None:
        self._max = config.daemon.max_connections
        self._open_to_all = self._max - self._max // _RESERVED
        self._listener = listener
        self._connections: dict[ClientConnection, Charge] = {}
        self._turned_away: dict[Peer, bytes] = {}
        """The answer to all of a user who come at this moment."""
        self._endings: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._uevents: Uevents | None = None
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.broker = Broker(
            remotes={link.name: Supervisor(link) for link in config.link},
            policy=Policy(config.policy),
            accounts=Accounts(descriptors_max=descriptors_for_clients(limit)),
        )

    def start(self) -> None:
        """Starts the remotes and takes connections."""
        self._watch_devices()
        for remote in self.broker.remotes.values():
            remote.start()
        self._resume()

    def _watch_devices(self) -> None:
        curious = [remote for remote in self.broker.remotes.values() if remote.wants_news]
        if not curious:
            return
        try:
            uevents = Uevents("rpmsg", "remoteproc")
        except Error as error:
            _log.warning("%s; remotes are looked for now and then", error)
            return

        def look() -> None:
            for event in uevents.take():
                _log.debug("device: %s %s %s", *event)
            for remote in curious:
                remote.devices_changed()

        for remote in curious:
            remote.expect_news()
        self._loop.add_reader(uevents.fileno(), look)
        self._uevents = uevents

    async def stop(self) -> None:
        """Ends connections, contexts and remotes, in this order."""
        if self._uevents is not None:
            self._loop.remove_reader(self._uevents.fileno())
        self._loop.remove_reader(self._listener.socket.fileno())
        self._listener.close()
        for connection in list(self._connections):
            connection.abort()
        await asyncio.sleep(0)
        for remote in self.broker.remotes.values():
            await remote.stop()
        if self._endings:
            await asyncio.wait(self._endings, timeout=1)

    def _resume(self) -> None:
        if self._listener.socket.fileno() >= 0:
            self._loop.add_reader(self._listener.socket.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(_TURN):
            try:
                sock, _ = self._listener.socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Mostly no descriptors left. Those who wait stay in the backlog meanwhile.
                _log.error("can't accept connections: %s", error.strerror)
                self._loop.remove_reader(self._listener.socket.fileno())
                self._loop.call_later(_ACCEPT_PAUSE_SECONDS, self._resume)
                return
            self._welcome(sock)

    def _welcome(self, sock: socket.socket) -> None:
        peer = _peer(sock)
        turned_away = self._turned_away.get(peer)
        if turned_away is not None:  # in a flood, the most of it
            _send_refusal(sock, turned_away)
            return
        try:
            self._check_room(peer)
            quota = self.broker.policy.quota(peer)
            charge = self.broker.accounts.charge(peer.uid, quota, connections=1)
        except Error as error:
            _log.warning("connection refused: %s", error, extra={"pid": peer.pid, "uid": peer.uid})
            self._turn_away(sock, peer, error)
            return
        self._begin(sock, Client(peer, quota, self.broker), charge)

    def _begin(self, sock: socket.socket, client: Client, charge: Charge) -> None:
        """Takes a connection over, or ends it: with half of what it needs it would be silent."""
        connection = None
        try:
            sock.setblocking(False)
            connection = ClientConnection(client, self.broker, self._closed)
            self._connections[connection] = charge
            ClientTransport(self._loop, sock, connection)
        except MemoryError:
            sock.close()
            charge.release()
            if connection is not None:
                connection.connection_lost(None)
            _log.warning("connection refused: no memory for it", extra={"uid": client.peer.uid})

    def _check_room(self, peer: Peer) -> None:
        """The last ones are for users who have none: others' quotas may add up to more."""
        held = len(self._connections)
        if held < self._open_to_all:
            return
        if held >= self._max:
            raise OutOfResources(
                f"the daemon has {self._max} connections, the most that it takes "
                "(key daemon.max_connections)",
                errno.EMFILE,
            )
        if self.broker.accounts.usage(peer.uid)["connections"]:
            raise OutOfResources(
                f"the daemon has {held} of {self._max} connections (key daemon.max_connections): "
                "the rest is for users who have none",
                errno.EMFILE,
            )

    def _turn_away(self, sock: socket.socket, peer: Peer, error: Error) -> None:
        """Says why: the client finds it as the answer to its first call.

        The next ones of this user are told the same, until a connection ends, or for a moment.
        """
        parameters = {"code": error.code, "message": str(error)}
        reply = json.dumps({"error": control.ERROR, "parameters": parameters}).encode() + b"\0"
        if not self._turned_away:
            self._loop.call_later(_REFUSED_SECONDS, self._turned_away.clear)
        self._turned_away[peer] = reply
        _send_refusal(sock, reply)

    def _closed(self, connection: ClientConnection) -> None:
        charge = self._connections.pop(connection, None)
        if charge is None:
            return
        charge.release()
        self._turned_away.clear()
        ending = asyncio.ensure_future(connection.client.gone())
        self._endings.add(ending)
        ending.add_done_callback(self._ended)

    def _ended(self, ending: asyncio.Task[None]) -> None:
        self._endings.discard(ending)
        if not ending.cancelled() and (error := ending.exception()) is not None:
            _log.error("the end of a client failed", exc_info=error)


def _loop_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if isinstance(error, Misbehaviour):
        return  # told already
    _log.error("%s", context["message"], exc_info=error)


async def serve(config: Config, inherited: Sequence[socket.socket] = ()) -> None:
    """Runs the daemon until SIGTERM or SIGINT, on an inherited socket if there is one.

    Raises ListenError.
    """
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_loop_exception)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    listener = Listener(config.daemon, inherited)
    privileges.drop(config)  # before there is another thread
    server = Server(config, listener)
    server.start()
    # What was imported stays: a look at all of it for garbage takes a tenth of a second, in which
    # nobody is answered.
    gc.freeze()
    where = "an inherited socket" if listener.inherited else config.daemon.socket
    _log.info("listening at %s", where)
    systemd.notify("READY=1", f"STATUS=Listening at {where}")
    await stopping.wait()
    _log.info("stopping")
    systemd.notify("STOPPING=1", "STATUS=Stopping")
    await server.stop()
