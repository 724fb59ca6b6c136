"""What can go to another process, and what says that it can't."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import sbe
from sbe.testing.conformance.parts import shown

LIMIT_S = 30.0


@pytest.fixture(scope="module")
def link() -> Iterator[sbe.Connection]:
    with sbe.connect("loopback:") as link:
        yield link


def pickled(protocol: int) -> Callable[[Any], Any]:
    return lambda what: pickle.loads(pickle.dumps(what, protocol))


WAYS: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {each}": pickled(each) for each in range(pickle.HIGHEST_PROTOCOL + 1)},
}

HERE: dict[str, tuple[str, Callable[[sbe.Connection], object]]] = {
    "link": ("Connection", lambda link: link),
    "area": ("Area", lambda link: link.allocate(64)),
    "slice": ("Slice", lambda link: link.allocate(64)[:8]),
    "buffer": ("In", lambda link: sbe.In(link.allocate(64))),
    "pool": ("Pool", lambda link: sbe.Pool(link.allocate(64))),
    "channel": ("Channel", lambda link: link._core.channel),
    "table": ("Table", lambda link: link._core.table),
    "call": ("Call", lambda link: link.submit("echo")),
    "staged call": ("StagedCall", lambda link: link.submit("crc32", sbe.In(bytes(20000)))),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", HERE)
def test_what_belongs_to_this_process(link: sbe.Connection, what: str, way: str) -> None:
    name, make = HERE[what]
    thing = make(link)
    with pytest.raises(
        sbe.BadArgument, match=rf"^a {name} can't be pickled .* call sbe.connect\(\) in the other"
    ):
        WAYS[way](thing)
    assert link.call("echo", payload=b"fine", timeout=LIMIT_S).payload == b"fine"


def same(reply: sbe.Reply, other: sbe.Reply) -> None:
    assert type(other) is sbe.Reply
    assert other.payload == reply.payload
    assert other.written == reply.written
    assert other.cost == reply.cost
    assert type(other.cost) is sbe.Cost
    assert repr(other) == repr(reply)


@pytest.mark.parametrize("way", WAYS)
def test_replies(link: sbe.Connection, way: str) -> None:
    area = link.allocate(4096)
    none = link.call("echo", payload=b"payload")
    one = link.call("fill", sbe.Out(area[:100]), payload=b"x")
    many = link.call(
        "fill", *(sbe.Out(area[i * 64 : (i + 1) * 64]) for i in range(6)), payload=b"y"
    )
    assert many.written == (64,) * 6
    for reply in (none, one, many):
        same(reply, WAYS[way](reply))
        assert WAYS[way](reply.cost) == reply.cost
    same(many, WAYS[way](WAYS[way](many)))


@pytest.mark.parametrize("way", WAYS)
def test_results_of_batches_services_and_errors(link: sbe.Connection, way: str) -> None:
    area = link.allocate(4096)
    shown(area)[:] = 3
    result = link.batch("crc32", area.descriptors(sbe.In, np.arange(4) * 64, 64), reply_size=4)
    again = WAYS[way](result)
    assert type(again) is sbe.BatchResult
    for mine, theirs in zip(result, again, strict=True):
        assert (mine == theirs).all()
    assert WAYS[way](link.find("echo")) == link.find("echo")
    with pytest.raises(sbe.UnknownService) as raised:
        link.find("nobody")
    error = WAYS[way](raised.value)
    assert (type(error), str(error), error.code) == (
        sbe.UnknownService,
        str(raised.value),
        raised.value.code,
    )


def test_a_reply_comes_from_another_process() -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        reply = pool.apply(ask, (b"over there",))
    assert reply.payload == b"over there"
    assert reply.cost.total_ns > 0


def ask(payload: bytes) -> sbe.Reply:
    with sbe.connect("loopback:") as link:
        return link.call("echo", payload=payload)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (1, b"", (), ()),
        (1, "text", (), (0,) * 6),
        (1 << 16, b"", (), (0,) * 6),
        (None, b"", (), (0,) * 6),
        (1, b"", (-1,), (0,) * 6),
        (1, b"", (1 << 64,), (0,) * 6),
        (1, b"", (0,) * 70000, (0,) * 6),
        (1, b"", ("x",), (0,) * 6),
    ],
)
def test_a_pickle_that_was_tampered_with(arguments: tuple[Any, ...]) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        sbe._native.restore_reply(*arguments)
