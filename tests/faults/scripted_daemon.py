"""A daemon that answers by the book, but for what a test has it do at one method."""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sbe import _native
from sbe.control import ERROR
from sbe.heaps.memfd import MemfdHeap
from sbe.link.rings import Geometry, Rings, create_rings

__all__ = ["Misdeed", "ScriptedDaemon"]

LIMITS = {
    "areas": 64,
    "contexts": 4,
    "channels": 4,
    "slots": 64,
    "slot_size": 1024,
    "buffers": 16,
}

Misdeed = Callable[["ScriptedDaemon", dict[str, Any], list[int]], None]
"""Told the answer that would be right: parameters, and descriptors, which stay the daemon's."""


class ScriptedDaemon:
    """One client's daemon, in a thread. `misdeeds` by method happen once."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "control.sock"
        self.misdeeds: dict[str, Misdeed] = {}
        self.called: list[tuple[str, dict[str, Any], bool]] = []
        """Every call: method, parameters, and whether it wants no answer."""
        self.held: list[tuple[dict[str, Any], list[int]]] = []
        """Answers that were not given."""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self.client: socket.socket
        self._bells: list[socket.socket] = []
        self._areas = self._channels = 0
        self._rings: list[Rings] = []
        self._fds: list[int] = []
        self._thread = threading.Thread(target=self._run, name="scripted-daemon", daemon=True)
        self._thread.start()

    # -- what a misdeed may do -----------------------------------------------------------------

    def send(self, message: bytes, fds: list[int] | None = None) -> None:
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds or []))
        with contextlib.suppress(OSError):  # it may have gone
            self.client.sendmsg([message], [rights] if fds else [])

    def answer(self, parameters: dict[str, Any], fds: list[int] | None = None) -> None:
        self.send(json.dumps({"parameters": parameters}).encode() + b"\0", fds)

    def refuse(self, code: Any, message: str) -> None:
        parameters = {"code": code, "message": message}
        self.send(json.dumps({"error": ERROR, "parameters": parameters}).encode() + b"\0")

    def hold(self, parameters: dict[str, Any], fds: list[int]) -> None:
        """Answers later, by `release()`."""
        self.held.append((parameters, [os.dup(fd) for fd in fds]))

    def release(self) -> None:
        for parameters, fds in self.held:
            self.answer(parameters, fds)
            for fd in fds:
                os.close(fd)
        self.held.clear()

    def hang_up(self) -> None:
        self.client.shutdown(socket.SHUT_RDWR)

    def join(self) -> None:
        """Waits until the client has gone."""
        self._thread.join(20.0)
        assert not self._thread.is_alive()

    # -- by the book ---------------------------------------------------------------------------

    def _run(self) -> None:
        self.client, _ = self._listener.accept()
        data = b""
        with self.client:
            while received := self._receive():
                *whole, data = (data + received).split(b"\0")
                for message in whole:
                    self._serve(json.loads(message))
        self._let_go()

    def _receive(self) -> bytes:
        try:
            return self.client.recv(65536)
        except OSError:
            return b""

    def _serve(self, call: dict[str, Any]) -> None:
        method = call["method"].rpartition(".")[2]
        silent = bool(call.get("oneway"))
        self.called.append((method, call["parameters"], silent))
        if silent:
            return
        parameters, fds = getattr(self, f"_{method}", self._nothing)(call["parameters"])
        misdeed = self.misdeeds.pop(method, None)
        if misdeed is None:
            self.answer(parameters, fds)
        else:
            misdeed(self, parameters, fds)

    def _nothing(self, _: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        return {}, []

    def _keep(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def _Open(self, _: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        self._bells += socket.socketpair()
        return {"context": 1, "limits": LIMITS, "events_fd": 0}, [self._bells[-1].fileno()]

    def _Allocate(self, _: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        self._areas += 1
        allocation = MemfdHeap().allocate(4096)
        self._keep(allocation.fd)
        return {
            "area": self._areas | 1 << 16,
            "size": 4096,
            "flags": _native.AREA_COHERENT,
            "heap": "memfd",
            "offset": 0,
            "trusted": False,
            "memory_fd": 0,
            "sync_fd": None,
        }, [allocation.fd]

    _OpenRegion = _Allocate

    def _ListRegions(self, _: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        return {"regions": [{"name": "log", "size": 4096}]}, []

    def _OpenChannel(self, _: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        self._channels += 1
        rings = create_rings(Geometry(4, 256), 64)
        self._rings.append(rings)
        return {
            "channel": self._channels,
            "epoch": 7,
            "slots": 4,
            "slot_size": 256,
            "line": 64,
            "send_offset": rings.send_offset,
            "receive_offset": rings.receive_offset,
            "size": rings.size_bytes,
            "offset": 0,
            "trusted": False,
            "events": 0,
            "memory_fd": 0,
            "ring_fd": 1,
            "wake_fd": 2,
        }, list(rings.fds)

    def _FindService(self, _: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        return {"service": 3, "version": 1}, []

    def _ListServices(self, _: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        return {"services": [{"id": 3, "name": "echo", "version": 1}]}, []

    def _Serve(self, _: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        return {"service": 5}, []

    def close(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            self.hang_up()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5.0)
        self._listener.close()
        for rings in self._rings:
            rings.close()
        for fd in self._fds:
            os.close(fd)

    def _let_go(self) -> None:
        """The client has gone: what it was told by, and what it was not told."""
        for bell in self._bells:
            bell.close()
        for _, fds in self.held:
            for fd in fds:
                os.close(fd)
        self.held.clear()
