"""The extension's Session: two of them back to back, and one against bytes of all kinds."""

import errno
import gc
import sys
import weakref
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sbe import _native, errors
from tests.unit.session_pair import LAYOUT, End, Pair, Recorder, field, handles_of

HOST, REMOTE = _native.ROLE_HOST, _native.ROLE_REMOTE
WAITING, CONNECTED = _native.SESSION_WAITING, _native.SESSION_CONNECTED


def patched(message: bytes, structure: str, name: str, value: int) -> bytes:
    at, size = LAYOUT[structure][name]
    return message[:at] + value.to_bytes(size, "little") + message[at + size :]


# negotiation


@pytest.mark.parametrize("first", ["host", "remote"])
def test_negotiates_in_any_start_order(first: str):
    pair = Pair()
    ends = [pair.host, pair.remote]
    for number, end in enumerate(ends if first == "host" else ends[::-1]):
        end.session.start(10 + number)
        pair.run()
    for end in ends:
        assert end.session.state == CONNECTED
        assert end.handler.states[0] == WAITING
        assert end.handler.states[-1] == CONNECTED
        assert end.session.version == _native.VERSION_MAX
    assert pair.host.session.peer_epoch == pair.remote.session.epoch
    assert pair.remote.session.peer_epoch == pair.host.session.epoch


def test_agrees_on_the_smaller_limits_and_the_larger_line():
    pair = Pair(
        {"areas": 8, "slots": 64, "cache_line": 32, "name": "a"},
        {
            "areas": 16,
            "slots": 16,
            "cache_line": 128,
            "coherent": False,
            "name": "b",
            "address_bits": 32,
        },
    ).connect()
    session = pair.host.session
    assert session.limits["areas"] == 8
    assert session.limits["slots"] == 16
    assert session.limits == pair.remote.session.limits
    assert session.line == pair.remote.session.line == 128
    assert session.coherent is False
    assert session.peer_address_bits == 32
    assert (session.peer_name, pair.remote.session.peer_name) == ("b", "a")
    assert session.peer_limits["areas"] == 16


@pytest.mark.parametrize(
    ("host", "remote"), [((1, 1), (2, 3)), ((4, 5), (2, 3))], ids=["older", "newer"]
)
@pytest.mark.parametrize("first", ["host", "remote"])
def test_refuses_a_version_in_both_directions_and_stops(
    host: tuple[int, int], remote: tuple[int, int], first: str
):
    pair = Pair(
        {"version_min": host[0], "version_max": host[1]},
        {"version_min": remote[0], "version_max": remote[1]},
    )
    ends = [pair.host, pair.remote]
    for number, end in enumerate(ends if first == "host" else ends[::-1]):
        end.session.start(10 + number)
        pair.run()
    for end, peer in ((pair.host, remote), (pair.remote, host)):
        assert end.session.state == WAITING
        assert end.handler.refusals
        for why, _, low, high in end.handler.refusals:
            assert (why, low, high) == (_native.REFUSED_VERSION, *peer)


def test_refuses_its_own_role():
    one, two = End(HOST), End(HOST)
    one.session.start(1)
    two.session.start(2)
    assert two.session.receive(one.handler.out.popleft(), 0) == 0
    assert two.handler.refusals == [(_native.REFUSED_ROLE, False, 1, 1)]
    assert two.session.state == WAITING


def test_agrees_on_a_version_within_both_ranges():
    pair = Pair(
        {"version_min": 1, "version_max": 7}, {"version_min": 3, "version_max": 5}
    ).connect()
    assert pair.host.session.version == pair.remote.session.version == 5


def test_restart_drops_what_the_former_peer_made():
    pair = Pair().connect()
    host, remote = pair.host, pair.remote
    host.session.create_context(5, "context")
    host.session.map_area(1 << 16, 5, _native.AREA_RING, 4096, 1, (), "area")
    host.session.open_channel(9, 5, 1 << 16, 2, 64, 64, 0, 1024, 0, 2, "channel")
    pair.run()
    assert [status for _, status, _ in host.handler.replies] == [0, 0, 0]
    assert list(remote.handler.areas) == [1 << 16]
    assert list(remote.handler.channels) == [9]

    host.session.start(77)
    pair.run()
    assert remote.handler.areas == {}
    assert remote.handler.channels == {}
    assert remote.session.peer_epoch == 77
    assert host.session.state == remote.session.state == CONNECTED
    host.session.create_context(5, "again")  # the id is free
    pair.run()
    assert host.handler.replies[-1] == ("again", 0, None)


def test_messages_of_a_dead_epoch_are_dropped():
    pair = Pair().connect()
    pair.host.session.ping(1, "old")
    ping = pair.host.handler.out.popleft()
    pair.host.session.start(88)
    pair.run()
    assert pair.remote.session.receive(ping, 0) == -errno.ENOTCONN
    assert pair.remote.session.dropped == 1


# requests and tokens


class Token:
    """Something that can be watched dying."""


def test_every_request_is_replied_once_with_its_token():
    pair = Pair().connect()
    session = pair.host.session
    tokens = [Token() for _ in range(9)]
    session.ping(1 << 63, tokens[0])
    session.create_context(3, tokens[1])
    session.map_area(1 << 16, 3, 0, 100, 0, [(4096, 60), (8192, 40)], tokens[2])
    session.find_service(0, "crc32", 2, tokens[3])
    session.find_service(0, "nothing", 0, tokens[4])
    session.list_service(0, tokens[5])
    session.list_service(2, tokens[6])
    session.unmap_area(1 << 16, tokens[7])
    session.destroy_context(3, tokens[8])
    assert pair.host.handler.replies == []
    pair.run()
    replies = pair.host.handler.replies
    assert [token for token, _, _ in replies] == tokens
    assert [(status, reply) for _, status, reply in replies] == [
        (0, (1 << 63,)),
        (0, None),
        (0, None),
        (0, (2, 3, "crc32")),
        (-errno.ENOENT, None),
        (0, (1, 1, "echo")),
        (-errno.ENOENT, None),
        (0, None),
        (0, None),
    ]
    assert pair.statuses.count(0) == len(pair.statuses)


def test_open_requests_end_with_the_session():
    pair = Pair().connect()
    pair.host.session.ping(1, "a")
    pair.host.session.ping(2, "b")
    pair.host.session.lost()
    assert pair.host.handler.replies == [
        ("a", -errno.ECONNRESET, None),
        ("b", -errno.ECONNRESET, None),
    ]
    pair.run()  # the answers come late
    assert len(pair.host.handler.replies) == 2
    assert pair.host.session.state == WAITING


def test_a_token_is_held_while_it_is_open_and_no_longer():
    pair = Pair().connect()
    token = Token()
    watch = weakref.ref(token)
    pair.host.session.ping(1, token)
    del token
    gc.collect()
    assert watch() is not None
    pair.run()
    pair.host.handler.replies.clear()
    gc.collect()
    assert watch() is None


def test_a_failed_request_keeps_no_token():
    end = End(HOST)
    token = Token()
    before = sys.getrefcount(token)
    with pytest.raises(errors.LinkError):
        end.session.ping(1, token)
    with pytest.raises(errors.LinkError):
        end.session.bye(token)
    assert sys.getrefcount(token) == before


def test_too_many_open_requests():
    pair = Pair({"pending": 2}).connect()
    pair.host.session.ping(1, None)
    pair.host.session.ping(2, None)
    with pytest.raises(errors.OutOfResources, match="all 2 requests"):
        pair.host.session.ping(3, None)
    pair.run()
    pair.host.session.ping(3, None)


def test_goodbye_is_answered_and_lets_go():
    pair = Pair().connect()
    pair.host.session.map_area(1 << 16, 0, 0, 4096, 1, (), "area")
    pair.run()
    pair.host.session.bye("bye")
    assert pair.host.session.state == _native.SESSION_CLOSING
    pair.run()
    assert pair.host.handler.replies[-1] == ("bye", 0, None)
    assert pair.host.session.state == pair.remote.session.state == _native.SESSION_CLOSED
    assert pair.remote.handler.areas == {}


def test_events_go_both_ways():
    pair = Pair().connect()
    pair.remote.session.send_event(_native.EVENT_CHANNEL_BROKEN, 9)
    pair.host.session.send_event(7, 8)
    pair.run()
    assert pair.host.handler.events == [(_native.EVENT_CHANNEL_BROKEN, 9)]
    assert pair.remote.handler.events == [(7, 8)]


def test_the_remote_sees_what_the_opener_said():
    pair = Pair().connect()
    pair.host.session.map_area(3 << 16, 0, _native.AREA_RING, 8192, 1, (), "area")
    pair.host.session.open_channel(1, 0, 3 << 16, 4, 128, 64, 4096, 0, 2, 0, "channel")
    pair.run()
    assert pair.remote.handler.areas[3 << 16] == (0, _native.AREA_RING, 8192, 1)
    assert pair.remote.handler.channels[1] == (0, 3 << 16, 4, 128, 64, 4096, 0, 2, 0)
    pair.host.session.close_channel(1, "close")
    pair.run()
    assert pair.remote.handler.channels == {}


# handlers that raise, refuse and call back


class Boom(Exception):
    pass


def test_an_error_of_send_is_raised_from_the_method_that_sent():
    pair = Pair().connect()

    def send(message: bytes) -> None:
        raise Boom("no wire")

    pair.host.handler.send = send  # type: ignore[method-assign]
    token = Token()
    before = sys.getrefcount(token)
    with pytest.raises(Boom, match="no wire"):
        pair.host.session.ping(1, token)
    assert sys.getrefcount(token) == before
    with pytest.raises(Boom):
        pair.host.session.start(5)


def test_an_error_of_a_callback_is_raised_from_receive_after_the_step_is_done():
    pair = Pair().connect()

    def replied(token: Any, status: int, reply: Any) -> None:
        raise Boom

    pair.host.handler.replied = replied  # type: ignore[method-assign]
    pair.host.session.ping(1, "token")
    with pytest.raises(Boom) as caught:
        pair.run()
    assert caught.traceback[-1].name == "replied"
    pair.run()
    assert pair.host.session.state == CONNECTED


def test_only_the_first_of_several_errors_is_raised(capfd: pytest.CaptureFixture[str]):
    pair = Pair().connect()
    numbers = iter(range(9))

    def replied(token: Any, status: int, reply: Any) -> None:
        raise Boom(next(numbers))

    pair.host.handler.replied = replied  # type: ignore[method-assign]
    pair.host.session.ping(1, "a")
    pair.host.session.ping(2, "b")
    unraisable: list[Any] = []
    hook, sys.unraisablehook = sys.unraisablehook, unraisable.append
    try:
        with pytest.raises(Boom, match="0"):
            pair.host.session.lost()
    finally:
        sys.unraisablehook = hook
    assert [str(entry.exc_value) for entry in unraisable] == ["1"]


def test_the_handler_refuses_with_an_error_of_the_tree():
    pair = Pair().connect()

    def attach(*_: int) -> int:
        raise errors.PermissionDenied("quota", errno.EACCES)

    pair.remote.handler.area_attach = attach  # type: ignore[method-assign,assignment]
    pair.host.session.map_area(1 << 16, 0, 0, 64, 0, (), "area")
    pair.run()
    assert pair.host.handler.replies == [("area", -errno.EACCES, None)]


def test_the_handler_refuses_with_any_other_error_which_is_raised():
    pair = Pair().connect()

    def attach(*_: int) -> int:
        raise Boom

    pair.remote.handler.area_attach = attach  # type: ignore[method-assign,assignment]
    pair.host.session.map_area(1 << 16, 0, 0, 64, 0, (), "area")
    with pytest.raises(Boom):
        pair.run()
    pair.run()
    assert pair.host.handler.replies == [("area", -errno.EIO, None)]


@pytest.mark.parametrize("answer", ["echo", (1, 2), (1, 2, 3), (1, 70000, "x"), (1, 2, "x" * 32)])
def test_a_nonsense_answer_to_a_service_question_is_raised(answer: Any):
    pair = Pair().connect()
    pair.remote.handler.service = lambda *_: answer  # type: ignore[method-assign]
    pair.host.session.list_service(0, "list")
    with pytest.raises((TypeError, errors.BadArgument)):
        pair.run()
    pair.run()
    assert pair.host.handler.replies == [("list", -errno.EIO, None)]


class Direct(Recorder):
    """Delivers within send(), so that everything happens inside one call."""

    peer: _native.Session

    def send(self, message: bytes) -> None:
        self.peer.receive(message, handles_of(message))


def direct_pair() -> tuple[End, End]:
    one, two = Direct(), Direct()
    host, remote = End(HOST, handler=one), End(REMOTE, handler=two)
    one.peer, two.peer = remote.session, host.session
    remote.session.start(2)
    host.session.start(1)
    return host, remote


def test_the_answer_may_come_before_the_request_returns():
    host, _ = direct_pair()
    assert host.session.state == CONNECTED
    for number in range(200):  # more than `pending`: every entry is given back
        host.session.ping(number, number)
    assert host.handler.replies == [(number, 0, (number,)) for number in range(200)]
    host.session.bye("bye")
    assert host.session.state == _native.SESSION_CLOSED


def test_callbacks_may_make_requests():
    host, _ = direct_pair()
    left = list(range(10))

    def replied(token: Any, status: int, reply: Any) -> None:
        if left:
            host.session.ping(left.pop(), token)

    host.handler.replied = replied  # type: ignore[method-assign]
    host.session.ping(0, "token")
    assert left == []


def test_a_request_within_the_loss_fails_instead_of_waiting_for_ever():
    pair = Pair().connect()
    failed: list[type[Exception]] = []

    def replied(token: Any, status: int, reply: Any) -> None:
        try:
            pair.host.session.ping(2, "second")
        except errors.LinkError as error:
            failed.append(type(error))

    pair.host.handler.replied = replied  # type: ignore[method-assign]
    pair.host.session.ping(1, "first")
    pair.host.session.lost()
    assert failed == [errors.LinkError]


# arguments


@pytest.mark.parametrize(
    "options",
    [
        {"role": 0},
        {"role": 3},
        {"role": 257},
        {"areas": 0},
        {"areas": 65536},
        {"channels": 0},
        {"contexts": 1 << 32},
        {"slots": 1},
        {"slot_size": 1 << 20},
        {"cache_line": 48},
        {"cache_line": 8},
        {"address_bits": 0},
        {"address_bits": 65},
        {"version_min": 2, "version_max": 1},
        {"pending": 0},
        {"name": "x" * 32},
        {"name": "a\0b"},
    ],
)
def test_bad_configuration(options: dict[str, Any]):
    with pytest.raises(errors.BadArgument):
        _native.Session(Recorder(), **{"role": HOST, **options})


def test_bad_arguments():
    session = Pair().connect().host.session
    with pytest.raises(errors.BadArgument):
        session.start(0)
    with pytest.raises(errors.BadArgument):
        session.start(1)  # the epoch it has
    with pytest.raises(errors.BadArgument, match="4294967295"):
        session.create_context(1 << 32, None)
    with pytest.raises(errors.BadArgument):
        session.create_context(-1, None)
    with pytest.raises(errors.BadArgument, match="at most 28"):
        session.map_area(1 << 16, 0, 0, 29, 0, [(0, 1)] * 29, None)
    with pytest.raises(errors.BadArgument, match="31 bytes"):
        session.find_service(0, "x" * 32, 0, None)
    with pytest.raises(TypeError):
        session.map_area(1 << 16, 0, 0, 64, 0, [5], None)  # type: ignore[list-item]
    with pytest.raises(TypeError):
        session.create_context("1", None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        session.receive("text", 0)


def test_segments_reach_the_wire_whole():
    pair = Pair().connect()
    segments = [(1 << 40 | i << 12, 4096) for i in range(_native.SEGMENTS_MAX)]
    pair.host.session.map_area(1 << 16, 0, 0, 4096 * len(segments), 0, segments, "area")
    message = pair.host.handler.out[-1]
    assert len(message) == field(message, "sbe_control", "size") == _native.CONTROL_MAX
    assert field(message, "sbe_area_map", "segment_count") == 28
    pair.run()
    assert pair.host.handler.replies == [("area", 0, None)]


def test_a_segment_beyond_the_remotes_width_is_refused():
    pair = Pair(remote={"address_bits": 32}).connect()
    pair.host.session.map_area(1 << 16, 0, 0, 4096, 0, [((1 << 32) - 4095, 4096)], "area")
    pair.run()
    assert pair.host.handler.replies == [("area", -errno.ERANGE, None)]


def test_a_session_in_a_cycle_is_collected_with_its_tokens():
    handler = Recorder()
    session = _native.Session(handler, role=HOST)
    handler.me = session  # type: ignore[attr-defined]
    peer = End(REMOTE)
    peer.session.start(2)
    session.start(1)
    for _ in range(8):
        while handler.out:
            peer.session.receive(handler.out.popleft(), 0)
        while peer.handler.out:
            session.receive(peer.handler.out.popleft(), 0)
    token = Token()
    token.session = session  # type: ignore[attr-defined]
    session.ping(1, token)
    watches = weakref.ref(token), weakref.ref(handler)
    del token, handler, session
    gc.collect()
    assert [watch() for watch in watches] == [None, None]


# hostile bytes


def corpus() -> list[bytes]:
    """One of each message that two honest ends exchange."""
    pair = Pair().connect()
    session = pair.host.session
    session.ping(1, 0)
    session.create_context(3, 0)
    session.map_area(1 << 16, 3, _native.AREA_RING, 4096, 1, (), 0)
    session.map_area(1 | 1 << 16, 3, 0, 100, 0, [(4096, 60), (8192, 40)], 0)
    session.open_channel(9, 3, 1 << 16, 2, 64, 64, 0, 1024, 0, 2, 0)
    session.find_service(3, "crc32", 2, 0)
    session.list_service(0, 0)
    session.send_event(1, 9)
    session.close_channel(9, 0)
    session.unmap_area(1 << 16, 0)
    session.destroy_context(3, 0)
    pair.run()
    session.bye(0)
    pair.run()
    return [*pair.host.handler.sent, *pair.remote.handler.sent]


CORPUS = corpus()


@st.composite
def mutated(draw: st.DrawFn) -> tuple[bytes, int]:
    message = bytearray(draw(st.sampled_from(CORPUS)))
    if draw(st.booleans()):  # as the epoch that the victim accepts
        message[4:8] = (2).to_bytes(4, "little")
    for _ in range(draw(st.integers(0, 3))):
        message[draw(st.integers(0, len(message) - 1))] = draw(st.integers(0, 255))
    cut = draw(st.one_of(st.just(len(message)), st.integers(0, len(message) + 8)))
    message = message[:cut] + bytes(max(0, cut - len(message)))
    handles = draw(
        st.one_of(st.just(handles_of(bytes(message).ljust(64, b"\0"))), st.integers(0, 3))
    )
    return bytes(message), handles


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(mutated(), st.tuples(st.binary(max_size=600), st.integers(0, 3))), max_size=30
    )
)
def test_hostile_messages_never_hurt(messages: list[tuple[bytes, int]]):
    pair = Pair().connect()
    victim = pair.host
    tokens = list(range(5))
    for token in tokens:
        victim.session.ping(token, token)
    for message, handles in messages:
        status = victim.session.receive(message, handles)
        assert status in (0, -errno.EBADMSG, -errno.ENOTCONN, -errno.EPROTO)
    victim.session.lost()
    assert sorted(token for token, _, _ in victim.handler.replies) == tokens
    assert victim.handler.areas == {}
    assert victim.handler.channels == {}


def may_have_length(message: bytes, length: int) -> bool:
    kind = field(message, "sbe_control", "type")
    if length == len(message):
        return True
    if kind & _native.CONTROL_REPLY and kind != _native.CONTROL_HELLO | _native.CONTROL_REPLY:
        return length == LAYOUT["sbe_control"]["status"][0] + 4  # a refusal is only a header
    # Too many or few segments are answered, as EBADMSG.
    return kind == _native.CONTROL_AREA_MAP and length >= LAYOUT["sbe_area_map"]["segment_count"][0]


@pytest.mark.parametrize("message", CORPUS, ids=lambda m: hex(field(m, "sbe_control", "type")))
def test_a_message_of_any_other_length_is_refused(message: bytes):
    remote = Pair().connect().remote
    message = patched(message, "sbe_control", "status", (1 << 32) - errno.EIO)
    for length in range(len(message) + 17):
        wrong = message[:length].ljust(length, b"\0")
        handles = handles_of(wrong.ljust(64, b"\0"))
        assert remote.session.receive(wrong, handles) == -errno.EBADMSG or length == len(message)
        if length >= 4:
            wrong = patched(wrong, "sbe_control", "size", length)
        if not may_have_length(message, length):
            assert remote.session.receive(wrong, handles) == -errno.EBADMSG


def test_an_area_map_of_another_length_is_answered_as_malformed():
    pair = Pair().connect()
    pair.host.session.map_area(1 << 16, 0, 0, 64, 0, (), "area")
    message = patched(pair.host.handler.out.popleft() + bytes(16), "sbe_control", "size", 64)
    assert pair.remote.session.receive(message, 0) == 0
    pair.run()
    assert pair.host.handler.replies == [("area", -errno.EBADMSG, None)]


def in_state(state: int) -> End:
    """A remote in this state, whose host has epoch 1."""
    pair = Pair()
    remote = pair.remote
    pair.host.session.start(1)
    if state == _native.SESSION_INITIALISING:
        return remote
    remote.session.start(2)
    hello = pair.host.handler.out.popleft()
    if state == WAITING:
        return remote
    remote.session.receive(hello, 0)
    if state == _native.SESSION_INITIALISED:
        return remote
    pair.run()
    if state >= _native.SESSION_CLOSING:
        remote.session.bye("bye")
    if state == _native.SESSION_CLOSED:
        pair.run()
    return remote


@pytest.mark.parametrize("message", CORPUS, ids=lambda m: hex(field(m, "sbe_control", "type")))
@pytest.mark.parametrize("state", range(_native.SESSION_CLOSED + 1))
def test_every_message_in_every_state(state: int, message: bytes):
    remote = in_state(state)
    assert remote.session.state == state
    remote.handler.out.clear()
    kind = field(message, "sbe_control", "type")
    message = patched(message, "sbe_control", "epoch", 1)
    status = remote.session.receive(message, handles_of(message))
    if kind == _native.CONTROL_HELLO:
        assert status == (-errno.ENOTCONN if state == _native.SESSION_INITIALISING else 0)
    elif kind == _native.CONTROL_HELLO | _native.CONTROL_REPLY:
        ours = field(message, "sbe_hello_reply", "peer_epoch") == 2  # it answers our own HELLO
        met = ours and state in (_native.SESSION_INITIALISED, CONNECTED)
        assert remote.session.state == (CONNECTED if met else state)
    elif state not in (CONNECTED, _native.SESSION_CLOSING):
        assert status == -errno.ENOTCONN
        assert list(remote.handler.out) == []
        assert remote.handler.areas == {}
        assert remote.session.state == state
        assert remote.session.dropped == 1
    elif not kind & _native.CONTROL_REPLY and kind != _native.CONTROL_EVENT:
        assert status == 0
        [reply] = remote.handler.out
        assert field(reply, "sbe_control", "type") == kind | _native.CONTROL_REPLY
        assert field(reply, "sbe_control", "id") == field(message, "sbe_control", "id")


def test_undeclared_handles_are_refused():
    pair = Pair().connect()
    pair.host.session.ping(1, 0)
    assert pair.remote.session.receive(pair.host.handler.out.popleft(), 1) == -errno.EBADMSG


def test_a_name_that_is_not_text_is_only_unknown():
    pair = Pair().connect()
    pair.host.session.find_service(0, "crc32", 0, "find")
    message = pair.host.handler.out.popleft()
    at = LAYOUT["sbe_service_find"]["name"][0]
    assert pair.remote.session.receive(message[:at] + b"\xff\xfe" + message[at + 2 :], 0) == 0
    pair.run()
    assert pair.host.handler.replies == [("find", -errno.ENOENT, None)]
