# SPDX-License-Identifier: Apache-2.0
"""Stops, crashes and any order of starts while an application works: no call is lost in silence,
nothing is left behind.
"""

import gc
import itertools
import os
import re
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from sbe import In, errors
from sbe.kernel import remoteproc, rpmsg
from sbe.remotes.rpmsg import RpmsgRemote
from sbe.sdk.area import Area
from sbe.sdk.connection import Connection
from sbe.sdk.direct import DirectBackend
from tests.rigs.kernel import parts
from tests.rigs.kernel.parts import until

pytestmark = pytest.mark.kernel

IN_FLIGHT = 40
AREA_BYTES = 1 << 18


@pytest.fixture
def core(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The process that is the core; the processor is offline."""
    parts.make_firmware(tmp_path)
    with parts.module("sbe_dmabuf"), parts.module("sbe_userproc"), parts.core_process() as process:
        yield process


def dma_bufs() -> int:
    """All there are in the kernel."""
    info = Path("/sys/kernel/debug/dma_buf/bufinfo").read_text()
    found = re.search(r"Total (\d+) objects", info)
    assert found, info
    return int(found[1])


def held(process: "subprocess.Popen[bytes]") -> dict[str, object]:
    """What both ends and the kernel hold, when nothing is going on."""
    gc.collect()  # mappings live as long as what shows them
    return {
        "descriptors": sorted(os.listdir("/proc/self/fd")),
        "the core's descriptors": len(os.listdir(f"/proc/{process.pid}/fd")),
        "the core's mappings": Path(f"/proc/{process.pid}/maps").read_text().count("userproc"),
        "dma-bufs": dma_bufs(),
        "endpoints": sorted(path.name for path in Path("/dev").glob("rpmsg*")),
        "channels": rpmsg.services(),
        "users of sbe_dmabuf": Path("/sys/module/sbe_dmabuf/refcnt").read_text(),
    }


def connect() -> Connection:
    return Connection(DirectBackend(5, RpmsgRemote(parts.NAME)))


def came_back(connection: Connection, area: Area, checksum: int) -> bool:
    """The next call after a loss finds the remote again, and the area under its id."""
    try:
        reply = connection.call("crc32", In(area), timeout=5)
    except errors.LinkError:
        return False  # not up yet: the same call again
    assert int.from_bytes(reply.payload[:4], "little") == checksum
    return True


def under_load(connection: Connection, area: Area, then: Callable[[], object]) -> int:
    """Submit calls, let something happen, and see each of them end; how many were answered."""
    calls = [connection.submit("crc32", In(area), timeout=20) for _ in range(IN_FLIGHT)]
    then()
    ends = [call.exception(10) for call in calls]
    assert all(call.done() for call in calls)
    lost = [end for end in ends if end is not None]
    assert all(isinstance(end, errors.LinkError) for end in lost), lost
    assert area.holds == 0, "nothing of a dead remote keeps the buffers"
    return len(ends) - len(lost)


def cycle(processor: remoteproc.RemoteProcessor) -> None:
    processor.stop()
    processor.start()


def work_through(processor: remoteproc.RemoteProcessor, cycles: int, crashes: int) -> None:
    """One application, which keeps its connection and its area throughout."""
    every = cycles // crashes
    with connect() as connection:
        area = connection.allocate(AREA_BYTES)
        area[:] = os.urandom(AREA_BYTES)
        checksum = zlib.crc32(area)
        identity = area.id
        for number in range(cycles):
            under_load(connection, area, lambda: cycle(processor))
            until(lambda: came_back(connection, area, checksum))
            if number % every == 0:
                under_load(connection, area, lambda: parts.crash(processor))
                until(lambda: came_back(connection, area, checksum))
            assert area.id == identity
        stat = connection.stat()["connection"]
        assert stat["losses"] == cycles + crashes
        assert stat["areas"] == 1


@pytest.mark.timeout(145)
def test_hundred_cycles_and_twenty_crashes_under_load(core: "subprocess.Popen[bytes]"):
    processor = remoteproc.find(parts.NAME)
    cycle(processor)  # the core has opened its device then
    processor.stop()
    before = held(core)
    processor.start()
    parts.wait_for_service("sbe-doorbell")
    work_through(processor, 100, 20)
    processor.stop()
    assert held(core) == before


ORDERS = list(itertools.permutations(("core", "processor", "application")))


@pytest.mark.parametrize("order", ORDERS, ids=["-".join(order) for order in ORDERS])
def test_start_order_is_free(tmp_path: Path, order: tuple[str, ...]):
    """A start waits for its core, a core for its host, and an application asks again."""
    parts.make_firmware(tmp_path)
    with parts.module("sbe_dmabuf"), parts.module("sbe_userproc", "attach_ms=10000"):
        processor = remoteproc.find(parts.NAME)
        answers: list[bytes] = []

        def run_application() -> None:
            def answered() -> bool:
                try:
                    with connect() as connection:
                        answers.append(connection.call("echo", payload=b"here").payload)
                except errors.LinkError:
                    return False
                return True

            until(answered, 20)

        with parts.Later() as later:
            for actor in order:
                if actor == "core":
                    later.enter_context(parts.core_process())
                else:
                    later.run(processor.start if actor == "processor" else run_application)
            later.join(30)
            assert answers == [b"here"]
            processor.stop()


def use_and_try(module: str) -> None:
    with connect() as connection:
        area = connection.allocate(4096)
        with pytest.raises(subprocess.CalledProcessError):
            parts.remove(module)
        assert connection.call("crc32", In(area)).payload
        assert connection.allocate(4096).size_bytes == 4096  # the module is whole


@pytest.mark.parametrize("module", ["sbe_dmabuf", "sbe_userproc"])
def test_modules_in_use_stay(core: "subprocess.Popen[bytes]", module: str):
    processor = remoteproc.find(parts.NAME)
    processor.start()
    parts.wait_for_service("sbe-doorbell")
    use_and_try(module)
    processor.stop()


def test_a_crash_without_recovery_is_silence_until_the_stop(core: "subprocess.Popen[bytes]"):
    """The kernel leaves all as it is then: what is in flight stays quarantined, not lost."""
    processor = remoteproc.find(parts.NAME)
    processor.start()
    parts.wait_for_service("sbe-doorbell")
    before = dma_bufs()
    (processor.folder / "recovery").write_text("disabled")
    lose_the_core(processor, core)
    gc.collect()
    assert (processor.state, dma_bufs()) == ("offline", before)


def lose_the_core(processor: remoteproc.RemoteProcessor, core: "subprocess.Popen[bytes]") -> None:
    with connect() as connection:
        area = connection.allocate(4096)
        connection.call("crc32", In(area))
        core.kill()
        until(lambda: processor.state == "crashed")
        with pytest.raises(errors.Timeout, match="stays quarantined"):
            connection.call("crc32", In(area), timeout=0.1)
        assert area.holds == 1
        processor.stop()
        with pytest.raises(errors.LinkError):
            connection.call("echo", timeout=1)
        assert area.holds == 0


def test_doorbells_are_not_kept(core: "subprocess.Popen[bytes]"):
    """rpmsg_char queues what nobody reads, without a bound."""
    processor = remoteproc.find(parts.NAME)
    processor.start()
    parts.wait_for_service("sbe-doorbell")
    call_often()
    processor.stop()


def call_often() -> None:
    with connect() as connection:
        for _ in range(2000):
            connection.call("echo", timeout=5)
        kept = 0
        try:
            while os.read(connection.fileno(), 8):
                kept += 1
        except BlockingIOError:
            pass
        assert kept < 200


def test_threads_under_crashes(core: "subprocess.Popen[bytes]"):
    """Callers that know nothing of each other: each call of each ends, and goes on afterwards."""
    processor = remoteproc.find(parts.NAME)
    processor.start()
    parts.wait_for_service("sbe-doorbell")
    crash_under_threads(processor)
    processor.stop()


def crash_under_threads(processor: remoteproc.RemoteProcessor) -> None:
    done = threading.Event()
    answered = [0] * 4

    def caller(number: int) -> None:
        while not done.is_set():
            try:
                connection.call("echo", payload=bytes(32), timeout=10)
                answered[number] += 1
            except errors.LinkError:
                done.wait(0.001)

    def more(then: list[int]) -> bool:
        return all(now > before for now, before in zip(answered, then, strict=True))

    with connect() as connection, parts.Later() as later:
        for number in range(len(answered)):
            later.run(partial(caller, number))
        for _ in range(5):
            until(partial(more, list(answered)), 20)
            parts.crash(processor)
        until(partial(more, list(answered)), 20)
        done.set()
        later.join(15)
