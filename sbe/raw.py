"""Messages for firmware that has never heard of this protocol: `Connection.raw()`.

    with link.raw("dma", sbe.raw.ById(position=4, width=32)) as dma:
        reply = dma.call(
            bytes(16),
            [sbe.raw.AddressOf(position=8, width=32), sbe.raw.SizeOf(position=12, width=32)],
            sbe.In(area),
        )

The application never sees an address: fixups say where in a message one goes.
"""

from __future__ import annotations

from sbe.link.fixups import Fixup
from sbe.sdk.raw import Raw, RawCall
from sbe.sdk.raw_formats import (
    AddressOf,
    ById,
    CountOf,
    EndOf,
    InOrder,
    PageOf,
    SegmentsOf,
    SizeOf,
)

__all__ = [
    "AddressOf",
    "ById",
    "CountOf",
    "EndOf",
    "Fixup",
    "InOrder",
    "PageOf",
    "Raw",
    "RawCall",
    "SegmentsOf",
    "SizeOf",
]
