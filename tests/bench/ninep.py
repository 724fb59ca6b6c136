"""Files by 9P: through the bridge to a remote, and the same server over a plain socket."""

from __future__ import annotations

import importlib
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.bench import ours, procs, programs
from tests.bench.model import Probe, Result, Row, Settings

__all__ = ["PROBES", "ROWS"]

_MSIZES = {"8k": 8 << 10, "64k": 64 << 10, "1m": 1 << 20}
_OVERHEAD = 24  # of a message with data, at most: the v9fs of Linux leaves as much
_FILE_BYTES = 4 << 20
_OPERATIONS = 512  # in a turn
_FILE = "/ram/bench"


class _File:
    """An open file of one server, by messages one after the other. One thread.

    Data go from a buffer and into one, so that what the client itself does is little beside the
    way that is measured.
    """

    def __init__(self, client: Any, msize: int) -> None:
        protocol = importlib.import_module("tests.integration.ninep")
        self._read, self._write, self._message = protocol.READ, protocol.WRITE, protocol.message
        self._client = client
        client.version(msize)
        if client.msize != msize:
            raise RuntimeError(f"the server agreed to messages of {client.msize} bytes")
        client.attach()
        self._most = msize - _OVERHEAD
        self._fid = client.create(_FILE)
        self._data = memoryview(os.urandom(_FILE_BYTES))
        self._place = memoryview(bytearray(_FILE_BYTES))
        self._head = memoryview(bytearray(11))

    def write(self) -> None:
        """All of the file."""
        sock = self._client.socket
        for at, count in self._parts():
            body = struct.pack("<IQI", self._fid, at, count)
            head = self._message(self._write, 0, body, 7 + len(body) + count)
            data = self._data[at : at + count]
            sent = sock.sendmsg([head, data])
            sock.sendall(data[sent - len(head) :])
            self._answered(self._write, 11, count)

    def read(self) -> None:
        """The same."""
        for at, count in self._parts():
            body = struct.pack("<IQI", self._fid, at, count)
            self._client.socket.sendall(self._message(self._read, 0, body))
            self._answered(self._read, 11 + count, count)
            self._take(self._place[at : at + count])

    def attributes(self) -> None:
        """Some operations that have next to no data."""
        for _ in range(_OPERATIONS):
            self._client.attributes_of(self._fid)

    def check(self) -> None:
        """What was read is what was written."""
        if self._place != self._data:
            raise RuntimeError("the file that was read differs from the one that was written")

    def remove(self) -> None:
        self._client.clunk(self._fid)
        self._client.unlink(_FILE)

    def _parts(self) -> Iterator[tuple[int, int]]:
        for at in range(0, _FILE_BYTES, self._most):
            yield at, min(self._most, _FILE_BYTES - at)

    def _answered(self, kind: int, size: int, count: int) -> None:
        self._take(self._head)
        got = struct.unpack("<IBHI", self._head)
        if got != (size, kind + 1, 0, count):
            raise RuntimeError(f"{count} bytes at a time were answered with {got}")

    def _take(self, place: memoryview) -> None:
        while place:
            got = self._client.socket.recv_into(place)
            if got == 0:
                raise RuntimeError("the server has left")
            place = place[got:]


@contextmanager
def _client(command: list[str]) -> Iterator[Any]:
    """A client of the server that this command is, which gets the socket's number."""
    near, far = socket.socketpair()
    with far, procs.child([*command, str(far.fileno())], [far.fileno()]) as process, near:
        far.close()
        procs.await_line(process)
        near.settimeout(ours.LIMIT_S)
        yield importlib.import_module("tests.integration.ninep").Client(near)


def _turns(files: dict[str, _File], settings: Settings) -> dict[str, list[float]]:
    """MB/s and operations a second of each server, all in turns."""
    work: dict[str, tuple[float, Callable[[_File], None]]] = {
        "write": (_FILE_BYTES / 1e6, _File.write),
        "read": (_FILE_BYTES / 1e6, _File.read),
        "operations": (_OPERATIONS, _File.attributes),
    }
    samples: dict[str, list[float]] = {}
    for turn in range(settings.blocks + 1):
        for what, (amount, step) in work.items():
            for way, file in files.items():
                begun = time.perf_counter()
                step(file)
                if turn:  # the first one warms up, and makes the file as large as it gets
                    took = time.perf_counter() - begun
                    samples.setdefault(f"{what}/{way}", []).append(amount / took)
    return samples


def ninep(settings: Settings) -> Result:
    """A file that is written and read, and operations, one message after the other, per msize.

    The scheduler places all: by the bridge they are three processes, else two.
    """
    ours.require_sbe()
    settings = replace(settings, placement="none")
    program = programs.build(Path(settings.build), "ninep_socket")
    bridge = procs.end_command("ninep_bridge")
    series: dict[str, list[float]] = {}
    with _client(bridge) as bridged, _client([str(program)]) as plain:
        for name, msize in _MSIZES.items():
            files = {"sbe": _File(bridged, msize), "socket": _File(plain, msize)}
            series |= {f"{name}/{key}": got for key, got in _turns(files, settings).items()}
            for file in files.values():
                file.check()
                file.remove()
    return Result(
        series, f"a file of {_FILE_BYTES >> 20} MiB, one message at a time, all in turns, unpinned"
    )


def _rows() -> Iterator[Row]:
    for what, unit, said in (
        ("read", "MB/s", "a file of the remote read by 9P through the bridge"),
        ("write", "MB/s", "the same written"),
        ("operations", "ops/s", "getattr of it"),
    ):
        for name in _MSIZES:
            yield Row(
                f"ninep_{what}_{name}",
                unit,
                f"ninep/{name}/{what}/sbe",
                f"ninep/{name}/{what}/socket",
                "plain socket",
                f"{said}, msize {name[:-1]} {name[-1].upper()}iB",
                higher_is_better=True,
            )


PROBES = {"ninep": Probe(ninep)}
ROWS = [*_rows()]
