"""For tests: a remote made of Python functions, and the conformance suite of every remote."""

from __future__ import annotations

from sbe.testing.remote import Remote

__all__ = ["Remote"]
