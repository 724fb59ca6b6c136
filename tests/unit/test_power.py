"""Requests about power on a link, both ways: what answers belong to, and what strange ones do."""

from __future__ import annotations

import errno

import pytest

from sbe import _native, errors
from sbe.link.pending import Pending
from sbe.link.power import Answer, Power, PowerRequest

SUSPEND, RESUME, FREQUENCY = PowerRequest
GONE = errors.RemoteRestarted("gone")


class Wire:
    """What was sent, and an end over it."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int]] = []
        self.broken: errors.Error | None = None
        self.asked: list[tuple[PowerRequest, int, Answer]] = []
        self.power = Power(self.send, None)

    def send(self, event: int, value: int) -> None:
        if self.broken is not None:
            raise self.broken
        self.sent.append((event, value))

    def hear(self, request: PowerRequest, khz: int, answer: Answer) -> None:
        self.asked.append((request, khz, answer))

    def answer(self, kind: int, code: int = 0) -> bool | None:
        return self.power.take(_native.EVENT_ANSWERED, kind << _native.ANSWERED_SHIFT | code)

    def answers(self) -> list[tuple[int, int]]:
        return [
            (value >> _native.ANSWERED_SHIFT, value & 0xFFFF)
            for event, value in self.sent
            if event == _native.EVENT_ANSWERED
        ]


@pytest.fixture
def wire() -> Wire:
    return Wire()


def failure(pending: Pending[None]) -> errors.Error:
    assert pending.error is not None
    return pending.error


def test_what_this_end_asks(wire: Wire):
    suspended, clock = wire.power.ask(SUSPEND, 0), wire.power.ask(FREQUENCY, 48_000)
    assert wire.sent == [(SUSPEND, 0), (FREQUENCY, 48_000)]
    assert not wire.power.suspended
    assert wire.answer(SUSPEND)
    assert wire.power.suspended
    assert suspended.done
    assert not clock.done
    assert wire.answer(FREQUENCY)
    assert clock.error is None
    assert wire.power.suspended
    resumed = wire.power.ask(RESUME, 0)
    assert wire.power.suspended  # not before it says so
    assert wire.answer(RESUME)
    assert resumed.done
    assert not wire.power.suspended


@pytest.mark.parametrize(
    ("code", "kind", "told"),
    [
        (errno.EOPNOTSUPP, errors.Error, errno.EOPNOTSUPP),
        (errno.EBUSY, errors.Busy, errno.EBUSY),
        (errno.EPERM, errors.PermissionDenied, errno.EPERM),
        (errno.ECONNRESET, errors.Error, errno.EIO),  # it is there, or it could not answer
        (0xFFFF, errors.Error, 0xFFFF),
    ],
)
def test_refusals(code: int, kind: type, told: int, wire: Wire):
    pending = wire.power.ask(SUSPEND, 0)
    assert wire.answer(SUSPEND, code)
    assert type(failure(pending)) is kind
    assert failure(pending).code == told
    assert "refused the request for suspend" in str(failure(pending))
    assert not wire.power.suspended


def test_answers_to_nothing(wire: Wire):
    for kind in (0, 1, *PowerRequest, _native.EVENT_ANSWERED, 0xFFFF):
        assert wire.answer(kind) is False
    pending = wire.power.ask(RESUME, 0)
    assert wire.answer(SUSPEND) is False
    assert not pending.done
    assert not wire.power.suspended
    assert wire.power.take(_native.EVENT_CHANNEL_BROKEN, 1) is None
    assert wire.power.take(0xFFFFFFFF, 1) is None


def test_a_late_answer_belongs_to_what_was_given_up(wire: Wire):
    given_up, again = wire.power.ask(SUSPEND, 0), wire.power.ask(SUSPEND, 0)
    assert wire.answer(SUSPEND, errno.EBUSY)
    assert given_up.done
    assert not again.done
    assert wire.answer(SUSPEND)
    assert again.error is None


def test_an_answer_that_was_lost(wire: Wire):
    lost, resumed = wire.power.ask(SUSPEND, 0), wire.power.ask(RESUME, 0)
    assert wire.answer(RESUME)
    assert "its answer was lost" in str(failure(lost))
    assert resumed.error is None


def test_who_never_answers_is_not_asked_for_ever(wire: Wire):
    for _ in range(8):
        wire.power.ask(SUSPEND, 0)
    with pytest.raises(errors.Busy, match="have no answer"):
        wire.power.ask(RESUME, 0)
    assert len(wire.sent) == 8


def test_what_can_not_be_sent_was_not_asked(wire: Wire):
    wire.broken = errors.WouldBlock("full")
    with pytest.raises(errors.WouldBlock):
        wire.power.ask(SUSPEND, 0)
    assert wire.answer(SUSPEND) is False


def test_the_loss_of_the_remote(wire: Wire):
    wire.power.on_power = wire.hear
    wire.power.ask(SUSPEND, 0)
    wire.answer(SUSPEND)
    pending = wire.power.ask(RESUME, 0)
    wire.power.take(SUSPEND, 0)
    wire.power.lost(GONE)
    assert type(failure(pending)) is errors.RemoteRestarted
    assert not wire.power.suspended
    assert wire.answer(RESUME) is False
    wire.asked[0][2](0)  # of the former life: it is not told to the next one
    assert wire.answers() == []
    wire.power.take(RESUME, 0)
    wire.asked[0][2](0)
    wire.asked[1][2](0)
    assert wire.answers() == [(RESUME, 0)]


def test_what_the_remote_asks_of_nobody(wire: Wire):
    for request in PowerRequest:
        assert wire.power.take(request, 0)
    assert wire.answers() == [(request, errno.EOPNOTSUPP) for request in PowerRequest]


def test_what_the_remote_asks_is_done_in_order(wire: Wire):
    wire.power.on_power = wire.hear
    for khz in range(8):
        assert wire.power.take(FREQUENCY, khz)
    assert wire.power.take(FREQUENCY, 8) is False  # it does not wait for answers
    for khz in range(8):
        assert [(request, at) for request, at, _ in wire.asked] == [(FREQUENCY, khz)]
        answer = wire.asked.pop()[2]
        answer(khz)
        answer(1)  # twice
    assert wire.asked == []
    assert wire.answers() == [(FREQUENCY, khz) for khz in range(8)]
    assert wire.power.take(FREQUENCY, 9)


def test_who_decides_fails(wire: Wire):
    def decide(request: PowerRequest, khz: int, answer: Answer) -> None:
        if khz == 1:
            answer(0)
        raise RuntimeError("bug of the application")

    wire.power.on_power = decide
    wire.power.take(FREQUENCY, 0)
    wire.power.take(FREQUENCY, 1)
    assert wire.answers() == [(FREQUENCY, errno.EIO), (FREQUENCY, 0)]


def test_an_answer_that_can_not_be_sent_does_not_stop_the_next(wire: Wire):
    wire.broken = errors.WouldBlock("full")
    wire.power.take(SUSPEND, 0)
    wire.broken = None
    wire.power.take(RESUME, 0)
    assert wire.answers() == [(RESUME, errno.EOPNOTSUPP)]
