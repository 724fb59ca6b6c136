"""Links come and go: nothing stays behind, also without close(), and Ctrl-C gets through."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import sbe
from sbe.testing.conformance.parts import LIMIT_S, answered, shown
from tests.conformance.ends import Connector
from tests.conformance.gate import gated


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def children() -> list[int]:
    listed = Path("/proc/self/task").glob("*/children")
    return sorted(int(pid) for task in listed for pid in task.read_text().split())


def mappings() -> int:
    return sum("memfd:sbe" in line for line in Path("/proc/self/maps").read_text().splitlines())


def use(link: sbe.Connection) -> None:
    area = link.allocate(4096)
    shown(area)[:] = 1
    assert link.call("invert", sbe.InOut(area)).written == (4096,)
    link.submit("echo")


def test_connecting_and_closing_leaves_nothing(connect: Connector) -> None:
    def once() -> None:
        with connect() as link:
            use(link)
        connect.links.clear()

    for _ in range(5):
        once()
    gc.collect()
    before = descriptors(), threading.active_count(), children(), mappings()
    objects = len(gc.get_objects())
    for _ in range(300 if connect.name == "loopback" else 50):
        once()
    gc.collect()
    after = descriptors(), threading.active_count(), children(), mappings()
    if not connect.here:  # remotes are kept to the end of the test
        assert after == before
        assert len(gc.get_objects()) - objects < 500


def test_dropping_a_link_closes_it(connect: Connector) -> None:
    if connect.here:
        pytest.skip("the remote is kept by the test")
    gc.collect()
    before = descriptors(), children(), mappings()
    for _ in range(10):
        link = connect.open()
        use(link)
        watch = weakref.ref(link)
        del link
        assert watch() is None  # at once, not by the collector
    gc.collect()
    assert (descriptors(), children(), mappings()) == before


def test_dropping_a_link_after_errors_closes_it(connect: Connector) -> None:
    if connect.here:
        pytest.skip("the remote is kept by the test")
    gc.collect()
    before = descriptors(), children(), mappings()

    def fail() -> list[weakref.ref[sbe.Connection]]:
        link = connect.open()
        calls: list[Callable[[], object]] = [
            lambda: link.call("teleport"),
            lambda: link.call("fill", sbe.Out(bytearray(10))),
            lambda: link.call("fill", sbe.Out(bytearray(100_000))),
            lambda: link.call("echo", payload=bytes(10_000)),
            lambda: link.allocate(0),
        ]
        for call in calls:
            with pytest.raises(sbe.Error):
                call()
        link.close()
        with pytest.raises(sbe.LinkClosed):
            link.call("echo")
        with pytest.raises(sbe.LinkClosed):
            link.services()
        return [weakref.ref(link)]

    watch = fail()
    gc.collect()
    assert watch[0]() is None
    assert (descriptors(), children(), mappings()) == before


def test_an_area_keeps_its_memory_and_no_link(connect: Connector) -> None:
    link = connect.open()
    area = link.allocate(4096)
    pixels = shown(area)
    pixels[:] = 7
    watch = weakref.ref(link)
    del link
    assert watch() is None or connect.here
    gc.collect()
    assert (pixels == 7).all()
    area.free()
    del area
    assert pixels.sum() == 7 * 4096


def test_allocating_and_freeing_leaves_nothing(link: sbe.Connection) -> None:
    for _ in range(20):
        link.allocate(4096).free()
    before = descriptors(), mappings()
    for i in range(300):
        area = link.allocate(4096 + i)
        area[:1] = b"x"
        area.free()
    del area
    assert (descriptors(), mappings()) == before


def test_many_calls_leave_nothing(link: sbe.Connection) -> None:
    area = link.allocate(4096)

    def once() -> None:
        link.call("crc32", sbe.In(area))
        link.call("crc32", sbe.In(b"inline"))
        link.call("invert", sbe.InOut(bytearray(5000)))
        link.submit("echo").result()
        link.batch("crc32", area.descriptors(sbe.In, np.arange(10), 1)).check()
        with pytest.raises(sbe.NoRoom):
            link.call("copy", sbe.In(area), sbe.Out(bytearray(1)))

    for _ in range(20):
        once()
    gc.collect()
    before, fds = len(gc.get_objects()), descriptors()
    for _ in range(200):
        once()
    gc.collect()
    assert len(gc.get_objects()) - before < 100
    assert descriptors() == fds


PROGRAM = """
import os, signal, sys, threading, time
import numpy as np
import sbe, sbe.testing
from sbe.link.rings import Geometry

seen, never = threading.Event(), threading.Event()
def gate(payload, *buffers):
    seen.set()
    never.wait()

with_threads = sys.argv[2] == "threads"
remote = sbe.testing.Remote({"gate": gate, "echo": lambda payload, *buffers: payload})
link = remote.link(geometry=Geometry(2, 256))
area = link.allocate(64)
link.find("gate"), link.find("echo")
if with_threads:  # another thread sleeps on the doorbell, the main one behind it
    threading.Thread(target=lambda: link.call("gate", timeout=None), daemon=True).start()
    seen.wait()

def interrupt():
    seen.wait()
    time.sleep(0.05)  # so that it blocks; the signal gets through before, too
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
begun = time.monotonic()
try:
    match sys.argv[1]:
        case "call":
            link.call("gate", sbe.Out(area), timeout=None)
        case "deadline":
            link.call("gate", sbe.Out(area), timeout=60)
        case "result":
            link.submit("gate", sbe.Out(area), timeout=None).result()
        case "staged":
            link.call("gate", sbe.In(bytes(100_000)), timeout=None)
        case "batch":
            link.batch("gate", area.descriptors(sbe.Out, [0], 1), timeout=None)
        case "room":
            for _ in range(20):
                link.submit("gate", sbe.Out(area), timeout=None)
        case "control":
            link.submit("gate", sbe.Out(area), timeout=None)
            seen.wait()
            link.find("other")
except KeyboardInterrupt:
    took = time.monotonic() - begun
    print(f"interrupted {took:.1f} s, holds {area.holds > 0}", flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("threads", ["alone", "threads"])
@pytest.mark.parametrize(
    "how", ["call", "deadline", "result", "staged", "batch", "room", "control"]
)
def test_ctrl_c(how: str, threads: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, str(program), how, threads],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": "."},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert done.stdout.startswith("interrupted"), done.stderr
    assert float(done.stdout.split()[1]) < 5
    if how != "staged":
        assert "holds True" in done.stdout or (how, threads) == ("room", "threads")


def test_a_link_survives_ctrl_c() -> None:
    """In this process: the signal interrupts the call, not the link."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupt_a_call()
    finally:
        signal.signal(signal.SIGINT, usual)


def interrupt_a_call() -> None:
    with gated() as (gate, link):
        area = link.allocate(64)

        def interrupt() -> None:
            gate.wait_seen()
            # To this thread: the one that sleeps in the call is not woken by it, as if the signal
            # had come just before it fell asleep.
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            link.call("gate", sbe.Out(area), timeout=LIMIT_S)
        thread.join()
        assert area.holds == 1
        gate.open()
        answered(link)
        assert area.holds == 0
        assert link.call("echo", payload=b"on").payload == b"on"
