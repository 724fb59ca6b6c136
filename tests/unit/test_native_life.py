"""Channels, calls and requests in cycles; errors raised again and again; what messages say."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

import pytest

from sbe import _native, errors
from tests.unit.channel_pair import LIMIT_S, Pair
from tests.unit.session_pair import count_fds


class Owner:
    """As applications hold what they use."""

    channel: _native.Channel
    kept: Any

    def control(self, *_: object) -> None:
        self.heard = True


def alive(kind: type) -> int:
    return sum(type(item) is kind for item in gc.get_objects())


@pytest.mark.parametrize("kept", ["nothing", "call", "reply", "request", "unsent", "callback"])
def test_a_channel_in_a_cycle_is_collected(kept: str):
    gc.collect()
    before = alive(_native.Channel), count_fds()
    owner = Owner()
    pair = Pair(slots=2, on_control=owner.control)
    owner.channel = pair.host
    area, _ = pair.area()
    if kept in ("call", "callback"):
        owner.kept = pair.host.submit(1, (_native.In(area), _native.Out(bytearray(8))))
        if kept == "callback":
            owner.kept.add_done_callback(owner.control)
    elif kept == "reply":
        call = pair.host.submit(1)
        pair.answer()
        owner.kept = call.result(LIMIT_S)
        del call
    elif kept in ("request", "unsent"):
        for _ in range(4 if kept == "unsent" else 1):
            pair.remote.submit(1)
            owner.kept = pair.host.next_request(0)
            if kept == "unsent":
                owner.kept.respond()
    pair.rings.close()
    pair.remote.fail(errors.LinkClosed("over"))
    gone = weakref.ref(owner)
    del pair, owner
    gc.collect()
    assert gone() is None
    assert (alive(_native.Channel), count_fds()) == before
    assert area.holds == 0


def test_callbacks_hear_that_their_channel_was_dropped():
    heard: list[BaseException | None] = []
    pair = Pair()
    pair.host.submit(1).add_done_callback(lambda call: heard.append(call.exception()))
    del pair.host
    gc.collect()
    assert [type(error) for error in heard] == [errors.LinkClosed]
    assert "dropped with calls in flight" in str(heard[0])
    pair.rings.close()


def depth(error: BaseException) -> int:
    trace, count = error.__traceback__, 0
    while trace is not None:
        trace, count = trace.tb_next, count + 1
    return count


def test_a_dead_channel_raises_its_error_afresh():
    with Pair() as pair:
        call = pair.host.submit(1)
        cause = OSError("the cable")
        death = errors.RemoteRestarted("it died")
        death.__cause__ = cause
        pair.host.fail(death)
        for work in (lambda: pair.host.submit(1), call.result, pair.host.poll):
            seen = set()
            for _ in range(10):
                with pytest.raises(errors.RemoteRestarted, match="it died") as caught:
                    work()
                seen.add(depth(caught.value))
                assert caught.value.__cause__ is cause
                assert caught.value.code == death.code
            assert len(seen) == 1, "the traceback grows"
        assert pair.host.error is death
        assert death.__traceback__ is None


@pytest.mark.parametrize(
    "error",
    [
        *(getattr(errors, name)("words", 5) for name in errors.__all__ if name[0].isupper()),
        ConnectionResetError(104, "words", "file"),
        KeyError("words"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_copy_is_as_the_original(error: BaseException):
    copy = errors.fresh_copy(error)
    assert copy is not error
    assert type(copy) is type(error)
    assert (str(copy), copy.args, vars(copy)) == (str(error), error.args, vars(error))


def test_an_exception_that_can_not_be_copied_is_raised_itself():
    class Awkward(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__("awkward")

    error = Awkward(1, 2)
    try:
        raise error
    except Awkward:
        pass
    assert errors.fresh_copy(error) is error
    assert error.__traceback__ is None


def test_a_cancelled_call_says_so_and_what_becomes_of_its_buffers():
    with Pair() as pair:
        pair.host.names[7] = "sobel"
        area, _ = pair.area()
        call = pair.host.submit(7, (_native.In(area), _native.Out(bytearray(8))))
        assert call.cancel()
        assert not call.cancel()
        words = "'sobel' was cancelled; its 1 buffer stays quarantined until the remote answers"
        with pytest.raises(errors.Cancelled, match=words):
            call.result()
        pair.answer()
        pair.host.poll()
        with pytest.raises(errors.Cancelled, match=r"'sobel' was cancelled$"):
            call.result()


def test_a_call_that_timed_out_without_areas_quarantines_nothing():
    with Pair() as pair:
        result = bytearray(8)
        with pytest.raises(
            errors.Timeout, match=r"^no answer from service 7 in time: the remote has"
        ):
            pair.host.call(7, (_native.Out(result),), b"", 0.01)
        result.clear()  # nobody holds it
        request = pair.take()
        request.buffers[0][:] = b"too late"
        request.respond()
        pair.host.poll()
        assert not result
        assert pair.host.in_flight == 0


def test_no_room_says_what_is_full():
    with Pair(slots=4, max_calls=2) as pair:
        for _ in range(2):
            pair.host.submit(1)
        with pytest.raises(errors.WouldBlock, match="all 2 calls that channel 1 may have open"):
            pair.host.submit(1, (), b"", None, False)
        for _ in range(2):
            pair.host.send(1)
        with pytest.raises(errors.Timeout, match="is full: the remote has 4 frames to take"):
            pair.host.send(1, (), b"", 0.01)


def test_a_broken_ring_says_so_when_sending():
    with Pair(slots=2) as pair:
        memory = memoryview(_native.Memory(pair.rings.memory_fd, pair.rings.size_bytes))
        for _ in range(2):
            pair.host.send(1)
        tail = pair.rings.send_offset + pair.rings.line_bytes
        memory[tail : tail + 4] = b"\0\0\0\x40"
        with pytest.raises(errors.ProtocolError, match="ring index that can't be"):
            pair.host.send(1)


def test_an_exporters_own_error_is_not_called_a_bad_shape():
    class Interrupted(bytearray):
        def __buffer__(self, flags: int) -> memoryview:
            raise KeyboardInterrupt

    with Pair() as pair:
        with pytest.raises(errors.BadArgument, match="is not writable"):
            pair.host.submit(1, (_native.Out(b"constant"),))
        if sys.version_info >= (3, 12):
            with pytest.raises(KeyboardInterrupt):
                pair.host.submit(1, (_native.In(Interrupted(8)),))
