"""The original Address Space Graphics library's ends, by `ASG_ORIGINAL=FOLDER`: a tree of it with
its headers, and beneath it what was built of it, as objects or archives."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FOLDER = os.environ.get("ASG_ORIGINAL", "")


def build(out: Path) -> ctypes.CDLL:
    """Its ends behind a C face, in a library made there."""
    root = Path(FOLDER)
    built = sorted(root.rglob("*.a")) or sorted(root.rglob("*.o"))
    if not built:
        raise FileNotFoundError(f"ASG_ORIGINAL={FOLDER} has nothing built in it: no *.a, no *.o")
    library = out / "original.so"
    command = ["g++", "-std=c++17", "-O2", "-shared", "-fPIC", f"-I{root}", "-o", library]
    command += [HERE / "original.cpp", "-Wl,--start-group", *built, "-Wl,--end-group", "-pthread"]
    subprocess.run([*map(str, command)], check=True)
    found = ctypes.CDLL(str(library))
    for name in ("client_new", "server_new"):
        getattr(found, name).restype = ctypes.c_void_p
    for name in ("server_read", "client_rung"):
        getattr(found, name).restype = ctypes.c_size_t
    return found


def _address(region: Any) -> ctypes.c_void_p:
    return ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(region)))


class OriginalClient:
    """As `sbe.asg.Client`, as far as the tests use it. It lays the region out."""

    def __init__(self, library: ctypes.CDLL, region: Any, size: int, bell: int, step: int) -> None:
        self._library = library
        self._self = ctypes.c_void_p(
            library.client_new(
                _address(region), ctypes.c_size_t(size), ctypes.c_uint32(step), ctypes.c_int(bell)
            )
        )

    def _call(self, name: str, *arguments: Any) -> int:
        status: int = getattr(self._library, name)(self._self, *arguments)
        assert status == 0, name
        return status

    def write(self, data: bytes) -> None:
        """By alloc() of the original, which packs."""
        self._call("client_write", data, ctypes.c_size_t(len(data)))

    def send(self, data: bytes, wait: bool = False) -> None:
        """A transfer of type 3."""
        self._call("client_send", data, ctypes.c_size_t(len(data)), ctypes.c_int(wait))

    def flush(self) -> None:
        """Sends what was written."""
        self._call("client_flush")

    def read_exactly(self, size: int) -> bytes:
        """A reply."""
        reply = ctypes.create_string_buffer(size)
        self._call("client_read", reply, ctypes.c_size_t(size))
        return reply.raw

    def rung(self) -> int:
        """Doorbells so far."""
        return int(self._library.client_rung(self._self))

    def close(self) -> None:
        """Its destructor, which waits for the server to have read."""
        self._library.client_delete(self._self)


class OriginalServer:
    """As `sbe.asg.Server`. It resets the rings: make it before anything is written."""

    def __init__(self, library: ctypes.CDLL, region: Any, size: int, bell: int) -> None:
        self._library = library
        self._self = ctypes.c_void_p(
            library.server_new(_address(region), ctypes.c_size_t(size), ctypes.c_int(bell))
        )

    def read_exactly(self, size: int) -> bytes:
        """So many bytes."""
        data = ctypes.create_string_buffer(size)
        got = 0
        while got < size:
            at = ctypes.c_void_p(ctypes.addressof(data) + got)
            got += self._library.server_read(self._self, at, ctypes.c_size_t(size - got))
        return data.raw

    def reply(self, data: bytes) -> None:
        """Sends bytes back."""
        self._library.server_reply(self._self, data, ctypes.c_size_t(len(data)))
