"""The services that an end offers: names, ids, limits. SDK and daemon have the same ones."""

from __future__ import annotations

import errno

import pytest

from sbe.errors import BadArgument, OutOfResources
from sbe.link.offers import Offers


def test_found_by_name_and_by_position():
    offers = Offers()
    assert offers.add("one", 3) == 1
    assert offers.add("two", 4) == 2
    assert offers.look_up("two", 99) == (2, 4, "two")
    assert offers.look_up(None, 0) == (1, 3, "one")
    assert offers.look_up("three", 0) is None
    assert offers.look_up(None, 2) is None
    assert offers.look_up(None, -1) is None
    assert offers.all() == [(1, 3, "one"), (2, 4, "two")]
    offers.remove("one")
    assert offers.look_up("one", 0) is None
    assert offers.look_up(None, 0) == (2, 4, "two")


@pytest.mark.parametrize("name", ["", "n" * 32, "ä" * 16, "nul\0", "line\n", "\udc80"])
def test_names_that_cant_be(name: str):
    with pytest.raises(BadArgument, match="1 to 31 bytes"):
        Offers().add(name, 0)


def test_taken_and_not_there():
    offers = Offers()
    offers.add("n" * 31, 0)
    with pytest.raises(BadArgument, match="is served already") as raised:
        offers.add("n" * 31, 1)
    assert raised.value.code == errno.EEXIST
    with pytest.raises(BadArgument, match="'other' is not served") as raised:
        offers.remove("other")
    assert raised.value.code == errno.ENOENT


def test_ids_fit_and_are_used_again_last():
    offers = Offers(most=2)
    kept = offers.add("kept", 0)
    last = kept
    for _ in range(0xFFFF - 1):
        last = offers.add("other", 0)
        offers.remove("other")
    assert (kept, last) == (1, 0xFFFF)
    assert offers.add("other", 0) == 2  # neither 0 nor the one that is in use
    with pytest.raises(OutOfResources, match="2 services at most"):
        offers.add("third", 0)
