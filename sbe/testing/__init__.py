"""For tests: a remote made of Python functions, and a check of any remote.

    with sbe.testing.Remote({"double": double}) as remote, remote.link() as link:
        assert link.call("double", payload=b"ab").payload == b"abab"

    sbe.testing.check_remote("carveout:board.toml")  # the conformance suite, on your firmware

`Remote` needs nothing beyond `import sbe`; the check needs pytest and numpy (the extra `check`).
"""

from __future__ import annotations

from sbe.testing.check import Finding, Verdict, check_remote
from sbe.testing.remote import Remote

__all__ = ["Finding", "Remote", "Verdict", "check_remote"]
