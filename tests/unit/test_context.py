"""Operations of a context that end early: what arrives late is undone, and nothing stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import select
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any

import pytest

from sbe import errors
from sbe.heaps.carveout import CarveoutHeap
from sbe.heaps.memfd import MemfdHeap
from sbe.link.context import HostContext, run_async, run_sync
from sbe.link.link import Link
from sbe.link.rings import Geometry, create_rings
from sbe.remotes import Memory
from tests.unit.session_pair import PythonRemote, count_fds

ARENA = 1 << 20
GEOMETRY = Geometry(4, 64)
SOON_S = 0.01
LIMIT_S = 10.0


class World:
    """A link, a context in it, a heap of which every byte is counted, and a remote that may be
    deaf.
    """

    def __init__(self) -> None:
        fd = os.memfd_create("arena", os.MFD_CLOEXEC)
        os.ftruncate(fd, ARENA)
        self.heap = CarveoutHeap(fd, 0, ARENA, address=0x8000_0000)
        os.close(fd)
        self.remote = PythonRemote()
        self.link = Link(self.remote.connect)
        self.link.reconnect()
        self.context = HostContext(self.link, Memory({"arena": self.heap}))
        self.run(self.context.open())
        self.before = self.state()

    def run(self, operation: Coroutine[Any, Any, Any], timeout: float = LIMIT_S) -> Any:
        return run_sync(self.link, operation, timeout)

    def state(self) -> tuple[Any, ...]:
        """What there is: descriptors, memory, areas and channels of both ends."""
        recorder = self.remote.handler
        return (
            count_fds() - len(recorder.area_fds),
            self.heap.free_bytes,
            len(self.link.areas),
            len(self.link.channels),
            len(recorder.areas),
            len(recorder.channels),
            len(self.context.areas),
            len(self.context.channels),
        )

    def hear(self) -> None:
        """The remote answers what it has not answered, and what follows from that."""
        self.remote.deaf = False
        for _ in range(20):
            self.remote.pump()
            while select.select([self.link.fileno()], [], [], 0)[0]:
                self.link.process()

    def close(self) -> None:
        self.link.close(0.1)
        self.context.release()
        self.remote.die()
        self.heap.close()


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def times_out(world: World, operation: Coroutine[Any, Any, Any]) -> None:
    with pytest.raises(errors.Timeout):
        world.run(operation, SOON_S)


def is_interrupted(world: World, operation: Coroutine[Any, Any, Any]) -> None:
    def wait(pending: object, *_: object) -> None:
        raise KeyboardInterrupt

    usual, world.link.wait = world.link.wait, wait  # type: ignore[method-assign, assignment]
    try:
        with pytest.raises(KeyboardInterrupt):
            world.run(operation)
    finally:
        world.link.wait = usual  # type: ignore[method-assign]


def is_cancelled(world: World, operation: Coroutine[Any, Any, Any]) -> None:
    async def give_up() -> None:
        task = asyncio.create_task(run_async(operation))
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(give_up())


EARLY: list[Callable[[World, Coroutine[Any, Any, Any]], None]] = [
    times_out,
    is_interrupted,
    is_cancelled,
]


@pytest.mark.parametrize("ends_early", EARLY)
def test_an_area_that_comes_late_is_given_back(world: World, ends_early: Any):
    world.remote.deaf = True
    ends_early(world, world.context.allocate(5000))
    world.hear()
    assert world.state() == world.before


@pytest.mark.parametrize("ends_early", EARLY)
def test_an_area_that_is_refused_late_is_given_back(world: World, ends_early: Any):
    world.remote.deaf = True
    ends_early(world, world.context.allocate(5000))
    world.remote.handler.refuse = errors.OutOfResources("full")
    world.hear()
    assert world.state() == world.before


@pytest.mark.parametrize("ends_early", EARLY)
@pytest.mark.parametrize("answers", [0, 1], ids=["mapping", "opening"])
def test_a_channel_that_comes_late_is_closed(world: World, ends_early: Any, answers: int):
    operation = world.context.open_channel(GEOMETRY)
    rest: Coroutine[Any, Any, Any] = operation
    if answers:  # the rings are mapped, the opening is under way
        world.link.wait(operation.send(None), LIMIT_S)

        async def go_on() -> None:
            pending = operation.send(None)
            try:
                await _Yield(pending)
            except BaseException as error:
                operation.throw(error)

        rest = go_on()
    world.remote.deaf = True
    ends_early(world, rest)
    world.hear()
    assert world.state() == world.before


class _Yield:
    def __init__(self, pending: Any) -> None:
        self.pending = pending

    def __await__(self) -> Generator[Any, None, Any]:
        yield self.pending
        return self.pending.result()


@pytest.mark.parametrize("ends_early", EARLY)
def test_a_context_that_comes_late_is_destroyed(world: World, ends_early: Any):
    other = HostContext(world.link)
    world.remote.deaf = True
    ends_early(world, other.open())
    world.hear()
    assert world.link.contexts == [world.context.id]


@pytest.mark.parametrize("ends_early", EARLY)
def test_freeing_goes_on_and_a_second_attempt_waits_for_it(world: World, ends_early: Any):
    area = world.run(world.context.allocate(5000)).id
    world.remote.deaf = True
    ends_early(world, world.context.free(area))
    assert area in world.remote.handler.areas  # it may write there
    assert world.heap.free_bytes < world.before[1]
    times_out(world, world.context.free(area))  # as the first: it has not let go
    world.remote.deaf = False
    world.remote.pump()
    world.run(world.context.free(area))
    assert world.state() == world.before
    with pytest.raises(errors.AreaFreed):
        world.run(world.context.free(area))


@pytest.mark.parametrize("ends_early", EARLY)
def test_what_was_being_freed_comes_back_with_the_answer(world: World, ends_early: Any):
    area = world.run(world.context.allocate(5000)).id
    world.remote.deaf = True
    ends_early(world, world.context.free(area))
    world.hear()  # nobody asks again
    assert world.state() == world.before


@pytest.mark.parametrize("ends_early", EARLY)
def test_closing_a_channel_goes_on(world: World, ends_early: Any):
    channel = world.run(world.context.open_channel(GEOMETRY)).id
    world.remote.deaf = True
    ends_early(world, world.context.close_channel(channel))
    times_out(world, world.context.close_channel(channel))
    world.hear()
    assert world.state() == world.before
    with pytest.raises(errors.BadArgument):
        world.run(world.context.close_channel(channel))


@pytest.mark.parametrize("ends_early", EARLY)
def test_destroying_goes_on(world: World, ends_early: Any):
    world.run(world.context.allocate(5000))
    world.run(world.context.open_channel(GEOMETRY))
    world.remote.deaf = True
    ends_early(world, world.context.close())
    assert world.heap.free_bytes < world.before[1]
    world.hear()
    assert world.state() == world.before
    assert world.link.contexts == []


def test_the_link_lets_go_once_however_often_it_is_asked(world: World):
    context = world.context.id
    area = world.run(world.context.allocate(5000)).id
    world.remote.deaf = True
    first = world.link.unmap_area(area)
    assert world.link.unmap_area(area) is first
    destroying = world.link.destroy_context(context)
    assert world.link.destroy_context(context) is destroying
    world.remote.deaf = False
    world.remote.pump()
    world.link.wait(destroying, LIMIT_S)
    assert first.done
    with pytest.raises(errors.AreaFreed):
        world.link.unmap_area(area)
    with pytest.raises(errors.BadArgument):
        world.link.destroy_context(context)


def test_the_remote_dies_over_what_was_given_up(world: World):
    world.remote.deaf = True
    times_out(world, world.context.allocate(5000))
    times_out(world, world.context.open_channel(GEOMETRY))
    world.remote.die()
    with pytest.raises(errors.LinkError):
        world.run(world.context.allocate(1))
    assert world.heap.free_bytes == world.before[1]
    assert world.link.areas == []


def test_a_lost_context_keeps_what_the_remote_may_write(world: World):
    world.run(world.context.allocate(5000))
    world.remote.deaf = True
    times_out(world, world.context.allocate(5000))
    world.context.release(keep=True)
    assert world.heap.free_bytes == world.before[1] - 2 * 8192
    world.hear()


@pytest.mark.parametrize("spare", range(10))
def test_of_descriptors_made_in_a_row_none_is_left_when_one_fails(spare: int):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = count_fds()
    held: list[int] = []
    most = max(int(number) for number in os.listdir("/proc/self/fd")) + 32
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))
        for _ in range(spare):
            os.close(held.pop())
        with contextlib.ExitStack() as stack:
            refused = pytest.raises(errors.OutOfResources, match="Too many open files")
            raised = stack.enter_context(refused) if spare < 6 else None
            rings = create_rings(GEOMETRY, 64, MemfdHeap())
            stack.callback(rings.close)
            with rings.remote_doorbells(apart=True):
                pass
            rings.duplicate().close()
        assert raised is None or raised.value.code == errno.EMFILE
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert count_fds() == before
