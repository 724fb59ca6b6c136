"""An application that does to the daemon's socket whatever it likes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import sbe
from sbe.control import INTERFACE, PROTOCOL
from tests.faults.arena import Arena
from tests.faults.attacks import application
from tests.integration.varlink_client import Refused, VarlinkClient

LIMIT_S = 60.0
CONNECTIONS = 10_000
AT_ONCE = 200


def newcomer(arena: Arena) -> None:
    """Another user, who connects meanwhile."""
    if os.getuid() != 0:
        return  # it would be the attacker's user, whose share that is
    with sbe.connect(f"unix:{arena.daemon.socket}", timeout=LIMIT_S) as link:
        assert link.call("echo", payload=b"x", timeout=LIMIT_S).payload == b"x"


def call(method: str, **parameters: Any) -> bytes:
    return (
        json.dumps({"method": f"{INTERFACE}.{method}", "parameters": parameters}).encode() + b"\0"
    )


def connected(arena: Arena) -> VarlinkClient:
    """As soon as the kernel has a place for one more."""
    while True:
        try:
            return arena.connect()
        except BlockingIOError:
            os.sched_yield()


# -- connections -----------------------------------------------------------------------------------


@application(7, 12, 13, 17)
@pytest.mark.timeout(300)
def test_ten_thousand_connections(arena: Arena) -> None:
    """Some say nothing, some half a call, some all of it and nothing more, some leave at once."""
    chance = random.Random(10_000)
    says = [b"", b"{", call("List")[:-1], call("List"), b"\0", call("Open", protocol=1, name="x")]
    with contextlib.ExitStack() as stack:
        held: list[VarlinkClient] = []
        for made in range(CONNECTIONS):
            client = stack.enter_context(connected(arena))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it was turned away
                client.socket.send(chance.choice(says))
            held.append(client)
            if len(held) > AT_ONCE or chance.random() < 0.5:
                held.pop(chance.randrange(len(held))).close()
            if made % 2500 == 0:
                newcomer(arena)
    assert len(arena.log().splitlines()) < CONNECTIONS


@application(13, 25)
def test_contexts_that_come_and_go(arena: Arena) -> None:
    """What is flat after hundreds is flat: each of all kinds, ended in each of three ways."""
    for turn in range(200):
        with arena.connect() as client:
            client.open("comes and goes")
            channel = client.call("OpenChannel", slots=2, slot_size=64)["channel"]
            area = client.call("Allocate", size=4096)["area"]
            if turn % 3 == 0:
                client.call("CloseChannel", channel=channel)
                client.call("Free", area=area)
            elif turn % 3 == 1:
                client.send("Free", area=area)


@application(7, 15, 16)
def test_all_that_a_quota_allows(arena: Arena) -> None:
    """Others have theirs; the attacker is told which key is used up, and gets all of it back."""
    if os.getuid() != 0:
        pytest.skip("being several users needs root")
    evil = arena.attacker()
    told = set()
    for method, parameters in (
        ("OpenChannel", {"slots": 4096, "slot_size": 64}),
        ("OpenChannel", {"slots": 2, "slot_size": 64}),
        ("Allocate", {"size": 255 << 20}),
        ("Allocate", {"size": 4096}),
    ):
        for _ in range(600):
            try:
                evil.client.call(method, **parameters)
            except Refused as refused:
                told.add(refused.message.partition(":")[0])
                break
            while evil.client.fds:  # a process has only so many itself
                os.close(evil.client.fds.pop())
        else:
            pytest.fail(f"{method} has no end")
    assert {"quota bytes", "quota channels"} <= told
    newcomer(arena)


# -- descriptors -----------------------------------------------------------------------------------


@contextlib.contextmanager
def given(kind: str, client: VarlinkClient) -> Iterator[list[int]]:
    """Descriptors of some kind, to be sent over this connection."""
    with contextlib.ExitStack() as stack:
        if kind == "its own connection":
            yield [client.socket.fileno()]
        elif kind == "a socket with itself in flight":
            near, far = socket.socketpair()
            stack.callback(near.close)
            stack.callback(far.close)
            socket.send_fds(near, [b"x"], [far.fileno(), near.fileno()])
            yield [far.fileno(), near.fileno()]
        elif kind == "a pipe, 253 times":
            ends = os.pipe()
            for end in ends:
                stack.callback(os.close, end)
            yield [ends[0]] * 253
        else:
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(f"\0sbe-test-{os.getpid()}")
            listener.listen()
            yield [listener.fileno(), os.open("/proc/self/mem", os.O_RDONLY)]


KINDS = ["its own connection", "a socket with itself in flight", "a pipe, 253 times", "others"]


@pytest.mark.parametrize("kind", KINDS)
@application(11, 12, 14)
def test_descriptors_that_nobody_asked_for(arena: Arena, kind: str) -> None:
    evil = arena.attacker()
    with given(kind, evil.client) as fds:
        for turn in range(30):
            data = call("Free", area=turn)
            half = len(data) // 2
            evil.client.send_bytes(data[:half], fds)
            evil.client.send_bytes(data[half:], fds)
            with pytest.raises(Refused, match="no area"):
                evil.client.receive()
        evil.client.send_bytes(b"{", fds)  # and it goes with that under way


# -- what is not its own ---------------------------------------------------------------------------


@application(15, 23, 24)
def test_areas_channels_and_services_of_others_by_name(arena: Arena) -> None:
    evil = arena.attacker()
    with sbe.connect(f"unix:{arena.daemon.socket}", timeout=LIMIT_S) as link:
        link.serve("theirs", lambda payload: b"theirs " + payload)
        area = link.allocate(4096)
        listed = link.list()
        for row in listed["areas"]:
            assert "no area" in evil.client.refusal("Free", area=row["id"]).message
        for row in listed["channels"]:
            assert evil.client.refusal("CloseChannel", channel=row["id"])
        assert evil.client.refusal("Unserve", name="theirs")
        evil.client.call("Serve", name="theirs", version=9)  # which is another one
        assert link.call("relay", payload=b"theirs\0x", timeout=LIMIT_S).payload == b"theirs x"
        for number in range(64):
            for method, key in (("Free", "area"), ("CloseChannel", "channel")):
                assert evil.client.refusal(method, **{key: number | 1 << 16})
                assert evil.client.refusal(method, **{key: number})
        assert link.call("crc32", sbe.In(area), timeout=LIMIT_S)


EVERYTHING: dict[str, dict[str, Any]] = {
    "Allocate": {"size": 4096},
    "ListRegions": {},
    "OpenRegion": {"name": "log"},
    "Free": {"area": 1 << 16},
    "OpenChannel": {},
    "CloseChannel": {"channel": 1},
    "FindService": {"name": "echo", "version": 0},
    "ListServices": {},
    "Serve": {"name": "x", "version": 1},
    "Unserve": {"name": "x"},
    "Power": {"request": "suspend"},
}


@application(28)
def test_every_method_in_states_that_forbid_it(arena: Arena) -> None:
    with arena.connect() as client:
        for method, parameters in EVERYTHING.items():  # before Open
            assert "Open" in client.refusal(method, **parameters).message
        client.open()
        assert "called before" in client.refusal("Open", protocol=PROTOCOL, name="y").message
        for method in ("Free", "CloseChannel", "Unserve", "OpenRegion", "Power"):
            client.refusal(method, **EVERYTHING[method])  # of what is not there, or not allowed
        for method in ("Free", "CloseChannel"):
            made = client.call("Allocate" if method == "Free" else "OpenChannel",
                               **({"size": 1} if method == "Free" else {}))  # fmt: skip
            key = "area" if method == "Free" else "channel"
            client.call(method, **{key: made[key]})
            client.refusal(method, **{key: made[key]})
    assert "Traceback" not in arena.log()


@pytest.mark.parametrize("seed", range(4))
@application(13, 16, 28)
def test_operations_at_random(arena: Arena, seed: int) -> None:
    """Legal ones and others, over three connections, which end anywhere: accounts are right."""
    chance = random.Random(seed)
    numbers = [
        -1,
        0,
        1,
        2,
        63,
        64,
        4096,
        1 << 16,
        (1 << 16) + 1,
        1 << 20,
        1 << 31,
        1 << 40,
        1 << 64,
    ]
    names = ["", "x", "x" * 31, "x" * 32, "echo", "é", "\0", "../x"]
    values: list[Callable[[], Any]] = [
        lambda: chance.choice(numbers),
        lambda: chance.choice(names),
        lambda: chance.choice([None, True, 1.5, [], {}]),
    ]
    clients = [arena.connect() for _ in range(3)]
    known: list[int] = []
    for _ in range(300):
        index = chance.randrange(3)
        client = clients[index]
        method = chance.choice([*EVERYTHING, "Open", "List", "Stat"])
        parameters = dict(EVERYTHING.get(method, {}))
        if method == "Open":
            parameters = {"protocol": PROTOCOL, "name": "random"}
        for key in parameters:
            if chance.random() < 0.3:
                parameters[key] = chance.choice(values)()
            elif key in ("area", "channel") and known:
                parameters[key] = chance.choice(known)
        try:
            reply = client.call(method, **parameters)
            known += [reply[key] for key in ("area", "channel") if key in reply]
        except Refused:
            pass
        if chance.random() < 0.02:
            client.close()
            clients[index] = arena.connect()
    for client in clients:
        client.close()


# -- who reads nothing, or writes without end ------------------------------------------------------


@application(6, 18)
def test_calls_without_end_and_no_answer_read(arena: Arena) -> None:
    evil = arena.connect()
    evil.socket.settimeout(0.2)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
        for _ in range(100_000):
            evil.send_bytes(call("List"))
    arena.bystander.goes_on()
    newcomer(arena)
    evil.close()


def send_without_end(client: VarlinkClient, data: bytes) -> None:
    while True:
        client.send_bytes(data)


@pytest.mark.parametrize("data", [b"[" * 70_000, b'{"x":"' + b"y" * 70_000, b"\xff" * 70_000])
@application(6, 7)
def test_a_call_without_end(arena: Arena, data: bytes) -> None:
    """It is cut off, and the log says why."""
    with arena.connect() as client, pytest.raises((BrokenPipeError, ConnectionResetError)):
        send_without_end(client, data)
    # Of one kind there are only so many lines: earlier attacks may have had them.
    arena.daemon.wait_until(lambda: "connection dropped: " in arena.daemon.log())


@application(20, 26)
def test_a_bell_that_is_full_blocking_and_closed(arena: Arena) -> None:
    """What tells of the remote's losses, in all ways that its holder can spoil it."""
    for spoil in (
        lambda fd: os.set_blocking(fd, True),
        lambda fd: socket.socket(fileno=os.dup(fd)).shutdown(socket.SHUT_RDWR),
        os.close,
    ):
        client = arena.connect()
        fd = client.open()["events_fd"]
        spoil(fd)
        channels = [client.call("OpenChannel", slots=2, slot_size=64) for _ in range(4)]
        for opened in channels:
            os.pwrite(opened["memory_fd"], b"\x99" * 4, opened["send_offset"])
            os.eventfd_write(opened["ring_fd"], 1)
        shut = len(channels)
        arena.daemon.wait_until(lambda: arena.log().count("has shut it") >= shut)  # noqa: B023
        arena.bystander.goes_on()
        client.fds = [held for held in client.fds if held != fd or spoil is not os.close]
        client.close()
