"""Firmware that asks Linux about power: the service ask_power of images for tests does."""

from __future__ import annotations

import errno
import os
import struct

import pytest

import sbe
from sbe import _native

pytestmark = [pytest.mark.rig, pytest.mark.timeout(120)]

SUSPEND, RESUME, FREQUENCY = (
    _native.EVENT_SUSPEND,
    _native.EVENT_RESUME,
    _native.EVENT_FREQUENCY,
)


@pytest.fixture(autouse=True)
def has_the_service(link: sbe.Connection) -> None:
    """Ours has it; other firmware may be under test."""
    if "SBE_FIRMWARE" in os.environ and all(item.name != "ask_power" for item in link.services()):
        pytest.skip("this image has no ask_power")


def ask(link: sbe.Connection, event: int, value: int = 0) -> int:
    """What the firmware hears: an errno, 0 done."""
    try:
        link.call("ask_power", payload=struct.pack("<II", event, value))
    except sbe.Error as error:
        return error.code
    return 0


def test_firmware_asks_linux(link: sbe.Connection) -> None:
    heard: list[tuple[str, int]] = []

    def decide(request: str, khz: int) -> None:
        heard.append((request, khz))
        if khz == 7:
            raise sbe.Busy("not at 7")

    assert ask(link, SUSPEND) == errno.EOPNOTSUPP  # nobody decides
    assert ask(link, _native.EVENT_CHANNEL_BROKEN, 1) == errno.EINVAL
    link.on_power(decide)
    answers = [ask(link, SUSPEND), ask(link, RESUME), ask(link, FREQUENCY, 25_000)]
    assert answers == [0, 0, 0]
    assert ask(link, FREQUENCY, 7) == errno.EBUSY
    assert heard == [("suspend", 0), ("resume", 0), ("frequency", 25_000), ("frequency", 7)]


def test_who_keeps_a_request_is_not_suspended(link: sbe.Connection) -> None:
    """The firmware keeps its caller's request while it asks, and Linux asks it meanwhile."""
    refused: list[int] = []

    def decide(request: str, khz: int) -> None:
        try:
            link.suspend()
        except sbe.Busy as error:
            refused.append(error.code)

    link.on_power(decide)
    assert ask(link, SUSPEND) == 0
    assert refused == [errno.EBUSY]
    link.suspend()
    link.resume()
