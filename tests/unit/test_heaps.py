"""Heaps: sizes, seals, errors, and no descriptor left behind."""

import errno
import fcntl
import mmap
import os
import resource
import tempfile

import pytest

from sbe import errors
from sbe.heaps.memfd import MemfdHeap, check_seals
from tests.unit.session_pair import count_fds

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


@pytest.mark.parametrize("size", [1, 4095, mmap.PAGESIZE, mmap.PAGESIZE + 1, 1 << 24])
def test_memfd_gives_whole_zeroed_sealed_pages(size: int):
    with MemfdHeap().allocate(size) as allocation:
        assert allocation.size_bytes >= size
        assert allocation.size_bytes % mmap.PAGESIZE == 0
        assert os.fstat(allocation.fd).st_size == allocation.size_bytes
        assert allocation.coherent
        assert not os.get_inheritable(allocation.fd)
        with mmap.mmap(allocation.fd, size) as memory:
            assert memory[0] == memory[size - 1] == 0
            memory[size - 1] = 1
        for change in (0, allocation.size_bytes * 2):
            with pytest.raises(PermissionError):
                os.ftruncate(allocation.fd, change)
        with pytest.raises(PermissionError):  # nobody may forbid writing later on
            fcntl.fcntl(allocation.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        check_seals(allocation.fd, allocation.size_bytes)


@pytest.mark.parametrize("size", [0, -1, -(1 << 70)])
def test_memfd_refuses_sizes_below_one(size: int):
    with pytest.raises(errors.BadArgument, match="at least 1"):
        MemfdHeap().allocate(size)


@pytest.mark.parametrize("size", [1 << 60, 1 << 63, 1 << 80])
def test_memfd_refuses_more_than_the_machine_has(size: int):
    with pytest.raises(errors.OutOfResources, match="this machine has"):
        MemfdHeap().allocate(size)


def test_memfd_without_descriptors_left():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)  # the next one would have this number
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(errors.OutOfResources, match="open files") as caught:
            MemfdHeap().allocate(4096)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.code == errno.EMFILE


@pytest.mark.parametrize("step", ["truncate", "seal"])
def test_memfd_leaves_no_descriptor_when_a_step_fails(step: str, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    target, name = {"truncate": (os, "ftruncate"), "seal": (fcntl, "fcntl")}[step]
    before = count_fds()
    monkeypatch.setattr(target, name, fail)
    with pytest.raises(errors.OutOfResources):
        MemfdHeap().allocate(4096)
    assert count_fds() == before


def test_allocation_closes_once():
    allocation = MemfdHeap().allocate(1)
    before = count_fds()
    allocation.close()
    allocation.close()
    assert allocation.fd == -1
    assert count_fds() == before - 1


def test_unsealed_memfd_is_refused():
    fd = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, 4096)
        with pytest.raises(errors.BadArgument, match="can still change its size"):
            check_seals(fd, 4096)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
        with pytest.raises(errors.BadArgument, match="can still change its size"):
            check_seals(fd, 4096)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
        check_seals(fd, 4096)
        for size in (0, 4097):
            with pytest.raises(errors.BadArgument, match="4096 bytes"):
                check_seals(fd, size)
    finally:
        os.close(fd)


def test_what_is_no_memfd_is_refused():
    reader, writer = os.pipe()
    with tempfile.TemporaryFile() as file:
        for fd in (reader, file.fileno()):
            with pytest.raises(errors.BadArgument):
                check_seals(fd, 1)
    os.close(reader)
    os.close(writer)
    with pytest.raises(errors.BadArgument, match="not a sealed memfd"):
        check_seals(reader, 1)
