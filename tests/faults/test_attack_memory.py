"""An application that does to its memory whatever its descriptors allow: nobody else faults."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from sbe import _native
from tests.faults.arena import Arena
from tests.faults.attacks import application

IN, OUT = _native.DIR_IN, _native.DIR_OUT
SIZE = 1 << 20
_LIBC = ctypes.CDLL(None, use_errno=True)
PUNCH = 3  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
REMOVE = 9  # MADV_REMOVE


def reopened(fd: int, flags: int) -> None:
    os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDWR | flags))


def fallocate(fd: int, mode: int, offset: int, size: int) -> None:
    if _LIBC.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(size)) != 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def seal(fd: int, seals: int) -> None:
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)


FUTURE_WRITE = 0x10  # F_SEAL_FUTURE_WRITE

# What is tried on a descriptor, and whether the kernel lets it: else EPERM.
TRIES: dict[str, tuple[Callable[[int], Any], bool]] = {
    "truncated": (lambda fd: os.ftruncate(fd, 0), False),
    "truncated by a byte": (lambda fd: os.ftruncate(fd, os.fstat(fd).st_size - 1), False),
    "grown": (lambda fd: os.ftruncate(fd, 1 << 30), False),
    "grown by what is allocated": (lambda fd: fallocate(fd, 0, 0, 1 << 30), False),
    "opened anew to be truncated": (lambda fd: reopened(fd, os.O_TRUNC), False),
    "sealed against writes": (lambda fd: seal(fd, fcntl.F_SEAL_WRITE), False),
    "sealed against writes to come": (lambda fd: seal(fd, FUTURE_WRITE), False),
    "sealed against seals": (lambda fd: seal(fd, fcntl.F_SEAL_SEAL), False),
    "opened anew": (lambda fd: reopened(fd, 0), True),
    "a hole in all of it": (lambda fd: fallocate(fd, PUNCH, 0, os.fstat(fd).st_size), True),
    "a hole in its middle": (lambda fd: fallocate(fd, PUNCH, 4096, 4096), True),
}


@pytest.mark.parametrize("of", ["an area", "the rings"])
@pytest.mark.parametrize("what", TRIES)
@application(2, 10)
def test_memory_that_is_taken_away(arena: Arena, what: str, of: str) -> None:
    """While requests use it, and before the next ones do: a SIGBUS would end the remote."""
    evil = arena.attacker()
    crc32, channel = evil.service("crc32"), evil.channel(slots=64, slot_size=256)
    granted = evil.client.call("Allocate", size=SIZE)
    area, fd = granted["area"], granted["memory_fd"]
    if of == "the rings":
        fd = channel.opened["memory_fd"]
    whole = [{"area": area, "direction": IN, "size": SIZE}]
    for _ in range(20):
        channel.ask(crc32, buffers=whole)
    tried, allowed = TRIES[what]
    if allowed:
        tried(fd)
    else:
        with pytest.raises(PermissionError):
            tried(fd)
    arena.bystander.goes_on()
    again = evil.channel()
    reply = again.answer(again.ask(crc32, buffers=whole))
    assert int.from_bytes(reply.payload, "little") == zlib.crc32(bytes(SIZE))
    if not allowed:  # and what was asked for before it was answered
        assert [channel.next().status for _ in range(20)] == [0] * 20


@application(10, 23)
def test_pages_that_are_removed_all_the_time(arena: Arena) -> None:
    evil = arena.attacker()
    fill, channel = evil.service("fill"), evil.channel()
    area, memory = evil.area(SIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    target = [{"area": area, "direction": OUT, "size": SIZE}]
    for _ in range(100):
        number = channel.ask(fill, b"!", buffers=target)
        assert _LIBC.madvise(ctypes.c_void_p(address), SIZE, REMOVE) == 0
        assert channel.answer(number).status == 0
    assert {*bytes(memory)} <= {0, ord("!")}


@application(1)
def test_bytes_that_change_while_they_are_worked_on(arena: Arena) -> None:
    """Its own sums are wrong then, and nobody else's."""
    evil = arena.attacker()
    services = {name: evil.service(name) for name in ("crc32", "sobel", "mulaw", "fir", "copy")}
    channel = evil.channel(slots=64, slot_size=256)
    area, memory = evil.area(SIZE)
    half = SIZE // 2
    both = [
        {"area": area, "direction": IN, "size": half},
        {"area": area, "direction": OUT, "offset": half, "size": half},
    ]
    payloads = {"sobel": (512).to_bytes(4, "little") + (1024).to_bytes(4, "little"),
                "fir": b"\x01\x00" * 4}  # fmt: skip
    for turn in range(40):
        asked = {}
        for name, service in services.items():
            buffers = both[:1] if name == "crc32" else both
            asked[channel.ask(service, payloads.get(name, b""), buffers=buffers)] = name
        memory[:half] = os.urandom(4096) * (half // 4096)
        memory[half : half + 4096] = bytes([turn]) * 4096
        for _ in asked:
            frame = channel.next()
            assert frame.status == 0, asked[frame.header["transaction"]]


@application(2, 4, 10)
def test_rings_and_areas_that_can_not_be(arena: Arena) -> None:
    """Geometry and sizes by which memory would be computed."""
    evil = arena.attacker()
    for slots in (0, 1, 3, 65, 1 << 16, 1 << 17, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 64, -1):
        for size in (0, 1, 63, 65, 1 << 17, 1 << 31, (1 << 32) - 64, 1 << 64, -64):
            evil.client.refusal("OpenChannel", slots=slots, slot_size=size)
    for bytes_ in (0, -1, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, 1 << 64, 1 << 200):
        evil.client.refusal("Allocate", size=bytes_)
    assert evil.channel(slots=2, slot_size=64).works(evil.service("echo"))


@application(10, 23)
def test_memory_that_is_sealed_or_gone_when_the_remote_comes_back() -> None:
    """A remote maps all areas again after its death: whatever an application did to its own."""
    arena = Arena("[[link]]\nrestart = { initial_seconds = 0.01 }\n")
    try:
        evil = arena.attacker()
        for what, (tried, _) in TRIES.items():
            granted = evil.client.call("Allocate", size=SIZE)
            with contextlib.suppress(PermissionError):
                tried(granted["memory_fd"])
            assert granted["area"], what
        os.kill(arena.remote, signal.SIGKILL)
        arena.daemon.wait_until(lambda: arena.daemon.log().count("is connected") == 2)
        crc32, channel = evil.service("crc32"), evil.channel()
        for row in arena.daemon.list()["areas"]:
            if row["context"] == evil.context:
                whole = [{"area": row["id"], "direction": IN, "size": SIZE}]
                assert channel.answer(channel.ask(crc32, buffers=whole)).status == 0
        assert "Traceback" not in arena.daemon.log()
    finally:
        arena.close()


@application(28)
def test_frames_that_name_rings_as_memory(arena: Arena) -> None:
    """Those of the attacker's own channel: what was written there as data would pass no check."""
    evil = arena.attacker()
    fill, channel = evil.service("fill"), evil.channel()
    area, _ = evil.area(4096)
    for number in range(area - 4, area):
        target = [{"area": number, "direction": OUT, "size": 64}]
        status = channel.answer(channel.ask(fill, b"\xff", buffers=target)).status
        assert status in (-errno.EACCES, -errno.EFAULT)
    assert channel.works(evil.service("echo"))
