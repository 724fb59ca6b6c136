"""`sbe serve` under applications that misbehave, signals, and others at the same window."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import sbe
from sbe.errors import LinkError, RemoteError
from tests.integration import test_serve
from tests.integration.test_serve import LIMIT_S, Served

SERVICES = (
    test_serve.SERVICES
    + """
import os, signal, sys, threading
def fork(payload):
    child = os.fork()
    if child == 0:
        if payload == b"exit":
            sys.exit(3)
        if payload == b"raise":
            raise ValueError
        return b"child"
    return b"%d" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
def shut(payload):
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            if payload.decode() in os.readlink(f"/proc/self/fd/{fd}"):
                os.close(fd)
        except OSError:
            pass
def leave(payload):
    raise SystemExit
kept = []
def keep(payload, data):
    kept.append(data)
def nonsense(payload):
    return [1, "text", object(), {}, -1, payload * 10000][int(payload)]
def listen():
    for line in sys.stdin:  # the thread that waits for hosts is not disturbed
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
threading.Thread(target=listen, daemon=True).start()
SERVICES = {
    each.__name__: each for each in (double, invert, wait, fork, shut, leave, keep, nonsense)
}
"""
)


@pytest.fixture(params=["socket", "carveout"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path, request.param, SERVICES, stdin=subprocess.PIPE)
    with contextlib.closing(made) as running:
        yield running
        assert running.process.stdin is not None
        running.process.stdin.close()


# -- applications ----------------------------------------------------------------------------------


def test_a_process_that_a_handler_forks_ends_with_it(served: Served) -> None:
    with sbe.connect(served.uri) as link:
        for how, status in ((b"return", b"0"), (b"exit", b"3"), (b"raise", b"1")):
            assert link.call("fork", payload=how).payload == status
        assert link.call("double", payload=b"ab").payload == b"abab"


def test_handlers_that_answer_nonsense(served: Served) -> None:
    with sbe.connect(served.uri) as link:
        for which in range(6):
            with pytest.raises(RemoteError):
                link.call("nonsense", payload=b"%d" % which)
        with pytest.raises(RemoteError):
            link.call("leave")
        assert link.call("double", payload=b"ab").payload == b"abab"


def test_a_buffer_that_a_handler_keeps(served: Served) -> None:
    for _ in range(3):
        with sbe.connect(served.uri) as link:
            area = link.allocate(4096)
            link.call("keep", sbe.InOut(area))
            area.free()
            assert link.call("double", payload=b"ab").payload == b"abab"


@pytest.mark.parametrize("what", ["eventfd", "socket", "eventpoll"])
def test_a_handler_that_closes_descriptors(served: Served, what: str) -> None:
    """The process ends in words, or serves the next host; it does not spin."""
    with contextlib.suppress(LinkError, sbe.Timeout), sbe.connect(served.uri, timeout=2.0) as link:
        link.call("shut", payload=what.encode(), timeout=2.0)
    before = cpu_s(served.process)
    with contextlib.suppress(subprocess.TimeoutExpired):
        served.process.wait(1.0)
    assert cpu_s(served.process) - before < 0.5
    served.process.send_signal(signal.SIGTERM)
    served.process.wait(LIMIT_S)


def cpu_s(process: subprocess.Popen[str]) -> float:
    if process.poll() is not None:
        return 0.0
    return sum(map(int, Path(f"/proc/{process.pid}/stat").read_text().split()[13:15])) / 100


# -- signals and streams ---------------------------------------------------------------------------


def test_a_signal_at_another_thread(served: Served) -> None:
    assert served.process.stdin is not None
    served.process.stdin.write("now\n")
    served.process.stdin.flush()
    assert served.process.wait(LIMIT_S) == 0
    assert not (served.folder / "bell").exists()


def test_it_ends_by_a_hangup_unless_ignored(served: Served) -> None:
    served.process.send_signal(signal.SIGHUP)
    assert served.process.wait(LIMIT_S) == 0
    assert not (served.folder / "bell").exists()
    served.close()
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    served.start(stdin=subprocess.PIPE, **ignoring)
    served.process.send_signal(signal.SIGHUP)
    test_serve.works(served.uri)


def test_nobody_reads_what_it_says(served: Served) -> None:
    assert served.process.stdout is not None
    served.process.stdout.close()
    for _ in range(2):
        test_serve.works(served.uri)
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(LIMIT_S) == 0
