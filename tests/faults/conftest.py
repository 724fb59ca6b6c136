"""The conformance suite's links, for what goes wrong with them."""

from __future__ import annotations

from tests.conformance.conftest import _daemons, connect, link

__all__ = ["_daemons", "connect", "link"]
