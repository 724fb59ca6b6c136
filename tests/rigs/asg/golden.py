"""Regions as the original left them, step by step.

`ASG_ORIGINAL=FOLDER python -m tests.rigs.asg.golden` records them anew;
`tests/integration/test_asg.py` holds ours against them.
"""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from sbe import asg
from tests.rigs.asg import original
from tests.rigs.asg.traffic import ClientEnd, Packet, Place, ServerEnd

FILE = Path(__file__).with_name("golden.z")
SIZE, STEP = 16384, 4096


def steps(client: ClientEnd, server: ServerEnd) -> Iterator[str]:
    """Does them one after the other, in one thread: no end ever waits. Yields each one's name."""
    parts = [Packet("write", 3000).data(number) for number in range(2)]
    for part in parts:
        client.write(part)
    client.flush()
    yield "two records"
    for part in parts:
        assert server.read_exactly(len(part)) == part
    yield "read"
    reply = Packet("read", 777).data(3)
    server.reply(reply)
    yield "reply"
    assert client.read_exactly(len(reply)) == reply
    yield "reply read"
    large = Packet("send", 4000).data(4)
    client.send(large)
    yield "through the whole buffer"
    assert server.read_exactly(len(large)) == large
    yield "and read"
    for number in range(300):
        part = Packet("write", 8).data(number)
        client.write(part)
        client.flush()
        assert server.read_exactly(8) == part
    yield "the ring has wrapped"


def record() -> None:
    """By the original's two ends."""
    with tempfile.TemporaryDirectory() as folder:
        library = original.build(Path(folder))
        place = Place(SIZE)
        server = original.OriginalServer(library, place.region, SIZE, place.bell)
        client = original.OriginalClient(library, place.region, SIZE, place.bell, STEP)
        regions = [bytes(place.region) for _ in steps(client, server)]
    FILE.write_bytes(zlib.compress(b"".join(regions), 9))
    print(f"{FILE}: {len(regions)} regions, {FILE.stat().st_size} bytes")


def recorded() -> list[bytes]:
    """One for each step."""
    regions = zlib.decompress(FILE.read_bytes())
    size = asg.STORAGE_BYTES + SIZE
    return [regions[at : at + size] for at in range(0, len(regions), size)]


if __name__ == "__main__":
    record()
