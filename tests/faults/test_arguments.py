"""What is given wrong is named: sbe.Error or TypeError, whatever it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import sbe
import sbe.testing

NOTHING: Any = None
HALF: Any = 1.5
WORDS: Any = "1s"
NUMBERS: Any = np

WRONG: dict[str, tuple[Callable[[Any], object], str]] = {
    "a name that is none": (lambda link: link.serve(None, len), "service: a name, not None"),
    "bytes for a name": (lambda link: link.find(b"echo"), "service: a name, not b'echo'"),
    "no text, called": (lambda link: link.call("\ud800"), "is no text"),
    "no text, served": (lambda link: link.serve("\ud800", len), "is no text"),
    "no text, found": (lambda link: link.find("\ud800"), "is no text"),
    "no text, sent": (lambda link: link.send("\ud800"), "is no text"),
    "a negative version": (lambda link: link.serve("x", len, version=-1), "version: -1 is not"),
    "a large version": (lambda link: link.serve("x", len, version=1 << 16), "version: 65536 is"),
    "a version in words": (lambda link: link.serve("x", len, version="1"), "integer"),
    "no version": (lambda link: link.serve("x", len, version=None), "integer"),
    "a large reply": (
        lambda link: link.batch("echo", np.zeros((1, 0), sbe.buffer_dtype()), reply_size=10**29),
        "a reply_size of 1000",
    ),
    "a pool of nothing": (lambda link: sbe.Pool(NOTHING), "area: what allocate"),
    "a float of a pool": (
        lambda link: sbe.Pool(link.allocate(4096)).allocate(HALF),
        "integer",
    ),
    "no services": (lambda link: sbe.testing.Remote(NOTHING), "services: functions by name"),
    "seconds of power": (lambda link: link.suspend(timeout="1s"), "a number of seconds, not '1s'"),
    "seconds of a check": (
        lambda link: sbe.testing.check_remote("loopback:", timeout=WORDS),
        "a number of seconds, not '1s'",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("kind", ["loopback"])
def test_wrong_arguments(wrong: str, kind: str) -> None:
    attempt, words = WRONG[wrong]
    with sbe.connect(f"{kind}:") as link:
        with pytest.raises((TypeError, sbe.BadArgument), match=words):
            attempt(link)
        assert link.call("echo", payload=b"on").payload == b"on"


def test_numbers_of_other_types_are_numbers() -> None:
    with sbe.connect("loopback:", timeout=NUMBERS.float32(10)) as link:
        pool = sbe.Pool(link.allocate(NUMBERS.int64(1 << 20)))
        assert len(pool.allocate(NUMBERS.prod((64, 64)))) == 4096
        assert link.call("echo", payload=b"x", timeout=10**400).payload == b"x"
