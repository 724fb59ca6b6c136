"""After any error of any control operation the channel is usable or has failed.

It is never one that looks alive while nobody answers on it: calls would wait for their deadlines,
and those without one for ever.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sbe
import sbe.testing
from sbe.control import ERROR, PROTOCOL
from sbe.sdk.varlink import VarlinkClient
from tests.faults.scripted_daemon import Misdeed, ScriptedDaemon
from tests.integration.varlink_client import daemon
from tests.unit.session_pair import count_fds

SHORT_S = 0.2  # of an operation that is not answered
LIMIT_S = 20.0

Operation = Callable[[sbe.Connection], object]


def free(link: sbe.Connection) -> None:
    link.known.free()  # type: ignore[attr-defined]


def unserve(link: sbe.Connection) -> None:
    link.unserve("known")


def reopen(link: sbe.Connection) -> None:
    link._core.channel.fail(sbe.RemoteRestarted("by the test"))
    link.services()


OPERATIONS: dict[str, Operation] = {
    "Allocate": lambda link: link.allocate(4096),
    "ListRegions": lambda link: link.regions(),
    "OpenRegion": lambda link: link.region("log"),
    "Free": free,
    "OpenChannel": reopen,
    "FindService": lambda link: link.find("echo"),
    "ListServices": lambda link: link.services(),
    "Serve": lambda link: link.serve("mine", lambda payload: payload),
    "Unserve": unserve,
    "Power": lambda link: link.suspend(timeout=0.01),
    "List": lambda link: link.list(),
    "Stat": lambda link: link.stat(),
}
"""By the daemon's method, one for each method of a Backend that asks."""


def with_more(count: int) -> Misdeed:
    def misdeed(daemon: ScriptedDaemon, parameters: dict[str, Any], fds: list[int]) -> None:
        daemon.answer(parameters, (fds + [0] * count)[:count])

    return misdeed


def half_an_answer(daemon: ScriptedDaemon, parameters: dict[str, Any], fds: list[int]) -> None:
    daemon.send(b'{"param', fds)
    daemon.hang_up()


USABLE: dict[str, tuple[Misdeed, type[sbe.Error]]] = {
    "not answered": (lambda daemon, reply, fds: daemon.hold(reply, fds), sbe.Timeout),
    "refused": (lambda daemon, reply, fds: daemon.refuse(1, "no"), sbe.PermissionDenied),
    "refused as its link is lost": (
        lambda daemon, reply, fds: daemon.refuse(104, "lost"),
        sbe.RemoteRestarted,
    ),
}
FATAL: dict[str, tuple[Misdeed, type[sbe.Error]]] = {
    "hangs up": (lambda daemon, reply, fds: daemon.hang_up(), sbe.DaemonGone),
    "half an answer": (half_an_answer, sbe.DaemonGone),
    "no JSON": (lambda daemon, reply, fds: daemon.send(b"<html>\0"), sbe.ProtocolError),
    "no object": (lambda daemon, reply, fds: daemon.send(b"[1]\0"), sbe.ProtocolError),
    "not text": (lambda daemon, reply, fds: daemon.send(b"\xff\xfe\0"), sbe.ProtocolError),
    "brackets": (lambda daemon, reply, fds: daemon.send(b"[" * 9999 + b"\0"), sbe.ProtocolError),
    "a list": (lambda daemon, reply, fds: daemon.answer([1], fds), sbe.ProtocolError),  # type: ignore[arg-type]
    "a foreign refusal": (lambda daemon, reply, fds: daemon.refuse("x", "y"), sbe.ProtocolError),
    "five descriptors": (with_more(5), sbe.ProtocolError),
    "many descriptors": (with_more(200), sbe.ProtocolError),
}
# An answer that needs no fields can't lack any.
FIELDS = {"Free", "Unserve", "Power", "List", "Stat"}
MUTE: dict[str, Misdeed] = {
    "no fields": lambda daemon, reply, fds: daemon.answer({}, fds),
    "null fields": lambda daemon, reply, fds: daemon.answer(dict.fromkeys(reply), fds),
    "strange fields": lambda daemon, reply, fds: daemon.answer(dict.fromkeys(reply, "?"), fds),
}


@pytest.fixture
def link(scripted: ScriptedDaemon) -> Iterator[sbe.Connection]:
    with sbe.connect(f"unix:{scripted.path}", timeout=LIMIT_S) as link:
        link.known = link.allocate(4096)  # type: ignore[attr-defined]
        yield link


def fails(
    link: sbe.Connection,
    scripted: ScriptedDaemon,
    method: str,
    misdeed: Misdeed,
    error: type[sbe.Error],
) -> None:
    if method == "Unserve":
        link.serve("known", lambda payload: payload)
    scripted.misdeeds[method] = misdeed
    if error is sbe.Timeout:
        link._core.backend._client._timeout = SHORT_S  # type: ignore[attr-defined]
    with pytest.raises(error):
        OPERATIONS[method](link)
    link._core.backend._client._timeout = LIMIT_S  # type: ignore[attr-defined]


def has_failed(link: sbe.Connection) -> None:
    """Who waits without a deadline hears of it, and so does who comes later."""
    assert isinstance(link._core.channel.error, sbe.LinkError)
    for _ in range(2):
        with pytest.raises(sbe.LinkError):
            link.call(3, timeout=None)
    with pytest.raises(sbe.LinkError):
        link.services()


@pytest.mark.parametrize("how", USABLE)
@pytest.mark.parametrize("method", OPERATIONS)
def test_the_link_is_usable_after_it(
    link: sbe.Connection, scripted: ScriptedDaemon, method: str, how: str
):
    misdeed, error = USABLE[how]
    before = count_fds()
    fails(link, scripted, method, misdeed, error)
    held = sum(len(fds) for _, fds in scripted.held)
    scripted.release()
    assert [service.name for service in link.services()] == ["echo"]
    assert link.find("echo").id == 3  # each call gets its own answer
    assert link._core.channel.error is None
    assert held in (0, 1, 3)
    call = link.submit(3, timeout=None)
    assert not call.done()
    call.cancel()
    made_there = {"Allocate": 1, "OpenRegion": 1, "OpenChannel": 3}.get(method, 0)  # by the daemon
    again = 3 * (method == "OpenChannel")
    assert count_fds() <= before + made_there + again


@pytest.mark.parametrize("how", FATAL)
@pytest.mark.parametrize("method", OPERATIONS)
def test_the_link_has_failed_after_it(
    link: sbe.Connection, scripted: ScriptedDaemon, method: str, how: str
):
    fails(link, scripted, method, *FATAL[how])
    has_failed(link)


@pytest.mark.parametrize("how", MUTE)
@pytest.mark.parametrize("method", [name for name in OPERATIONS if name not in FIELDS])
def test_an_answer_without_what_it_should_say(
    link: sbe.Connection, scripted: ScriptedDaemon, method: str, how: str
):
    fails(link, scripted, method, MUTE[how], sbe.ProtocolError)
    has_failed(link)


@pytest.mark.parametrize("how", [*FATAL, *MUTE])
def test_a_call_that_waits_hears_that_the_link_failed(
    link: sbe.Connection, scripted: ScriptedDaemon, how: str
):
    call = link.submit(3, timeout=None)
    raised: list[BaseException | None] = []
    waiting = threading.Thread(target=lambda: raised.append(call.exception(LIMIT_S)))
    waiting.start()
    scripted.misdeeds["ListServices"] = FATAL[how][0] if how in FATAL else MUTE[how]
    with pytest.raises(sbe.LinkError):
        link.services()
    waiting.join(LIMIT_S)
    assert len(raised) == 1
    assert isinstance(raised[0], sbe.LinkError)


@pytest.mark.parametrize("how", [*FATAL, *MUTE, *USABLE])
@pytest.mark.parametrize("method", ["Open", "OpenChannel"])
def test_a_connection_that_is_not_made_leaves_nothing(
    scripted: ScriptedDaemon, method: str, how: str
):
    misdeed = MUTE[how] if how in MUTE else {**FATAL, **USABLE}[how][0]
    scripted.misdeeds[method] = misdeed
    sockets = socket_count()
    with pytest.raises(sbe.Error):
        sbe.connect(f"unix:{scripted.path}", timeout=SHORT_S if how == "not answered" else LIMIT_S)
    scripted.join()
    assert socket_count() == sockets


def socket_count() -> int:
    count_fds()  # garbage is collected
    names = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            names.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sum(name.startswith("socket:") for name in names)


UNDONE: dict[str, tuple[str, dict[str, Any]]] = {
    "Allocate": ("Free", {"area": 2 | 1 << 16}),
    "OpenRegion": ("Free", {"area": 2 | 1 << 16}),
    "OpenChannel": ("CloseChannel", {"channel": 2}),
    "Serve": ("Unserve", {"name": "mine"}),
}


def test_a_daemon_that_turns_away_at_once_is_heard(tmp_path: Path):
    """It hangs up before anything was asked; what it has said is the answer all the same."""
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        client = VarlinkClient(str(path), LIMIT_S)
        with listener.accept()[0] as full:
            parameters = {"code": errno.ENOMEM, "message": "quota connections: all in use"}
            full.send(json.dumps({"error": ERROR, "parameters": parameters}).encode() + b"\0")
        with pytest.raises(sbe.OutOfResources, match="quota connections"):
            client.call("Open", protocol=PROTOCOL, name="late")
        with pytest.raises(sbe.DaemonGone):
            client.call("Open", protocol=PROTOCOL, name="again")
        client.close()


@pytest.mark.parametrize("method", UNDONE)
def test_what_came_late_is_given_back(link: sbe.Connection, scripted: ScriptedDaemon, method: str):
    fails(link, scripted, method, *USABLE["not answered"])
    scripted.release()
    link.services()
    link.services()
    assert [call[:2] for call in scripted.called if call[2]].count(UNDONE[method]) == 1


@pytest.mark.parametrize("method", ["Free", "Unserve"])
def test_what_was_being_ended_is_asked_for_once(
    link: sbe.Connection, scripted: ScriptedDaemon, method: str
):
    fails(link, scripted, method, *USABLE["not answered"])
    link._core.backend._client._timeout = SHORT_S  # type: ignore[attr-defined]
    with pytest.raises(sbe.Timeout):  # it is still not done
        OPERATIONS[method](link)
    scripted.release()
    OPERATIONS[method](link)  # now it is
    assert [call[0] for call in scripted.called].count(method) == 1


def test_a_daemon_that_never_answers_is_not_buried_in_calls(
    link: sbe.Connection, scripted: ScriptedDaemon
):
    link._core.backend._client._timeout = 0.01  # type: ignore[attr-defined]
    before = len(scripted.called)
    for _ in range(100):
        scripted.misdeeds["ListServices"] = USABLE["not answered"][0]
        with pytest.raises(sbe.Timeout):
            link.services()
    assert len(scripted.called) - before < 32  # it would drop the connection beyond 64
    scripted.misdeeds.clear()
    link._core.backend._client._timeout = LIMIT_S  # type: ignore[attr-defined]
    scripted.release()
    assert link.services()


# with real remotes


@pytest.fixture(params=["loopback", "daemon"])
def real(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sbe.Connection]:
    with contextlib.ExitStack() as stack:
        uri = "loopback:"
        if request.param == "daemon":
            uri = f"unix:{stack.enter_context(daemon(tmp_path)).socket}"
        yield stack.enter_context(sbe.connect(uri, timeout=0.3))


@contextlib.contextmanager
def frozen(link: sbe.Connection) -> Iterator[None]:
    pid = link.list()["links"][0]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def settle(link: sbe.Connection) -> None:
    for _ in range(3):
        with contextlib.suppress(sbe.Timeout):
            link.services()


def test_areas_that_a_frozen_remote_grants_late(real: sbe.Connection):
    real.call("echo")
    before, mappings = count_fds(), Path("/proc/self/maps").read_text().count("memfd:")
    with frozen(real):
        for _ in range(3):
            with pytest.raises(sbe.Timeout):
                real.allocate(1 << 20)
    settle(real)
    assert real.list()["areas"] == []
    assert count_fds() == before
    assert Path("/proc/self/maps").read_text().count("memfd:") == mappings
    real.allocate(4096).free()


def test_an_area_that_is_freed_twice_of_a_frozen_remote(real: sbe.Connection):
    area = real.allocate(1 << 20)
    with frozen(real):
        for _ in range(2):
            with pytest.raises(sbe.Timeout):
                area.free()
    settle(real)
    area.free()
    area.free()
    assert real.list()["areas"] == []


@pytest.mark.parametrize("name", ["services", "list", "regions", "stat"])
def test_questions_that_a_frozen_remote_does_not_answer(real: sbe.Connection, name: str):
    with frozen(real), contextlib.suppress(sbe.Timeout):  # some are not for the remote
        getattr(real, name)()
    settle(real)
    assert real.call("echo", payload=b"there", timeout=LIMIT_S).payload == b"there"
    assert real.stat()["connection"]["losses"] == 0


def allocate_and_free(link: sbe.Connection) -> None:
    link.allocate(4096).free()


def test_a_daemon_without_descriptors_keeps_nothing(tmp_path: Path):
    """What it has made and can't hand over is given back."""
    with daemon(tmp_path) as running, sbe.connect(f"unix:{running.socket}") as link:
        link.allocate(4096).free()
        soft, hard = resource.prlimit(running.pid, resource.RLIMIT_NOFILE)
        before, listed = running.descriptors(), link.list()
        refused = 0
        for spare in range(-8, 12):  # the channel that is closed first gives some back
            numbers = [int(fd) for fd in os.listdir(f"/proc/{running.pid}/fd")]
            holes = max(numbers) + 1 - len(numbers)
            for operation in (allocate_and_free, reopen):
                limit = max(numbers) + 1 - holes + spare
                resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (limit, hard))
                try:
                    operation(link)
                except sbe.OutOfResources:
                    refused += 1
                finally:
                    resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (soft, hard))
                link.services()
                assert link.list()["areas"] == []
                assert len(link.list()["channels"]) == len(listed["channels"])
        assert refused >= 10
        running.wait_until(lambda: running.descriptors() <= before, "descriptors stay")


def test_a_daemon_that_can_not_hand_over_a_context(tmp_path: Path):
    with daemon(tmp_path) as running, running.client() as client:
        client.call("List")
        soft, hard = resource.prlimit(running.pid, resource.RLIMIT_NOFILE)
        numbers = {int(fd) for fd in os.listdir(f"/proc/{running.pid}/fd")}
        free = (number for number in itertools.count() if number not in numbers)
        next(free)  # for the bell; there is none for its copy
        resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (next(free), hard))
        try:
            refused = client.refusal("Open", protocol=PROTOCOL, name="unlucky")
        finally:
            resource.prlimit(running.pid, resource.RLIMIT_NOFILE, (soft, hard))
        assert refused.code == errno.EMFILE
        assert running.list()["contexts"] == []
        assert running.used()["contexts"] == 0
