"""A synchronous varlink client: JSON and file descriptors over a unix socket.

Varlink (varlink.org) is systemd's own protocol: one JSON object a message, ended by a NUL byte;
descriptors travel beside it. The daemon's end is the asyncvarlink library; this page is all that
an application needs, and the standard library is all it costs.
"""

from __future__ import annotations

import array
import contextlib
import json
import math
import os
import select
import socket
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from sbe._native import SignalsLet
from sbe.control import ERROR, INTERFACE
from sbe.errors import (
    DaemonGone,
    Error,
    LinkError,
    OutOfResources,
    PermissionDenied,
    ProtocolError,
    Timeout,
    from_status,
    from_system,
    resources,
)
from sbe.host import sockets
from sbe.host.descriptors import close_all, socket_above_streams
from sbe.host.waiting import wait_ready

__all__ = ["Call", "VarlinkClient"]

_CHUNK = 65536
_BACKLOG_S = 0.005
_REPLY_MAX = 16 << 20  # bytes: a list of 10,000 areas is about one
_FDS_MAX = 64
_ANSWERED_IN = 0.9  # of a deadline
_AHEAD_MAX = 16  # calls that may wait for answers: of these all but one were given up
_FOREIGN = (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError)


class _Message:
    """Bytes and descriptors as they come."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.fds: list[int] = []
        self.short = False  # descriptors were lost: this process may have no more


class Call:
    """A call that was sent. It ends with the answer, even where nobody waits any more."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.done = False
        self.undo: Callable[[dict[str, Any]], None] | None = None
        """Given the reply's parameters of a success that came too late."""
        self._abandoned = False
        self._error: Exception | None = None
        self._reply: tuple[dict[str, Any], list[int]] = {}, []

    def end(self, reply: dict[str, Any], fds: list[int], error: Exception | None) -> None:
        """The answer has come; its descriptors are the call's."""
        self.done, self._reply, self._error = True, (reply, fds), error
        if self._abandoned:
            self.abandon()

    def result(self) -> tuple[dict[str, Any], list[int]]:
        """What it ended with; the caller owns the descriptors."""
        if self._error is not None:
            raise self._error
        return self._reply

    def abandon(self) -> None:
        """Nobody takes the result: a success is undone, now or when it comes."""
        self._abandoned = True
        if not self.done:
            return
        reply, fds = self._reply
        self._reply = reply, []
        close_all(fds)
        undo, self.undo = self.undo, None
        if undo is not None and self._error is None:
            undo(reply)


class VarlinkClient:
    """One connection to the daemon. Not thread-safe: its owner serialises calls.

    A call that ended early leaves the connection usable: its answer is taken when it comes, before
    those of later calls, and undone. After anything else that goes wrong with the connection it
    is `broken`, and polls as hung up until it is closed.
    """

    def __init__(self, path: str, timeout: float, until: float = math.inf) -> None:
        """Connects by `until`, `time.monotonic()`; `timeout` in seconds bounds every call."""
        self.path = path
        self.broken: LinkError | None = None
        """Why the connection is of no use any more."""
        self._timeout = timeout
        self.until = until
        """Every call ends by then, if not sooner, `time.monotonic()`."""
        self._owner = os.getpid()
        self._calls: deque[Call] = deque()  # in the order of their answers
        self._untold: deque[tuple[str, dict[str, Any]]] = deque()
        self._partial = _Message()
        self._whole: deque[_Message] = deque()
        with resources("making a socket for the daemon"):
            self._socket = socket_above_streams(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        try:
            deadline = self._deadline()
            self._socket.settimeout(max(deadline - time.monotonic(), 0.0))
            with sockets.address(path) as address, SignalsLet():
                self._connect(address, deadline)
        except OSError as error:
            self._socket.close()
            raise _connect_error(path, error) from error
        except BaseException:
            self._socket.close()
            raise
        self._socket.setblocking(False)

    def _connect(self, address: str, deadline: float) -> None:
        while True:
            try:
                return self._socket.connect(address)
            except BlockingIOError:  # too many wait to be accepted, and nothing tells when not
                if time.monotonic() >= deadline:
                    raise
            time.sleep(_BACKLOG_S)

    def fileno(self) -> int:
        """The socket; it hangs up when the daemon is gone."""
        return self._socket.fileno()

    def close(self) -> None:
        """Ends the connection, and with it the context; in a forked child only its copy."""
        self.fail(DaemonGone(f"the connection to the daemon at {self.path} is over; connect again"))
        self._socket.close()

    def fail(self, error: LinkError) -> None:
        """The connection is of no use any more. It is shut down, so that all who poll it hear."""
        if self.broken is not None:
            return
        self.broken = error
        if os.getpid() == self._owner:  # a forked child's copy would keep it open
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        for message in (self._partial, *self._whole):
            close_all(message.fds)
        self._partial = _Message()
        self._whole.clear()
        while self._calls:
            self._calls.popleft().end({}, [], error)

    def call(
        self,
        method: str,
        *,
        longer_s: float = 0.0,
        undo: Callable[[dict[str, Any]], None] | None = None,
        **parameters: Any,
    ) -> tuple[dict[str, Any], list[int]]:
        """Calls `org.sbe.Control.<method>`; the reply's parameters and its descriptors.

        It may take `longer_s` longer than others. `undo` is called with the parameters of a success
        that comes after all, when this has ended early.

        The caller owns the descriptors. Raises what the daemon refused with, translated; DaemonGone
        when the connection ended, Timeout when it did not answer in time.
        """
        return self.wait(self.begin(method, undo=undo, **parameters), longer_s=longer_s)

    def begin(
        self,
        method: str,
        *,
        undo: Callable[[dict[str, Any]], None] | None = None,
        **parameters: Any,
    ) -> Call:
        """Sends a call, for `wait()`."""
        self._check()
        deadline = self._deadline()
        while len(self._calls) >= _AHEAD_MAX:
            self._process_answer(method, deadline)
        self._tell_all(deadline)
        call = Call(method)
        call.undo = undo
        self._send(method, deadline, parameters)
        self._calls.append(call)
        return call

    def wait(self, call: Call, *, longer_s: float = 0.0) -> tuple[dict[str, Any], list[int]]:
        """Waits for the answer to a call, this time until its end, and returns it as `call()`."""
        deadline = self._deadline(longer_s)
        try:
            while not call.done:
                self._process_answer(call.method, deadline)
            return call.result()
        except BaseException:
            call.abandon()
            raise

    def tell(self, method: str, **parameters: Any) -> None:
        """Calls without an answer, at the latest before the next call. Never raises."""
        self._untold.append((method, parameters))
        with contextlib.suppress(Error):
            self._tell_all(time.monotonic())

    def _tell_all(self, deadline: float) -> None:
        while self._untold:
            method, parameters = self._untold[0]
            self._send(method, deadline, parameters, oneway=True)
            self._untold.popleft()

    @contextlib.contextmanager
    def understanding(self, method: str, fds: list[int]) -> Iterator[None]:
        """Inside, an answer is taken apart. One that makes no sense ends the connection.

        The descriptors are closed on any error.
        """
        try:
            yield
        except BaseException as error:
            close_all(fds)
            if isinstance(error, _FOREIGN) and not isinstance(error, Error):
                error = self._nonsense(method, repr(error))
            if isinstance(error, ProtocolError):
                self.fail(error)
            raise error

    # -- inside --------------------------------------------------------------------------------

    def milliseconds_left(self, left_s: float | None = None) -> int:
        """Of a call that begins now, or of `left_s`, less what its answer takes: who answers in
        time can say why it was too late.
        """
        if left_s is None:
            left_s = self._deadline() - time.monotonic()
        return max(1, round(_ANSWERED_IN * 1000 * left_s))

    def _deadline(self, longer_s: float = 0.0) -> float:
        return min(time.monotonic() + self._timeout + longer_s, self.until)

    def _check(self) -> None:
        if self.broken is not None:
            raise DaemonGone(
                f"the connection to the daemon at {self.path} is over; connect again"
            ) from self.broken

    def _nonsense(self, method: str, detail: str) -> ProtocolError:
        return ProtocolError(
            f"the daemon at {self.path} answered {method} with what makes no sense: {detail:.200}"
        )

    def _gone(self, why: object) -> DaemonGone:
        error = DaemonGone(f"the daemon at {self.path} went away: {why}")
        self.fail(error)
        return error

    def _send(
        self, method: str, deadline: float, parameters: dict[str, Any], *, oneway: bool = False
    ) -> None:
        self._check()
        given = {name: value for name, value in parameters.items() if value is not None}
        call: dict[str, Any] = {"method": f"{INTERFACE}.{method}", "parameters": given}
        if oneway:
            call["oneway"] = True
        message = json.dumps(call).encode() + b"\0"
        sent = 0
        try:
            while sent < len(message):
                try:
                    sent += self._socket.send(message[sent:], socket.MSG_NOSIGNAL)
                except BlockingIOError:
                    self._poll(select.POLLOUT, method, deadline)
        except (BrokenPipeError, ConnectionResetError):
            return  # the daemon may have said why before it hung up: who reads will know
        except OSError as error:
            if isinstance(error, Error):
                raise
            refused = from_system(error, f"asking the daemon at {self.path}")
            if sent == 0 and isinstance(refused, OutOfResources):
                raise refused from error
            raise self._gone(error) from error
        finally:
            if 0 < sent < len(message):  # nothing can follow half a call
                self.fail(DaemonGone(f"the daemon at {self.path} takes no calls; connect again"))

    def _poll(self, events: int, method: str, deadline: float) -> None:
        left = deadline - time.monotonic()
        poll = select.poll()
        poll.register(self._socket, events)
        ready = wait_ready(lambda s: poll.poll(None if s is None else 1000 * s), max(left, 0))
        if not ready and time.monotonic() >= deadline:
            raise Timeout(f"the daemon at {self.path} did not answer {method} in time")

    def _process_answer(self, method: str, deadline: float) -> None:
        """Processes the next answer, of whichever call. Raises when there is none in time."""
        while not self._whole:
            self._check()
            self._poll(select.POLLIN, method, deadline)
            self._receive()
        message = self._whole.popleft()
        call = self._calls.popleft()
        reply, error, nonsense = self._read(call.method, message.data)
        if error is None and message.short:
            error = OutOfResources(f"{call.method}: no descriptor left for what the daemon sent")
            if call.undo is not None:
                call.undo(reply)
        if error is not None:
            close_all(message.fds)
            message.fds = []
        call.end(reply, message.fds, error)
        if nonsense is not None:
            self.fail(nonsense)

    def _read(
        self, method: str, data: bytearray
    ) -> tuple[dict[str, Any], Exception | None, ProtocolError | None]:
        """Parameters; the error to raise; the same if it ends the connection."""
        try:
            answer = json.loads(data)
            reply = answer.get("parameters") or {}
            name = answer.get("error")
            if not isinstance(reply, dict) or not isinstance(name, str | None):
                raise TypeError(repr(answer))
            return reply, None if name is None else _refusal(method, name, reply), None
        except _FOREIGN as foreign:
            nonsense = ProtocolError(f"what answers at {self.path} does not speak varlink")
            nonsense.__cause__ = foreign
            return {}, nonsense, nonsense

    def _receive(self) -> None:
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(
                _CHUNK, socket.CMSG_SPACE(_FDS_MAX * 4), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError as error:
            raise self._gone(error) from error
        fds = array.array("i")
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        if not data:
            close_all(fds)
            raise self._gone("connection closed")
        *whole, rest = data.split(b"\0")
        for part in whole:
            self._partial.data += part
            self._whole.append(self._partial)
            self._partial = _Message()
        self._partial.data += rest
        # Descriptors come with the first bytes of their message, and nothing comes after them.
        owner = self._partial if rest else self._whole[-1]
        owner.fds += fds
        owner.short = owner.short or bool(flags & socket.MSG_CTRUNC)
        if (
            len(owner.data) > _REPLY_MAX
            or len(owner.fds) >= _FDS_MAX
            or len(self._whole) > len(self._calls)
        ):
            excess = ProtocolError(f"the daemon at {self.path} sent more than it may")
            self.fail(excess)
            raise excess


_WITHOUT_DAEMON = "start sbe-daemon, or use the URI 'loopback:'"


def _connect_error(path: str, error: OSError) -> Exception:
    if isinstance(error, PermissionError):
        return PermissionDenied(
            f"no permission on the daemon's socket {path}: join the group that owns it "
            f"({_group(path)}) and log in again"
        )
    if isinstance(error, FileNotFoundError):
        return LinkError(f"no daemon: {path} does not exist; {_WITHOUT_DAEMON}")
    if isinstance(error, ConnectionRefusedError) and not _is_socket(path):
        return LinkError(f"no daemon: {path} is no socket; {_WITHOUT_DAEMON}")
    if isinstance(error, ConnectionRefusedError):
        return LinkError(f"no daemon answers at {path}; {_WITHOUT_DAEMON}")
    if isinstance(error, BlockingIOError | TimeoutError):
        return Timeout(f"the daemon at {path} has too many who wait, and has not taken this one")
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


def _refusal(method: str, name: str, parameters: dict[str, Any]) -> Error:
    if name == ERROR:
        error = from_status(-abs(int(parameters.get("code", 5))), f"{method} refused")
        error.args = (str(parameters.get("message", error)),)
        return error
    return ProtocolError(f"the daemon refused {method}: {name} {parameters}")
