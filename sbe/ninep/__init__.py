"""Files by 9P2000.L: a folder of Linux that the co-processor reads.

wire.py         the protocol's numbers, and its fields
folder.py       a folder that nothing leads out of
attributes.py   what is said of a file
session.py      the server: a message in, its answer out
export.py       the server as a service of a connection
"""

from sbe.ninep.export import Export
from sbe.ninep.session import Quota

__all__ = ["Export", "Quota"]
