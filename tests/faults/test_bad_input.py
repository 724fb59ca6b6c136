"""Bad input gets a clear error and nothing is lost: one test a rule, with the error it names.

Each runs over the embedded remote and through a daemon, where both make sense; afterwards the same
link still works.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import sbe
import sbe.testing
from tests.integration.varlink_client import Daemon, daemon

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 30.0  # bounds what must not hang; nothing waits that long when all is well


@pytest.fixture(params=["loopback", "daemon"])
def link(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sbe.Connection]:
    with contextlib.ExitStack() as stack:
        uri = "loopback:"
        if request.param == "daemon":
            uri = f"unix:{stack.enter_context(daemon(tmp_path)).socket}"
        link = stack.enter_context(sbe.connect(uri))
        yield link
        if not link.closed:
            check_works(link)


@pytest.fixture
def embedded() -> Iterator[sbe.Connection]:
    with sbe.connect("loopback:") as link:
        yield link


def check_works(link: sbe.Connection) -> None:
    assert link.call("echo", payload=b"still here", timeout=PATIENCE_S).payload == b"still here"


def remote_pid(link: sbe.Connection) -> int:
    return int(link.list()["links"][0]["pid"])


@contextlib.contextmanager
def frozen(link: sbe.Connection) -> Iterator[int]:
    """The remote takes nothing while the block runs."""
    pid = remote_pid(link)
    for name in ("echo", "crc32", "fill"):
        link.find(name)  # a frozen remote could not be asked for the names
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


# -- the call itself -------------------------------------------------------------------------------


def test_unknown_service(link: sbe.Connection):
    with pytest.raises(sbe.UnknownService, match="no service 'frobnicate'"):
        link.call("frobnicate")
    with pytest.raises(sbe.UnknownService, match="version 9"):
        link.find("echo", 9)


@pytest.mark.parametrize("size", [0, -1])
def test_area_of_no_size(link: sbe.Connection, size: int):
    with pytest.raises(sbe.BadArgument, match=f"{size} bytes"):
        link.allocate(size)


def test_area_too_large(link: sbe.Connection):
    with pytest.raises((sbe.OutOfResources, sbe.BadArgument), match=str(1 << 50)):
        link.allocate(1 << 50)


def test_area_beyond_quota(tmp_path: Path):
    with (
        daemon(tmp_path, "[policy.default]\nbytes = 1048576\n") as running,
        sbe.connect(f"unix:{running.socket}") as link,
    ):
        with pytest.raises(sbe.Error, match="bytes") as refused:
            link.allocate(4 << 20)
        assert isinstance(refused.value, (sbe.PermissionDenied, sbe.OutOfResources))
        link.allocate(4096).free()
        check_works(link)


def test_buffer_outside_its_area(link: sbe.Connection):
    area = link.allocate(4096)
    outside = area.descriptors(sbe.In, [4000], [97]).reshape(1, 1)
    with pytest.raises(sbe.Error, match="call 0"):
        link.batch("crc32", outside).check()


def test_buffer_of_a_freed_area(link: sbe.Connection):
    area = link.allocate(4096)
    view = np.frombuffer(area, np.uint8)
    area.free()
    with pytest.raises(sbe.AreaFreed, match="freed"):
        link.call("crc32", sbe.In(area))
    with pytest.raises(sbe.AreaFreed, match="freed"):
        link.call("crc32", sbe.In(view[10:20]))
    assert not view.any()  # still readable


def test_buffer_of_another_link(link: sbe.Connection):
    with sbe.connect("loopback:") as other:
        area = other.allocate(4096)
        for foreign in (area, area[:10], np.frombuffer(area, np.uint8)[5:9]):
            with pytest.raises(sbe.BadArgument, match="another link"):
                link.call("crc32", sbe.In(foreign))


def test_buffer_that_is_not_contiguous(link: sbe.Connection):
    pixels = np.frombuffer(link.allocate(4096), np.uint8)
    with pytest.raises(sbe.BadArgument, match="ascontiguousarray"):
        link.call("crc32", sbe.In(pixels[::2]))
    with pytest.raises(sbe.BadArgument, match="step 2"):
        link.allocate(4096)[::2]


def test_too_many_buffers(link: sbe.Connection):
    area = link.allocate(4096)
    with pytest.raises(sbe.MessageTooLarge, match="17 buffers"):
        link.call("crc32", *[sbe.In(area[:1])] * 17)


def test_too_much_payload(link: sbe.Connection):
    with pytest.raises(sbe.MessageTooLarge, match=r"one frame holds \d+ bytes"):
        link.call("echo", payload=bytes(link.slot_size))


def test_what_is_no_buffer(link: sbe.Connection):
    with pytest.raises(TypeError, match=r"sbe\.In"):
        link.call("crc32", b"bare bytes")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="buffer protocol"):
        sbe.In(7)


def test_address_that_is_no_link():
    with pytest.raises(sbe.BadArgument, match="loopback:"):
        sbe.connect("telnet:somewhere")


# -- negotiation -----------------------------------------------------------------------------------


def test_wrong_version():
    with (
        sbe.testing.Remote({}, versions=(7, 9)) as remote,
        pytest.raises(sbe.ProtocolError, match=r"versions 7 to 9, this host 1 to 1"),
    ):
        remote.link()


def test_wrong_magic():
    """What listens is no remote: it answers HELLO with another magic."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    class Stranger:
        def connect(self) -> object:
            from sbe.transports.seqpacket import SeqpacketTransport

            return SeqpacketTransport(near)

        def close(self) -> None:
            far.close()

    def answer() -> None:
        hello = bytearray(far.recv(496))
        hello[16:20] = b"NOPE"
        hello[4:8] = struct.pack("<I", 77)
        far.send(hello)

    from sbe.sdk.connection import Connection
    from sbe.sdk.embedded import EmbeddedBackend

    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises(sbe.ProtocolError, match="magic"):
        Connection(EmbeddedBackend(PATIENCE_S, Stranger()))
    thread.join()


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("/nowhere/sbe-remote", "nowhere"),
        ("/dev/null", "null"),
        ("/bin/false", "exited with status 1"),
    ],
)
def test_remote_that_cannot_start(monkeypatch: pytest.MonkeyPatch, program: str, said: str):
    monkeypatch.setenv("SBE_REMOTE", program)
    with pytest.raises(sbe.LinkError, match=said):
        sbe.connect("loopback:")


# -- a remote that does not keep up ----------------------------------------------------------------


def test_full_ring(embedded: sbe.Connection):
    with sbe.connect("loopback:", slots=4) as link:
        check_works(link)
        with frozen(link):
            waiting = [link.submit("echo", timeout=None, wait=False) for _ in range(4)]
            with pytest.raises(sbe.WouldBlock, match="full"):
                link.submit("echo", wait=False)
            with pytest.raises(sbe.Timeout, match="full"):
                link.submit("echo", timeout=0.05)
            late = threading.Thread(target=lambda: waiting.append(link.submit("echo")))
            late.start()
        late.join(PATIENCE_S)
        assert len(waiting) == 5
        for call in waiting:
            call.result(PATIENCE_S)


def test_deadline_and_quarantine(link: sbe.Connection):
    area = link.allocate(4096)
    link.call("fill", sbe.Out(area), payload=b"\1")
    with frozen(link):
        with pytest.raises(sbe.Timeout, match="quarantined"):
            link.call("fill", sbe.Out(area), payload=b"\2", timeout=0.05)
        with pytest.raises(sbe.Busy, match="quarantined"):
            area.free()
    check_works(link)  # answers come in order: the late one has been taken by now
    assert area.holds == 0
    area.free()


def test_cancelled(link: sbe.Connection):
    with frozen(link):
        call = link.submit("echo")
        assert call.cancel()
        with pytest.raises(sbe.Cancelled, match="'echo' was cancelled"):
            call.result()
        assert not call.cancel()


# -- ends that die ---------------------------------------------------------------------------------


def test_remote_killed_with_calls_in_flight(link: sbe.Connection):
    area = link.allocate(1 << 16)
    content = np.frombuffer(area, np.uint8)
    content[:] = 7
    epoch = link.epoch
    with frozen(link) as pid:
        calls = [link.submit("crc32", sbe.In(area), timeout=None) for _ in range(100)]
        with pytest.raises(sbe.Busy):
            area.free()
        os.kill(pid, signal.SIGKILL)
        for call in calls:
            with pytest.raises(sbe.RemoteRestarted, match="may have run or not"):
                call.result(PATIENCE_S)
    assert area.holds == 0
    reply = link.call("crc32", sbe.In(area), timeout=PATIENCE_S)
    assert struct.unpack("<I", reply.payload) == (zlib.crc32(content),)
    assert link.epoch != epoch


def test_remote_killed_under_asyncio(embedded: sbe.Connection):
    async def work() -> None:
        check_works(embedded)
        with frozen(embedded) as pid:
            calls = [asyncio.ensure_future(embedded.acall("echo")) for _ in range(50)]
            await asyncio.sleep(0)
            os.kill(pid, signal.SIGKILL)
            async with asyncio.timeout(PATIENCE_S):
                results = await asyncio.gather(*calls, return_exceptions=True)
        lost = [result for result in results if isinstance(result, sbe.RemoteRestarted)]
        assert lost
        assert all(isinstance(result, (sbe.RemoteRestarted, sbe.Reply)) for result in results)

    asyncio.run(work())
    check_works(embedded)


def test_remote_killed_while_serving(embedded: sbe.Connection):
    embedded.serve("upper", lambda payload: payload.upper())
    assert embedded.call("relay", payload=b"upper\0abc").payload == b"ABC"
    pid = remote_pid(embedded)
    os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(sbe.RemoteRestarted):
        embedded.call("echo", timeout=PATIENCE_S)
    reply = embedded.call("relay", payload=b"upper\0again", timeout=PATIENCE_S)
    assert reply.payload == b"AGAIN"


def test_daemon_killed(tmp_path: Path):
    with daemon(tmp_path) as running, sbe.connect(f"unix:{running.socket}") as link:
        with frozen(link):
            call = link.submit("echo", timeout=None)
            running.process.kill()
            with pytest.raises(sbe.LinkError) as lost:
                call.result(PATIENCE_S)
        assert isinstance(lost.value, (sbe.DaemonGone, sbe.RemoteRestarted))
        with pytest.raises(sbe.LinkError):
            link.call("echo", timeout=PATIENCE_S)
        with pytest.raises(sbe.DaemonGone, match="connect again"):
            link.call("echo", timeout=PATIENCE_S)


CLIENT = """
import sys, sbe
link = sbe.connect(sys.argv[1])
area = link.allocate(1 << 20)
calls = [link.submit("crc32", sbe.In(area), timeout=None) for _ in range(50)]
print("in flight", flush=True)
sys.stdin.read()
"""


def test_client_killed_with_calls_in_flight(tmp_path: Path):
    with (
        daemon(tmp_path) as running,
        sbe.connect(f"unix:{running.socket}") as bystander,
    ):
        check_works(bystander)
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT, f"unix:{running.socket}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert client.stdout is not None
        assert client.stdout.readline() == b"in flight\n"
        assert len(bystander.list()["contexts"]) == 2
        client.kill()
        client.communicate()
        wait_until_alone(running, bystander)
        check_works(bystander)


def wait_until_alone(running: Daemon, bystander: sbe.Connection) -> None:
    """The daemon lets go of the dead client once the remote has; each List is a round to it."""
    for _ in range(10_000):
        found = bystander.list()
        if len(found["contexts"]) == 1:
            assert found["areas"] == []
            assert bystander.stat()["users"][0]["used"]["bytes"] == 0 or found["areas"] == []
            return
    pytest.fail("the dead client's context is still there")


# -- around it -------------------------------------------------------------------------------------


def test_configuration_with_an_unknown_key(tmp_path: Path):
    config = tmp_path / "daemon.toml"
    config.write_text("[daemon]\nsokcet = '/run/x'\n")
    done = subprocess.run(
        [sys.executable, "-m", "sbe.daemon", "--config", str(config), "--check-config"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode != 0
    assert str(config) in done.stderr
    assert "daemon.sokcet" in done.stderr
    assert "socket" in done.stderr
    assert "Traceback" not in done.stderr


NOBODY = """
import grp, os, sys, sbe, sbe.sdk.daemon_client
sbe.connect("loopback:").close()  # imports what it needs while this user may still read it
os.setgid(65534); os.setuid(65534)
try:
    sbe.connect(sys.argv[1])
except sbe.PermissionDenied as error:
    print(error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody without permission")
def test_socket_without_permission(tmp_path: Path):
    with daemon(tmp_path) as running:
        running.socket.chmod(0o600)
        for place in [running.socket.parent, *running.socket.parents]:
            if place == Path("/tmp"):
                break
            place.chmod(place.stat().st_mode | 0o011)
        done = subprocess.run(
            [sys.executable, "-c", NOBODY, f"unix:{running.socket}"],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
    assert "no permission on the daemon's socket" in done.stdout, done.stderr
    assert "group" in done.stdout


def test_no_daemon(tmp_path: Path):
    with pytest.raises(sbe.LinkError, match="does not exist"):
        sbe.connect(f"unix:{tmp_path / 'none'}")
    stale = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(stale))
    with pytest.raises(sbe.LinkError, match="no daemon answers"):
        sbe.connect(f"unix:{stale}")


def test_no_compiler(tmp_path: Path):
    done = subprocess.run(
        ["sh", str(ROOT / "tests/tools/preflight.sh"), sys.executable],
        env={**os.environ, "CC": str(tmp_path / "no-such-compiler")},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode != 0
    assert "sudo apt install gcc" in done.stderr
    assert done.stderr.count("\n") == 1
