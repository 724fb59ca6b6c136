"""A remote that is honest until it is asked for a service by the name of a misdeed.

From then on its control messages are what that misdeed makes of them. It runs in a thread of the
test, or as a process that a daemon starts:

    python -m tests.faults.hostile --control-fd N
"""

from __future__ import annotations

import os
import random
import socket
import sys
from collections.abc import Callable
from itertools import count
from typing import Any

from sbe import _native
from tests.faults.raw_remote import Answer, Events, Life, RawRemote
from tests.faults.raw_rings import Frame, Rings, pack, unpack

__all__ = ["MISDEEDS", "HostileLife", "HostileRemote", "answer_with_noise", "with_"]

REPLY = _native.CONTROL_REPLY
Message = bytes | tuple[bytes, list[int]]
"""To be sent, with descriptors or without."""
Misdeed = Callable[[bytes], list[Message]]
"""What is sent in the place of a message."""


def header(message: bytes) -> dict[str, int]:
    return unpack("sbe_control", message)


def with_(message: bytes, **changed: int) -> bytes:
    """The message with fields of its header changed."""
    new = pack("sbe_control", **{**header(message), **changed})
    return new + message[len(new) :]


def made(kind: str, like: bytes, type_: int, number: int = 0, **fields: int) -> bytes:
    """A message of the epoch of another one."""
    body = pack(kind, **fields)
    changed = {"type": type_, "size": len(body), "id": number, "status": 0}
    return with_(like[:16], **changed) + body[16:]


def event(like: bytes, what: int, value: int = 0) -> bytes:
    return made("sbe_event_message", like, _native.CONTROL_EVENT, event=what, value=value)


def to_all_requests(like: bytes) -> list[Message]:
    """Answers of every type to requests that were not sent, and to those that may have been."""
    types = range(_native.CONTROL_HELLO, _native.CONTROL_EVENT + 1)
    return [
        made("sbe_control", like, type_ | REPLY, number) for type_ in types for number in range(40)
    ]


def of_every_type(like: bytes) -> list[Message]:
    """Requests that are for a host to send."""
    kinds = {
        _native.CONTROL_CONTEXT_CREATE: "sbe_context_message",
        _native.CONTROL_CONTEXT_DESTROY: "sbe_context_message",
        _native.CONTROL_AREA_MAP: "sbe_area_map",
        _native.CONTROL_AREA_UNMAP: "sbe_area_unmap",
        _native.CONTROL_CHANNEL_OPEN: "sbe_channel_open",
        _native.CONTROL_CHANNEL_CLOSE: "sbe_channel_close",
    }
    return [made(kind, like, type_, 7) for type_, kind in kinds.items()]


class Late:
    """Answers come with the next ones, the last one first."""

    def __init__(self) -> None:
        self.kept: list[Message] = []

    def __call__(self, message: bytes) -> list[Message]:
        self.kept.insert(0, message)
        if len(self.kept) < 3:
            return []
        kept, self.kept = self.kept, []
        return kept


class AtRandom:
    """A bit of each is another one, and now and then there is none, or all of it is noise."""

    def __init__(self) -> None:
        self.chance = random.Random(5)

    def __call__(self, message: bytes) -> list[Message]:
        kind = self.chance.random()
        if kind < 0.1:
            return [self.chance.randbytes(self.chance.randrange(1, 400))]
        if kind < 0.2:
            return []
        changed = bytearray(message)
        changed[self.chance.randrange(len(changed))] ^= 1 << self.chance.randrange(8)
        return [bytes(changed), message]


def flood(fds: int) -> Misdeed:
    """As many descriptors as go with each message."""

    return lambda message: [(message, [0] * fds)]


EVENTS = (_native.EVENT_CHANNEL_BROKEN, _native.EVENT_RESUME, _native.EVENT_FREQUENCY, 99)

# By the name of the service that brings it about; the names say what the host gets to see.
MISDEEDS: dict[str, tuple[tuple[int, ...], Callable[[], Misdeed]]] = {
    "no answers": ((17, 26), lambda: lambda m: []),
    "answers twice": ((24, 28), lambda: lambda m: [m, m]),
    "answers late": ((24,), Late),
    "answers of another id": ((24,), lambda: lambda m: [with_(m, id=header(m)["id"] + 1)]),
    "answers of another type": ((28,), lambda: lambda m: [with_(m, type=REPLY | 6)]),
    "answers to what was not asked": ((24, 28), lambda: lambda m: [*to_all_requests(m), m]),
    "an epoch of long ago": ((24,), lambda: lambda m: [with_(m, epoch=1), m]),
    "no epoch": ((24,), lambda: lambda m: [with_(m, epoch=0), m]),
    "a status above zero": ((28,), lambda: lambda m: [with_(m, status=5)]),
    "a status that nobody knows": ((28,), lambda: lambda m: [with_(m, status=-77777)]),
    "all is refused": ((16,), lambda: lambda m: [with_(m, status=-12)]),
    "a size that is too small": ((9,), lambda: lambda m: [with_(m, size=15), m]),
    "a size that is too large": ((9, 4), lambda: lambda m: [with_(m, size=0xFFFF), m]),
    "a byte less": ((9,), lambda: lambda m: [m[:-1], m]),
    "half a header": ((9,), lambda: lambda m: [m[:8], m]),
    "only a header": ((9,), lambda: lambda m: [with_(m[:16], size=16), m]),
    "bytes left over": ((9,), lambda: lambda m: [m + bytes(400), m]),
    "a name without end": ((4, 27), lambda: lambda m: [m[:24] + b"x" * (len(m) - 24), m]),
    "requests of a host": ((28,), lambda: lambda m: [*of_every_type(m), m]),
    "HELLO once more": (
        (2, 24, 28),
        lambda: lambda m: [made("sbe_hello", m, _native.CONTROL_HELLO, 1), m],
    ),
    "a goodbye": ((25, 28), lambda: lambda m: [made("sbe_control", m, _native.CONTROL_BYE, 9), m]),
    "events without end": (
        (20, 21),
        lambda: lambda m: [*(event(m, what, n) for n in range(60) for what in EVENTS), m],
    ),
    "answers about power to nobody": (
        (20, 28),
        lambda: lambda m: [*(event(m, _native.EVENT_ANSWERED, n << 16) for n in range(9)), m],
    ),
    "pings without end": (
        (18, 20),
        lambda: (
            lambda m: [
                *(made("sbe_ping", m, _native.CONTROL_PING, n) for n in range(300)),
                m,
            ]
        ),
    ),
    "one descriptor": ((11, 14), lambda: flood(1)),
    "200 descriptors": ((11, 12), lambda: flood(200)),
    "bits at random": ((1, 9, 28), AtRandom),
}


class HostileLife(Life):
    """One life of it."""

    misdeed: Misdeed | None = None

    def __init__(self, sock: socket.socket, *how: Any) -> None:
        self.sock = sock
        super().__init__(sock, *how)

    def service(self, context: int, name: str | None, index: int) -> tuple[int, int, str] | None:
        if name in MISDEEDS:
            self.misdeed = MISDEEDS[name][1]()
        return super().service(context, name, index)

    hello: Callable[[bytes], bytes] = staticmethod(lambda message: message)
    """What becomes of the messages by which two ends agree."""

    def send(self, message: bytes) -> None:
        if header(message)["type"] & ~REPLY == _native.CONTROL_HELLO:
            message = self.hello(message)
        if self.misdeed is None:
            self.transport.send(message)
            return
        for each in self.misdeed(message):
            if isinstance(each, bytes):
                self.transport.send(each[: _native.CONTROL_MAX])
            else:  # more than our own transport would send
                socket.send_fds(self.sock, [each[0]], each[1])


class HostileRemote(RawRemote):
    """The same in a thread of this process."""

    life: type[HostileLife] = HostileLife


def answer_with_noise() -> Answer:
    """Each request is answered with its payload: once right, and wrongly before and after that."""
    turns = count(1)

    def answer(rings: Rings, frame: Frame) -> None:
        number = frame.header["transaction"]
        old = (-(1 << 32), 1 << 31, 0xFFFF << 16, next(turns) << 40)  # of no call that is open
        wrong = [frame.response(b"not yours", transaction=number + by) for by in old]
        early = frame.response(b"not yours", transaction=number + (1 << 32))  # the next one's
        right = frame.response(frame.payload)
        for each in (*wrong, early, right, *wrong, right, right):
            rings.put(each)

    return answer


def main(fd: int) -> None:
    life = HostileLife(socket.socket(fileno=fd), os.eventfd(0), answer_with_noise(), Events())
    life.run()


if __name__ == "__main__":
    main(int(sys.argv[sys.argv.index("--control-fd") + 1]))
