"""Our ends against the original's, both ways round: `ASG_ORIGINAL=FOLDER pytest -s` on this."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path

import pytest

from sbe import asg
from tests.rigs.asg import original
from tests.rigs.asg.traffic import (
    LIMIT_S,
    ClientEnd,
    Packet,
    Place,
    ServerEnd,
    be_client,
    be_server,
    packets,
    together,
)

pytestmark = [
    pytest.mark.rig,
    # Not even SBE_RIGS=required asks for it: no package has that library.
    pytest.mark.skipif(
        not original.FOLDER, reason="no original library given: ASG_ORIGINAL=FOLDER"
    ),
]
STEP = 4096  # the original's client knows no other

Ends = tuple[ClientEnd, ServerEnd, Place]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return original.build(Path(tmp_path_factory.mktemp("asg")))


def make(library: ctypes.CDLL, roles: str, size: int) -> Ends:
    """The original resets the rings at both ends, so it comes first."""
    place = Place(size)
    client_is, server_is = roles.split("-")
    server: ServerEnd
    client: ClientEnd
    if server_is == "original":
        server = original.OriginalServer(library, place.region, size, place.bell)
    if client_is == "original":
        client = original.OriginalClient(library, place.region, size, place.bell, STEP)
    else:
        client = asg.Client(place.region, size, place.bell, step=STEP, timeout=LIMIT_S)
    if server_is == "ours":
        server = asg.Server(place.region, size, place.bell, timeout=LIMIT_S)
    return client, server, place


# Not the original with itself: it hangs now and then in what it does without a barrier.
@pytest.fixture(params=["ours-original", "original-ours", "ours-ours"])
def roles(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(ends: Ends, script: list[Packet]) -> float:
    """Seconds."""
    client, server, _ = ends
    begun = time.monotonic()
    together(lambda: be_client(client, script), lambda: be_server(server, script))
    return time.monotonic() - begun


def test_random_traffic(library: ctypes.CDLL, roles: str) -> None:
    for seed in range(20):
        run(make(library, roles, 16384), packets(1024, seed))


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 65535, 1 << 20, 64 << 20])
def test_sizes(library: ctypes.CDLL, roles: str, size: int) -> None:
    for kind in ("write", "send"):
        script = [Packet(kind, size), Packet("read", min(size, 1 << 20)), Packet(kind, size)]
        run(make(library, roles, 1 << 20), [*script, Packet("read", 1)])


def test_a_million_packets(library: ctypes.CDLL, roles: str) -> None:
    ends = make(library, roles, 1 << 16)
    script = [Packet("write", 64)] * 1_000_000 + [Packet("read", 1)]
    took_s = run(ends, script)
    print(f"{roles}: {len(script) / took_s:,.0f} packets/s")
