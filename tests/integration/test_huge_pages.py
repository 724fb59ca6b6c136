"""Areas of huge pages: asked for, reserved, and for applications that are trusted."""

from __future__ import annotations

import errno
import re
import zlib
from pathlib import Path

import pytest

import sbe
from sbe import errors
from sbe.heaps.memfd import HugeHeap
from sbe.remotes import Memory
from sbe.remotes.process import RemoteProcess
from tests.integration.varlink_client import daemon


def free_pages() -> int:
    found = re.search(r"HugePages_Free: +(\d+)", Path("/proc/meminfo").read_text())
    return 0 if found is None else int(found[1])


def need_pages(count: int) -> None:
    if free_pages() < count:
        pytest.skip("no huge pages are reserved (sudo sysctl vm.nr_hugepages=8)")


class Unasked(RemoteProcess):
    """This end gives out huge pages, and the remote was not told to take them."""

    @property
    def memory(self) -> Memory:
        return Memory({"hugetlb": HugeHeap()}, Memory.memfds().rings)


def use(link: sbe.Connection) -> None:
    before = free_pages()
    with link.allocate(3 << 20, heap="hugetlb") as area:
        assert free_pages() == before - 2
        assert bytes(area[-4:]) == bytes(4)
        link.call("fill", sbe.Out(area), payload=b"\5", timeout=10)
        assert area.array("u1").min() == 5
        reply = link.call("crc32", sbe.In(area), timeout=10)
        assert int.from_bytes(reply.payload[:4], "little") == zlib.crc32(area)
    del area
    assert (
        free_pages() == before
    )  # all is unmapped at both ends, though a page and a half were used
    with link.allocate(4096) as area:
        assert area.heap == "memfd"


def test_a_process_takes_them_when_told():
    need_pages(2)
    with sbe.connect(RemoteProcess(huge_pages=True)) as link:
        use(link)


def test_a_daemon_serves_them(tmp_path: Path):
    need_pages(2)
    text = "[[link]]\nhuge_pages = true\ntrust_clients = true\n"
    with daemon(tmp_path, text) as started:
        with sbe.connect(f"unix:{started.socket}") as link:
            use(link)
        started.wait_until_empty()


def test_a_remote_that_was_not_told_takes_none():
    need_pages(1)
    with sbe.connect(Unasked()) as link, pytest.raises(errors.Error) as caught:
        link.allocate(4096)
    assert caught.value.code == errno.EOPNOTSUPP


def test_too_few_of_them_say_how_to_get_more():
    words = r"huge pages of \d+ bytes; \d+ are free: `sysctl vm.nr_hugepages=N` reserves"
    with pytest.raises(errors.OutOfResources, match=words):
        HugeHeap().allocate(1 << 50)
    with pytest.raises(errors.BadArgument, match="hugetlb: a size of 0 bytes"):
        HugeHeap().allocate(0)


def test_without_the_heap_there_is_no_such_name():
    with (
        sbe.connect("loopback:") as link,
        pytest.raises(errors.BadArgument, match="no heap 'hugetlb'"),
    ):
        link.allocate(4096, heap="hugetlb")
