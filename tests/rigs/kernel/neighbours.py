# SPDX-License-Identifier: Apache-2.0
"""What a host does in one kernel with the services of another: calls, and lives that end."""

import random
import sys
import time
import zlib

import sbe
from tests.rigs.kernel.beside import LINK

LIMIT_S = 60.0
SERIAL = "/dev/ttyS0"


def work(link: sbe.Connection, rounds: int) -> None:
    """Payloads and buffers of any size come back right."""
    chance = random.Random(rounds)
    area = link.allocate(1 << 20)
    for number in range(rounds):
        payload = chance.randbytes(chance.randrange(500))
        assert link.call("echo", payload=payload, timeout=LIMIT_S).payload == payload
        size = chance.choice((1, 100, 4096, 65537, 1 << 20)) if number % 10 == 0 else 100
        area[:size] = data = chance.randbytes(size)
        crc = int.from_bytes(
            link.call("crc32", sbe.In(area[:size]), timeout=LIMIT_S).payload[:4], "little"
        )
        assert crc == zlib.crc32(data)
        link.call("invert", sbe.InOut(area[:size]), timeout=LIMIT_S)
        assert bytes(area[:size]) == bytes(byte ^ 255 for byte in data)
    area.free()


def main(rounds: int, lives: int) -> None:
    """Works in so many lives of the remote; says so after each."""
    with (
        open(SERIAL, "wb", buffering=0) as line,
        sbe.connect(f"carveout:{LINK}", timeout=LIMIT_S) as link,
    ):
        epochs: set[int] = set()
        deadline = time.monotonic() + LIMIT_S
        while len(epochs) < lives:
            try:
                link.call("echo", timeout=1)
                if link.epoch in epochs:
                    time.sleep(0.01)  # its end has not been seen yet
                    assert time.monotonic() < deadline
                    continue
                work(link, rounds)
            except (sbe.LinkError, sbe.Timeout) as error:
                print(error, flush=True)
                assert time.monotonic() < deadline
                continue
            epochs.add(link.epoch)
            deadline = time.monotonic() + LIMIT_S
            line.write(b"worked\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
