"""Fixups: what is written, where, and what is refused."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbe.errors import BadArgument, OutOfRange
from sbe.link.fixups import Field, Fixup, Run, check, cut, fields, patch, read_field, write_field
from tests.unit.model_settings import SETTINGS

ORDERS = st.sampled_from(["little", "big", "hex", "HEX"])
WIDTHS = st.sampled_from([16, 32, 64])
FIELDS = st.builds(Field, st.integers(-4, 70), WIDTHS, ORDERS)


@SETTINGS
@given(st.integers(1, 64), FIELDS, st.integers(-1, 1 << 65))
def test_number_is_written_whole_or_refused(size: int, field: Field, number: int):
    template = bytes(size)
    fixup = Fixup("address", field.position, field.width, field.order)
    try:
        check(size, [fixup], 1)
    except OutOfRange:
        assert field.position < 0 or field.position + field.size > size
        return
    if not 0 <= number < 1 << field.width:
        with pytest.raises(BadArgument, match="does not fit"):
            patch(template, [fixup], [[(number, 1)]])
        return
    message = patch(template, [fixup], [[(number, 1)]])
    assert read_field(bytes(message), field) == number
    assert len(message) == size
    end = field.position + field.size
    assert not any(message[: field.position] + message[end:]), "others stay"


@SETTINGS
@given(st.integers(1, 64), st.lists(FIELDS, max_size=6))
def test_overlaps_are_refused(size: int, places: list[Field]):
    """Accepted ones write what they say, all of them at once."""
    fixups = [Fixup("address", each.position, each.width, each.order) for each in places]
    taken = [{*range(each.position, each.position + each.size)} for each in places]
    inside = all(place <= {*range(size)} for place in taken)
    apart = sum(map(len, taken)) == len(set().union(*taken))
    if inside and apart:
        check(size, fixups, 1)
        message = patch(bytes(size), fixups, [[(0x1234, 1)]])
        assert all(read_field(bytes(message), each) == 0x1234 for each in places)
    else:
        with pytest.raises(BadArgument):
            check(size, fixups, 1)


RUNS = st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(1, 300)), min_size=1, max_size=8)


@SETTINGS
@given(RUNS, st.integers(0, 2400), st.integers(1, 2400))
def test_ranges_of_scattered_memory(segments: list[Run], offset: int, size: int):
    """Every byte is where it is, and neighbours are one run."""
    every = [address + i for address, length in segments for i in range(length)]
    if offset + size > len(every):
        with pytest.raises(OutOfRange):
            cut(segments, offset, size)
        return
    runs = cut(segments, offset, size)
    assert [a + i for a, n in runs for i in range(n)] == every[offset : offset + size]
    assert all(sum(one) != other[0] for one, other in pairwise(runs))


@SETTINGS
@given(RUNS, st.integers(1, 8), WIDTHS)
def test_list_of_segments(runs: list[Run], entries: int, width: int):
    fixup = Fixup("segments", 4, width, entries=entries)
    count = Fixup("count", 0, 32)
    size = 4 + 2 * entries * width // 8
    check(size, [count, fixup], 1)
    with pytest.raises(BadArgument):
        check(size - 1, [count, fixup], 1)
    fits = all(address >> width == 0 for address, _ in runs)
    if len(runs) > entries or not fits:
        with pytest.raises(BadArgument):
            patch(bytes(size), [count, fixup], [runs])
        return
    message = bytes(patch(bytes(size), [count, fixup], [runs]))
    assert int.from_bytes(message[:4], "little") == len(runs)
    numbers = [read_field(message, field) for field in fields(fixup)]
    listed = [number for run in runs for number in run]
    assert numbers == listed + [0] * (2 * entries - len(listed))


def test_what_of_a_buffer():
    def written(what: str, shift: int = 0, order: str = "little") -> bytes:
        return bytes(patch(bytes(4), [Fixup(what, 0, 32, order, shift=shift)], [[(0x5000, 0x20)]]))

    assert written("address") == struct.pack("<I", 0x5000)
    assert written("address", order="big") == struct.pack(">I", 0x5000)
    assert written("address", shift=1) == struct.pack("<I", 0x2800), "in words of 16 bits"
    assert written("address", shift=12) == struct.pack("<I", 5), "a page"
    assert written("end") == struct.pack("<I", 0x5020)
    assert written("size") == struct.pack("<I", 0x20)
    assert written("size", shift=2) == struct.pack("<I", 8)
    with pytest.raises(BadArgument, match="no multiple of 4096"):
        written("end", shift=12)
    with pytest.raises(BadArgument, match="no multiple of 65536"):
        written("address", shift=16)


def test_text():
    template = b"B0A........L........"
    fixups = [Fixup("address", 3, 32, "hex"), Fixup("size", 12, 32, "HEX")]
    assert patch(template, fixups, [[(0xABC0, 0xAB)]]) == b"B0A0000abc0L000000AB"
    assert read_field(b"B0L0000xyz1", Field(3, 32, "hex")) is None
    assert read_field(b"B0L 0000 +1", Field(3, 32, "hex")) is None
    assert read_field(b"B0L0000", Field(3, 32, "hex")) is None


@pytest.mark.parametrize(
    ("fixup", "words"),
    [
        (Fixup("phase", 0, 32), "none of address"),
        (Fixup("address", 0, 24), "16, 32 or 64"),
        (Fixup("address", 0, 32, "middle"), "none of little"),
        (Fixup("address", 0, 32, buffer=1), "no buffer 1 of 1"),
        (Fixup("address", 0, 32, buffer=-1), "no buffer -1"),
        (Fixup("address", 0, 32, shift=64), "shift of 64"),
        (Fixup("address", 0, 32, shift=-1), "shift of -1"),
        (Fixup("segments", 0, 32, entries=0), "0 entries"),
        (Fixup("segments", 0, 32, entries=1 << 60), "entries in a message of 16"),
        (Fixup("address", 1 << 60, 32), "leave the message of 16"),
    ],
)
def test_refusals_name_the_fixup(fixup: Fixup, words: str):
    with pytest.raises(BadArgument, match=rf"^fixup 0: .*{words}"):
        check(16, [fixup], 1)


def test_the_id_is_nobody_elses():
    with pytest.raises(BadArgument, match="the id and fixup 0 write the same bytes, from 6 on"):
        check(16, [Fixup("size", 6, 16)], 1, Field(4, 32))
    with pytest.raises(BadArgument, match="the id is 0x10000"):
        write_field(bytearray(4), Field(0, 16), 1 << 16, "the id")
