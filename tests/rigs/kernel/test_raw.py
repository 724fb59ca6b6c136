# SPDX-License-Identifier: Apache-2.0
"""Firmware that knows nothing of us behind a real kernel's rpmsg: tests/rigs/dumb, in C."""

import functools
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

import sbe
from sbe.cli import app, exit_codes
from sbe.kernel import remoteproc
from sbe.remotes.rpmsg import RpmsgRemote
from sbe.sdk.connection import Connection
from sbe.sdk.direct import DirectBackend
from tests.faults.attacks import application
from tests.integration.varlink_client import Refused, daemon
from tests.rigs.dumb import formats
from tests.rigs.kernel import parts

pytestmark = pytest.mark.kernel

HERE = Path(__file__).resolve().parents[1] / "dumb"


@functools.cache
def build() -> Path:
    """The firmware, once for all tests."""
    program = Path(tempfile.mkdtemp()) / "dumb-firmware"
    firmware = parts.ROOT / "firmware"
    own = [HERE / name for name in ("firmware.c", "main.c")]
    sources = [*own, firmware / "ports/userproc/core.c"]
    subprocess.run(
        [
            *(os.environ.get("CC", "cc"), "-std=c11", "-O1", "-Wall", "-Werror", "-D_GNU_SOURCE"),
            *("-I", firmware, "-isystem", parts.ROOT / "linux/kernel", "-o", program),
            *(*sources, *(firmware / "ports/virtio").glob("*.c")),
        ],
        check=True,
    )
    return program


def running(folder: Path) -> AbstractContextManager[remoteproc.RemoteProcessor]:
    return parts.running(folder, program=build(), announced="dumb-text")


@contextmanager
def linked(folder: Path, *, coherent: bool = True) -> Iterator[Connection]:
    with running(folder) as processor:
        remote = RpmsgRemote(processor.name, raw=True, coherent=coherent)
        with Connection(DirectBackend(5, remote)) as connection:
            yield connection


def test_three_formats(tmp_path: Path):
    with linked(tmp_path) as link:
        formats.exchange(link)
        assert link.services() == []
        with pytest.raises(sbe.UnknownService):
            link.call("echo")
        assert len(list(Path("/dev").glob("rpmsg[0-9]*"))) == 1, "an endpoint was left"
    assert not list(Path("/dev").glob("rpmsg[0-9]*"))


def test_answers_that_are_wrong(tmp_path: Path):
    with linked(tmp_path) as link:
        formats.misbehave(link)


def test_caches_are_maintained(tmp_path: Path):
    """By range and direction; a writable range shares no line with anything."""

    def maintain(link: Connection) -> None:
        with link.allocate(8192, heap="dma-heap:system") as area:
            formats.text(link, area)
            with link.raw("dumb-text", formats.same_number) as raw:
                for out in (sbe.Out(area[:60]), sbe.Out(area[32:96])):
                    with pytest.raises(sbe.BadArgument, match="multiples of a cache line"):
                        raw.call(formats.TEXT, formats.TEXT_FIXUPS, out)
                with pytest.raises(sbe.BadArgument, match="not coherent"):
                    raw.call(formats.TEXT, formats.TEXT_FIXUPS, sbe.Shared(area[:64]))

    with linked(tmp_path, coherent=False) as link:
        maintain(link)


def both(area: sbe.Area) -> tuple[sbe.Buffer, sbe.Buffer]:
    return sbe.In(area[:64]), sbe.Out(area[64:128])


def test_crash_ends_what_is_in_flight(tmp_path: Path):
    def lose(link: Connection, processor: remoteproc.RemoteProcessor) -> None:
        area = link.allocate(4096, heap="coherent")
        raw = link.raw("dumb-dma", formats.DMA_ID)
        calls = [
            raw.submit(formats.param(formats.LOSE), formats.DMA_FIXUPS, *both(area))
            for _ in range(3)
        ]
        with pytest.raises(sbe.Busy):
            area.free()
        parts.crash(processor, "dumb-text")
        for call in calls:
            with pytest.raises(sbe.RemoteRestarted):
                call.result(5)
        raw.close()
        parts.wait_for_service("dumb-text")
        area.free()
        formats.exchange(link)
        area = link.allocate(4096, heap="coherent")
        with link.raw("dumb-dma", formats.DMA_ID) as raw:
            call = raw.submit(formats.param(formats.LOSE), formats.DMA_FIXUPS, *both(area))
            link.restart(timeout=10)
            with pytest.raises(sbe.RemoteRestarted):
                call.result(5)
        area.free()

    with running(tmp_path) as processor:
        remote = RpmsgRemote(processor.name, raw=True)
        with Connection(DirectBackend(5, remote)) as link:
            lose(link, processor)


LINK = (
    f"[[link]]\ntransport = 'rpmsg'\nprocessor = '{parts.NAME}'\nraw = true\n"
    "[policy.default]\nraw = ['dumb-dma', 'dumb-kick', 'dumb-text']\n"
)


def test_daemon_fills_addresses_in(tmp_path: Path):
    with running(tmp_path), daemon(tmp_path, LINK) as started:
        with sbe.connect(f"unix:{started.socket}") as link:
            formats.exchange(link)
            formats.misbehave(link)
            with pytest.raises(sbe.PermissionDenied, match=r"takes raw = \['sbe-control'\]"):
                link.raw("sbe-control")
        started.wait_until_empty()


def test_commands_show_endpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def says(*arguments: str) -> str:
        assert app.run(["--uri", f"unix:{started.socket}", *arguments]) == exit_codes.OK
        return capsys.readouterr().out

    def look(link: sbe.Connection) -> None:
        area = link.allocate(4096, heap="coherent")
        with link.raw("dumb-dma", formats.DMA_ID) as raw:
            raw.call(formats.param(), formats.DMA_FIXUPS, *both(area))
            raw.submit(formats.param(formats.LOSE), formats.DMA_FIXUPS, *both(area))
            assert json.loads(says("list", "--json"))["endpoints"] == link.list()["endpoints"]
            [counted] = json.loads(says("stat", "--json"))["endpoints"]
            assert counted == {
                **{"link": link.list()["links"][0]["name"], "context": link.context, "id": 1},
                **{"name": "dumb-dma", "sent": 2, "answered": 1, "late": 0, "in_flight": 1},
                **{"unmatched": 0, "dropped": 0},
            }
            listed = says("list").split("Endpoints\n")[1].splitlines()[1]
            assert listed.split() == ["dumb-dma", str(link.context), "1", "1030", "id"]
            shown = says("stat").split("Endpoints")[1].splitlines()[2]
            assert shown.split() == ["dumb-dma", str(link.context), *"210100"]
            link.restart(timeout=10)
        area.free()

    with running(tmp_path), daemon(tmp_path, LINK) as started:
        assert "Endpoints" not in says("list") + says("stat")
        with sbe.connect(f"unix:{started.socket}") as link:
            look(link)


def test_memory_of_a_dead_client_waits_for_the_answer(tmp_path: Path):
    """The daemon keeps it, and the user pays for it, until the firmware has let go."""

    def leave(socket: Path) -> None:
        with sbe.connect(f"unix:{socket}") as link:
            area = link.allocate(4096, heap="coherent")
            raw = link.raw("dumb-dma", formats.DMA_ID)
            raw.submit(formats.param(formats.RUN_LATE), formats.DMA_FIXUPS, *both(area))

    def answer(socket: Path) -> None:
        with sbe.connect(f"unix:{socket}") as link, link.allocate(4096, heap="coherent") as area:
            assert held()["areas"] == 2
            formats.dma_once(link, area)

    with running(tmp_path), daemon(tmp_path, LINK) as started:

        def held() -> dict[str, int]:
            used: dict[str, int] = started.stat()["users"][0]["used"]
            return used

        leave(started.socket)
        parts.until(lambda: held()["contexts"] == 0)
        assert held() | {"connections": 0} == {
            "bytes": 4096,
            "areas": 1,
            "channels": 1,
            "contexts": 0,
            "in_flight": 64,
            "connections": 0,
        }
        answer(started.socket)
        parts.until(lambda: held()["areas"] == 0)
        started.wait_until_empty()


@application(4, 8, 24)
def test_hostile_client(tmp_path: Path):
    """Nothing that it says reaches another one's memory, or ends the daemon."""

    def attack(victim: sbe.Connection, socket: Path) -> None:
        theirs = victim.allocate(4096, heap="coherent")
        with started.client() as client:
            client.open()
            own = client.call("Allocate", size=4096, heap="coherent")["area"]
            match = {"how": "order", "request": None, "answer": None}
            raw = client.call("OpenRaw", endpoint="dumb-text", match=match)["raw"]
            fixup = {
                **{"kind": "address", "position": 0, "width": 32, "order": "little"},
                **{"buffer": 0, "shift": 0, "entries": 1},
            }
            buffer = {"area": own, "offset": 0, "size": 64, "direction": 1}
            good = {
                **{"raw": raw, "number": 1, "message": "AAAAAAAAAAA="},
                **{"fixups": [fixup], "buffers": [buffer]},
            }
            for change in (
                {"raw": raw + 1},
                {"raw": 1 << 70},
                {"number": -1},
                {"number": 1 << 70},
                {"message": ""},
                {"message": "%"},
                {"message": "A" * 10_000},
                {"fixups": [fixup | {"position": 1 << 70}]},
                {"fixups": [fixup | {"position": -1}]},
                {"fixups": [fixup | {"width": 1 << 70}]},
                {"fixups": [fixup | {"buffer": -1}]},
                {"fixups": [fixup | {"shift": 1 << 70}]},
                {"fixups": [fixup | {"kind": "segments", "entries": 1 << 70}]},
                {"fixups": [fixup | {"order": "x" * 1000}]},
                {"fixups": [fixup] * 100},
                {"buffers": [buffer | {"area": theirs.id}]},
                {"buffers": [buffer | {"offset": 1 << 70}]},
                {"buffers": [buffer | {"size": 1 << 70}]},
                {"buffers": [buffer | {"size": 4097}]},
                {"buffers": [buffer | {"direction": 1 << 70}]},
                {"buffers": [buffer] * 300},
            ):
                with pytest.raises(Refused):
                    client.call("SendRaw", **good | change)
            with pytest.raises(Refused, match="raw = "):
                client.call("OpenRaw", endpoint="other", match=match)
            with pytest.raises(Refused, match="no way to match"):
                client.call("OpenRaw", endpoint="dumb-dma", match=match | {"how": "x"})
            client.call("SettleRaw", raw=raw, number=1 << 70)
            client.call("SendRaw", **good)
            client.call("CloseRaw", raw=raw)
        formats.exchange(victim)
        theirs.free()

    with running(tmp_path), daemon(tmp_path, LINK) as started:
        with sbe.connect(f"unix:{started.socket}") as victim:
            attack(victim, started.socket)
        started.wait_until_empty()
