"""Link against a session that plays the remote, over a socket pair, in this process."""

import asyncio
import errno
import fcntl
import logging
import os
import select
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from sbe import _native, errors
from sbe.heaps.memfd import MemfdHeap
from sbe.link.link import AreaInfo, Link, ServiceInfo
from sbe.link.pending import Pending
from sbe.link.session import State
from sbe.transports import Transport
from tests.unit.session_pair import PythonRemote, count_fds

RINGS: dict[str, Any] = {"slots": 2, "slot_size": 64, "send_offset": 0, "receive_offset": 2048}


@pytest.fixture
def memory() -> Iterator[int]:
    with MemfdHeap().allocate(8192) as allocation:
        yield allocation.fd


@pytest.fixture
def remote() -> Iterator[PythonRemote]:
    remote = PythonRemote()
    yield remote
    remote.die()


@pytest.fixture
def link(remote: PythonRemote) -> Iterator[Link]:
    with Link(remote.connect) as link:
        link.reconnect()
        yield link


def done(link: Link, pending: Pending[Any]) -> Any:
    return link.wait(pending, 10)


def process_all(link: Link) -> None:
    """Process until there is nothing more to do."""
    while select.select([link.fileno()], [], [], 0)[0]:
        link.process()


# negotiation


def test_connects_and_knows_the_other_end():
    remote = PythonRemote(name="tiny", areas=7, cache_line=128, coherent=False)
    states: list[State] = []
    link = Link(remote.connect, on_state=states.append)
    assert (link.state, link.epoch, link.connected) == (State.INITIALISING, 0, False)
    ready = link.start()
    assert not ready.done
    assert ready is link.ready
    done(link, ready)
    assert link.connected
    assert (states[0], states[-1]) == (State.WAITING, State.CONNECTED)
    assert link.epoch > 0
    assert link.peer_epoch == remote.epoch
    assert link.peer_name == "tiny"
    assert link.peer_limits["areas"] == link.limits["areas"] == 7
    assert (link.line, link.coherent, link.version) == (128, False, _native.VERSION_MAX)
    link.close()
    assert states[-1] is State.CLOSED
    remote.die()


def test_epochs_are_fresh(remote: PythonRemote, link: Link):
    epochs = {link.epoch}
    for _ in range(20):
        link.reconnect()
        epochs.add(link.epoch)
    assert len(epochs) == 21


@pytest.mark.parametrize(
    ("ours", "theirs", "sentence"),
    [
        ((1, 1), (2, 3), "remote speaks protocol versions 2 to 3, this host 1 to 1"),
        ((4, 5), (2, 3), "remote speaks protocol versions 2 to 3, this host 4 to 5"),
    ],
)
def test_other_versions_are_refused_in_words(
    ours: tuple[int, int], theirs: tuple[int, int], sentence: str, memory: int
):
    remote = PythonRemote(version_min=theirs[0], version_max=theirs[1])
    with Link(remote.connect, version_min=ours[0], version_max=ours[1]) as link:
        with pytest.raises(errors.ProtocolError, match=f"{sentence}: update the older end"):
            link.reconnect()
        assert link.state is State.WAITING
        for operation in (
            link.create_context,
            link.ping,
            link.list_services,
            lambda: link.map_area(0, memory, 4096),
        ):
            with pytest.raises(errors.ProtocolError, match=sentence):
                operation()
        remote.options.update(version_min=ours[0], version_max=ours[1])  # updated
        link.reconnect()
        done(link, link.ping())
    remote.die()


def test_two_hosts_are_refused_in_words():
    remote = PythonRemote(role=_native.ROLE_HOST)
    with (
        Link(remote.connect) as link,
        pytest.raises(errors.ProtocolError, match="is a host as well"),
    ):
        link.reconnect()
    remote.die()


def test_a_remote_that_never_answers():
    remote = PythonRemote()
    remote.deaf = True
    with Link(remote.connect) as link:
        pending = link.start()
        link.process()
        with pytest.raises(errors.Timeout, match="the negotiation with the remote"):
            link.wait(pending, 0.01)
        with pytest.raises(errors.LinkError, match="the negotiation has not ended"):
            link.ping()
        remote.deaf = False
        remote.pump()
        done(link, pending)  # it was only slow
    remote.die()


def test_a_connect_that_fails_can_be_tried_again(remote: PythonRemote):
    fail = True

    def connect() -> Transport:
        if fail:
            raise errors.LinkError("no such board")
        return remote.connect()

    with Link(connect) as link:
        for _ in range(2):
            with pytest.raises(errors.LinkError, match="no such board"):
                link.start()
            with pytest.raises(errors.LinkError, match="no such board"):
                link.wait(link.ready, 1)
            with pytest.raises(errors.LinkError, match="not connected: no such board"):
                link.ping()
        fail = False
        link.reconnect()


def test_a_connect_with_a_bug_ends_the_negotiation():
    def connect() -> Transport:
        raise KeyError("bug of the application")

    with Link(connect) as link:
        with pytest.raises(KeyError):
            link.start()
        with pytest.raises(errors.LinkError, match="bug of the application"):
            link.wait(link.ready, 1)


def test_a_remote_that_is_dead_before_the_first_message(remote: PythonRemote):
    def connect() -> Transport:
        transport = remote.connect()
        remote.die()
        return transport

    with Link(connect) as link:
        ready = link.start()
        assert ready.done
        with pytest.raises(errors.RemoteRestarted, match="the other end is gone"):
            link.wait(ready, 1)
        assert link.state is State.WAITING


def test_a_remote_that_is_found_dead_by_a_request(remote: PythonRemote, link: Link):
    remote.die()
    with pytest.raises(errors.RemoteRestarted, match="the other end is gone"):
        link.create_context()
    assert link.state is State.WAITING
    assert link.contexts == []


def test_a_link_that_was_not_started():
    link = Link(PythonRemote().connect)
    with pytest.raises(errors.LinkError, match="not started"):
        link.ping()
    with pytest.raises(errors.LinkError, match="not started"):
        link.wait(link.ready, 1)
    link.process()
    link.close()
    link.close()
    for operation in (link.start, link.ping, link.create_context):
        with pytest.raises(errors.LinkClosed):
            operation()


# operations


def test_contexts_areas_and_channels(remote: PythonRemote, link: Link, memory: int):
    handler = remote.handler
    context = done(link, link.create_context())
    other = done(link, link.create_context())
    assert link.contexts == [context, other]
    area = done(link, link.map_area(context, memory, 8192, _native.AREA_RING))
    assert os.path.sameopenfile(handler.area_fds[area], memory)
    assert link.areas == [AreaInfo(area, context, 8192, _native.AREA_RING)]

    bells = [os.eventfd(0), os.eventfd(0)]
    channel = done(link, link.open_channel(context, area, priority=2, doorbells=bells, **RINGS))
    assert handler.channels[channel] == (context, area, 2, 64, 64, 0, 2048, 2, 2)
    assert [(c.id, c.context, c.ring_area, c.slots) for c in link.channels] == [
        (channel, context, area, 2)
    ]
    with pytest.raises(errors.Busy, match=f"rings of channel {channel}"):
        link.unmap_area(area)
    done(link, link.close_channel(channel))
    assert handler.channels == {}
    done(link, link.close_channel(channel))  # it is gone
    done(link, link.unmap_area(area))
    assert handler.areas == {}
    with pytest.raises(errors.AreaFreed):
        link.unmap_area(area)
    done(link, link.destroy_context(context))
    assert link.contexts == [other]
    with pytest.raises(errors.BadArgument, match=f"no context {context}"):
        link.destroy_context(context)
    for bell in bells:
        os.close(bell)


def test_a_context_takes_everything_with_it(remote: PythonRemote, link: Link, memory: int):
    before = count_fds()
    context = done(link, link.create_context())
    ring = done(link, link.map_area(context, memory, 8192, _native.AREA_RING))
    done(link, link.map_area(context, memory, 4096))
    keep = done(link, link.map_area(0, memory, 4096))
    done(link, link.open_channel(context, ring, **RINGS))
    done(link, link.destroy_context(context))
    assert [area.id for area in link.areas] == [keep]
    assert link.channels == []
    assert list(remote.handler.areas) == [keep]
    done(link, link.unmap_area(keep))
    assert count_fds() == before


def test_area_ids_change_at_every_reuse(link: Link, memory: int):
    seen: set[int] = set()
    limit = link.limits["areas"]
    for _ in range(limit * 3):
        area = done(link, link.map_area(0, memory, 4096))
        assert area not in seen
        assert area & 0xFFFF < limit
        assert area >> 16 > 0
        seen.add(area)
        done(link, link.unmap_area(area))


def test_an_index_is_not_reused_before_the_remote_has_let_go(
    remote: PythonRemote, link: Link, memory: int
):
    link.close()
    remote.options["areas"] = 1
    with Link(remote.connect) as link:
        link.reconnect()
        area = done(link, link.map_area(0, memory, 4096))
        remote.deaf = True
        unmapping = link.unmap_area(area)
        with pytest.raises(errors.OutOfResources, match="all 1 areas"):
            link.map_area(0, memory, 4096)
        remote.deaf = False
        remote.pump()
        done(link, unmapping)
        assert done(link, link.map_area(0, memory, 4096)) == area + 0x10000


def test_the_remotes_tables_bound_this_end():
    remote = PythonRemote(areas=2, contexts=1)
    with Link(remote.connect) as link, MemfdHeap().allocate(1) as allocation:
        link.reconnect()
        done(link, link.create_context())
        with pytest.raises(errors.OutOfResources, match="all 1 contexts"):
            link.create_context()
        for _ in range(2):
            done(link, link.map_area(0, allocation.fd, 4096))
        with pytest.raises(errors.OutOfResources, match="all 2 areas"):
            link.map_area(0, allocation.fd, 4096)
    remote.die()


def test_services(remote: PythonRemote, link: Link):
    assert done(link, link.find_service(0, "crc32")) == ServiceInfo(2, 3, "crc32")
    with pytest.raises(errors.UnknownService, match="no service 'nothing' of version 2 or later"):
        done(link, link.find_service(0, "nothing", 2))
    with pytest.raises(errors.BadArgument, match="31 bytes"):
        link.find_service(0, "x" * 32)
    assert done(link, link.list_services()) == [
        ServiceInfo(1, 1, "echo"),
        ServiceInfo(2, 3, "crc32"),
    ]
    remote.handler.services = {}
    assert done(link, link.list_services()) == []
    assert done(link, link.ping()) > 0


def test_a_list_of_services_without_end(remote: PythonRemote, link: Link):
    remote.handler.service = lambda *_: (1, 1, "x")  # type: ignore[method-assign]
    with pytest.raises(errors.ProtocolError, match="does not end"):
        done(link, link.list_services())


def test_the_remote_may_ask_for_services_and_send_events():
    remote = PythonRemote()
    events: list[tuple[int, int]] = []
    asked: list[tuple[int, str | None, int]] = []

    def services(context: int, name: str | None, index: int) -> tuple[int, int, str] | None:
        asked.append((context, name, index))
        if name == "broken":
            raise RuntimeError("bug of the application")
        return (4, 1, "here") if name == "here" or index == 0 else None

    def heard(event: int, value: int) -> None:
        events.append((event, value))

    with Link(remote.connect, services=services, on_event=heard) as link:
        link.reconnect()
        assert remote.session is not None
        remote.session.find_service(0, "here", 0, "find")
        remote.session.list_service(0, "list")
        remote.session.list_service(1, "end")
        remote.session.find_service(0, "broken", 0, "broken")
        remote.session.map_area(1 << 16, 0, 0, 64, 0, (), "map")
        remote.session.send_event(_native.EVENT_CHANNEL_BROKEN, 3)
        process_all(link)
        remote.pump()
        assert remote.handler.replies == [
            ("find", 0, (4, 1, "here")),
            ("list", 0, (4, 1, "here")),
            ("end", -errno.ENOENT, None),
            ("broken", -errno.EIO, None),
            ("map", -errno.EPERM, None),
        ]
        assert events == [(_native.EVENT_CHANNEL_BROKEN, 3)]
        assert asked[0] == (0, "here", -1)
        done(link, link.ping())
    remote.die()


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (errors.PermissionDenied("no"), errors.PermissionDenied),
        (errors.OutOfResources("no"), errors.OutOfResources),
    ],
)
def test_a_mapping_that_the_remote_refuses(
    refusal: errors.Error, error: type, remote: PythonRemote, link: Link, memory: int
):
    before = count_fds()
    remote.handler.refuse = refusal
    with pytest.raises(error, match="the remote refused mapping of an area of 4096 bytes"):
        done(link, link.map_area(0, memory, 4096))
    assert link.areas == []
    assert count_fds() == before


def test_bad_arguments(link: Link, memory: int):
    before = count_fds()
    with pytest.raises(errors.BadArgument, match="at least 1"):
        link.map_area(0, memory, 0)
    with pytest.raises(errors.BadArgument, match="descriptor 999999"):
        link.map_area(0, 999_999, 4096)
    with pytest.raises(errors.BadArgument, match="no context 9"):
        link.map_area(9, memory, 4096)
    with pytest.raises(errors.BadArgument):
        link.map_area(0, memory, 1 << 64)
    with pytest.raises(errors.BadArgument, match="global"):
        link.destroy_context(0)
    with pytest.raises(errors.BadArgument, match="no channel 5"):
        link.close_channel(5)
    with pytest.raises(errors.AreaFreed):
        link.open_channel(0, 0x10000, **RINGS)
    area = done(link, link.map_area(0, memory, 4096))
    with pytest.raises(errors.BadArgument, match="1 doorbells"):
        link.open_channel(0, area, doorbells=[0], **RINGS)
    with pytest.raises(errors.PermissionDenied, match="the remote refused opening of channel"):
        done(link, link.open_channel(0, area, **RINGS))  # not flagged as rings
    assert link.channels == []
    done(link, link.unmap_area(area))
    assert count_fds() == before


# waiting


def test_operations_run_side_by_side_and_call_back(link: Link):
    order: list[int] = []
    pendings = [link.ping() for _ in range(50)]
    for number, pending in enumerate(pendings):
        pending.add_done_callback(partial(lambda number, _: order.append(number), number))
        with pytest.raises(errors.WouldBlock, match="not ended"):
            pending.result()
    done(link, pendings[-1])
    assert order == list(range(50))
    pendings[0].add_done_callback(lambda _: order.append(-1))
    assert order[-1] == -1


def test_a_callback_may_ask_again_but_not_wait(link: Link, caplog: pytest.LogCaptureFixture):
    second: list[Pending[int]] = []
    failed: list[errors.Error] = []

    def again(_: Pending[int]) -> None:
        second.append(link.ping())
        try:
            link.wait(second[0], 1)
        except errors.BadArgument as error:
            failed.append(error)
        raise RuntimeError("bug of the application")

    first = link.ping()
    first.add_done_callback(again)
    done(link, first)
    assert done(link, second[0]) > 0
    assert "can't wait for the ping" in str(failed[0])
    assert "bug of the application" in caplog.text


def test_a_timeout_names_what_was_waited_for_and_leaves_it_under_way(
    remote: PythonRemote, link: Link
):
    remote.deaf = True
    pending = link.create_context()
    with pytest.raises(errors.Timeout, match=r"creation of context 1: .* within 0.01 s"):
        link.wait(pending, 0.01)
    assert not pending.done
    remote.deaf = False
    remote.pump()
    assert done(link, pending) == 1


def test_a_remote_that_reads_nothing(remote: PythonRemote, link: Link):
    remote.deaf = True
    sent: list[Pending[int]] = []
    with pytest.raises((errors.WouldBlock, errors.OutOfResources)):  # noqa: PT012
        while True:
            sent.append(link.ping())
    assert link.wants_write or len(sent) == 1024
    remote.deaf = False
    while not all(pending.done for pending in sent):
        remote.pump()
        link.process()
    assert all(pending.error is None for pending in sent)
    assert not link.wants_write


def test_a_remote_that_floods_is_taken_in_turns(remote: PythonRemote, link: Link):
    assert remote.session is not None
    for _ in range(200):
        remote.session.send_event(1, 1)
    turns = 0
    while select.select([link.fileno()], [], [], 0)[0]:
        link.process()
        turns += 1
    assert 3 <= turns <= 5


async def test_in_an_event_loop_through_a_restart(remote: PythonRemote):
    loop = asyncio.get_running_loop()
    link = Link(remote.connect)
    loop.add_reader(link.fileno(), link.process)

    async def ended(pending: Pending[Any]) -> Any:
        future: asyncio.Future[None] = loop.create_future()
        pending.add_done_callback(lambda _: future.set_result(None))
        await asyncio.wait_for(future, 10)
        return pending.result()

    for _ in range(3):
        await ended(link.start())
        context = await ended(link.create_context())
        remote.deaf = True
        pending = link.ping()
        remote.die()
        with pytest.raises(errors.RemoteRestarted):
            await ended(pending)
        assert context in link.contexts
        remote.deaf = False
    loop.remove_reader(link.fileno())
    link.close()


# loss and return


def test_everything_under_way_ends_when_the_remote_dies(
    remote: PythonRemote, link: Link, memory: int
):
    states: list[State] = []
    link._on_state = states.append
    context = done(link, link.create_context())
    area = done(link, link.map_area(context, memory, 4096))
    before = count_fds()
    remote.deaf = True
    lost: list[Pending[Any]] = [
        link.ping(),
        link.create_context(),
        link.map_area(0, memory, 4096),
        link.list_services(),
        link.find_service(0, "echo"),
    ]
    freed = [link.unmap_area(area), link.destroy_context(context)]
    remote.deaf = False
    remote.die()
    link.process()
    for pending in lost:
        with pytest.raises(
            errors.RemoteRestarted, match=f"{pending.operation}: the other end is gone"
        ):
            pending.result()
    for pending in freed:
        pending.result()  # nobody is left who could use it
    assert states == [State.WAITING]
    assert link.state is State.WAITING
    assert not link.connected
    assert (link.areas, link.contexts, link.channels) == ([], [], [])
    with pytest.raises(errors.LinkError, match="not connected: the other end is gone"):
        link.ping()
    with pytest.raises(errors.RemoteRestarted):
        link.wait(link.ready, 1)
    assert select.select([link.fileno()], [], [], 0)[0] == []
    assert count_fds() < before


def test_memory_can_be_freed_while_there_is_no_remote(
    remote: PythonRemote, link: Link, memory: int
):
    before = count_fds()
    context = done(link, link.create_context())
    area = done(link, link.map_area(context, memory, 4096))
    done(link, link.map_area(context, memory, 4096))
    ring = done(link, link.map_area(0, memory, 8192, _native.AREA_RING))
    channel = done(link, link.open_channel(0, ring, **RINGS))
    remote.die()
    link.process()
    assert link.channels == []
    link.close_channel(channel).result()
    link.unmap_area(area).result()
    link.unmap_area(ring).result()
    link.destroy_context(context).result()
    assert link.areas == []
    link.reconnect()
    assert remote.handler.areas == {}
    assert count_fds() == before


def test_reconnect_registers_contexts_and_areas_under_their_ids(
    remote: PythonRemote, link: Link, memory: int
):
    contexts = [done(link, link.create_context()) for _ in range(3)]
    done(link, link.destroy_context(contexts.pop(1)))
    areas = [done(link, link.map_area(c, memory, 8192, _native.AREA_RING)) for c in contexts * 30]
    areas.append(done(link, link.map_area(0, None, 100, 0, segments=[(0, 60), (4096, 40)])))
    done(link, link.unmap_area(areas.pop(2)))
    done(link, link.open_channel(contexts[0], areas[0], **RINGS))
    before, epoch = link.areas, link.epoch
    remote.die()
    link.process()
    assert remote.handler.areas == {}
    assert link.areas == before

    link.reconnect()
    assert link.epoch != epoch
    assert (link.areas, link.contexts, link.channels) == (before, contexts, [])
    assert sorted(remote.handler.areas) == sorted(areas)
    assert os.path.sameopenfile(remote.handler.area_fds[areas[0]], memory)
    assert remote.handler.areas[areas[-1]] == (0, 0, 100, 0)
    done(link, link.open_channel(contexts[0], areas[0], **RINGS))
    assert done(link, link.create_context()) not in contexts


def test_reconnect_while_connected_starts_over(remote: PythonRemote, link: Link, memory: int):
    area = done(link, link.map_area(0, memory, 4096))
    remote.deaf = True
    pending = link.ping()
    remote.deaf = False
    link.reconnect()
    with pytest.raises(errors.RemoteRestarted, match="started again"):
        pending.result()
    assert list(remote.handler.areas) == [area]
    assert remote.connections == 2


def test_a_remote_that_restarts_behind_its_transport(remote: PythonRemote, link: Link, memory: int):
    states: list[State] = []
    link._on_state = states.append
    context = done(link, link.create_context())
    area = done(link, link.map_area(context, memory, 4096))
    remote.deaf = True
    pending = link.ping()
    remote.deaf = False
    remote.restart()
    link.process()
    done(link, link.ready)
    with pytest.raises(errors.RemoteRestarted, match="the remote restarted"):
        pending.result()
    assert link.peer_epoch == remote.epoch
    assert remote.handler.areas == {area: (context, 0, 4096, 1)}
    assert states[0] is State.WAITING
    assert states[-1] is State.CONNECTED
    assert remote.connections == 1


def test_a_goodbye_of_the_remote(remote: PythonRemote, link: Link, memory: int):
    done(link, link.map_area(0, memory, 4096))
    assert remote.session is not None
    remote.session.bye("bye")
    process_all(link)
    assert link.state is State.CLOSED
    with pytest.raises(errors.LinkError, match="said goodbye"):
        link.ping()
    with pytest.raises(errors.LinkError, match="said goodbye"):
        link.wait(link.ready, 1)
    link.reconnect()
    assert len(remote.handler.areas) == 1


def test_a_new_remote_that_can_not_hold_it_all(remote: PythonRemote, link: Link, memory: int):
    for _ in range(3):
        area = done(link, link.map_area(0, memory, 4096))
    remote.options["areas"] = 2
    with pytest.raises(errors.RemoteRestarted, match=f"refused area {area:#x}, which the former"):
        link.reconnect()
    assert link.state is State.WAITING
    done(link, link.unmap_area(area))
    link.reconnect()
    assert len(link.areas) == 2


@pytest.mark.parametrize("steps", range(13))
def test_things_freed_during_the_registration_are_not_registered(
    steps: int, remote: PythonRemote, link: Link, memory: int
):
    contexts = [done(link, link.create_context()) for _ in range(3)]
    areas = [done(link, link.map_area(context, memory, 4096)) for context in contexts]
    areas.append(done(link, link.map_area(0, memory, 4096)))
    remote.deaf = True
    ready = link.start()
    for _ in range(steps):
        remote.step()
        process_all(link)
    assert ready.done == (steps >= 11)
    ended = [link.destroy_context(contexts[1]), link.unmap_area(areas[2])]
    remote.deaf = False
    remote.pump()
    done(link, ready)
    for pending in ended:
        done(link, pending)
    assert link.contexts == [contexts[0], contexts[2]]
    assert sorted(remote.handler.areas) == sorted([areas[0], areas[3]])


def test_a_callback_on_the_loss_may_start_again(remote: PythonRemote, link: Link, memory: int):
    area = done(link, link.map_area(0, memory, 4096))
    remote.deaf = True
    pending = link.ping()
    pending.add_done_callback(lambda _: link.start())
    remote.deaf = False
    remote.die()
    link.process()
    done(link, link.ready)
    assert list(remote.handler.areas) == [area]
    pending = link.ping()
    pending.add_done_callback(lambda _: link.start())
    link.start()  # whose own loss calls back
    done(link, link.ready)
    assert remote.connections == 3


def test_close_ends_what_is_under_way(remote: PythonRemote, memory: int):
    before = count_fds()
    link = Link(remote.connect)
    link.reconnect()
    context = done(link, link.create_context())
    area = done(link, link.map_area(context, memory, 4096))
    remote.deaf = True
    ping, unmapping = link.ping(), link.unmap_area(area)
    done_too: list[bool] = []
    ping.add_done_callback(lambda _: done_too.append(True))
    link.close(timeout_s=0.01)
    with pytest.raises(errors.LinkClosed):
        ping.result()
    unmapping.result()
    assert done_too == [True]
    remote.deaf = False
    remote.die()
    assert count_fds() == before


def test_close_within_a_callback(remote: PythonRemote):
    before = count_fds()
    link = Link(remote.connect)
    link.reconnect()
    link.ping().add_done_callback(lambda _: link.close())
    for _ in range(3):
        link.process()
    assert link.state is State.CLOSED
    remote.die()
    assert count_fds() == before


# hostile remotes


def test_malformed_messages_are_counted_and_cost_nothing(
    remote: PythonRemote, link: Link, memory: int
):
    transport = remote.handler.transport
    assert transport is not None
    before = count_fds()
    transport.send(b"\0" * 16)
    transport.send(b"\xff" * 100, [memory])
    for count in (1, 16):
        transport._sock.sendmsg(
            [b"x" * 600], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, b"\0" * 4 * count)]
        )
    process_all(link)
    assert link.bad_messages == 4
    assert count_fds() == before
    done(link, link.ping())


# fds


def within_limit(function: Callable[[], None]) -> None:
    before = count_fds()
    function()
    assert count_fds() == before


def test_ten_thousand_mappings_leave_no_descriptor(remote: PythonRemote, link: Link, memory: int):
    def run() -> None:
        for number in range(10_000):
            pending = link.map_area(0, memory, 4096)
            if number % 7 == 0:
                remote.handler.refuse = errors.OutOfResources("no")
                link.map_area(0, memory, 4096)
                remote.handler.refuse = None
            area = done(link, pending)
            done(link, link.unmap_area(area))

    within_limit(run)


def test_a_thousand_reconnections_leave_no_descriptor(
    remote: PythonRemote, link: Link, memory: int
):
    context = done(link, link.create_context())
    areas = [done(link, link.map_area(context, memory, 4096)) for _ in range(3)]

    def run() -> None:
        for number in range(1000):
            if number % 2:
                remote.die()
                link.process()
            link.reconnect()
        assert [area.id for area in link.areas] == areas

    within_limit(run)


@pytest.fixture
def others() -> set[str]:
    """Descriptors that other tests have left."""
    return set(os.listdir("/proc/self/fd"))


def test_descriptors_are_closed_on_exec(others: set[str], link: Link, memory: int):
    done(link, link.map_area(0, memory, 4096))
    for name in set(os.listdir("/proc/self/fd")) - others:
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
            flags = fcntl.fcntl(int(name), fcntl.F_GETFD)
        except OSError:
            continue  # the listing's own
        if "sbe-area" in target or "eventpoll" in target:
            assert flags & fcntl.FD_CLOEXEC, target


def test_quiet_unless_told(caplog: pytest.LogCaptureFixture, link: Link):
    with caplog.at_level(logging.INFO):
        done(link, link.ping())
    assert caplog.records == []


@pytest.mark.parametrize("step", ["receive", "flush"])
def test_a_connection_without_memory_for_what_comes_is_over(
    remote: PythonRemote, step: str, monkeypatch: pytest.MonkeyPatch
):
    """An event loop would call it again for ever, and nobody would hear of anything."""

    def starved() -> None:
        raise MemoryError

    with Link(remote.connect) as link:
        link.reconnect()
        pending = link.ping()
        monkeypatch.setattr(link._handler.transport, step, starved)
        link.process()
        with pytest.raises(errors.RemoteRestarted, match="the remote: Cannot allocate memory"):
            pending.result()
        assert link.state is State.WAITING
