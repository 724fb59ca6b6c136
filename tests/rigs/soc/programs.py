# SPDX-License-Identifier: Apache-2.0
"""What tests run in the guest over the link: `python3 -m tests.rigs.soc.programs NAME ...`."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import zlib
from pathlib import Path

import sbe
from sbe.testing.conformance.parts import noise
from tests.rigs.soc.inside import LINK

URI = f"carveout:{LINK}"
CALL_S = 30.0
MOST = 12 << 20  # of the 16 MiB that the two share


def check_echo(link: sbe.Connection, count: int) -> None:
    for number in range(count):
        payload = number.to_bytes(4, "little")
        assert link.call("echo", payload=payload, timeout=CALL_S).payload == payload


def check_crc32(link: sbe.Connection, size_bytes: int) -> None:
    data = noise(size_bytes).tobytes()
    with link.allocate(size_bytes) as area:
        area[:] = data
        reply = link.call("crc32", sbe.In(area), timeout=CALL_S)
    assert int.from_bytes(reply.payload, "little") == zlib.crc32(data)


def calls(echoes: str) -> None:
    """So many echoes and 4 MiB of crc32."""
    with sbe.connect(URI) as link:
        check_echo(link, int(echoes))
        check_crc32(link, 4 << 20)


def cycles(count: str) -> None:
    """Says "up" once calls work, so many times: somebody else ends the firmware each time.

    A call is answered right or raises that the remote restarted; the area keeps what it had.
    """
    data = noise(1 << 20).tobytes()
    with sbe.connect(URI) as link:
        area = link.allocate(len(data))
        area[:] = data
        answer = zlib.crc32(data).to_bytes(4, "little")
        for number in range(int(count)):
            epoch = link.epoch
            print("up", flush=True)
            deadline = time.monotonic() + CALL_S
            while link.epoch == epoch:
                assert time.monotonic() < deadline, f"cycle {number}: nobody came back"
                with contextlib.suppress(sbe.LinkError):
                    reply = link.call("crc32", sbe.In(area), timeout=CALL_S)
                    assert reply.payload == answer
            assert bytes(area) == data
            assert link.call("crc32", sbe.In(area), timeout=CALL_S).payload == answer


def busy() -> None:
    """Holds most of the window and never stops calling."""
    with sbe.connect(URI) as link:
        area = link.allocate(MOST)
        while True:
            link.call("crc32", sbe.In(area), timeout=CALL_S)
            print("up", flush=True)


def room() -> None:
    """Most of the window can be had: nothing of a former guest's is left."""
    with sbe.connect(URI) as link:
        check_crc32(link, MOST)


def refused(size_bytes: str) -> None:
    """Says why no link comes about: with all of the window, with so many bytes configured."""
    other = LINK.with_name("other.toml")
    other.write_text(f"{LINK.read_text()}size = {size_bytes}\n")
    for path in (LINK, other):
        try:
            sbe.connect(f"carveout:{path}", timeout=CALL_S).close()
        except (sbe.LinkError, sbe.BadArgument) as error:
            print(error, flush=True)


def daemon() -> None:
    """The command line over a daemon in the guest: what there is, a ping, the demo."""
    from PIL import Image  # these take seconds there, and the other programs do without

    from tests.conformance import ends

    ends.START_S = 4 * CALL_S
    picture = Path("/run/picture.png")
    Image.fromarray(noise(320 * 240).reshape(240, 320)).save(picture)
    link = LINK.read_text()
    configuration = f"[[link]]\ntransport = 'carveout'\ntrust_clients = true\n{link}"
    with ends.daemon_process(configuration) as uri:
        for words in (
            ["list"],
            ["ping", "--count", "5"],
            ["demo", str(picture), "--frames", "20", "--output", "/run/demo.png"],
        ):
            subprocess.run([sys.executable, "-m", "sbe", "--uri", uri, *words], check=True)


def main() -> None:
    name, *arguments = sys.argv[1:]
    programs = (calls, cycles, busy, room, refused, daemon)
    {each.__name__: each for each in programs}[name](*arguments)


if __name__ == "__main__":
    main()
