"""Processes forked while a link is open: it stays whole for the parent, and ends when that ends."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

import sbe
from sbe.testing.conformance.parts import LIMIT_S, shown
from tests.children import in_child
from tests.conformance.ends import Connector

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

OPEN = ("socket", "anon_inode", "/memfd:sbe")


def descriptors() -> Counter[str]:
    """What is open, by kind: what a link is made of."""
    found: Counter[str] = Counter()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{fd}")
            # What maintains the caches of an area belongs to the memory, which a child keeps.
            if target.startswith(OPEN) and target != "anon_inode:[sbe-dmabuf]":
                found[target.partition(":[")[0] if "socket" in target else target] += 1
    return found


@contextlib.contextmanager
def living_child(*, unnoticed: bool) -> Iterator[None]:
    """A forked child that does nothing; `unnoticed`: made by C, so that no Python of it ran."""
    reader, writer = os.pipe()
    if unnoticed:
        library = ctypes.PyDLL(None)
        pid = library.fork()
        if pid == 0:
            library.close(writer)
            library.read(reader, ctypes.create_string_buffer(1), 1)
            library._exit(0)
    else:
        pid = os.fork()
        if pid == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
    os.close(reader)
    try:
        yield
    finally:
        os.close(writer)
        os.waitpid(pid, 0)


def works(link: sbe.Connection, area: sbe.Area) -> None:
    assert link.call("fill", sbe.Out(area), payload=b"\5", timeout=LIMIT_S).written == (area.size,)
    assert shown(area).sum() == 5 * area.size
    assert asyncio.run(link.acall("echo", payload=b"async")).payload == b"async"
    link.allocate(4096).free()
    assert link.find("echo").name == "echo"


def test_a_child_is_refused_and_disturbs_nothing(connect: Connector) -> None:
    before = descriptors()
    link = connect()
    area = link.allocate(4096)
    shown(area)[:] = 9
    works(link, area)
    call = link.submit("echo", payload=b"in flight")
    uses: list[Callable[[], object]] = [
        lambda: link.call("echo"),
        lambda: link.submit("fill", sbe.Out(area)),
        lambda: link.send("echo"),
        lambda: asyncio.run(link.acall("echo")),
        lambda: link.call("never asked for"),
        lambda: call.result(LIMIT_S),
        lambda: link.allocate(4096),
        lambda: area.free(),
        lambda: link.find("echo"),
        lambda: link.list(),
        lambda: link.serve("mine", lambda payload: payload),
    ]

    def child() -> None:
        nonlocal link, area
        assert shown(area).sum() == 5 * 4096  # memory is shared, as it was
        if not connect.here:  # its remote is in this process, too
            assert descriptors() - before == {}
        for use in uses:
            with pytest.raises(sbe.LinkError, match=r"forked this one: connect again"):
                use()
        link.close()
        uses.clear()
        connect.links.clear()
        del area, link
        gc.collect()

    assert in_child(child) == 0
    assert call.result(LIMIT_S).payload == b"in flight"
    works(link, area)


def test_a_child_forked_while_other_threads_use_the_link(connect: Connector) -> None:
    link = connect()
    link.find("echo")
    stop = threading.Event()

    def use() -> None:
        while not stop.is_set():
            link.allocate(64).free()

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()

    def child() -> None:
        with pytest.raises(sbe.LinkError, match="connect again here"):
            link.allocate(64)
        link.close()

    try:
        assert [in_child(child) for _ in range(10)] == [0] * 10
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    works(link, link.allocate(64))


def test_a_child_of_multiprocessing_connects_for_itself(connect: Connector) -> None:
    if connect.name not in ("loopback", "unix", "mps2-an521"):
        pytest.skip("one of each kind will do: the others can have one link, or the same code")
    link = connect()
    area = link.allocate(4096)

    def child() -> None:
        shown(area)[:4] = 1
        with connect.open() as own:
            assert own.call("echo", payload=b"own").payload == b"own"

    context = multiprocessing.get_context("fork")
    process = context.Process(target=child)
    process.start()
    process.join(LIMIT_S)
    assert process.exitcode == 0
    assert shown(area)[:4].sum() == 4
    works(link, area)


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("unnoticed", [False, True])
def test_close_ends_the_context_though_a_child_lives(connect: Connector, unnoticed: bool) -> None:
    link = connect()
    link.allocate(1 << 20)
    context, told = link.context, link.list()["links"][0]
    works(link, link.allocate(64))
    with living_child(unnoticed=unnoticed):
        began = time.monotonic()
        link.close()
        assert time.monotonic() - began < 5.0
        if "unix" in connect.name:
            with connect.open() as watch:
                wait_for(lambda: context not in [c["id"] for c in watch.list()["contexts"]])
        elif told["pid"] is not None:
            with pytest.raises(ProcessLookupError):
                os.kill(told["pid"], 0)
        if not connect.here:  # the next life of the same remote
            with connect.open() as again:
                works(again, again.allocate(64))


KILLED = """
import os, signal, sys, sbe
link = sbe.connect(sys.argv[1])
link.allocate(1 << 20)
reader, writer = os.pipe()
if os.fork() == 0:
    os.close(1)
    os.read(0, 1)  # until the test lets go
    os._exit(0)
print(link.context, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_context_ends_with_its_process_though_a_child_lives(connect: Connector) -> None:
    if connect.name != "unix":
        pytest.skip("who asks a daemon leaves something behind that can be seen")
    with (
        connect() as watch,
        subprocess.Popen(
            [sys.executable, "-c", KILLED, watch.uri], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process,
    ):
        assert process.stdout is not None
        context = int(process.stdout.readline())
        assert process.wait(LIMIT_S) == -signal.SIGKILL
        wait_for(lambda: context not in [each["id"] for each in watch.list()["contexts"]])


def test_descriptors_of_a_channel_in_a_child(connect: Connector) -> None:
    link = connect()
    link.find("echo")

    def child() -> None:
        assert link.fileno() == -1
        with pytest.raises(sbe.LinkError, match="connect again"):
            link._core.process_control()

    assert in_child(child) == 0
    poll = select.poll()
    poll.register(link.fileno(), select.POLLIN)
    call = link.submit("echo")
    assert call.result(LIMIT_S).payload == b""
