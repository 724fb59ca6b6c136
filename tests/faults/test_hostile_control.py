"""A remote whose control messages lie: whoever asked gets an error or an answer, and lives on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sbe
from tests.faults.attacks import remote
from tests.faults.hostile import MISDEEDS, HostileLife, HostileRemote, answer_with_noise, with_
from tests.faults.raw_rings import Frame, Rings, pack, unpack
from tests.integration.varlink_client import Daemon, daemon
from tests.unit.session_pair import count_fds

ROOT = Path(__file__).resolve().parents[2]
SHORT_S = 0.2  # for what is never answered
LIMIT_S = 30.0
CONFIG = """
[[link]]
name = "hostile"
answer_seconds = 2.0
restart = { initial_seconds = 0.01, max_seconds = 0.05 }
command = ["{program}"]
[[link]]
name = "good"
"""
CASES = [
    pytest.param(name, id=name, marks=remote(*classes)) for name, (classes, _) in MISDEEDS.items()
]

LEGAL = ("requests of a host", "events without end", "pings without end")
"""Misdeeds by number only, or of which each is refused to the remote."""

Operation = Callable[[sbe.Connection], object]


def check_call(link: sbe.Connection) -> None:
    for index in range(5):
        payload = b"call %d" % index
        assert link.call(1, payload=payload, timeout=LIMIT_S).payload == payload


OPERATIONS: list[Operation] = [
    lambda link: link.allocate(4096).free(),
    lambda link: link.find("any"),
    lambda link: link.services(),
    lambda link: link.list(),
    check_call,
]


def survives(link: sbe.Connection, misdeed: str) -> list[str]:
    """Every operation ends, with an answer or an error of ours; the errors."""
    told = []
    for operation in [lambda link: link.find(misdeed), *OPERATIONS]:
        begun = time.monotonic()
        try:
            operation(link)
        except sbe.Error as error:
            told.append(str(error))
        assert time.monotonic() - begun < LIMIT_S
    return told


@pytest.mark.parametrize("misdeed", CASES)
def test_who_is_linked_directly_lives_on(misdeed: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "sbe.link")  # what is logged would keep the link alive
    before = count_fds()
    hostile = HostileRemote(answer_with_noise())
    with contextlib.closing(hostile):
        link = sbe.connect(hostile, timeout=LIMIT_S)
        link._core.backend._timeout = SHORT_S  # type: ignore[attr-defined]
        check_call(link)
        area = link.allocate(4096)
        area[:] = b"kept" * 1024
        told = survives(link, misdeed)
        assert bytes(area) == b"kept" * 1024
        inner = link._core.backend._link  # type: ignore[attr-defined]
        assert told or inner.bad_messages or inner._session.dropped or misdeed in LEGAL
        del inner
        link.close()
    del area, link
    assert count_fds() <= before


def hello(**fields: int) -> Callable[[bytes], bytes]:
    """A HELLO with these fields; the answer to one as it is."""

    def changed(message: bytes) -> bytes:
        if len(message) != len(pack("sbe_hello")):
            return message
        body = pack("sbe_hello", **{**unpack("sbe_hello", message), **fields})
        return message[:16] + body[16:]

    return changed


SENSELESS, IGNORED = "limits .* make no sense", "the negotiation .* has not answered"
HELLOS: dict[str, tuple[tuple[int, ...], str, Callable[[bytes], bytes]]] = {
    # Classes, the words of the error (none: it is taken), and what is sent.
    "no limits": ((4, 7), SENSELESS, hello(limits=0)),
    "limits beyond all": ((4, 7), "", hello(limits=(1 << 192) - 1)),
    "lines of no bytes": ((2, 4), SENSELESS, hello(cache_line=0)),
    "lines of 3 bytes": ((2, 4), SENSELESS, hello(cache_line=3)),
    "lines of 2 GiB": ((2, 4), SENSELESS, hello(cache_line=1 << 31)),
    "addresses of no bits": ((2, 4), SENSELESS, hello(address_bits=0)),
    "addresses of 255 bits": ((2, 4), SENSELESS, hello(address_bits=255)),
    "a name without end": ((27, 9), "", hello(name=(1 << 256) - 1)),
    "features that nobody knows": ((28,), "", hello(features=0xFFFF_FFFF)),
    "what is reserved": ((28,), IGNORED, hello(reserved=1)),
    "no epoch": ((24,), IGNORED, lambda message: with_(message, epoch=0)),
    "half of it": ((9,), IGNORED, lambda message: message[: len(message) // 2]),
    "a byte more": ((9,), IGNORED, lambda message: message + b"x"),
    "an answer of another version": (
        (28,),
        IGNORED,
        lambda m: m if len(m) != len(pack("sbe_hello_reply")) else m[:20] + b"\xff\xff" + m[22:],
    ),
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=name, marks=remote(*case[0])) for name, case in HELLOS.items()]
)
def test_lies_about_what_it_can_hold(
    case: tuple[tuple[int, ...], str, Callable[[bytes], bytes]], caplog: pytest.LogCaptureFixture
) -> None:
    """A link that works within what is real, or an error that says why there is none."""
    caplog.set_level(logging.CRITICAL, "sbe.link")
    _, words, lie = case

    class Lying(HostileLife):
        hello = staticmethod(lie)

    hostile = HostileRemote(answer_with_noise())
    hostile.life = Lying
    with contextlib.closing(hostile):
        if words:
            with pytest.raises(sbe.Error, match=words):
                sbe.connect(hostile, timeout=1.0)
            return
        with sbe.connect(hostile, timeout=LIMIT_S) as link:
            check_call(link)
            link.allocate(4096).free()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("hostile")
    program = folder / "remote"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.faults.hostile "$@"\n')
    program.chmod(0o755)
    config = CONFIG.replace("{program}", str(program))
    environment = {"PYTHONPATH": str(ROOT)}
    with daemon(folder, config, environment=environment) as started:
        yield started


def check_bystander(running: Daemon) -> None:
    """The other link of the same daemon."""
    with running.client() as client:
        client.open(link="good")
        client.call("Allocate", size=4096)
        client.call("OpenChannel")
        client.call("FindService", name="echo", version=0)


def end_life(running: Daemon) -> None:
    """The next one is honest again."""
    misbehaves = running.list()["links"][0]["pid"]
    if misbehaves is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(misbehaves, signal.SIGKILL)

    def is_another() -> bool:
        link = running.list()["links"][0]
        return link["state"] == "connected" and link["pid"] not in (None, misbehaves)

    running.wait_until(is_another)


@pytest.mark.parametrize("misdeed", CASES)
def test_a_daemon_and_its_clients_live_on(running: Daemon, misdeed: str) -> None:
    stop = threading.Event()
    bystander = threading.Thread(target=lambda: bystands(running, stop))
    bystander.start()
    try:
        with sbe.connect(f"unix:{running.socket}", timeout=LIMIT_S) as link:
            check_call(link)
            survives(link, misdeed)
    finally:
        stop.set()
        bystander.join()
    check_bystander(running)
    end_life(running)
    restarts = {row["name"]: row["restarts"] for row in running.stat()["links"]}
    assert restarts["good"] == 0
    running.wait_until(running.is_empty, "what the client held is not back")
    assert "Traceback" not in running.log()


def bystands(running: Daemon, stop: threading.Event) -> None:
    while not stop.is_set():
        check_bystander(running)


# -- frames ----------------------------------------------------------------------------------------


@pytest.fixture(params=["direct", "daemon"])
def noisy(request: pytest.FixtureRequest) -> Iterator[sbe.Connection]:
    """A link to a remote that sends ten wrong answers for each right one."""
    with contextlib.ExitStack() as stack:
        if request.param == "direct":
            hostile = stack.enter_context(contextlib.closing(HostileRemote(answer_with_noise())))
            yield stack.enter_context(sbe.connect(hostile, timeout=LIMIT_S))
        else:
            running = request.getfixturevalue("running")
            yield stack.enter_context(sbe.connect(f"unix:{running.socket}", timeout=LIMIT_S))


@remote(24)
def test_no_call_gets_the_answer_of_another_one(noisy: sbe.Connection) -> None:
    """In all ways of calling, at once."""
    wrong: list[object] = []

    def submit(name: bytes) -> None:
        for turn in range(5):
            payloads = [b"%s %d %d" % (name, turn, index) for index in range(20)]
            calls = [noisy.submit(1, payload=each, timeout=LIMIT_S) for each in payloads]
            for call, payload in zip(calls, payloads, strict=True):
                if call.result().payload != payload:
                    wrong.append(payload)

    async def acall(number: int) -> None:
        payload = b"acall %d" % number
        if (await noisy.acall(1, payload=payload, timeout=LIMIT_S)).payload != payload:
            wrong.append(payload)

    async def many() -> None:
        await asyncio.gather(*(acall(number) for number in range(40)))

    threads = [threading.Thread(target=submit, args=(b"thread %d" % n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    asyncio.run(many())
    for thread in threads:
        thread.join()
    assert not wrong
    counters = noisy.stat()["connection"]
    assert counters["late"] + counters["bad"] >= 300 * 3


@remote(24)
def test_an_answer_after_its_call_was_given_up_is_nobodys() -> None:
    """The next call has its place in the table, and is not answered by it."""
    kept: list[tuple[Rings, Frame]] = []

    def answer(rings: Rings, frame: Frame) -> None:
        if frame.payload == b"late":
            kept.append((rings, frame))
            return
        for old_rings, old in kept:
            old_rings.put(old.response(b"late"))
        kept.clear()
        rings.put(frame.response(frame.payload))

    with (
        contextlib.closing(HostileRemote(answer)) as hostile,
        sbe.connect(hostile, timeout=LIMIT_S) as link,
    ):
        for turn in range(20):
            with pytest.raises(sbe.Timeout):
                link.call(1, payload=b"late", timeout=0.01)
            payload = b"next %d" % turn
            assert link.call(1, payload=payload, timeout=LIMIT_S).payload == payload


# -- doorbells -------------------------------------------------------------------------------------


@remote(21)
def test_a_remote_that_rings_without_end() -> None:
    seen: list[Rings] = []
    stop = threading.Event()

    def answer(rings: Rings, frame: Frame) -> None:
        seen[:] = [rings]
        rings.put(frame.response(frame.payload))

    def storm() -> None:
        while not stop.is_set():
            for rings in seen:
                rings.knock()
            time.sleep(0)

    storms = threading.Thread(target=storm)
    with (
        contextlib.closing(HostileRemote(answer)) as hostile,
        sbe.connect(hostile, timeout=LIMIT_S) as link,
    ):
        storms.start()
        try:
            for turn in range(200):
                payload = b"%d" % turn
                assert link.call(1, payload=payload, timeout=LIMIT_S).payload == payload
        finally:
            stop.set()
            storms.join()


@remote(22)
def test_a_remote_that_never_rings() -> None:
    """An answer that is there is found at the deadline at the latest, and the next one too."""

    def answer(rings: Rings, frame: Frame) -> None:
        rings.knock = lambda: None  # type: ignore[method-assign]
        rings.put(frame.response(frame.payload))

    with (
        contextlib.closing(HostileRemote(answer)) as hostile,
        sbe.connect(hostile, timeout=LIMIT_S) as link,
    ):
        for turn in range(5):
            payload = b"%d" % turn
            with contextlib.suppress(sbe.Timeout):
                assert link.call(1, payload=payload, timeout=0.2).payload == payload


@remote(22, 28)
def test_words_in_the_ring_that_are_lies() -> None:
    """What it works on, how often it rang, when it wants to be rung: for display or for itself."""

    def answer(rings: Rings, frame: Frame) -> None:
        for value in (0xFFFF_FFFF, 0x8000_0000 | frame.header["transaction"] & 0xFFFF, 0):
            for ring in (rings.incoming, rings.outgoing):
                rings.store(ring, "sbe_ring_consumer", "at_work", value)
                rings.store(ring, "sbe_ring_consumer", "doorbells", value)
                rings.store(ring, "sbe_ring_producer", "doorbells", value)
        rings.store(rings.outgoing, "sbe_ring_producer", "space_wake", 0x1234_5678)
        rings.put(frame.response(frame.payload))

    with (
        contextlib.closing(HostileRemote(answer)) as hostile,
        sbe.connect(hostile, timeout=LIMIT_S) as link,
    ):
        for turn in range(50):
            payload = b"%d" % turn
            assert link.call(1, payload=payload, timeout=LIMIT_S).payload == payload
            link.stat()
