#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the firmware that remoteproc loads for a core of sbe_userproc: a resource table in ELF.

The code of such a core is a process, so the image holds no instructions: one segment with the
resource table (a carve-out for the segment itself, a trace buffer, a virtio rpmsg device).

    make_firmware.py /lib/firmware/sbe-userproc.elf
"""

import argparse
import struct
from pathlib import Path

BASE = 0x10000000  # where the segment is linked; the host places it anywhere
PAGE = 4096
TRACE_BYTES = 16 * PAGE
ANY = 0xFFFFFFFF  # FW_RSC_ADDR_ANY: the host chooses
CARVEOUT, TRACE, VDEV = 0, 2, 3
VIRTIO_ID_RPMSG = 7
FEATURE_NAME_SERVICE = 1 << 0


def resource_table(buffers: int) -> bytes:
    """struct resource_table of include/linux/remoteproc.h."""
    entries = [
        struct.pack("<IIIIII32s", CARVEOUT, BASE, ANY, PAGE + TRACE_BYTES, 0, 0, b"memory"),
        struct.pack("<IIII32s", TRACE, BASE + PAGE, TRACE_BYTES, 0, b"trace"),
        struct.pack("<IIIIIIBB2x", VDEV, VIRTIO_ID_RPMSG, ANY, FEATURE_NAME_SERVICE, 0, 0, 0, 2)
        + struct.pack("<IIIII", ANY, PAGE, buffers, 0, 0) * 2,
    ]
    offset = 16 + 4 * len(entries)
    offsets = []
    for entry in entries:
        offsets.append(offset)
        offset += len(entry)
    header = struct.pack(f"<IIII{len(entries)}I", 1, len(entries), 0, 0, *offsets)
    return header + b"".join(entries)


def elf(segment: bytes, table_size: int) -> bytes:
    """An ELF64 image with one loadable segment that begins with section .resource_table."""
    names = b"\0.resource_table\0.shstrtab\0"
    start = 64 + 56
    names_at = start + len(segment)
    sections_at = (names_at + len(names) + 7) & ~7
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = identity + struct.pack(
        "<HHIQQQIHHHHHH", 2, 0, 1, BASE, 64, sections_at, 0, 64, 56, 1, 64, 3, 2
    )
    program = struct.pack("<IIQQQQQQ", 1, 6, start, BASE, BASE, len(segment), len(segment), PAGE)

    def section(name: int, kind: int, address: int, offset: int, size: int) -> bytes:
        return struct.pack("<IIQQQQIIQQ", name, kind, 0, address, offset, size, 0, 0, 1, 0)

    sections = (
        bytes(64) + section(1, 1, BASE, start, table_size) + section(17, 3, 0, names_at, len(names))
    )
    image = header + program + segment + names
    return image + bytes(sections_at - len(image)) + sections


def main() -> None:
    """Write the file that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--buffers", type=int, default=256, help="per direction, a power of two")
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    table = resource_table(arguments.buffers)
    arguments.output.write_bytes(elf(table.ljust(PAGE, b"\0"), len(table)))


if __name__ == "__main__":
    main()
