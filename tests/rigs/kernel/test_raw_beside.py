# SPDX-License-Identifier: Apache-2.0
"""Firmware that speaks the protocol and has endpoints of its own: tests/rigs/dumb/beside.c."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import sbe
from sbe.kernel import remoteproc
from sbe.remotes.rpmsg import RpmsgRemote
from sbe.sdk.connection import Connection
from sbe.sdk.direct import DirectBackend
from sbe.testing.conformance.services import ref_crc32
from tests.caches import build
from tests.integration.varlink_client import daemon
from tests.rigs.dumb import formats
from tests.rigs.kernel import parts

pytestmark = pytest.mark.kernel

DUMB = Path(formats.__file__).parent
WRAPPED = ("bus_open", "rpmsg_announce", "rpmsg_link_receive")
LIMIT_S = 10.0


def program() -> Path:
    """sbe-remote-rpmsg, with the services of tests/caches, and the endpoints beside it."""
    firmware = build.ROOT / "firmware"
    port = firmware / "ports/userproc"
    files = [
        *(DUMB / "beside.c", DUMB / "firmware.c", build.HERE / "services.c"),
        *(firmware / "services" / f"{name}.c" for name in ("echo", "crc32")),
        *(port / f"{name}.c" for name in ("bus_virtio", "clock", "core", "main")),
        *build.sources(*(f"firmware/{name}" for name in ("core", "power", "pieces"))),
        *build.sources("firmware/ports/virtio", "firmware/ports/rpmsg"),
    ]
    defined = ('-DSBE_PROGRAM="beside"', "-DRPMSG_LINK_PIECES=1", "-DRPMSG_LINK_LINE=64u")

    def make(folder: Path) -> None:
        build.compile_all(files, folder, flags=(*build.FLAGS, *defined))
        objects = [build.object_of(file, folder) for file in files]
        wrap = [f"-Wl,--wrap={name}" for name in WRAPPED]
        build.run(build.compiler(), *wrap, *objects, "-o", folder / "remote")

    return build.once("beside", [*files, Path(__file__)], make) / "remote"


def running(folder: Path) -> AbstractContextManager[remoteproc.RemoteProcessor]:
    return parts.running(folder, program=program())


def beside(link: sbe.Connection) -> None:
    """Calls and messages of two threads at once, and memory that both reach."""
    with link.allocate(4096, heap="coherent") as area, ThreadPoolExecutor(2) as pool:

        def call() -> list[bytes]:
            return [link.call("echo", payload=bytes([i])).payload for i in range(200)]

        calling = pool.submit(call)
        exchanging = pool.submit(formats.exchange, link)
        assert calling.result() == [bytes([i]) for i in range(200)]
        exchanging.result()
        formats.text(link, area)
        assert link.call("crc32", sbe.In(area[:128])).payload == ref_crc32(b"sampled " * 16)


def embedded(
    processor: remoteproc.RemoteProcessor, use: Callable[[sbe.Connection], object]
) -> None:
    """Mappings of a connection's rings end with this function."""
    with Connection(DirectBackend(5, RpmsgRemote(processor.name))) as link:
        use(link)


def refuse(link: sbe.Connection) -> None:
    """What would talk to the protocol's own endpoints."""
    for own in ("sbe-control", "sbe-doorbell"):
        with pytest.raises(sbe.BadArgument, match="this protocol's own"):
            link.raw(own)


def test_calls_and_messages(tmp_path: Path):
    with running(tmp_path) as processor:
        embedded(processor, beside)
        embedded(processor, refuse)
        assert not list(Path("/dev").glob("rpmsg[0-9]*")), "an endpoint was left"


class Both:
    """A call and a message that the firmware keeps, which name an area together."""

    def __init__(self, link: sbe.Connection) -> None:
        self.link = link
        self.area = link.allocate(4096, heap="coherent")
        self.area[:64] = b"?" * 64
        self.raw = link.raw("dumb-dma", formats.DMA_ID)
        self.begin()

    def begin(self) -> None:
        there, back = sbe.In(self.area[:64]), sbe.Out(self.area[64:128])
        param = formats.param(formats.LOSE)
        self.message = self.raw.submit(param, formats.DMA_FIXUPS, there, back)
        call = self.link.submit("hold", sbe.Out(self.area[128:192]))
        assert isinstance(call, sbe.Call)
        self.call = call

    def has_ended(self) -> None:
        """Both, by the death; the area lives on, and the next life has both again."""
        for each in (self.message, self.call):
            with pytest.raises(sbe.RemoteRestarted):
                each.result(LIMIT_S)
        with pytest.raises(sbe.RemoteRestarted):
            self.raw.call(formats.param())
        number = self.area.id
        assert self.link.call("crc32", sbe.In(self.area[:64])).payload == ref_crc32(b"?" * 64)
        formats.dma_once(self.link, self.area)
        assert bytes(self.area[64:128]) == b"?" * 64
        assert self.area.id == number
        self.area.free()


def die(link: sbe.Connection, processor: remoteproc.RemoteProcessor) -> None:
    """Of a crash, then of a restart that this end has asked for: each begins an epoch."""
    epochs = [link._core.epoch]
    both = Both(link)
    with pytest.raises(sbe.Busy):
        both.area.free()
    parts.crash(processor, "sbe-doorbell")
    parts.wait_for_service("sbe-doorbell")
    both.has_ended()
    epochs.append(link._core.epoch)
    both = Both(link)
    link.restart(timeout=LIMIT_S)
    both.has_ended()
    epochs.append(link._core.epoch)
    assert len(set(epochs)) == 3
    assert not link._core.raws
    beside(link)


def test_a_death_ends_both(tmp_path: Path):
    with running(tmp_path) as processor:
        embedded(processor, lambda link: die(link, processor))


ENDPOINTS = ["dumb-dma", "dumb-kick", "dumb-text", "sbe-control", "sbe-doorbell"]
LINK = f"""
[[link]]
transport = "rpmsg"
processor = "{parts.NAME}"
restart = {{max_seconds = 0.2}}
[policy.default]
raw = {ENDPOINTS}
"""


def test_through_a_daemon(tmp_path: Path):
    def connected(socket: Path, use: Callable[[sbe.Connection], object]) -> None:
        with sbe.connect(f"unix:{socket}") as link:
            use(link)

    with running(tmp_path) as processor, daemon(tmp_path, LINK) as started:
        connected(started.socket, beside)
        connected(started.socket, refuse)
        connected(started.socket, lambda link: die(link, processor))
        started.wait_until_empty()
