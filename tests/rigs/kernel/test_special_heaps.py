# SPDX-License-Identifier: Apache-2.0
"""Memory that may not be mapped, and ION's two interfaces.

ION itself is in no kernel here: /dev/ion is the rig's own small device, modules/sbe_rig_ion.c.
"""

import mmap
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import sbe
from sbe import errors
from sbe.heaps import Heap, dmabuf
from sbe.kernel import ion
from sbe.remotes.rpmsg import RpmsgRemote
from sbe.sdk.connection import Connection
from sbe.sdk.direct import DirectBackend
from tests.integration.varlink_client import daemon
from tests.rigs.kernel import parts

pytestmark = pytest.mark.kernel

SECURE = "ion:secure_video"


@pytest.fixture(params=["new", "old"])
def ion_device(request: pytest.FixtureRequest) -> Iterator[str]:
    interface: str = request.param
    with parts.module("sbe_rig_ion", f"old={int(interface == 'old')}"):
        yield interface


@pytest.fixture
def running(tmp_path: Path) -> Iterator[None]:
    with parts.module("sbe_rig_ion"), parts.running(tmp_path):
        yield


def test_both_interfaces_allocate(ion_device: str):
    names = [each.name for each in ion.heaps()]
    assert names == (["system", "secure_video"] if ion_device == "new" else [])
    fd = ion.allocate(1, 10_000)
    with mmap.mmap(fd, 12_288) as memory:
        assert memory[:] == bytes(12_288)
    os.close(fd)
    for _ in range(100):  # no handle is left: there are 16
        os.close(ion.allocate(1 << 5, 4096))


def test_what_ion_refuses(ion_device: str):
    assert ion_device
    with pytest.raises(errors.BadArgument, match="a mask of 32 bits"):
        ion.allocate(0, 4096)
    with pytest.raises(errors.BadArgument, match="ION heaps 0x1: 0 bytes"):
        ion.allocate(1, 0)
    with pytest.raises(errors.OutOfResources, match="ION heaps 0x1: 2097152 bytes"):
        ion.allocate(1, 2 << 20)
    with pytest.raises(errors.LinkError, match="ION heaps 0x400"):
        ion.allocate(1 << 10, 4096)


def test_heaps_of_ion(ion_device: str):
    with parts.module("sbe_dmabuf"):
        budget = dmabuf.Budget(1 << 20)
        there = dmabuf.published(budget=budget)
        heap: Heap | None
        if ion_device == "old":
            assert not any(name.startswith("ion:") for name in there)
            heap = dmabuf.ion_heap("ion:0", budget=budget)
            assert heap is not None
            assert heap.name == "ion:0"
            assert [dmabuf.ion_heap(name) for name in ("ion:32", "udmabuf")] == [None, None]
        else:
            assert list(there) == ["dma-heap:system", "ion:system", "udmabuf", SECURE]
            heap = there["ion:system"]
        with heap.allocate(100_000) as memory:
            assert sum(size for _, size in memory.segments) == memory.size_bytes == 102_400
        with pytest.raises(errors.OutOfResources):
            heap.allocate(2 << 20)
        assert budget.used_bytes == 0


def use_unmapped(link: sbe.Connection) -> None:
    """Calls reach it, this process does not; what the remote wrote is shown by another call."""
    area = link.allocate(65536, heap=SECURE)
    plain = link.allocate(4096)
    assert (area.mapped, plain.mapped) == (False, True)
    assert repr(area).endswith("65536 bytes of ion:secure_video, not mapped>")
    link.call("fill", sbe.Out(area), payload=b"\5", timeout=10)
    reply = link.call("crc32", sbe.In(area), timeout=10)
    assert int.from_bytes(reply.payload[:4], "little") == zlib.crc32(b"\5" * 65536)
    link.call("fill", sbe.Out(area[100:200]), payload=b"\6", timeout=10)
    reply = link.call("crc32", sbe.In(area[:4096]), timeout=10)
    seen = b"\5" * 100 + b"\6" * 100 + b"\5" * 3896
    assert int.from_bytes(reply.payload[:4], "little") == zlib.crc32(seen)
    words = r"memory of area \d+ may not be mapped: only devices reach it"
    for look in (
        lambda: area.array("u1"),
        lambda: memoryview(area),
        lambda: bytes(area),
        lambda: memoryview(area[5:10]),
        lambda: area.__setitem__(slice(0, 2), b"ab"),
        lambda: area[10:20].__setitem__(slice(0, 2), b"ab"),
    ):
        with pytest.raises(errors.PermissionDenied, match=words):
            look()
    area.free()
    plain.free()


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("coherent", [True, False])
def test_memory_that_may_not_be_mapped(coherent: bool):
    remote = RpmsgRemote(parts.NAME, coherent=coherent)
    with Connection(DirectBackend(5, remote)) as link:
        use_unmapped(link)
        with pytest.raises(errors.BadArgument, match=f"there are: dma-heap:system, .*{SECURE}"):
            link.allocate(4096, heap="none")


@pytest.mark.usefixtures("running")
def test_through_a_daemon(tmp_path: Path):
    text = f"[[link]]\ntransport = 'rpmsg'\nprocessor = '{parts.NAME}'\n"
    with daemon(tmp_path, text) as started:
        with sbe.connect(f"unix:{started.socket}") as link:
            use_unmapped(link)
        started.wait_until_empty()


@pytest.mark.usefixtures("running")
def test_old_interface_is_named_by_number():
    """`heaps` may say "ion:5" where the kernel names none."""
    remote = RpmsgRemote(parts.NAME, heaps=["udmabuf", "ion:0"])
    with Connection(DirectBackend(5, remote)) as link, link.allocate(4096, heap="ion:0") as area:
        link.call("fill", sbe.Out(area), payload=b"\7", timeout=10)
        assert bytes(area) == b"\7" * 4096
