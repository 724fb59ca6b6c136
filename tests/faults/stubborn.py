"""A remote whose services hold the engine, on purpose: `spin`, `toil` and `plod` of stubborn.c."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

import sbe
from tests.caches import build
from tests.integration.varlink_client import SECONDS

__all__ = ["begin", "ends_with", "link_table", "milliseconds", "program"]


def program() -> Path:
    """The program; the test is skipped without a C compiler."""
    return build.remote_with(Path(__file__).with_suffix(".c"))


def milliseconds(number: int) -> bytes:
    """What `toil` and `plod` take."""
    return struct.pack("<I", number)


def link_table(keys: str = "") -> str:
    """A daemon's configuration of a link to it."""
    return f"""
[[link]]
name = "stubborn"
command = ["{program()}"]
{keys}
[link.restart]
initial_seconds = 0.01
max_seconds = 0.1
"""


def ends_with(kind: type[sbe.Error], call: Callable[[], object]) -> str:
    """The words of the error that a call raises."""
    with pytest.raises(kind) as raised:
        call()
    return str(raised.value)


def begin(link: sbe.Connection, service: str, payload: bytes = b"") -> sbe.Call:
    """A call whose handler runs: what waits behind it is told so. `echo` is known."""
    call = link.submit(service, payload=payload, timeout=SECONDS)
    assert isinstance(call, sbe.Call)
    while f"service {service!r}" not in ends_with(
        sbe.Timeout, lambda: link.call("echo", timeout=0.02)
    ):
        pass
    return call
