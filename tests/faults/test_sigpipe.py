"""SIGPIPE as the system gives it, as in a program that embeds Python: no death of ours ends it."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sbe import _native, errors
from sbe.remotes.boards import BOARDS
from sbe.remotes.boards.qemu import qmp
from sbe.sdk.varlink import VarlinkClient
from sbe.testing.conformance.parts import LIMIT_S
from sbe.transports.seqpacket import SeqpacketTransport
from tests.integration.varlink_client import daemon
from tests.rigs.boards import require_board

APPLICATION = """
import os, signal, sys
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
import sbe
link = sbe.connect(sys.argv[1])
area = link.allocate(4096)
print("ready", link.list()["links"][0]["pid"], flush=True)
sys.stdin.readline()
for use in (
    lambda: link.allocate(4096),
    lambda: link.find("crc32"),
    lambda: link.call("echo", timeout=5.0),
    lambda: area.free(),
    lambda: link.close(),
):
    try:
        use()
    except sbe.Error as error:
        print(type(error).__name__, file=sys.stderr)
print("alive", flush=True)
"""


def run(uri: str, victim: int | None) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", APPLICATION, uri],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        word, pid = process.stdout.readline().split()
        assert word == "ready"
        dying = os.pidfd_open(victim or int(pid))
        signal.pidfd_send_signal(dying, signal.SIGKILL)
        assert select.select([dying], [], [], LIMIT_S)[0]
        os.close(dying)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "alive\n"
        assert process.wait(LIMIT_S) == 0


@pytest.mark.parametrize("name", ["loopback", *BOARDS])
def test_an_application_survives_its_remote(name: str) -> None:
    if name in BOARDS:
        require_board(name)
    run("loopback:" if name == "loopback" else f"qemu:{name}", None)


def test_an_application_survives_its_daemon(tmp_path: Path) -> None:
    with daemon(tmp_path) as running:
        run(f"unix:{running.socket}", running.process.pid)


# -- each that writes to a socket, whose other end is gone before --------------------------------


def varlink(path: str, server: socket.socket) -> None:
    client = VarlinkClient(path, LIMIT_S)
    server.accept()[0].close()
    with pytest.raises(errors.DaemonGone):
        client.call("List")


def monitor(path: str, server: socket.socket) -> None:
    def answer() -> None:
        sock = server.accept()[0]
        sock.sendall(b"{}\n")
        sock.shutdown(socket.SHUT_RD)  # what it is asked comes to nobody
        assert sock.recv(1) == b""
        gone.wait(LIMIT_S)
        sock.close()

    gone = threading.Event()
    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises(errors.LinkError):
        qmp(Path(path), "stop")
    gone.set()
    thread.join()


def seqpacket(path: str, server: socket.socket) -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    far.close()
    with pytest.raises(errors.LinkError):
        SeqpacketTransport(near).send(b"message")


def doorbells(path: str, server: socket.socket) -> None:
    near, far = socket.socketpair()
    bells = _native.Doorbells(near.fileno())
    bell = os.eventfd(0, os.EFD_NONBLOCK)
    bells.add(1, bell, bell)
    far.shutdown(socket.SHUT_RD)  # it may be written to no more, and has not ended
    bells.send(_native.TOKEN_CONTROL)
    assert select.select([bells.fileno()], [], [], LIMIT_S)[0]
    assert bells.closed
    bells.close()


WRITERS = (varlink, monitor, seqpacket, doorbells)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("writer", WRITERS)
def test_whatever_writes_to_a_socket(writer: Callable[[str, socket.socket], None]) -> None:
    with tempfile.TemporaryDirectory(prefix="sbe") as name, socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{name}/s")
        server.listen()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                signal.signal(signal.SIGPIPE, signal.SIG_DFL)
                writer(f"{name}/s", server)
                status = 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
