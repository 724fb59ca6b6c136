# SPDX-License-Identifier: Apache-2.0
"""An end is killed with messages in flight to firmware that knows nothing of us: nothing tells it,
so what it may write stays nobody's until it has answered or was stopped.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import sbe
from sbe.kernel import remoteproc
from sbe.remotes.rpmsg import RpmsgRemote
from sbe.sdk.connection import Connection
from sbe.sdk.direct import DirectBackend
from tests.integration.varlink_client import Daemon, daemon
from tests.rigs.dumb import formats
from tests.rigs.kernel import parts
from tests.rigs.kernel.test_raw import LINK, both, build, running

pytestmark = pytest.mark.kernel

LIMIT_S = 10.0
FILLING = bytes(range(128, 256)) * 32

VICTIM = """
import sys, sbe
from tests.rigs.dumb import formats
link = sbe.connect(sys.argv[1])
area = link.allocate(4096, heap="coherent")
area[:64] = b"!" * 64
raw = link.raw("dumb-dma", formats.DMA_ID)
param = formats.param(int(sys.argv[2]))
calls = [
    raw.submit(param, formats.DMA_FIXUPS, sbe.In(area[:64]), sbe.Out(area[at : at + 64]))
    for at in (64, 128)[: int(sys.argv[3])]
]
print("in flight", flush=True)
sys.stdin.read()
"""


def kill_one(uri: str, command: int, calls: int = 1) -> None:
    """An application dies with messages in flight."""
    arguments = (uri, str(command), str(calls))
    client = subprocess.Popen(
        [sys.executable, "-c", VICTIM, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=parts.ROOT,
    )
    assert client.stdout is not None
    told = client.stdout.readline()
    client.kill()
    client.communicate()
    assert told == b"in flight\n"


def nodes() -> int:
    return len(list(Path("/dev").glob("rpmsg[0-9]*")))


def connected(started: Daemon, use: Callable[[sbe.Connection], object]) -> None:
    """Mappings end with this function."""
    with sbe.connect(f"unix:{started.socket}") as link:
        use(link)


def embedded(use: Callable[[sbe.Connection], object]) -> None:
    with Connection(DirectBackend(LIMIT_S, RpmsgRemote(parts.NAME, raw=True))) as link:
        use(link)


class Bystander:
    """Another's memory and messages while somebody dies."""

    def __init__(self, started: Daemon, link: sbe.Connection) -> None:
        self.started, self.link = started, link
        self.area = link.allocate(8192, heap="coherent")
        formats.dma(link, self.area)
        self.before = self.held()
        self.nodes = nodes()

    def held(self) -> tuple[dict[str, int], int]:
        return self.started.used(), self.started.descriptors()

    def gone_but_for(self, areas: int) -> None:
        """Of the dead client's only so many areas are left, whose bytes its user pays for."""
        parts.until(lambda: self.started.used()["contexts"] == self.before[0]["contexts"], LIMIT_S)
        used, before = self.started.used(), self.before[0]
        assert used["areas"] - before["areas"] == areas
        assert used["bytes"] - before["bytes"] == areas * 4096

    def nothing_left(self) -> None:
        parts.until(lambda: self.held() == self.before, LIMIT_S)
        assert nodes() == self.nodes
        formats.dma(self.link, self.area)
        self.area.free()


def test_a_client_dies_and_is_answered(tmp_path: Path):
    """What comes late is written to memory that nobody else was given."""

    def watch(started: Daemon, link: sbe.Connection) -> None:
        bystander = Bystander(started, link)
        kill_one(f"unix:{started.socket}", formats.RUN_LATE)
        bystander.gone_but_for(1)
        [left] = started.stat()["endpoints"]
        assert left["context"] != link.context
        assert [left[key] for key in ("name", "sent", "in_flight")] == ["dumb-dma", 1, 1]
        others = [link.allocate(4096, heap="coherent") for _ in range(8)]
        for area in others:
            area[:] = FILLING
        formats.text(link, bystander.area)  # another endpoint: it goes on, and nothing ends by it
        bystander.gone_but_for(1 + len(others))
        formats.dma_once(link, bystander.area)  # the firmware answers, and copies, only now
        for area in others:
            assert bytes(area) == FILLING
            area.free()
        bystander.nothing_left()
        assert started.stat()["endpoints"] == []

    with running(tmp_path), daemon(tmp_path, LINK) as started:
        connected(started, lambda link: watch(started, link))
        started.wait_until_empty()


def test_a_client_dies_and_is_never_answered(tmp_path: Path):
    """Only the end of the firmware ends it. Whose messages are in flight then hears so."""

    def watch(started: Daemon, link: sbe.Connection) -> None:
        bystander = Bystander(started, link)
        kill_one(f"unix:{started.socket}", formats.LOSE, 2)
        bystander.gone_but_for(1)
        for _ in range(10):
            formats.dma_once(link, bystander.area)
        bystander.gone_but_for(1)
        with link.raw("dumb-dma", formats.DMA_ID) as raw:
            lost = raw.submit(
                formats.param(formats.LOSE), formats.DMA_FIXUPS, *both(bystander.area)
            )
            link.restart(timeout=LIMIT_S)
            with pytest.raises(sbe.RemoteRestarted):
                lost.result(LIMIT_S)
        bystander.nothing_left()

    with running(tmp_path), daemon(tmp_path, LINK) as started:
        connected(started, lambda link: watch(started, link))
        started.wait_until_empty()


def test_the_daemon_is_killed(tmp_path: Path):
    """Memory stays mapped, what waits ends, and the next daemon has all that the firmware has."""

    def lose(started: Daemon, link: sbe.Connection) -> None:
        area = link.allocate(4096, heap="coherent")
        area[:4096] = FILLING
        raw = link.raw("dumb-dma", formats.DMA_ID)
        calls = [
            raw.submit(formats.param(formats.LOSE), formats.DMA_FIXUPS, *both(area))
            for _ in range(2)
        ]
        started.process.kill()
        started.process.wait()
        for call in calls:
            with pytest.raises((sbe.DaemonGone, sbe.RemoteRestarted)):
                call.result(LIMIT_S)
        for again in (
            lambda: raw.call(formats.param()),
            raw.receive,
            lambda: link.raw("dumb-text"),
        ):
            with pytest.raises((sbe.DaemonGone, sbe.RemoteRestarted)):
                again()
        assert bytes(area) == FILLING
        raw.close()

    with running(tmp_path):
        with daemon(tmp_path, LINK) as started:
            connected(started, lambda link: lose(started, link))
        with daemon(tmp_path, LINK) as started:
            connected(started, formats.exchange)
            started.wait_until_empty()
            assert nodes() == 1


def test_an_application_with_its_own_link_is_killed(tmp_path: Path):
    with running(tmp_path):
        kill_one(f"rpmsg:{parts.NAME},raw", formats.RUN_LATE)
        assert nodes() == 2
        embedded(formats.exchange)
        assert nodes() == 0


@contextmanager
def killable(folder: Path) -> Iterator[Callable[[], object]]:
    """A remote processor with the firmware; what kills its core and gives it another."""
    parts.make_firmware(folder)
    with parts.module("sbe_dmabuf"), parts.module("sbe_userproc"), ExitStack() as later:
        processor = remoteproc.find(parts.NAME)
        core = later.enter_context(parts.core_process(program=build()))
        processor.start()
        parts.wait_for_service("dumb-text")

        def kill() -> None:
            before = parts.wait_for_service("dumb-text").life
            core.kill()
            core.wait()
            later.enter_context(parts.core_process(program=build()))
            parts.until(lambda: parts.wait_for_service("dumb-text").life != before, LIMIT_S)

        try:
            yield kill
        finally:
            processor.stop()


def lose_the_remote(link: sbe.Connection, kill: Callable[[], object]) -> None:
    """All in flight ends, also what is given up; memory is at once the application's."""
    area = link.allocate(4096, heap="coherent")
    with link.raw("dumb-dma", formats.DMA_ID) as raw:
        param = formats.param(formats.LOSE)
        with pytest.raises(sbe.Timeout):
            raw.call(param, formats.DMA_FIXUPS, *both(area), timeout=0.01)
        calls = [raw.submit(param, formats.DMA_FIXUPS, *both(area)) for _ in range(3)]
        with pytest.raises(sbe.Busy):
            area.free()
        kill()
        for call in calls:
            with pytest.raises(sbe.RemoteRestarted):
                call.result(LIMIT_S)
        with pytest.raises(sbe.RemoteRestarted):
            raw.call(param)
    area.free()
    formats.exchange(link)


def test_the_remote_is_killed(tmp_path: Path):
    with killable(tmp_path) as kill:
        embedded(lambda link: lose_the_remote(link, kill))
        assert nodes() == 0


def test_the_remote_of_a_daemon_is_killed(tmp_path: Path):
    with killable(tmp_path) as kill, daemon(tmp_path, LINK) as started:
        connected(started, lambda link: lose_the_remote(link, kill))
        started.wait_until_empty()
        parts.until(lambda: nodes() == 1)
