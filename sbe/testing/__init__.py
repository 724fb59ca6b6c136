"""For tests: a remote made of Python functions, a try of a handler, a check of any remote.

    with sbe.testing.Remote({"double": double}) as remote, remote.link() as link:
        assert link.call("double", payload=b"ab").payload == b"abab"

    assert sbe.testing.try_handler(shout, payload=b"hello").payload == b"HELLO"

    with sbe.testing.DumbFirmware({"adder": add}) as firmware, firmware.link() as link:
        link.raw("adder")  # messages of its own format, see docs/tutorials/raw.md

    sbe.testing.check_remote("carveout:board.toml")  # the conformance suite, on your firmware

The check needs pytest and numpy (the extra `check`), the others nothing beyond `import sbe`.
"""

from __future__ import annotations

from sbe.testing.check import Finding, Verdict, check_remote
from sbe.testing.dumb import DumbFirmware
from sbe.testing.handlers import try_handler
from sbe.testing.remote import Remote

__all__ = ["DumbFirmware", "Finding", "Remote", "Verdict", "check_remote", "try_handler"]
