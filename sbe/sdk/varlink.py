"""A synchronous varlink client: JSON and file descriptors over a unix socket.

Varlink (varlink.org) is systemd's own protocol: one JSON object a message, ended by a NUL byte;
descriptors travel beside it. The daemon's end is the asyncvarlink library; this page is all that
an application needs, and the standard library is all it costs.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import stat
import time
from typing import Any

from sbe.control import ERROR, INTERFACE
from sbe.errors import DaemonGone, LinkError, PermissionDenied, ProtocolError, Timeout, from_status
from sbe.host import sockets
from sbe.host.descriptors import socket_above_streams

__all__ = ["VarlinkClient"]

_CHUNK = 65536
_REPLY_MAX = 16 << 20  # bytes: a list of 10,000 areas is about one
_FDS_MAX = 64


class VarlinkClient:
    """One connection to the daemon. Not thread-safe: its owner serialises calls."""

    def __init__(self, path: str, timeout: float) -> None:
        """Connects; `timeout` in seconds bounds every call."""
        self.path = path
        self._timeout = timeout
        self._owner = os.getpid()
        self._socket = socket_above_streams(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        self._received = b""
        self._fds: list[int] = []
        self._socket.settimeout(timeout)
        try:
            with sockets.address(path) as address:
                self._socket.connect(address)
        except OSError as error:
            self._socket.close()
            raise _connect_error(path, error) from error

    def fileno(self) -> int:
        """The socket; it hangs up when the daemon is gone."""
        return self._socket.fileno()

    def close(self) -> None:
        """Ends the connection, and with it the context; in a forked child only its copy."""
        if os.getpid() == self._owner:  # a child's copy would keep it open
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._drop_fds()

    def call(
        self, method: str, *, longer_s: float = 0.0, **parameters: Any
    ) -> tuple[dict[str, Any], list[int]]:
        """Calls `org.sbe.Control.<method>`; the reply's parameters and its descriptors.

        It may take `longer_s` longer than others.

        The caller owns the descriptors. Raises what the daemon refused with, translated; DaemonGone
        when the connection ended, Timeout when it did not answer in time.
        """
        if self._socket.fileno() < 0:
            raise DaemonGone(f"the connection to the daemon at {self.path} is over; connect again")
        given = {name: value for name, value in parameters.items() if value is not None}
        message = json.dumps({"method": f"{INTERFACE}.{method}", "parameters": given})
        deadline = time.monotonic() + self._timeout + longer_s
        try:
            self._socket.settimeout(self._timeout)
            # The application may have SIGPIPE as the system gives it.
            self._socket.sendall(message.encode() + b"\0", socket.MSG_NOSIGNAL)
            reply = self._receive(deadline)
        except TimeoutError as error:
            self.close()
            raise Timeout(f"the daemon at {self.path} did not answer {method} in time") from error
        except ProtocolError:
            raise  # which is an OSError too
        except OSError as error:
            self.close()
            raise DaemonGone(f"the daemon at {self.path} went away: {error}") from error
        fds, self._fds = self._fds, []
        if "error" in reply:
            for fd in fds:
                os.close(fd)
            raise _refusal(method, reply)
        result = reply.get("parameters") or {}
        return result, fds

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._received:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            data, ancillary, flags, _ = self._socket.recvmsg(
                _CHUNK, socket.CMSG_SPACE(_FDS_MAX * 4), socket.MSG_CMSG_CLOEXEC
            )
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds = array.array("i")
                    fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
                    self._fds += fds
            if not data:
                raise ConnectionResetError("connection closed")
            self._received += data
            if flags & socket.MSG_CTRUNC or len(self._received) > _REPLY_MAX:
                self.close()
                raise ProtocolError(f"the daemon at {self.path} sent more than it may")
        message, self._received = self._received.split(b"\0", 1)
        try:
            reply = json.loads(message)
        except (ValueError, RecursionError):
            reply = None
        if not isinstance(reply, dict):
            self.close()
            raise ProtocolError(f"what answers at {self.path} does not speak varlink")
        return reply

    def _drop_fds(self) -> None:
        for fd in self._fds:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._fds = []


def _connect_error(path: str, error: OSError) -> Exception:
    if isinstance(error, PermissionError):
        return PermissionDenied(
            f"no permission on the daemon's socket {path}: join the group that owns it "
            f"({_group(path)}) and log in again"
        )
    if isinstance(error, FileNotFoundError):
        return LinkError(f"no daemon: {path} does not exist; start sbe-daemon, or use loopback:")
    if isinstance(error, ConnectionRefusedError) and not _is_socket(path):
        return LinkError(f"no daemon: {path} is no socket; start sbe-daemon, or use loopback:")
    if isinstance(error, ConnectionRefusedError):
        return LinkError(f"no daemon answers at {path}; start sbe-daemon, or use loopback:")
    return LinkError(f"can't connect to {path}: {error.strerror or error}")


def _is_socket(path: str) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISSOCK(os.stat(path).st_mode)
    return True  # as far as can be seen


def _group(path: str) -> str:
    import grp

    for place in (path, os.path.dirname(path)):
        with contextlib.suppress(OSError, KeyError):
            return grp.getgrgid(os.stat(place).st_gid).gr_name
    return "unknown"


def _refusal(method: str, reply: dict[str, Any]) -> Exception:
    parameters = reply.get("parameters") or {}
    if reply["error"] == ERROR:
        error = from_status(-abs(int(parameters.get("code", 5))), f"{method} refused")
        error.args = (str(parameters.get("message", error)),)
        return error
    return ProtocolError(f"the daemon refused {method}: {reply['error']} {parameters}")
