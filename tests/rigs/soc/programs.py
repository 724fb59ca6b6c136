# SPDX-License-Identifier: Apache-2.0
"""What tests run in the guest over the link: `python3 -m tests.rigs.soc.programs NAME ...`."""

from __future__ import annotations

import sys
import zlib

import sbe
from sbe.testing.conformance.parts import noise
from tests.rigs.soc.inside import LINK

URI = f"carveout:{LINK}"
CALL_S = 30.0


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


def main() -> None:
    name, *arguments = sys.argv[1:]
    {"calls": calls}[name](*arguments)


if __name__ == "__main__":
    main()
