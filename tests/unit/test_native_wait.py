"""Waiting on a channel: who sleeps on the doorbell, who behind, and that nobody is forgotten."""

from __future__ import annotations

import functools
import os
import select
import threading
import time
from typing import Any

import pytest

from sbe import _native, errors
from tests.unit.channel_pair import LIMIT_S, Pair, Thread


def readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def test_a_request_that_another_thread_took_wakes_the_sleeper():
    with Pair(deaf=True) as pair:
        server = Thread(lambda: pair.host.next_request()).wait_asleep(leader=True)
        pair.remote.send(7, (), b"hello")
        pair.host.poll()
        assert server.outcome().payload == b"hello"


def test_a_lost_doorbell_costs_a_backstop_though_the_sleeper_waits_for_ever():
    with Pair(deaf=True) as pair:
        server = Thread(lambda: pair.host.next_request()).wait_asleep(leader=True)
        caller = Thread(lambda: pair.host.call(7).payload).wait_asleep()
        pair.answer(b"unheard")
        assert caller.outcome() == b"unheard"
        pair.host.fail(errors.LinkClosed("over"))
        with pytest.raises(errors.LinkClosed):
            server.outcome()


def test_polling_empties_the_doorbell_though_another_thread_sleeps_on_it():
    with Pair() as pair:
        server = Thread(lambda: pair.host.next_request()).wait_asleep(leader=True)
        os.eventfd_write(pair.host.fileno(), 1)
        assert readable(pair.host.fileno())
        pair.host.poll()
        assert not readable(pair.host.fileno()), "an event loop would spin"
        pair.remote.send(7, (), b"hello")
        assert server.outcome().payload == b"hello"


def test_cancelling_wakes_the_thread_that_waits_for_the_call():
    with Pair() as pair:
        for _ in range(10):  # a machine that stalls for a quarter of a second has a backstop
            before = pair.host.counters()["backstops"]
            call = pair.host.submit(7)
            waiter = Thread(call.result).wait_asleep(leader=True)
            assert call.cancel()
            with pytest.raises(errors.Cancelled):
                waiter.outcome()
            if pair.host.counters()["backstops"] == before:
                return
            pair.answer()
            pair.host.poll()
        pytest.fail("the sleeper noticed only by its timer")


def test_a_follower_gets_its_reply_from_the_leader_and_then_leads():
    with Pair() as pair:
        calls = [pair.host.submit(7) for _ in range(3)]
        leader = Thread(lambda: calls[0].result().payload).wait_asleep(leader=True)
        others = [
            Thread(functools.partial(lambda c: c.result().payload, call)).wait_asleep(leader=False)
            for call in calls[1:]
        ]
        pair.answer(b"0")
        assert leader.outcome() == b"0"
        pair.answer(b"1")
        assert others[0].outcome() == b"1"
        pair.answer(b"2")
        assert others[1].outcome() == b"2"
        assert pair.host.in_flight == 0


def test_a_spinning_thread_sees_what_another_one_took():
    with Pair() as pair:
        pair.host.spin_s = 1.0
        assert pair.host.next_request(0.3) is None  # a sleep well within: it looks from now on
        call = pair.host.submit(7)
        begun = threading.Event()

        def wait() -> bytes:
            begun.set()
            return call.result().payload

        waiter = Thread(wait)
        begun.wait()
        started = time.monotonic()
        pair.answer(b"news")
        while not call.done():
            pass
        assert waiter.outcome() == b"news"
        assert time.monotonic() - started < 0.8  # not the whole spin


def test_a_follower_leads_when_the_spinning_leader_is_done():
    """Many turns of the two: each hand-over that is lost hangs a thread that waits for ever."""
    with Pair(slots=64) as pair:
        pair.host.spin_s = 0.0002
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                request = pair.remote.next_request(0.01)
                if request is not None:
                    request.respond(request.payload)

        def call(number: int) -> int:
            payload = bytes([number])
            return sum(pair.host.call(7, (), payload).payload == payload for _ in range(2000))

        def poll() -> None:
            while not stop.is_set():
                pair.host.poll()
                time.sleep(0)

        helpers = [Thread(serve), Thread(poll)]
        callers = [Thread(functools.partial(call, number)) for number in range(3)]
        assert [caller.outcome() for caller in callers] == [2000] * 3
        stop.set()
        for helper in helpers:
            helper.outcome()


def test_a_slow_control_hook_does_not_hold_up_replies():
    entered, leave = threading.Event(), threading.Event()
    control = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def on_control() -> None:
        entered.set()
        leave.wait(LIMIT_S)  # as for a lock
        os.eventfd_read(control)

    with Pair(control_fd=control, on_control=on_control) as pair:
        first = pair.host.submit(7)
        waiter = Thread(lambda: first.result().payload).wait_asleep(leader=True)
        os.eventfd_write(control, 1)
        assert entered.wait(LIMIT_S)
        second = Thread(lambda: pair.host.call(7).payload).wait_asleep(leader=True)
        pair.answer(b"1")
        pair.answer(b"2")
        assert second.outcome() == b"2"
        entered.clear()
        leave.set()
        assert waiter.outcome() == b"1"
        third = Thread(lambda: pair.host.call(7).payload).wait_asleep(leader=True)
        os.eventfd_write(control, 1)  # the hook is armed again
        assert entered.wait(LIMIT_S)
        pair.answer(b"3")
        assert third.outcome() == b"3"
    os.close(control)


def test_a_control_hook_may_kill_the_channel_that_holds_it():
    control = os.eventfd(1, os.EFD_CLOEXEC)
    hook: list[Any] = []
    with Pair(control_fd=control, on_control=functools.partial(lambda: hook[0]())) as pair:
        hook.append(lambda: pair.host.fail(errors.LinkClosed("by the hook")))
        with pytest.raises(errors.LinkClosed, match="by the hook"):
            pair.host.call(7)
    os.close(control)


def test_what_a_control_hook_raises_is_raised_by_the_thread_that_slept():
    control = os.eventfd(1, os.EFD_CLOEXEC)

    def on_control() -> None:
        raise ZeroDivisionError

    with Pair(control_fd=control, on_control=on_control) as pair:
        with pytest.raises(ZeroDivisionError):
            pair.host.next_request()
        assert pair.host.error is None
    os.close(control)


def test_what_dies_with_a_call_may_call():
    """Completing drops the caller's buffer, whose death makes a call of its own."""

    class Farewell(bytearray):
        def __del__(self) -> None:
            said.append(pair.host.call(8, (), b"bye", LIMIT_S).payload)

    said: list[bytes] = []
    stop = threading.Event()
    with Pair() as pair:

        def serve() -> None:
            while not stop.is_set():
                request = pair.remote.next_request(0.01)
                if request is not None:
                    request.respond(request.payload)

        server = Thread(serve)
        call = pair.host.submit(7, (_native.In(Farewell(b"x")),), b"hi")
        assert call.result(LIMIT_S).payload == b"hi"
        assert said == [b"bye"]
        stop.set()
        server.outcome()


def test_callbacks_run_in_the_order_of_the_replies():
    order: list[int] = []
    with Pair() as pair:
        for number in range(4):
            call = pair.host.submit(7)
            call.add_done_callback(functools.partial(lambda n, _: order.append(n), number))
            pair.answer()
        pair.host.poll()
    assert order == [0, 1, 2, 3]
