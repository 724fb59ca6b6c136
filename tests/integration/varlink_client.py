"""A raw varlink client and a daemon process, for tests. Deliberately not the SDK's client.

The client is JSON, NUL and SCM_RIGHTS on a socket, with nothing checked, so that tests can say
what no well-behaved client would.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sbe.control import ERROR, INTERFACE, PROTOCOL

SECONDS = 20.0  # a generous limit that turns a hang into a failure


class Refused(Exception):
    """The daemon answered with an error."""

    def __init__(self, error: str, parameters: dict[str, Any]) -> None:
        super().__init__(f"{error} {parameters}")
        self.error = error
        self.parameters = parameters
        self.code: int = parameters.get("code", 0)
        self.message: str = parameters.get("message", "")


class VarlinkClient:
    """One connection. Closes the descriptors that it was given with itself."""

    def __init__(self, path: Path | str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(SECONDS)
        self.socket.connect(str(path))
        self._buffer = b""
        self._arrived: list[int] = []
        self.fds: list[int] = []

    def send(self, method: str, **parameters: Any) -> None:
        """Send a call of org.sbe.Control, or of another interface by its full name."""
        name = method if "." in method else f"{INTERFACE}.{method}"
        self.send_bytes(json.dumps({"method": name, "parameters": parameters}).encode() + b"\0")

    def send_bytes(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send anything, with descriptors."""
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
        sent = self.socket.sendmsg([data], [rights] if fds else [])
        self.socket.sendall(data[sent:])

    def receive(self) -> dict[str, Any]:
        """Return the next reply's parameters, `..._fd` replaced by real descriptors."""
        while b"\0" not in self._buffer:
            data, ancillary, _, _ = self.socket.recvmsg(65536, socket.CMSG_SPACE(64 * 4))
            for level, kind, content in ancillary:
                assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
                fds = array.array("i")
                fds.frombytes(content)
                self._arrived += fds
                self.fds += fds
            if not data:
                raise EOFError
            self._buffer += data
        message, self._buffer = self._buffer.split(b"\0", 1)
        reply = json.loads(message)
        parameters: dict[str, Any] = reply.get("parameters", {})
        if "error" in reply:
            raise Refused(reply["error"], parameters)
        names = [name for name, at in parameters.items() if name.endswith("_fd") and at is not None]
        assert sorted(parameters[name] for name in names) == list(range(len(self._arrived)))
        for name in names:
            parameters[name] = self._arrived[parameters[name]]
        self._arrived = []
        return parameters

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send and receive."""
        self.send(method, **parameters)
        return self.receive()

    def open(self, name: str = "test", **parameters: Any) -> dict[str, Any]:
        """Call Open as a client of this version does."""
        return self.call("Open", protocol=PROTOCOL, name=name, **parameters)

    def refusal(self, method: str, **parameters: Any) -> Refused:
        """Call what must be refused."""
        try:
            reply = self.call(method, **parameters)
        except Refused as refused:
            if refused.error == ERROR:
                return refused
            raise
        raise AssertionError(f"{method} was not refused: {reply}")

    def close(self) -> None:
        self.socket.close()
        while self.fds:
            os.close(self.fds.pop())

    def __enter__(self) -> VarlinkClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Daemon:
    """A daemon process on a socket of its own. `until`: what its log says when it is ready."""

    def __init__(
        self,
        folder: Path,
        config: str = "",
        *,
        arguments: Sequence[str] = (),
        launcher: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        until: str = "is connected",
        **popen: Any,
    ) -> None:
        self.socket = folder / "run" / "control.sock"
        self.log_path = folder / "daemon.log"
        self.config_path = folder / "daemon.toml"
        self.config_path.write_text(config)
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(
                        *launcher,
                        sys.executable,
                        "-m",
                        "sbe.daemon",
                        "--config",
                        str(self.config_path),
                    ),
                    *("--socket", str(self.socket), *arguments),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | (environment or {}),
                **popen,
            )
        self.wait_until(lambda: until in self.log())

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        return self.log_path.read_text()

    def wait_until(self, condition: Callable[[], object], what: str = "") -> None:
        """Wait for something of which only a look tells."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert self.process.poll() is None, f"the daemon has ended:\n{self.log()}"
            assert time.monotonic() < deadline, f"{what or condition}\n{self.log()}"
            time.sleep(0.005)

    def client(self) -> VarlinkClient:
        return VarlinkClient(self.socket)

    def list(self) -> dict[str, Any]:
        with self.client() as client:
            return client.call("List")

    def stat(self) -> dict[str, Any]:
        with self.client() as client:
            return client.call("Stat")

    def remote_pid(self) -> int:
        self.wait_until(lambda: self.list()["links"][0]["pid"])
        pid: int = self.list()["links"][0]["pid"]
        return pid

    def used(self, uid: int | None = None) -> dict[str, int]:
        """What a user holds, without the connection that asks."""
        uid = os.getuid() if uid is None else uid
        for user in self.stat()["users"]:
            if user["uid"] == uid:
                used: dict[str, int] = user["used"]
                used["connections"] -= uid == os.getuid()
                return used
        return {}

    def is_empty(self) -> bool:
        """Nothing is held: by the daemon's accounts, and at its end of the links."""
        links = self.stat()["links"]
        held = [link[key] for link in links for key in ("areas", "contexts", "channels")]
        return not any(held) and not any(self.used().values())

    def wait_until_empty(self) -> None:
        self.wait_until(self.is_empty, "what clients held is not back")

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(SECONDS)


@contextlib.contextmanager
def daemon(folder: Path, config: str = "", **options: Any) -> Iterator[Daemon]:
    """A running daemon, which ends with the block."""
    running = Daemon(folder, config, **options)
    try:
        yield running
    finally:
        running.close()


def readable(fd: int, seconds: float = SECONDS) -> bool:
    """Wait until there is something to read."""
    return bool(select.select([fd], [], [], seconds)[0])
