"""Both ends of one channel in this process, without a link: helpers of the tests of sbe._native."""

from __future__ import annotations

import errno
import os
import platform
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sbe import _native
from sbe.heaps.memfd import MemfdHeap
from sbe.link.rings import Geometry, create_rings

LIMIT_S = 20.0  # turns a hang into a failure

_SYSCALLS = {"x86_64": (281, 202), "aarch64": (22, 98)}  # epoll_pwait, futex
_FUTEX_WAIT_PRIVATE = 128


class Pair:
    """`host` and `remote`, and areas that both know under the same ids."""

    def __init__(
        self,
        slots: int = 8,
        slot_size: int = 1024,
        *,
        deaf: bool = False,
        **host: Any,
    ) -> None:
        """`deaf`: the remote rings a doorbell that the host does not have."""
        self.rings = create_rings(Geometry(slots, slot_size), 64)
        rings = self.rings
        self.tables = _native.Table(64), _native.Table(64)
        self.areas = 0
        memories = [_native.Memory(rings.memory_fd, rings.size_bytes) for _ in range(2)]
        fixed = (1, 1, slots, slot_size, rings.line_bytes)
        self.host = _native.Channel(
            self.tables[0], memories[0], *fixed, rings.send_offset, rings.receive_offset,
            rings.ring_fd, rings.wake_fd, **host,
        )  # fmt: skip
        bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) if deaf else os.dup(rings.wake_fd)
        self.remote = _native.Channel(
            self.tables[1], memories[1], *fixed, rings.receive_offset, rings.send_offset,
            bell, rings.ring_fd,
        )  # fmt: skip
        os.close(bell)

    def close(self) -> None:
        """Fails both ends and lets go of the descriptors."""
        for end in (self.host, self.remote):
            end.fail(ConnectionError("the test is over"))
        self.rings.close()

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def area(self, size: int = 4096, kind: type[Any] = _native.Memory) -> tuple[Any, Any]:
        """An area as the host and as the remote has it."""
        self.areas += 1
        id = 1 << 16 | self.areas
        grant = MemfdHeap().allocate(size)
        try:
            ends = kind(grant.fd, size), _native.Memory(grant.fd, size)
        finally:
            os.close(grant.fd)
        for table, memory in zip(self.tables, ends, strict=True):
            table.add(memory, id, 1, _native.AREA_COHERENT)
        return ends

    def take(self) -> _native.Request:
        """What the remote got next."""
        request = self.remote.next_request(LIMIT_S)
        assert request is not None
        return request

    def answer(self, payload: bytes = b"", status: int = 0) -> None:
        """The remote answers what it got next."""
        self.take().respond(payload, status)

    def refuse(self) -> None:
        """As a service that fails."""
        self.answer(status=-errno.EIO)


class Thread(threading.Thread):
    """Runs `work`; `outcome()` is what it returned or raised."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._value: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._value = self._work()
        except BaseException as error:
            self._error = error

    def outcome(self) -> Any:
        """Joins it."""
        self.join(LIMIT_S)
        assert not self.is_alive(), "the thread hangs"
        if self._error is not None:
            raise self._error
        return self._value

    def wait_asleep(self, *, leader: bool | None = None) -> Thread:
        """Until it sleeps in the kernel: on the doorbell (leader), or behind who does."""
        if platform.machine() not in _SYSCALLS:
            pytest.skip(f"the system calls of {platform.machine()} are not known to the test")
        if "SBE_EMULATED" in os.environ:
            pytest.skip("/proc tells the system calls of qemu-user's machine, not of its guest")
        epoll, futex = _SYSCALLS[platform.machine()]
        until = time.monotonic() + LIMIT_S
        while time.monotonic() < until:
            try:
                now = Path(f"/proc/self/task/{self.native_id}/syscall").read_text().split()
            except PermissionError:
                pytest.skip("/proc/self/task/N/syscall can't be read here")
            if leader is not False and now[0] == str(epoll):
                return self
            behind = now[0] == str(futex) and int(now[2], 16) == _FUTEX_WAIT_PRIVATE
            if leader is not True and behind:
                return self
            time.sleep(0)
        raise AssertionError("the thread does not sleep")
