"""Link against sbe-remote, the real process: life, death and what is left behind."""

import asyncio
import gc
import mmap
import os
import select
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from sbe import _native, errors
from sbe.heaps.memfd import MemfdHeap
from sbe.link.link import Link
from sbe.link.pending import Pending
from sbe.link.session import State
from sbe.remotes.process import RemoteProcess
from sbe.sdk.connection import Connection
from sbe.sdk.direct import DirectBackend
from tests.unit.session_pair import count_fds

SERVICES = {"echo", "crc32", "copy", "fill", "invert", "sobel", "fir"}


@pytest.fixture
def memory() -> Iterator[int]:
    with MemfdHeap().allocate(1 << 20) as allocation:
        yield allocation.fd


@pytest.fixture
def process() -> Iterator[RemoteProcess]:
    gc.collect()  # what an earlier test of this process left behind
    before = count_fds()
    with RemoteProcess() as process:
        yield process
    pid = process.pid
    if pid is not None:
        with pytest.raises(ChildProcessError):  # reaped
            os.waitpid(pid, os.WNOHANG)
    assert count_fds() == before


@pytest.fixture
def link(process: RemoteProcess) -> Iterator[Link]:
    with Link(process.connect) as link:
        link.reconnect(20)
        yield link


def done(link: Link, pending: Pending[Any]) -> Any:
    return link.wait(pending, 20)


def kill(process: RemoteProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)


def remote_fds(process: RemoteProcess) -> int:
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def remote_maps(process: RemoteProcess) -> int:
    with open(f"/proc/{process.pid}/maps") as maps:
        return sum("sbe-area" in line for line in maps)


def test_contexts_areas_channels_and_services(process: RemoteProcess, link: Link, memory: int):
    assert link.peer_name == "sbe-remote"
    assert set(link.limits) == {"areas", "contexts", "channels", "slots", "slot_size", "buffers"}
    assert {service.name for service in done(link, link.list_services())} >= SERVICES
    fds = remote_fds(process)
    context = done(link, link.create_context())
    found = done(link, link.find_service(context, "crc32", 1))
    assert found.name == "crc32"
    with pytest.raises(errors.UnknownService, match="no service 'nothing'"):
        done(link, link.find_service(context, "nothing"))

    ring = _native.ring_size(8, 256, link.line)
    area = done(link, link.map_area(context, memory, 1 << 20, _native.AREA_RING))
    assert remote_maps(process) == 1
    bells = [os.eventfd(0), os.eventfd(0)]
    channel = done(
        link,
        link.open_channel(
            context,
            area,
            slots=8,
            slot_size=256,
            send_offset=0,
            receive_offset=-(-ring // link.line) * link.line,
            doorbells=bells,
        ),
    )
    for bell in bells:
        os.close(bell)
    done(link, link.close_channel(channel))
    done(link, link.destroy_context(context))
    assert remote_maps(process) == 0
    assert remote_fds(process) == fds
    assert done(link, link.ping()) > 0


def test_what_the_remote_refuses_is_told(link: Link, memory: int):
    with pytest.raises(errors.Error, match="the remote refused mapping") as caught:
        done(link, link.map_area(0, memory, 2 << 20))  # larger than the memfd
    assert not isinstance(caught.value, errors.LinkError)
    reader, writer = os.pipe()
    with pytest.raises(errors.Error, match="the remote refused mapping"):
        done(link, link.map_area(0, reader, 4096))
    os.close(reader)
    os.close(writer)
    assert link.areas == []
    done(link, link.ping())


def test_killed_under_way_says_how_and_comes_back(process: RemoteProcess, link: Link, memory: int):
    context = done(link, link.create_context())
    area = done(link, link.map_area(context, memory, 1 << 20))
    first = process.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    pending = link.ping()
    with pytest.raises(errors.Timeout):
        link.wait(pending, 0.01)
    kill(process)
    with pytest.raises(errors.RemoteRestarted, match=r"killed by signal 9 \(SIGKILL\)"):
        done(link, pending)
    assert link.state is State.WAITING
    link.reconnect(20)
    assert process.pid != first
    assert remote_maps(process) == 1
    done(link, link.unmap_area(area))
    done(link, link.destroy_context(context))
    assert remote_maps(process) == 0


def test_stopped_is_slow_not_lost(process: RemoteProcess, link: Link):
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    pending = link.create_context()
    with pytest.raises(errors.Timeout, match="creation of context 1"):
        link.wait(pending, 0.05)
    os.kill(process.pid, signal.SIGCONT)
    assert done(link, pending) == 1


def test_the_process_ends_with_the_link(process: RemoteProcess):
    link = Link(process.connect)
    link.reconnect(20)
    pid = process.pid
    assert pid is not None
    watch = os.pidfd_open(pid)
    link.close()
    assert select.select([watch], [], [], 20)[0]
    os.close(watch)
    assert process.exit_description == "exited with status 0"


def test_another_version_is_refused_in_words():
    with (
        RemoteProcess(arguments=["--protocol", "2-3"]) as process,
        Link(process.connect) as link,
        pytest.raises(
            errors.ProtocolError,
            match="remote speaks protocol versions 2 to 3, this host 1 to 1: update the older end",
        ),
    ):
        link.reconnect(20)


def test_a_remote_that_does_not_understand_its_options_is_quoted():
    with (
        RemoteProcess(arguments=["--slots", "7"]) as process,
        Link(process.connect) as link,
        pytest.raises(errors.RemoteRestarted, match=r"exited with status 2: .*--slots: 7"),
    ):
        link.reconnect(20)


def test_a_small_remote_bounds_the_host(memory: int):
    with (
        RemoteProcess(arguments=["--areas", "3", "--contexts", "1"]) as process,
        Link(process.connect) as link,
    ):
        link.reconnect(20)
        done(link, link.create_context())
        with pytest.raises(errors.OutOfResources):
            link.create_context()
        for _ in range(3):
            done(link, link.map_area(0, memory, 4096))
        with pytest.raises(errors.OutOfResources):
            link.map_area(0, memory, 4096)


async def test_in_an_event_loop_that_hears_of_the_death(process: RemoteProcess, memory: int):
    loop = asyncio.get_running_loop()
    states: asyncio.Queue[State] = asyncio.Queue()
    link = Link(process.connect, on_state=states.put_nowait)
    loop.add_reader(link.fileno(), link.process)

    async def reach(state: State) -> None:
        while await asyncio.wait_for(states.get(), 20) is not state:
            pass

    link.start()
    await reach(State.CONNECTED)
    for _ in range(3):
        link.map_area(0, memory, 4096)
        kill(process)
        await reach(State.WAITING)
        link.start()
        await reach(State.CONNECTED)
    loop.remove_reader(link.fileno())
    link.close()


@pytest.mark.parametrize("seed", range(40))
def test_killed_at_any_moment(seed: int, process: RemoteProcess, link: Link, memory: int):
    """The signal meets the remote somewhere within a burst of control messages."""
    context = done(link, link.create_context())
    pendings: list[Pending[Any]] = []
    for number in range(40):
        try:
            pendings.append(link.map_area(context, memory, 4096))
        except errors.LinkError:
            break
        if number == seed:
            kill(process)
    lost = 0
    for pending in pendings:
        try:
            done(link, pending)
        except errors.RemoteRestarted:
            lost += 1
    while link.connected:  # the answers may all have come before the signal
        with pytest.raises(errors.RemoteRestarted):
            done(link, link.ping())
    kept = len(link.areas)
    assert kept == len(pendings) - lost
    link.reconnect(20)
    assert len(link.areas) == kept
    assert remote_maps(process) == kept
    assert link.contexts == [context]


def test_ten_thousand_mappings_leave_nothing(process: RemoteProcess, link: Link, memory: int):
    before = count_fds(), remote_fds(process), remote_maps(process)
    for _ in range(1000):
        pendings = [link.map_area(0, memory, mmap.PAGESIZE) for _ in range(10)]
        areas = [done(link, pending) for pending in pendings]
        for pending in [link.unmap_area(area) for area in areas]:
            done(link, pending)
    assert (count_fds(), remote_fds(process), remote_maps(process)) == before


def test_a_thousand_reconnections_leave_nothing(process: RemoteProcess, link: Link, memory: int):
    areas = [done(link, link.map_area(0, memory, 4096)) for _ in range(3)]
    before = count_fds(), remote_fds(process), remote_maps(process)
    for number in range(1000):
        if number % 4 == 0:
            kill(process)
        link.reconnect(20)
    assert [area.id for area in link.areas] == areas
    assert (count_fds(), remote_fds(process), remote_maps(process)) == before


def test_a_suspended_remote_sleeps_whatever_waits():
    """Also one that would look at its rings for a second before it sleeps."""
    remote = RemoteProcess(arguments=["--spin-us", "1000000"])
    with Connection(DirectBackend(20.0, remote)) as link:
        for _ in range(100):  # there is traffic: it looks
            link.call("echo")
        link.suspend()
        calls = [link.submit("echo") for _ in range(50)]
        before = remote_ticks(remote)
        with pytest.raises(errors.Timeout):
            calls[0].result(0.5)
        assert remote_ticks(remote) - before <= 5  # of 50 if it looked
        link.resume()
        for call in calls:
            call.result()


def remote_ticks(process: RemoteProcess) -> int:
    """The processor time it has used, in hundredths of a second."""
    with open(f"/proc/{process.pid}/stat") as file:
        user, system = file.read().rpartition(")")[2].split()[11:13]
    return int(user) + int(system)
