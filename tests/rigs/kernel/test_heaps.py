# SPDX-License-Identifier: Apache-2.0
"""Heaps of dma-bufs: one interface, a budget before the OOM killer."""

import mmap
from collections.abc import Iterator

import pytest

from sbe import errors
from sbe.heaps import dmabuf
from tests.rigs.kernel import parts

pytestmark = pytest.mark.kernel

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _dmabuf_module() -> Iterator[None]:
    with parts.module("sbe_dmabuf"):
        yield


def heaps(budget: dmabuf.Budget | None = None):
    return {**dmabuf.published(budget=budget), "coherent": dmabuf.CoherentHeap()}


def test_published_ones_work():
    there = heaps()
    assert list(there) == ["dma-heap:system", "udmabuf", "coherent"]
    for name, heap in there.items():
        assert heap.name == name
        with heap.allocate(100_000) as memory:
            assert memory.size_bytes == 102_400
            assert sum(size for _, size in memory.segments) == 102_400
            with mmap.mmap(memory.fd, memory.size_bytes) as view:
                assert view[:] == bytes(102_400)
        for size in (0, -1):
            with pytest.raises(errors.BadArgument):
                heap.allocate(size)


def test_budget_says_no_first_and_gets_all_back():
    budget = dmabuf.Budget(8 * MIB)
    for heap in dmabuf.published(budget=budget).values():
        kept = [heap.allocate(MIB) for _ in range(8)]
        with pytest.raises(errors.OutOfResources, match="has 0 left"):
            heap.allocate(1)
        for memory in kept:
            memory.close()
            memory.close()
        assert budget.used_bytes == 0


def test_machine_runs_dry_before_the_oom_killer_does():
    """The limit is far above what there is: each allocation looks at what is left."""
    budget = dmabuf.Budget(1 << 40)
    heap = dmabuf.DmaHeap("system", budget=budget)
    with pytest.raises(errors.OutOfResources, match="can spare"):
        heap.allocate(1 << 30)
    kept = []

    def take_all() -> None:
        while True:
            kept.append(heap.allocate(16 * MIB))

    with pytest.raises(errors.OutOfResources, match="can spare"):
        take_all()
    assert len(kept) > 4
    for memory in kept:
        memory.close()
    assert budget.used_bytes == 0


def test_failed_allocation_costs_no_budget():
    budget = dmabuf.Budget(8 * MIB)
    for heap in (
        dmabuf.DmaHeap("none", budget=budget),
        dmabuf.DmaHeap("system", "none", budget=budget),
        dmabuf.UdmabufHeap("none", budget=budget),
    ):
        with pytest.raises(errors.LinkError, match="none"):
            heap.allocate(4096)
    assert budget.used_bytes == 0
