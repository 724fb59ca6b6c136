"""The bell: words for each event, bounded, for a client that reads when it likes."""

from __future__ import annotations

import socket

import pytest

from sbe.daemon.bell import Bell
from sbe.host.text import one_line


def drained(theirs: socket.socket) -> bytes:
    taken = b""
    try:
        while data := theirs.recv(1 << 16):
            taken += data
    except BlockingIOError:
        pass
    return taken


async def test_words_come_in_one_piece_and_clean() -> None:
    bell = Bell()
    with socket.socket(fileno=bell.hand_over()) as theirs:
        bell.ring("it died: \x1b[31m\0\n" + "x" * 5000)
        bell.ring()
        words, nothing, rest = drained(theirs).split(b"\0")
        assert words.startswith(b"it died: ?[31m??xx")
        assert (len(words), nothing, rest) == (500, b"", b"")
        assert bell.rung == 2
    bell.close()


async def test_who_reads_nothing_has_every_event_and_the_last_words() -> None:
    bell = Bell()
    with socket.socket(fileno=bell.hand_over()) as theirs:
        for number in range(1000):
            bell.ring(f"loss {number} " + "x" * 400)
        taken = drained(theirs)
        while taken.count(0) < 1000:
            bell._send()  # what the loop does when there is room
            taken += drained(theirs)
        *events, rest = taken.split(b"\0")
        assert (len(events), rest) == (1000, b"")
        assert events[0].startswith(b"loss 0 ")
        assert events[-1].startswith(b"loss 999 ")
        assert len(taken) < 1 << 18
    bell.close()


@pytest.mark.parametrize(
    ("text", "line"),
    [("plain", "plain"), ("a\tb\x00", "a?b?"), ("x" * 11, "xxxxxxx..."), ("é" * 10, "é" * 10)],
)
def test_one_line(text: str, line: str) -> None:
    assert one_line(text, 10) == line
