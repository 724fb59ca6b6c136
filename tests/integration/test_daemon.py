"""The daemon as a process, spoken to in bare varlink: what it grants, refuses, and cleans up."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sbe import _native
from sbe.control import INTERFACE, PROTOCOL
from sbe.daemon.config import DaemonConfig
from sbe.daemon.server import Listener, ListenError
from sbe.link.rings import Geometry, Rings, attach
from tests.integration.varlink_client import (
    SECONDS,
    Daemon,
    Refused,
    VarlinkClient,
    daemon,
    readable,
)

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
SMALL = """
[policy.default]
bytes = 4_194_304
areas = 3
channels = 2
contexts = 2
in_flight = 512
max_area_bytes = 1_048_576
connections = 8
"""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Daemon]:
    with daemon(tmp_path) as started:
        yield started


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Daemon]:
    """One with quotas that are quickly reached."""
    with daemon(tmp_path, SMALL) as started:
        yield started


@contextlib.contextmanager
def as_user(uid: int) -> Iterator[None]:
    """What happens inside happens as another user, by the kernel's word."""
    if os.getuid() != 0:
        pytest.skip("changing the user needs root")
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user may enter, which tmp_path is not."""
    folder = Path(tempfile.mkdtemp(prefix="sbe-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def attach_to(opened: dict[str, Any], context: int, table: _native.Table) -> _native.Channel:
    """The client's end of a channel that the daemon has opened."""
    rings = Rings(
        Geometry(opened["slots"], opened["slot_size"]),
        opened["line"],
        opened["send_offset"],
        opened["receive_offset"],
        opened["size"],
        opened["memory_fd"],
        opened["ring_fd"],
        opened["wake_fd"],
    )
    return attach(rings, table, opened["channel"], context)


def crc32_of(client: VarlinkClient, context: int, area: dict[str, Any], size: int) -> int:
    """What the remote makes of the area's first bytes."""
    table = _native.Table(64)
    memory = _native.Memory(area["memory_fd"], area["size"])
    table.add(memory, area["area"], context, area["flags"])
    channel = attach_to(client.call("OpenChannel"), context, table)
    service = client.call("FindService", name="crc32", version=0)["service"]
    reply = channel.call(service, (_native.In(memory[:size]),), b"", SECONDS)
    return int.from_bytes(reply.payload, "little")


# -- what it grants --------------------------------------------------------------------------------


def test_lifecycle_of_context_area_and_channel(running: Daemon):
    with running.client() as client:
        opened = client.open("a client")
        assert opened["link"] == "embedded"
        assert opened["remote"] == "sbe-remote"
        assert opened["heaps"] == ["memfd"]
        assert opened["limits"]["buffers"] == _native.BUFFERS_MAX
        area = client.call("Allocate", size=5000)
        assert area["size"] == 8192
        content = os.urandom(5000)
        with mmap.mmap(area["memory_fd"], area["size"]) as memory:
            memory[:5000] = content
        assert crc32_of(client, opened["context"], area, 5000) == zlib.crc32(content)

        listed = running.list()
        [entry] = listed["contexts"]
        assert entry == {
            "link": "embedded",
            "id": opened["context"],
            "client": "a client",
            "pid": os.getpid(),
            "uid": os.getuid(),
        }
        assert [a["id"] for a in listed["areas"]] == [area["area"]]
        [channel] = listed["channels"]
        assert (channel["slots"], channel["slot_size"], channel["priority"]) == (256, 1024, 1)
        [counted] = running.stat()["channels"]
        assert counted["frames_to_remote"] == counted["frames_from_remote"] == 1
        assert counted["doorbells_to_remote"] == 1
        assert counted["in_flight"] == 0
        used = running.used()
        assert used["areas"] == used["channels"] == used["contexts"] == used["connections"] == 1
        assert used["in_flight"] == 256

        client.call("CloseChannel", channel=channel["id"])
        client.call("Free", area=area["area"])
        used = running.used()
        assert used["bytes"] == used["areas"] == used["channels"] == used["in_flight"] == 0
    running.wait_until_empty()


def test_services_of_the_remote_and_of_the_client(running: Daemon):
    with running.client() as client:
        context = client.open()["context"]
        names = [service["name"] for service in client.call("ListServices")["services"]]
        assert {"echo", "crc32", "sobel"} <= set(names)
        assert client.call("FindService", name="echo", version=1)["version"] == 1
        missing = client.refusal("FindService", name="nonsense", version=0)
        assert (missing.code, "no service 'nonsense'" in missing.message) == (2, True)
        assert client.refusal("FindService", name="x" * 40, version=0).code == 22

        assert client.call("Serve", name="store", version=3)["service"] == 1
        assert client.call("Serve", name="load", version=1)["service"] == 2
        assert client.refusal("Serve", name="store", version=1).code == 17
        assert client.refusal("Serve", name="", version=1).code == 22
        mine = [s for s in running.list()["services"] if s["context"] == context]
        assert [(s["name"], s["id"], s["version"]) for s in mine] == [
            ("store", 1, 3),
            ("load", 2, 1),
        ]
        client.call("Unserve", name="store")
        assert client.refusal("Unserve", name="store").code == 2
        assert client.call("Serve", name="again", version=1)["service"] == 3


def test_introspection_names_every_method(running: Daemon):
    with running.client() as client:
        info = client.call("org.varlink.service.GetInfo")
        assert INTERFACE in info["interfaces"]
        described = client.call("org.varlink.service.GetInterfaceDescription", interface=INTERFACE)
    description = described["description"]
    assert f"interface {INTERFACE}" in description
    for method in (
        *("Open", "Allocate", "Free", "OpenChannel", "CloseChannel", "FindService"),
        *("ListServices", "Serve", "Unserve", "Restart", "List", "Stat"),
    ):
        assert f"\nmethod {method}(" in description
    assert "error Refused (code: int, message: string)" in description
    assert "method Open(protocol: int, name: string, link: ?string, timeout_ms: ?int) -> (" in (
        description
    )


# -- what it refuses -------------------------------------------------------------------------------


def test_wrong_protocol_version_names_both(running: Daemon):
    with running.client() as client:
        refused = client.refusal("Open", protocol=PROTOCOL + 1, name="new")
        assert f"version {PROTOCOL + 1}" in refused.message
        assert f"daemon version {PROTOCOL}:" in refused.message
        client.open()


def test_calls_that_need_open_say_so(running: Daemon):
    calls: dict[str, dict[str, Any]] = {
        "Allocate": {"size": 1},
        "Free": {"area": 1},
        "OpenChannel": {},
        "CloseChannel": {"channel": 1},
        "FindService": {"name": "echo", "version": 0},
        "ListServices": {},
        "Serve": {"name": "x", "version": 0},
        "Unserve": {"name": "x"},
    }
    with running.client() as client:
        for method, parameters in calls.items():
            refused = client.refusal(method, **parameters)
            assert (refused.code, "call Open first" in refused.message) == (22, True)
        client.open()
        again = client.refusal("Open", protocol=PROTOCOL, name="again")
        assert (again.code, "Open was called before" in again.message) == (17, True)


@pytest.mark.parametrize(
    ("method", "parameters", "code", "words"),
    [
        ("Open", {"protocol": PROTOCOL, "name": "x", "link": "moon"}, 19, "no link 'moon'; there"),
        ("Allocate", {"size": 0}, 22, "size must be 1 to"),
        ("Allocate", {"size": -1}, 22, "size must be 1 to"),
        ("Allocate", {"size": 2**63}, 22, "size must be 1 to"),
        ("Allocate", {"size": True}, 22, "size must be 1 to"),
        ("Allocate", {"size": 1, "heap": "cloud"}, 22, "no heap 'cloud'; there are: memfd"),
        ("Allocate", {"size": 1 << 40}, 1, "max_area_bytes"),
        ("Free", {"area": 12345}, 14, "no area 12345"),
        ("Free", {"area": -1}, 22, "area must be"),
        ("CloseChannel", {"channel": 1}, 22, "no channel 1"),
        ("OpenChannel", {"slots": 3}, 22, "powers of two"),
        ("OpenChannel", {"slots": 1 << 16}, 22, "this link allows"),
        ("OpenChannel", {"slot_size": 100}, 22, "multiple of 64"),
        ("OpenChannel", {"priority": 4}, 22, "priority must be 0 to 3"),
        ("FindService", {"name": "echo", "version": 70000}, 22, "version must be 0 to 65535"),
    ],
)
def test_bad_argument_is_named(
    running: Daemon, method: str, parameters: dict[str, Any], code: int, words: str
):
    with running.client() as client:
        if method != "Open":
            client.open()
        refused = client.refusal(method, **parameters)
        assert refused.code == code, refused
        assert words in refused.message
        assert running.used()["areas"] == 0
        assert running.used()["channels"] == 0
        if method != "Open":
            client.call("Allocate", size=1)


def test_refused_channels_leave_nothing_behind(tmp_path: Path):
    """The remote refuses, after it has mapped the rings."""
    config = "[[link]]\nlimits = { channels = 1 }\n"
    with daemon(tmp_path, config) as running, running.client() as client:
        client.open()
        client.call("OpenChannel")
        for _ in range(20):
            assert client.refusal("OpenChannel").code
        assert running.used()["channels"] == 1
        [link] = running.stat()["links"]
        assert (link["areas"], link["channels"]) == (1, 1)


def test_quota_names_used_asked_and_limit(small: Daemon):
    with small.client() as client:
        client.open()
        too_large = client.refusal("Allocate", size=(1 << 20) + 1)
        assert too_large.code == 1
        assert "max_area_bytes: an area of 1048577 bytes" in too_large.message
        areas = [client.call("Allocate", size=1 << 20)["area"] for _ in range(3)]
        full = client.refusal("Allocate", size=1)
        assert full.code == 12
        assert "may hold 3 areas, has 3 and asks for 1 more" in full.message
        client.call("Free", area=areas[0])
        client.call("Allocate", size=1)
        # 256 slots each: the third would exceed in_flight too, but channels come first.
        client.call("OpenChannel")
        client.call("OpenChannel")
        assert "quota channels" in client.refusal("OpenChannel").message
        with small.client() as second, small.client() as third:
            second.open()
            assert "quota contexts" in third.refusal("Open", protocol=PROTOCOL, name="3").message
    small.wait_until_empty()


def test_in_flight_counts_slots(small: Daemon):
    with small.client() as client:
        client.open()
        client.call("OpenChannel", slots=512, slot_size=64)
        assert "quota in_flight" in client.refusal("OpenChannel", slots=2).message


def test_users_have_quotas_of_their_own(public_folder: Path):
    config = (
        f'{SMALL}\n[policy.uid.{NOBODY}]\nareas = 1\n[daemon]\nmode = "0666"\n'  # key order is free
    )
    with daemon(public_folder, config) as running:
        running.socket.parent.chmod(0o755)
        with as_user(NOBODY):
            guest = running.client()
        with guest, running.client() as client:
            client.open()
            guest.open()
            for _ in range(3):
                client.call("Allocate", size=1)
            guest.call("Allocate", size=1)
            refused = guest.refusal("Allocate", size=1)
            assert f"user {NOBODY} may hold 1 areas" in refused.message
            assert running.used(NOBODY)["areas"] == 1
            assert running.used()["areas"] == 3
        running.wait_until_empty()
        running.wait_until(lambda: not running.used(NOBODY))


def test_too_many_connections_are_told(small: Daemon):
    clients = [small.client() for _ in range(8)]
    for client in clients:
        client.call("List")
    with small.client() as refused, pytest.raises(Refused, match="quota connections"):
        refused.receive()
    clients.pop().close()
    small.wait_until(lambda: _answers(small))
    for client in clients:
        client.close()


def _answers(running: Daemon) -> bool:
    with running.client() as client, contextlib.suppress(Refused, OSError, EOFError):
        client.call("List")
        return True
    return False


def test_no_permission_on_the_socket(public_folder: Path):
    with daemon(public_folder) as running:
        assert running.socket.stat().st_mode & 0o777 == 0o660
        assert running.socket.parent.stat().st_mode & 0o777 == 0o750
        with as_user(NOBODY), pytest.raises(PermissionError):
            running.client()
        running.socket.parent.chmod(0o755)
        with as_user(NOBODY), pytest.raises(PermissionError):
            running.client()


# -- hostile input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [
        b"hello\0",
        b"\xff\xfe\x00",
        b"\0",
        b"[]\0",
        b"{\0",
        b"[" * 60000 + b"\0",
        b'{"method":"org.sbe.Control.List","parameters":{"x":' + b"9" * 10000 + b"}}\0",
        b"x" * 200_000,
        b'{"method":"' + b"y" * 100_000,
        b'{"method":"org.sbe.Control.List"}\0' * 5000,
    ],
    ids=lambda garbage: f"{garbage[:12]!r}x{len(garbage)}",
)
def test_garbage_ends_only_its_own_connection(running: Daemon, garbage: bytes):
    with running.client() as bystander:
        bystander.open()
        bystander.call("List")  # what Open was answered with is closed by now
        before = running.descriptors()
        with running.client() as client:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.send_bytes(garbage)
            with contextlib.suppress(ConnectionResetError):
                while client.socket.recv(65536):
                    pass
        bystander.call("Allocate", size=1)
        bystander.call("Free", area=running.list()["areas"][0]["id"])
        running.wait_until(lambda: running.descriptors() == before)
    assert "Traceback" not in running.log()


@pytest.mark.parametrize(
    "message",
    [
        {"method": "org.sbe.Control.Nothing"},
        {"method": "org.sbe.Control._client"},
        {"method": "org.sbe.Control.name"},
        {"method": "org.other.Thing"},
        {"method": 5},
        {"no": "method"},
        {"method": "org.sbe.Control.List", "parameters": 5},
        {"method": "org.sbe.Control.Allocate", "parameters": {}},
        {"method": "org.sbe.Control.Allocate", "parameters": {"size": "many"}},
        {"method": "org.sbe.Control.Allocate", "parameters": {"size": 1, "sise": 2}},
        {"method": "org.sbe.Control.List", "more": True, "upgrade": True},
    ],
    ids=str,
)
def test_wrong_call_is_answered_and_the_connection_goes_on(
    running: Daemon, message: dict[str, Any]
):
    with running.client() as client:
        client.send_bytes(json.dumps(message).encode() + b"\0")
        with pytest.raises(Refused):
            client.receive()
        client.open()
    assert "Traceback" not in running.log()


def test_call_in_small_pieces_is_one_call(running: Daemon):
    with running.client() as client:
        call = {"method": f"{INTERFACE}.List", "parameters": {}}
        for byte in json.dumps(call).encode() + b"\0":
            client.send_bytes(bytes([byte]))
        assert client.receive()["links"]


def test_descriptors_of_clients_are_not_taken(running: Daemon):
    with running.client() as client:
        client.open()
        client.call("List")
        before = running.descriptors()
        reader, writer = os.pipe()
        for _ in range(20):
            call = {"method": f"{INTERFACE}.Free", "parameters": {"area": 1}}
            client.send_bytes(json.dumps(call).encode() + b"\0", [writer] * 50)
            with pytest.raises(Refused):
                client.receive()
        assert running.descriptors() == before
        os.close(writer)
        assert readable(reader)
        assert os.read(reader, 1) == b""  # nobody holds the other end
        os.close(reader)


def test_client_that_never_reads_is_dropped(running: Daemon):
    with running.client() as bystander, running.client() as client:
        bystander.open()
        call = json.dumps({"method": f"{INTERFACE}.List"}).encode() + b"\0"
        client.socket.settimeout(0.5)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
            for _ in range(200_000):
                client.send_bytes(call)
        bystander.call("Allocate", size=1)
    running.wait_until_empty()


def tasks(running: Daemon) -> int:
    return len(os.listdir(f"/proc/{running.pid}/task"))


def block(bell: int) -> None:
    """What whoever holds a descriptor can do to the writes of others who do."""
    os.set_blocking(bell, True)
    with contextlib.suppress(OSError):  # an eventfd's counter is full then
        os.eventfd_write(bell, 2**64 - 2)


def test_full_bells_that_block_stop_nobody_and_leave_nothing(running: Daemon):
    """Clients do all they can to their end of the bell, lose the remote, and go."""
    with running.client() as good:
        events = good.open()["events_fd"]
        descriptors, threads = running.descriptors(), tasks(running)
        for _ in range(2):
            bad = [running.client() for _ in range(20)]
            for client in bad:
                block(client.open()["events_fd"])
            os.kill(running.remote_pid(), signal.SIGKILL)
            assert readable(events)
            good.call("OpenChannel")
            for client in bad:
                client.close()
            running.wait_until(lambda: running.used()["contexts"] == 1)
            while readable(events, 0):
                os.read(events, 64)
        opened = good.call("OpenChannel")
        for channel in running.list()["channels"]:
            good.call("CloseChannel", channel=channel["id"])
        assert opened["events"] == 4
        running.wait_until(lambda: running.descriptors() <= descriptors)
        assert tasks(running) <= threads + 1  # one for what may block, kept for the next time


def test_every_event_comes_to_who_has_not_read(tmp_path: Path):
    """More losses than wait in the kernel: none is forgotten, and those that wait cost nothing."""
    config = "[[link]]\nrestart = { initial_seconds = 0.001, max_seconds = 0.001 }\n"
    with daemon(tmp_path, config) as running, running.client() as client:
        events = client.open()["events_fd"]
        for _ in range(12):
            lives = running.log().count("is connected")
            os.kill(running.remote_pid(), signal.SIGKILL)
            while running.log().count("is connected") == lives:
                running.wait_until(lambda: running.list()["links"][0]["state"] == "connected")
        sent = client.call("OpenChannel")["events"]
        taken = 0
        while taken < sent:
            assert readable(events)
            taken += os.read(events, 64).count(0)
        assert taken == sent == 24
        assert not readable(events, 0)


# -- clients that die ------------------------------------------------------------------------------

STEPS: list[tuple[str, dict[str, Any]]] = [
    ("Open", {"protocol": PROTOCOL, "name": "step"}),
    ("Allocate", {"size": 10000}),
    ("OpenChannel", {}),
    ("FindService", {"name": "echo", "version": 0}),
    ("ListServices", {}),
    ("Serve", {"name": "mine", "version": 1}),
    ("CloseChannel", {"channel": 0}),
    ("Free", {"area": 0}),
]


@pytest.mark.parametrize("last", range(len(STEPS)), ids=[name for name, _ in STEPS])
def test_client_gone_in_the_middle_of_a_call(running: Daemon, last: int):
    ids: dict[str, int] = {}
    client = running.client()
    for index, (method, parameters) in enumerate(STEPS[: last + 1]):
        given = {key: ids.get(key, value) for key, value in parameters.items()}
        if index == last:
            client.send(method, **given)
        else:
            ids |= {k: v for k, v in client.call(method, **given).items() if isinstance(v, int)}
    client.close()
    running.wait_until_empty()
    assert running.list()["contexts"] == []


def test_client_killed(running: Daemon):
    script = (
        "import sys, time\n"
        "from tests.integration.varlink_client import VarlinkClient\n"
        "client = VarlinkClient(sys.argv[1])\n"
        "client.open('victim')\n"
        "client.call('Allocate', size=1 << 20)\n"
        "client.call('OpenChannel')\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    command = [sys.executable, "-c", script, str(running.socket)]
    before = running.descriptors()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"ready\n"
        [context] = running.list()["contexts"]
        assert (context["client"], context["pid"]) == ("victim", victim.pid)
        assert running.used()["areas"] == 1
        victim.kill()
    running.wait_until_empty()
    running.wait_until(lambda: running.descriptors() == before)


def test_cycles_leave_descriptors_flat(running: Daemon):
    def cycle() -> None:
        with running.client() as client:
            client.open()
            client.call("Allocate", size=4096)
            client.call("OpenChannel", slots=2, slot_size=64)

    cycle()
    running.wait_until_empty()
    before = running.descriptors()
    for _ in range(200):
        cycle()
    running.wait_until_empty()
    running.wait_until(lambda: running.descriptors() <= before)


# -- remotes that die ------------------------------------------------------------------------------


def test_remote_killed_areas_survive(running: Daemon):
    with running.client() as client:
        opened = client.open()
        area = client.call("Allocate", size=4096)
        content = os.urandom(4096)
        with mmap.mmap(area["memory_fd"], area["size"]) as memory:
            memory[:] = content
        old = client.call("OpenChannel")
        assert (old["epoch"], old["events"]) == (opened["epoch"], 0)
        os.kill(running.remote_pid(), signal.SIGKILL)
        assert readable(opened["events_fd"])
        new = client.call("OpenChannel")  # waits for the remote
        assert new["epoch"] != old["epoch"]
        assert new["events"] == 2
        rung = 0
        while rung < new["events"]:
            assert readable(opened["events_fd"])
            rung += os.read(opened["events_fd"], 64).count(0)
        assert rung == 2  # it was lost, it came back
        client.call("CloseChannel", channel=new["channel"])
        assert client.refusal("CloseChannel", channel=old["channel"]).code == 22
        used = running.used()
        assert (used["areas"], used["channels"], used["in_flight"]) == (1, 0, 0)
        assert crc32_of(client, opened["context"], area, 4096) == zlib.crc32(content)
        assert running.stat()["links"][0]["restarts"] == 1
    running.wait_until_empty()


def test_client_gone_while_the_remote_is_down(tmp_path: Path):
    config = "[[link]]\nrestart = { initial_seconds = 1, max_seconds = 1 }\n"
    with daemon(tmp_path, config) as running:
        client = running.client()
        events = client.open()["events_fd"]
        client.call("Allocate", size=4096)
        client.call("OpenChannel")
        os.kill(running.remote_pid(), signal.SIGKILL)
        assert readable(events)
        client.close()
        running.wait_until_empty()
        assert running.list()["links"][0]["state"] != "connected"


def test_frozen_remote_is_started_again(tmp_path: Path):
    with daemon(tmp_path, "[[link]]\nanswer_seconds = 0.2\n") as running:
        frozen = running.remote_pid()
        with running.client() as client:
            client.open()
            os.kill(frozen, signal.SIGSTOP)
            refused = client.refusal("Allocate", size=4096)
            assert refused.code == 104
            assert "process" in refused.message
            client.call("Allocate", size=4096)
            assert running.used()["areas"] == 1
        assert running.remote_pid() != frozen
        running.wait_until_empty()


def test_remote_that_cannot_start_is_explained(tmp_path: Path):
    config = "[[link]]\ncommand = ['/nonexistent/remote']\n"
    with daemon(tmp_path, config, until="listening") as running, running.client() as client:
        running.wait_until(lambda: "not connected" in running.log())
        refused = client.refusal("Open", protocol=PROTOCOL, name="x")
        assert refused.code == 107
        assert "/nonexistent/remote" in refused.message


def test_remote_of_another_version_is_explained_at_once(tmp_path: Path):
    remote = Path(_native.__file__).with_name("sbe-remote")
    config = f"[[link]]\ncommand = ['{remote}', '--protocol', '7-9']\n"
    with daemon(tmp_path, config, until="listening") as running, running.client() as client:
        running.wait_until(lambda: "not connected" in running.log())
        refused = client.refusal("Open", protocol=PROTOCOL, name="x")
        assert refused.code == 71
        assert "7 to 9" in refused.message


def test_daemon_killed_takes_the_remote_along(running: Daemon):
    pid = running.remote_pid()
    with running.client() as client:
        client.open()
        remote = os.pidfd_open(pid)
        running.process.kill()
        running.process.wait(SECONDS)
        assert readable(remote)
        os.close(remote)
        assert client.socket.recv(1) == b""


def test_next_daemon_removes_the_stale_socket(tmp_path: Path):
    with daemon(tmp_path) as first:
        first.process.kill()
        first.process.wait(SECONDS)
        assert first.socket.exists()
        with daemon(tmp_path) as second, second.client() as client:
            client.open()


# -- life ------------------------------------------------------------------------------------------


def test_sigterm_ends_orderly(running: Daemon):
    with running.client() as client:
        client.open()
        client.call("Allocate", size=4096)
        assert running.stop() == 0
        assert client.socket.recv(1) == b""
    assert not running.socket.exists()
    assert "Traceback" not in running.log()


def test_second_daemon_is_refused(running: Daemon, tmp_path: Path):
    with pytest.raises(AssertionError, match=r"another daemon answers at .*control.sock"):
        Daemon(tmp_path)
    with running.client() as client:
        client.open()


def test_something_else_at_the_socket_is_refused(tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "control.sock").write_text("precious")
    with pytest.raises(AssertionError, match="something else is there"):
        Daemon(tmp_path)
    assert (tmp_path / "run" / "control.sock").read_text() == "precious"


def test_unknown_key_ends_the_daemon_with_its_name(tmp_path: Path):
    started = Daemon(tmp_path, "[daemon]\nsoket = 'x'\n", until="")
    assert started.process.wait(SECONDS) == 78
    assert "daemon.toml: daemon.soket: unknown key; did you mean 'socket'?" in started.log()


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [("", 0, "the configuration is fine"), ("[x]", 78, "daemon.toml: x: unknown key")],
)
def test_check_config(tmp_path: Path, text: str, status: int, words: str):
    started = Daemon(tmp_path, text, arguments=["--check-config"], until="")
    assert started.process.wait(SECONDS) == status
    assert words in started.log()
    assert not started.socket.exists()


ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_inherited_socket(tmp_path: Path):
    path = tmp_path / "run" / "control.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(path))
        sock.listen()
        launcher = [sys.executable, "-c", ACTIVATE, str(sock.fileno())]
        with daemon(tmp_path, launcher=launcher, pass_fds=[sock.fileno()]) as running:
            assert "listening at an inherited socket" in running.log()
            with VarlinkClient(path) as client:
                client.open()
            assert running.stop() == 0
    assert path.exists()


INHERIT = """
import os, socket, sys
kind, path = sys.argv[1:3]
if kind == "file":
    os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), 3)
elif kind == "pipe":
    os.dup2(os.pipe()[0], 3)
elif kind != "closed":
    type = socket.SOCK_DGRAM if kind == "dgram" else socket.SOCK_STREAM
    sock = socket.socket(socket.AF_INET if kind == "tcp" else socket.AF_UNIX, type)
    sock.bind(("127.0.0.1", 0) if kind == "tcp" else path)
    if kind in ("tcp", "two", "elsewhere"):
        sock.listen()
    os.dup2(sock.fileno(), 3)
    os.dup2(3, 4)
if kind != "closed":
    os.set_inheritable(3, True)  # it may be 3 from the start
counts = {"two": "2", "many": "9999", "minus": "-1", "words": "some", "superscript": "\u00b2"}
count = counts.get(kind, "1")
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count}
os.execv(sys.argv[3], sys.argv[3:])
"""


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("closed", "LISTEN_FDS=1 says that descriptor 3 is a socket, but it is not open: start"),
        ("file", "that descriptor 3 is a socket, but it is a file: start the daemon by a .socket"),
        ("pipe", "that descriptor 3 is a socket, but it is a pipe: start the daemon by a .socket"),
        (
            "tcp",
            "the inherited socket (descriptor 3) is no unix socket: ListenStream= takes a path",
        ),
        ("dgram", "the inherited socket (descriptor 3) is no stream socket: say ListenStream="),
        ("silent", "the inherited socket (descriptor 3) does not listen: say Accept=no"),
        ("two", "2 sockets inherited, one is expected: the .socket unit has one ListenStream="),
        ("many", "LISTEN_FDS=9999 says that descriptor 5 is a socket, but it is not open"),
        ("minus", "LISTEN_FDS='-1' is no number of sockets"),
        ("words", "LISTEN_FDS='some' is no number of sockets"),
        ("superscript", "LISTEN_FDS='\u00b2' is no number of sockets"),
        ("elsewhere", "other.sock, the configuration says "),
    ],
)
def test_inherited_descriptor_that_is_no_such_socket(kind: str, words: str, tmp_path: Path):
    launcher = [sys.executable, "-c", INHERIT, kind, str(tmp_path / "other.sock")]
    with daemon(tmp_path, launcher=launcher, until="") as started:
        assert started.process.wait(SECONDS) == 1
    log = started.log()
    assert log.startswith("sbe-daemon: ")
    assert words in log
    assert log.count("\n") == 1
    assert not started.socket.exists()


@pytest.mark.parametrize(
    ("socket", "environment", "words"),
    [
        ("", {}, "--socket '': must be an absolute path"),
        ("/" + "x" * 107, {}, "': must be at most 107 bytes, which is what a unix socket's"),
        ("/tmp/\u00e4" + "\u00e4" * 60, {}, "': must be at most 107 bytes"),
        (None, {"SBE_SOCKET": "relative"}, "SBE_SOCKET='relative': must be an absolute path"),
        (None, {"SBE_SOCKET": "unix:"}, "SBE_SOCKET='unix:': must be an absolute path"),
        (None, {"SBE_SOCKET": "/" + "x" * 107}, "SBE_SOCKET='/xxx"),
    ],
)
def test_socket_that_cant_be(socket: str | None, environment: dict[str, str], words: str):
    command = [sys.executable, "-m", "sbe.daemon", "--check-config"]
    ended = subprocess.run(
        [*command, *([] if socket is None else ["--socket", socket])],
        capture_output=True,
        env=os.environ | {"PYTHONUTF8": "1"} | environment,
        timeout=SECONDS,
    )
    assert ended.returncode == 78
    assert words in ended.stderr.decode()
    assert ended.stderr.count(b"\n") == 1


def test_lock_of_another_user(public_folder: Path):
    """As root leaves it where everybody can write: who has it, and what to do."""
    public_folder.chmod(0o1777)
    lock = public_folder / ".s.lock"
    lock.touch(mode=0o600)
    with as_user(NOBODY), pytest.raises(ListenError) as raised:
        Listener(DaemonConfig(socket=str(public_folder / "s"), group=None))
    assert str(raised.value) == (
        f"can't listen at {public_folder}/s: the lock file {lock} belongs to user root and can't "
        "be taken (Permission denied): stop the daemon of that user and remove the file, or choose "
        "another --socket"
    )


def test_socket_of_another_user(public_folder: Path):
    public_folder.chmod(0o1777)
    path = public_folder / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(path))
        path.chmod(0o600)
        other.listen()
        with as_user(NOBODY), pytest.raises(ListenError) as raised:
            Listener(DaemonConfig(socket=str(path), group=None))
    words = f"can't listen at {path}: the socket there belongs to user root and does not let this"
    assert str(raised.value).startswith(words)


def test_folder_that_cant_be_written(public_folder: Path):
    with as_user(NOBODY), pytest.raises(ListenError, match=r"/\.s\.lock: Permission denied"):
        Listener(DaemonConfig(socket=str(public_folder / "s"), group=None))


def test_lock_that_is_a_link(tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".control.sock.lock").symlink_to(tmp_path / "precious")
    with daemon(tmp_path, until="") as started:
        assert started.process.wait(SECONDS) == 1
    assert "can't be taken (Too many levels of symbolic links)" in started.log()
    assert not (tmp_path / "precious").exists()


def test_folder_that_somebody_else_made(public_folder: Path):
    """Its owner could answer in the daemon's place."""
    folder = public_folder / "run"
    folder.mkdir()
    folder.chmod(0o777)
    os.chown(folder, 12345, -1)
    with as_user(NOBODY), pytest.raises(ListenError) as raised:
        Listener(DaemonConfig(socket=str(folder / "s"), group=None))
    assert f"the folder {folder} belongs to user 12345, who could answer" in str(raised.value)


def test_service_manager_is_told(tmp_path: Path):
    path = tmp_path / "notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.settimeout(SECONDS)
        told = {"NOTIFY_SOCKET": str(path)}
        with daemon(tmp_path, environment=told, until="") as running:
            lines = sock.recv(4096).decode().splitlines()
            assert lines[0] == "READY=1"
            assert lines[1].startswith("STATUS=")
            with running.client() as client:  # ready is what it says
                client.open()
            assert running.stop() == 0
            assert "STOPPING=1" in sock.recv(4096).decode()


def test_log_is_structured(tmp_path: Path):
    with daemon(tmp_path, "[log]\nformat = 'json'\n") as running:
        with running.client() as client:
            client.open("a\nb")
        running.wait_until(lambda: "context closed" in running.log())
        assert running.stop() == 0
        events = [json.loads(line) for line in running.log().splitlines()]
    [opened] = [event for event in events if event["message"] == "context opened"]
    assert opened["client"] == "a?b"
    assert opened["uid"] == os.getuid()
    assert opened["level"] == "info"


def test_memory_stays_small_and_idle_is_idle(running: Daemon):
    def proc(name: str, key: str) -> int:
        text = Path(f"/proc/{running.pid}/{name}").read_text()
        [line] = [line for line in text.splitlines() if line.startswith(key + ":")]
        return int(line.split()[1])

    with running.client() as client:
        client.open()
        client.call("OpenChannel")
        assert proc("status", "VmRSS") < 60 * 1024
        os.sched_yield()
        client.call("ListServices")
        wakeups = proc("status", "voluntary_ctxt_switches")
        assert not readable(client.socket.fileno(), 0.5)  # nothing is said, nothing is due
        assert proc("status", "voluntary_ctxt_switches") - wakeups <= 1
