# SPDX-License-Identifier: Apache-2.0
"""sbe.kernel against the real kernel: each call, its result, its errors."""

import errno
import fcntl
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sbe import errors
from sbe.kernel import dma_buf, dma_heap, importer, ion, remoteproc, rpmsg, udmabuf, userproc
from tests.rigs.kernel import parts

pytestmark = pytest.mark.kernel

MIB = 1 << 20


@pytest.fixture
def dmabuf_module() -> Iterator[None]:
    with parts.module("sbe_dmabuf", "coherent_limit=1048576"):
        yield


def memfd(size: int, seals: int = fcntl.F_SEAL_SHRINK) -> int:
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def test_request_numbers_are_the_headers():
    assert dma_heap.ALLOC == 0xC0184800
    assert dma_buf.SYNC == 0x40086200
    assert udmabuf.CREATE == 0x40187542
    assert rpmsg.CREATE_EPT == 0x4028B501
    assert rpmsg.DESTROY_EPT == 0xB502


def test_ion_layout_is_the_recorded_one():
    """No kernel here has ION. Recorded from drivers/staging/android/uapi/ion.h of Linux 4.19, and
    of 4.9 for what came before 4.12."""
    structure = ion._Allocation
    assert ion.ALLOC == 0xC0184900
    places = {name: getattr(structure, name).offset for name, _ in structure._fields_}
    assert places == {"len": 0, "heap_id_mask": 8, "flags": 12, "fd": 16, "unused": 20}
    assert (ion.QUERY, ion.OLD_ALLOC, ion.OLD_FREE, ion.OLD_SHARE) == (
        0xC0184908,
        0xC0204900,
        0xC0044901,
        0xC0084904,
    )


def test_dma_heap_gives_zeroed_memory():
    assert "system" in dma_heap.names()
    fd = dma_heap.allocate("system", MIB + 1)
    try:
        assert dma_buf.size(fd) == MIB + mmap.PAGESIZE
        with mmap.mmap(fd, MIB) as memory:
            dma_buf.begin_access(fd)
            assert memory[:] == bytes(MIB)
            memory[:5] = b"hello"
            dma_buf.end_access(fd, dma_buf.WRITE)
    finally:
        os.close(fd)


def test_errors_say_what_to_do():
    with pytest.raises(errors.LinkError, match="/dev/dma_heap/none"):
        dma_heap.allocate("none", 4096)
    with pytest.raises(errors.BadArgument):
        dma_heap.allocate("system", 0)
    with pytest.raises(errors.LinkError, match="/dev/ion"):
        ion.allocate(1, 4096)
    with pytest.raises(errors.LinkError, match="sbe-dmabuf"):
        importer.allocate_coherent(4096)
    with pytest.raises(errors.LinkError, match="sbe-userproc0"):
        userproc.Core()


def test_udmabuf_shows_the_memfd():
    source = memfd(MIB)
    try:
        fd = udmabuf.create(source, 4096, 8192)
        with mmap.mmap(source, MIB) as theirs, mmap.mmap(fd, 8192) as ours:
            theirs[4096:4101] = b"hello"
            assert ours[:5] == b"hello"
        os.close(fd)
        with pytest.raises(errors.BadArgument):
            udmabuf.create(source, 1, 4096)
    finally:
        os.close(source)


def test_udmabuf_wants_the_right_seals():
    for seals in (0, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE):
        source = memfd(4096, seals)
        with pytest.raises(errors.BadArgument):
            udmabuf.create(source, 0, 4096)
        os.close(source)


@pytest.mark.usefixtures("dmabuf_module")
def test_segments_describe_all_of_it():
    source = memfd(MIB)
    scattered = udmabuf.create(source, 0, MIB)
    system = dma_heap.allocate("system", MIB)
    for fd in (scattered, system):
        with importer.Attachment(fd) as attachment:
            segments = attachment.segments()
            assert sum(size for _, size in segments) == attachment.size_bytes == MIB
            assert all(address % 4096 == 0 and size > 0 for address, size in segments)
            assert len(segments) <= 256
    for fd in (scattered, system, source):
        os.close(fd)


@pytest.mark.usefixtures("dmabuf_module")
def test_ranges_are_synchronised_and_checked():
    fd = dma_heap.allocate("system", MIB)
    with importer.Attachment(fd) as attachment:
        for offset, size in [(0, MIB), (5, 100), (MIB - 1, 1), (MIB, 0), (4095, 8194)]:
            attachment.sync_for_device(offset, size)
            attachment.sync_for_cpu(offset, size)
        for offset, size in [(0, MIB + 1), (MIB, 1), (1, (1 << 64) - 1)]:
            with pytest.raises(errors.OutOfRange):
                attachment.sync_for_device(offset, size)
    os.close(fd)


@pytest.mark.usefixtures("dmabuf_module")
def test_coherent_memory_is_contiguous_and_bounded():
    fd = importer.allocate_coherent(512 * 1024)
    with importer.Attachment(fd) as attachment:
        [(address, size)] = attachment.segments()
        assert (address % 4096, size) == (0, 512 * 1024)
    with mmap.mmap(fd, 512 * 1024) as memory:
        assert memory[:] == bytes(512 * 1024)
    with pytest.raises(errors.OutOfResources):
        importer.allocate_coherent(512 * 1024 + 1)
    os.close(fd)
    os.close(importer.allocate_coherent(MIB))  # the memory came back


@pytest.mark.usefixtures("dmabuf_module")
def test_importer_refuses_nonsense():
    fd = dma_heap.allocate("system", 4096)
    with pytest.raises(errors.LinkError, match="none"):
        importer.Attachment(fd, "none")
    with pytest.raises(errors.BadArgument):
        importer.Attachment(fd, "x" * 32)
    null = os.open("/dev/null", os.O_RDWR)
    with pytest.raises(errors.BadArgument):
        importer.Attachment(null)
    for size in (0, 1 << 62):
        with pytest.raises(errors.Error):
            importer.allocate_coherent(size)
    os.close(null)
    os.close(fd)


def test_module_in_use_stays():
    parts.insert("sbe_dmabuf")
    fd = importer.allocate_coherent(4096)
    with pytest.raises(Exception, match="rmmod"):
        parts.remove("sbe_dmabuf")
    attachment = importer.Attachment(fd)
    os.close(fd)
    with pytest.raises(Exception, match="rmmod"):
        parts.remove("sbe_dmabuf")  # an attachment outlives its descriptor
    attachment.close()
    parts.remove("sbe_dmabuf")


def test_missing_permission_is_named():
    with parts.module("sbe_dmabuf"):
        pid = os.fork()
        if pid == 0:
            os.setgid(65534)
            os.setuid(65534)
            try:
                importer.allocate_coherent(4096)
            except errors.PermissionDenied as error:
                os._exit(0 if error.code == errno.EACCES and "owner" in str(error) else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_no_remote_processor():
    assert remoteproc.processors() == []
    with pytest.raises(errors.LinkError, match="there are: none"):
        remoteproc.find("m33")
    assert rpmsg.services() == []
    assert Path("/sys/class/remoteproc").is_dir()
