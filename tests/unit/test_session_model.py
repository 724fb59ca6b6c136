"""The control protocol against a model: two real sessions, a wire that loses, repeats and keeps.

The model is the peer's half of a session in plain Python: what the remote holds after each message
that reaches it, and what it answers. Examples are the same in each run.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sbe import _native, errors
from tests.unit.model_settings import SETTINGS
from tests.unit.session_pair import LAYOUT, SERVICES, Pair, field, handles_of

AREAS, CONTEXTS, CHANNELS, PENDING = 4, 2, 2, 6
RING = _native.AREA_RING
SIZE = 4096
REPLY = _native.CONTROL_REPLY

contexts = st.sampled_from([1, 1, 2, 0, CONTEXTS + 1])  # those in use most often
indices = st.sampled_from([0, 0, 1, 2, 3, AREAS])
generations = st.sampled_from([1, 1, 1, 2])
channels = st.integers(1, CHANNELS + 1)
ends = st.sampled_from(["host", "remote"])


def status_of(message: bytes) -> int:
    at, size = LAYOUT["sbe_control"]["status"]
    return int.from_bytes(message[at : at + size], "little", signed=True)


class Model:
    """What the host has made at the remote. Each method is a request: its status, None: later."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.contexts: set[int] = set()
        self.areas: dict[int, tuple[int, int]] = {}  # context and flags
        self.dying: dict[int, int] = {}  # area to the id of the request that waits
        self.channels: dict[int, tuple[int, int]] = {}  # context and ring area
        self.late: list[tuple[int, int, int]] = []  # answers to former requests: kind, id, status

    def _pinned(self, area: int) -> bool:
        return any(ring == area for _, ring in self.channels.values())

    def _close(self, channel: int) -> None:
        _, ring = self.channels.pop(channel)
        if ring in self.dying and not self._pinned(ring):
            del self.areas[ring]
            answer = _native.CONTROL_AREA_UNMAP | REPLY, self.dying.pop(ring), 0
            self.late.append(answer)

    def create(self, context: int) -> int:
        if context == 0:
            return -errno.EINVAL
        if context in self.contexts:
            return -errno.EEXIST
        if len(self.contexts) == CONTEXTS:
            return -errno.ENOMEM
        self.contexts.add(context)
        return 0

    def destroy(self, context: int) -> int:
        if context not in self.contexts:
            return -errno.ENOENT
        for channel in [one for one, (whose, _) in self.channels.items() if whose == context]:
            self._close(channel)
        for area in [one for one, (whose, _) in self.areas.items() if whose == context]:
            del self.areas[area]
        self.contexts.remove(context)
        return 0

    def map(self, area: int, context: int, flags: int) -> int:
        if context and context not in self.contexts:
            return -errno.ENOENT
        if area >> 16 == 0 or area & 0xFFFF >= AREAS:
            return -errno.EINVAL
        if any(known & 0xFFFF == area & 0xFFFF for known in self.areas):
            return -errno.EEXIST
        self.areas[area] = context, flags
        return 0

    def unmap(self, area: int, id: int) -> int | None:
        if area not in self.areas or area in self.dying:
            return -errno.EFAULT
        if self._pinned(area):
            self.dying[area] = id
            return None
        del self.areas[area]
        return 0

    def open(self, channel: int, context: int, ring: int) -> int:
        if context and context not in self.contexts:
            return -errno.ENOENT
        if ring not in self.areas or ring in self.dying:
            return -errno.EFAULT
        if self.areas[ring] != (context, RING):
            return -errno.EACCES
        if channel in self.channels:
            return -errno.EEXIST
        if len(self.channels) == CHANNELS:
            return -errno.ENOMEM
        self.channels[channel] = context, ring
        return 0

    def close(self, channel: int) -> int:
        if channel not in self.channels:
            return -errno.ENOENT
        self._close(channel)
        return 0

    def find(self, name: bytes, version: int) -> int:
        known = SERVICES.get(name.rstrip(b"\0").decode())
        if known is None:
            return -errno.ENOENT
        return -errno.ENOTSUP if known[1] < version else 0

    def take(self, message: bytes) -> tuple[list[tuple[int, int, int]], bool]:
        """Answers to a request (type, id, status), and whether it ends the session."""
        kind, id = field(message, "sbe_control", "type"), field(message, "sbe_control", "id")
        status: int | None = 0
        match kind:
            case _native.CONTROL_CONTEXT_CREATE:
                status = self.create(field(message, "sbe_context_message", "context"))
            case _native.CONTROL_CONTEXT_DESTROY:
                status = self.destroy(field(message, "sbe_context_message", "context"))
            case _native.CONTROL_AREA_MAP:
                names = ("area", "context", "flags")
                status = self.map(*(field(message, "sbe_area_map", name) for name in names))
            case _native.CONTROL_AREA_UNMAP:
                status = self.unmap(field(message, "sbe_area_unmap", "area"), id)
            case _native.CONTROL_CHANNEL_OPEN:
                names = ("channel", "context", "ring_area")
                status = self.open(*(field(message, "sbe_channel_open", name) for name in names))
            case _native.CONTROL_CHANNEL_CLOSE:
                status = self.close(field(message, "sbe_channel_close", "channel"))
            case _native.CONTROL_SERVICE_FIND:
                at, size = LAYOUT["sbe_service_find"]["name"]
                version = field(message, "sbe_service_find", "version")
                status = self.find(message[at : at + size], version)
            case _native.CONTROL_EVENT:
                return [], False
        answers, self.late = self.late, []
        if status is not None:
            answers.append((kind | REPLY, id, status))
        return answers, kind == _native.CONTROL_BYE


class Sessions(RuleBasedStateMachine):
    """Both ends, the messages under way, and what the model says of the remote."""

    @initialize(stage=st.sampled_from([3, 3, 2, 1, 0]))
    def begin(self, stage: int) -> None:
        """Not connected; connected; with contexts; with areas and a channel, too."""
        limits = {"areas": AREAS, "contexts": CONTEXTS, "channels": CHANNELS, "pending": PENDING}
        self.pair = Pair(dict(limits), dict(limits))
        self.model = Model()
        self.host, self.remote = self.pair.host, self.pair.remote
        self.epochs = iter(range(1, 1 << 20))
        self.kept: deque[tuple[str, bytes]] = deque(maxlen=6)  # what comes once more, far later
        self.asked: set[int] = set()  # tokens that wait
        self.tokens = iter(range(1 << 20))
        self.ids: dict[int, int] = {}  # of a request to its token
        if stage > 0:
            self.they_meet_again()
        if stage > 1:
            self.create(1)
            self.create(2)
            self.quiet()
        if stage > 2:
            for index, context in enumerate((1, 1, 2)):
                self.map(index, 1, context, True)
            self.open(1, 1, 0, 1)
            self.quiet()

    # -- the wire

    def deliver(self, to: str, message: bytes) -> None:
        if to == "remote":
            self.to_remote(message)
        else:
            self.to_host(message)

    def to_remote(self, message: bytes) -> None:
        session, handler = self.remote.session, self.remote.handler
        busy = session.state in (_native.SESSION_CONNECTED, _native.SESSION_CLOSING)
        kind = field(message, "sbe_control", "type")
        epoch = field(message, "sbe_control", "epoch")
        peer, waiting = session.peer_epoch, len(handler.out)
        status = session.receive(message, handles_of(message))
        if kind & ~REPLY == _native.CONTROL_HELLO:
            if kind & REPLY == 0 and epoch != peer and session.peer_epoch != peer:
                self.model.clear()
            return
        if not busy or epoch != peer:
            assert status == -errno.ENOTCONN
            assert len(handler.out) == waiting
            return
        if kind & REPLY:
            return  # the remote asks for nothing
        expected, ended = self.model.take(message)
        if ended:
            self.model.clear()
            assert session.state == _native.SESSION_CLOSED
        answers = [
            (*(field(sent, "sbe_control", name) for name in ("type", "id")), status_of(sent))
            for sent in list(handler.out)[waiting:]
        ]
        assert answers == expected

    def to_host(self, message: bytes) -> None:
        session, handler = self.host.session, self.host.handler
        kind, id = (field(message, "sbe_control", name) for name in ("type", "id"))
        busy = session.state in (_native.SESSION_CONNECTED, _native.SESSION_CLOSING)
        meant = busy and field(message, "sbe_control", "epoch") == session.peer_epoch
        before = len(handler.replies)
        session.receive(message, 0)
        if not kind & REPLY or kind == _native.CONTROL_HELLO | REPLY:
            self.note_replies(before, None)
            return
        token = self.ids.get(id) if meant else None
        if token not in self.asked:  # lost meanwhile, answered already, or of another life
            assert len(handler.replies) == before
            return
        assert handler.replies[before][:2] == (token, status_of(message))
        self.ids.pop(id)
        self.note_replies(before, token)

    def note_replies(self, before: int, answered: int | None) -> None:
        """Each token once; those that no answer came for say that the other end restarted."""
        for token, status, reply in self.host.handler.replies[before:]:
            self.asked.remove(token)
            if token != answered:
                assert (status, reply) == (-errno.ECONNRESET, None)

    def queue(self, to: str) -> deque[bytes]:
        return (self.host if to == "remote" else self.remote).handler.out

    def quiet(self) -> None:
        """Until nothing is under way."""
        for _ in range(1000):
            waiting = [to for to in ("remote", "host") if self.queue(to)]
            if not waiting:
                return
            self.deliver(waiting[0], self.queue(waiting[0]).popleft())
        raise AssertionError("the two ends never stop talking")

    @rule(to=ends, count=st.integers(1, 4))
    def arrives(self, to: str, count: int) -> None:
        for _ in range(min(count, len(self.queue(to)))):
            message = self.queue(to).popleft()
            self.kept.append((to, message))
            self.deliver(to, message)

    @rule()
    def all_arrives(self) -> None:
        self.quiet()

    @rule(to=ends, fate=st.sampled_from(["lost", "twice", "again"]), which=st.integers(0, 5))
    def goes_wrong(self, to: str, fate: str, which: int) -> None:
        """The next message is lost, or comes twice; or one of those before comes once more."""
        if fate == "again" and self.kept:
            self.deliver(*self.kept[which % len(self.kept)])
        elif fate == "lost" and self.queue(to):
            self.queue(to).popleft()
        elif fate == "twice" and self.queue(to):
            self.deliver(to, self.queue(to)[0])

    # -- what ends do

    def host_restarts(self) -> None:
        before = len(self.host.handler.replies)
        self.host.session.start(next(self.epochs))
        self.note_replies(before, None)

    def remote_restarts(self) -> None:
        self.remote.session.start(next(self.epochs))
        self.model.clear()

    def host_is_told_of_a_loss(self) -> None:
        before = len(self.host.handler.replies)
        self.host.session.lost()
        self.note_replies(before, None)

    def remote_is_told_of_a_loss(self) -> None:
        self.remote.session.lost()
        self.model.clear()

    def bye(self) -> None:
        self.ask("bye")

    @rule(which=st.integers(0, 15))  # mostly nothing: what is made must live to meet more
    def an_end_fails(self, which: int) -> None:
        failures = (
            self.host_restarts,
            self.remote_restarts,
            self.host_is_told_of_a_loss,
            self.remote_is_told_of_a_loss,
            self.bye,
        )
        if which >= 16 - len(failures):
            failures[which - (16 - len(failures))]()

    @precondition(lambda self: self.host.session.state != _native.SESSION_CONNECTED)
    @rule()
    def they_meet_again(self) -> None:
        self.remote_restarts()
        self.host_restarts()
        self.quiet()
        assert self.host.session.state == _native.SESSION_CONNECTED

    def ask(self, method: str, *arguments: Any) -> None:
        token = next(self.tokens)
        session, sent = self.host.session, len(self.host.handler.out)
        try:
            getattr(session, method)(*arguments, token)
        except errors.OutOfResources:
            assert len(self.asked) == PENDING
        except errors.LinkError:
            assert session.state != _native.SESSION_CONNECTED
        else:
            self.asked.add(token)
            [message] = list(self.host.handler.out)[sent:]
            self.ids[field(message, "sbe_control", "id")] = token

    @rule(context=contexts)
    def create(self, context: int) -> None:
        self.ask("create_context", context)

    @rule(context=contexts)
    def destroy(self, context: int) -> None:
        self.ask("destroy_context", context)

    @rule(index=indices, generation=generations, context=contexts, ring=st.booleans())
    def map(self, index: int, generation: int, context: int, ring: bool) -> None:
        area, flags = generation << 16 | index, RING if ring else 0
        self.ask("map_area", area, context, flags, SIZE, 1, ())

    @rule(index=indices, generation=generations)
    def unmap(self, index: int, generation: int) -> None:
        self.ask("unmap_area", generation << 16 | index)

    @rule(channel=channels, which=st.integers(0, AREAS))
    def open_rightly(self, channel: int, which: int) -> None:
        rings = [(area, one[0]) for area, one in self.model.areas.items() if one[1] == RING]
        if rings:
            area, context = rings[which % len(rings)]
            self.open(channel, context, area & 0xFFFF, area >> 16)

    @rule(channel=channels, context=contexts, index=indices, generation=generations)
    def open(self, channel: int, context: int, index: int, generation: int) -> None:
        area = generation << 16 | index
        self.ask("open_channel", channel, context, area, 2, 64, 64, 0, 1024, 0, 2)

    @rule(channel=channels)
    def close(self, channel: int) -> None:
        self.ask("close_channel", channel)

    @rule(name=st.sampled_from([*SERVICES, "nothing"]), version=st.integers(0, 4))
    def find(self, name: str, version: int) -> None:
        self.ask("find_service", 0, name, version)

    @rule(cookie=st.integers(0, 2**64 - 1))
    def ping(self, cookie: int) -> None:
        self.ask("ping", cookie)

    # -- what holds

    @invariant()
    def the_remote_holds_what_the_model_says(self) -> None:
        handler = self.remote.handler
        assert handler.areas.keys() == self.model.areas.keys()
        for area, (context, flags, size, _) in handler.areas.items():
            assert (context, flags) == self.model.areas[area]
            assert size == SIZE
        held = {id: (rest[0], rest[1]) for id, rest in handler.channels.items()}
        assert held == self.model.channels

    def teardown(self) -> None:
        """Whatever was lost: both ends start anew and find each other, and nothing is left."""
        if not hasattr(self, "pair"):
            return
        for end in (self.host, self.remote):
            end.handler.out.clear()
        self.remote_restarts()
        self.host_restarts()
        self.quiet()
        assert self.host.session.state == self.remote.session.state == _native.SESSION_CONNECTED
        assert not self.asked
        assert self.remote.handler.areas == {} == self.remote.handler.channels
        for method in (self.create, self.destroy):
            method(1)
        self.quiet()
        assert [status for _, status, _ in self.host.handler.replies[-2:]] == [0, 0]


TestSessions = Sessions.TestCase
TestSessions.settings = SETTINGS
