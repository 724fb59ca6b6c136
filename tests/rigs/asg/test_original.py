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
        client = asg.Client(place.region, size, place.ring, step=STEP, timeout=LIMIT_S)
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


@pytest.mark.parametrize(("size", "count"), [(64, 1_000_000), (4096, 100_000), (65536, 20_000)])
def test_many_packets(library: ctypes.CDLL, roles: str, size: int, count: int) -> None:
    """And what they cost, through Python at both ends: to be compared with each other."""
    ends = make(library, roles, 1 << 18)
    took_s = run(ends, [Packet("write", size)] * count + [Packet("read", 1)])
    client, _, place = ends
    rung = client.rung() if isinstance(client, original.OriginalClient) else place.rung
    print(
        f"{roles}: {size} bytes: {count / took_s:,.0f} packets/s, "
        f"{size * count / took_s / 1e9:.2f} GB/s, {count / rung:,.1f} packets a doorbell"
    )
