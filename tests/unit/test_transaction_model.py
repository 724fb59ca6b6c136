"""Transactions against a model: both real ends of a channel, answers early, late, twice and never.

The model is a row of calls in plain Python: what each was sent with, what the remote did with it,
whether its caller still waits. Examples are the same in each run.
"""

from __future__ import annotations

import errno
from collections import deque
from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sbe import _native, errors
from tests.unit.channel_pair import Pair
from tests.unit.model_settings import SETTINGS

which = st.integers(0, 15)


@dataclass
class Asked:
    """A call, and what is known of it."""

    call: _native.Call
    payload: bytes  # its own, which an answer repeats
    held: list[_native.Memory] = field(default_factory=list)
    given_up: str = ""  # "cancelled" or "expired", by its caller
    answer: tuple[int, bytes] | None = None  # as the remote gave it first


class Transactions(RuleBasedStateMachine):
    """A host that calls, a remote that serves, and areas that calls hold."""

    @initialize(slots=st.sampled_from([2, 4, 8]))
    def begin(self, slots: int) -> None:
        self.pair = Pair(slots, 256)
        self.mapped = [self.pair.area(64) for _ in range(2)]  # as both ends have them
        self.areas = [ours for ours, _ in self.mapped]
        self.calls: list[Asked] = []
        self.arriving: deque[Asked] = deque()  # in the order in which they were sent
        self.taken: list[tuple[Asked, _native.Request]] = []
        self.by_transaction: dict[int, Asked] = {}
        self.number = 0

    # -- the host

    @rule(areas=st.lists(st.integers(0, 1), max_size=2), sync=st.booleans())
    def ask(self, areas: list[int], sync: bool) -> None:
        self.number += 1
        payload = b"" if sync else self.number.to_bytes(4, "little")
        buffers = tuple(_native.InOut(self.areas[area]) for area in areas)
        if sync and not buffers:
            return
        submit = self.pair.host.sync if sync else self.pair.host.submit
        try:
            call = submit(0 if sync else 1, buffers, payload, None, False)
        except errors.WouldBlock:
            return
        asked = Asked(call, payload, [self.areas[area] for area in areas])
        assert call.transaction not in {one.call.transaction for one in self.open()}
        self.calls.append(asked)
        self.by_transaction[call.transaction] = asked
        if not sync:
            self.arriving.append(asked)

    def open(self) -> list[Asked]:
        return [asked for asked in self.calls if asked.call.in_flight]

    @precondition(lambda self: self.calls)
    @rule(index=which, how=st.sampled_from(["cancelled", "expired"]))
    def give_up(self, index: int, how: str) -> None:
        asked = self.calls[index % len(self.calls)]
        ended = asked.call.done()
        if how == "cancelled":
            assert asked.call.cancel() is not ended
        else:
            asked.call._expire()
        if not ended:
            asked.given_up = how
        assert asked.call.done()

    @rule()
    def host_looks(self) -> None:
        self.pair.host.poll()

    # -- the remote

    @rule(count=st.integers(1, 4))
    def take(self, count: int) -> None:
        for _ in range(count):
            request = self.pair.remote.next_request(0)
            if request is None:
                return
            if request.type == _native.FRAME_CANCEL:
                assert self.by_transaction[request.transaction].given_up
                continue
            asked = self.arriving.popleft()  # each once, in order
            assert (request.payload, request.transaction) == (
                asked.payload,
                asked.call.transaction,
            )
            assert len(request.buffers) == len(asked.held)
            self.taken.append((asked, request))

    @precondition(lambda self: self.taken)
    @rule(index=which, status=st.sampled_from([0, 0, -errno.EIO]), again=st.booleans())
    def answer(self, index: int, status: int, again: bool) -> None:
        asked, request = self.taken.pop(index % len(self.taken))
        request.respond(asked.payload, status)
        asked.answer = status, asked.payload
        if again:  # does nothing
            request.respond(b"another", -errno.EPERM)

    @precondition(lambda self: self.taken)
    @rule(index=which)
    def drop(self, index: int) -> None:
        """A handler that forgets its request: the caller hears of it."""
        asked, request = self.taken.pop(index % len(self.taken))
        asked.answer = -errno.EIO, b""
        del request

    @rule()
    def remote_looks(self) -> None:
        self.pair.remote.poll()

    # -- what holds

    def check(self, asked: Asked) -> None:
        """What a call that has ended says is its own."""
        error = asked.call.exception(0)
        if asked.given_up == "cancelled":
            assert isinstance(error, errors.Cancelled)
        elif asked.given_up == "expired":
            assert isinstance(error, errors.Timeout)
        elif asked.payload:
            assert asked.answer is not None  # else somebody else's
            status, payload = asked.answer
            if status == 0:
                assert error is None
                assert asked.call.result(0).payload == payload == asked.payload
            else:
                assert isinstance(error, errors.RemoteError)
                assert error.code == -status

    @invariant()
    def each_answer_is_its_calls(self) -> None:
        for asked in self.calls:
            if asked.call.done():
                self.check(asked)

    @invariant()
    def areas_are_held_by_what_is_in_flight(self) -> None:
        for area in self.areas:
            holds = sum(asked.held.count(area) for asked in self.open())
            assert area.holds == holds
        assert self.pair.host.in_flight == len(self.open())

    def finish(self) -> None:
        """The remote answers all, and everybody looks until nothing is left."""
        for _ in range(200):
            self.take(8)
            while self.taken:
                self.answer(0, 0, False)
            self.remote_looks()
            self.host_looks()
            if not self.open():
                self.take(200)  # what was given up is told to the end
                return
        raise AssertionError("calls are in flight for ever")

    @rule(rarely=st.integers(0, 9))
    def everything_comes_to_rest(self, rarely: int) -> None:
        if rarely:
            return
        self.finish()
        self.each_answer_is_its_calls()
        assert [area.holds for area in self.areas] == [0, 0]
        counters = self.pair.host.counters(), self.pair.remote.counters()
        assert [one["in_flight"] for one in counters] == [0, 0]
        assert [one["requests"] for one in counters] == [0, 0]
        assert [one["bad"] for one in counters] == [0, 0]

    def teardown(self) -> None:
        if not hasattr(self, "pair"):
            return
        if self.number % 2:
            self.everything_comes_to_rest(0)
        self.pair.close()
        for asked in self.calls:  # nobody waits for a channel that is gone
            assert asked.call.done()
        assert self.pair.host.in_flight == 0
        assert [area.holds for area in self.areas] == [0, 0]


TestTransactions = Transactions.TestCase
TestTransactions.settings = SETTINGS
