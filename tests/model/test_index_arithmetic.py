# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of indices, offsets and sizes, proven for all values of its 32 or 64 bits.

A proof takes its expressions out of the C files: one that is not there any more fails until the
new one is proven. Each proof must refute wrong forms of the same expressions. The forms of the ring
are run through with words of 16 bits as well, by test_all_words.py.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import z3

from tests.model.expressions import fewer, term
from tests.model.proofs import (
    COUNT,
    PROOFS,
    SLOTS,
    WIDE,
    Claims,
    Cut,
    ahead,
    count,
    low,
    proof,
    rising,
    some,
    wide,
    word,
)

ROOT = Path(__file__).resolve().parents[2]

# -- ring.c ----------------------------------------------------------------------------------

RING = "firmware/core/ring.c"
PASSES = (RING, "wake - old_index < new_index - old_index")
IN_FLIGHT = ("firmware/core/ring.h", "return {ring->mine - ring->theirs};")
WAKE = (RING, "space_wake, {ring->mine + wanted - ring->mask - 2})")
MASK = (RING, "ring->mask = {geometry->slots - 1};")


@proof(
    (RING, "value != 0 && (value & (value - 1)) == 0"),
    wrong=[("value != 0 &&", ""), ("(value - 1)", "(value - 2)")],
)
def powers_of_two(text: str) -> Claims:
    value = word("value")
    is_one = z3.Or(*(value == 1 << bit for bit in range(32)))
    yield [], term(text, {"value": value}) == is_one


@proof(PASSES, wrong=[("<", "<="), ("wake - old_index", "wake"), ("new_index - ", "")])
def passing_a_wish(text: str) -> Claims:
    """Rung exactly when the wish is one of the indices that are published now."""
    old, new, wish = count("old"), count("new"), count("wish")
    names = {"wake": low(wish), "old_index": low(old), "new_index": low(new)}
    given = [*rising(old, new), z3.ULT(new - old, 1 << 32), ahead(wish, old)]
    yield given, term(text, names) == z3.ULT(wish, new)


@proof(
    (RING, "sbe_store_relaxed(&producer->space_wake, {start - 1});"),
    (RING, "sbe_store_relaxed(&consumer->data_wake, {start - 1});"),
    PASSES,
    wrong=[("start - 1", "start"), ("start - 1", "start + 1")],
)
def a_fresh_ring_asks_for_nothing(space: str, data: str, passes: str) -> Claims:
    start, new = count("start"), count("new")
    given = [*rising(start, new), z3.ULE(new - start, 65536)]
    for text in (space, data):
        wake = term(text, {"start": low(start)})
        names = {"wake": wake, "old_index": low(start), "new_index": low(new)}
        yield given, z3.Not(term(passes, names))


ACCEPT = (RING, "value - ring->theirs > ring->published + ahead - ring->theirs")
ACCEPT_WRONG = [
    (" > ", " >= "),
    ("value - ring->theirs", "value"),
    ("ring->published + ", "ring->mine + "),
    (" - ring->theirs > ", " - ring->published > "),
]


@proof(
    ACCEPT,
    (RING, "refresh(ring, &ring->consumer->tail, {0});"),
    IN_FLIGHT,
    (RING, "return ring->broken ? 0 : {ring->mask + 1 - sbe_ring_in_flight(ring)};"),
    wrong=[
        *ACCEPT_WRONG,
        ("0", "1"),
        ("mine - ring->theirs", "published - ring->theirs"),
        ("ring->mask + 1", "ring->mask"),
    ],
)
def what_a_producer_takes(text: str, more: str, in_flight: str, free: str) -> Claims:
    """A tail between the last one and our published head; then what is free is never too much."""
    theirs, published, mine, tail = map(count, ("theirs", "published", "mine", "tail"))
    slots = word("slots")
    given = [
        *rising(theirs, published, mine),
        *some(slots),
        z3.ULE(mine - theirs, fewer(slots, COUNT)),
        ahead(tail, theirs),
    ]
    names = {"value": low(tail), "theirs": low(theirs), "published": low(published)}
    names |= {"mine": low(mine), "mask": slots - 1, "ahead": term(more, {})}
    yield given, term(text, names) == z3.UGT(tail, published)
    names["theirs"] = low(tail)
    names["sbe_ring_in_flight"] = term(in_flight, names)
    left = fewer(term(free, names), COUNT)
    is_free = fewer(slots, COUNT) - (mine - tail)
    taken = [*given, z3.ULE(tail, published)]
    yield taken, z3.And(left == is_free, z3.ULE(left, fewer(slots, COUNT)))


@proof(
    ACCEPT,
    (RING, "refresh(ring, &ring->producer->head, {ring->mask + 1});"),
    wrong=[*ACCEPT_WRONG, ("ring->mask + 1", "ring->mask + 2"), ("ring->mask + 1", "ring->mask")],
)
def what_a_consumer_takes(text: str, more: str) -> Claims:
    """A head from the last one to as many slots as were returned: never one that it works on."""
    published, mine, theirs, head = map(count, ("published", "mine", "theirs", "head"))
    names = {"value": low(head), "theirs": low(theirs), "published": low(published)}
    names["mine"] = low(mine)
    for slots in SLOTS:
        last = published + slots
        given = [*rising(published, mine, theirs), z3.ULE(theirs, last), ahead(head, theirs)]
        names["ahead"] = term(more, {"mask": z3.BitVecVal(slots - 1, 32)})
        yield given, term(text, names) == z3.UGT(head, last)


@proof(
    WAKE,
    PASSES,
    wrong=[("- 2", "- 1"), ("- 2", "- 3"), ("wanted", "wanted - 1"), ("<", "<=")],
)
def a_doorbell_for_space(wake: str, passes: str) -> Claims:
    """Rung exactly when what is free becomes as much as was wanted, by whichever return."""
    before, after, mine = map(count, ("before", "after", "mine"))
    wanted = word("wanted")
    enough = fewer(wanted, COUNT)
    for slots in SLOTS:
        given = [
            *rising(before, after, mine),
            z3.ULE(mine - before, slots),
            z3.UGE(wanted, 1),
            z3.ULE(wanted, slots),
        ]
        names = {"mine": low(mine), "wanted": wanted, "mask": z3.BitVecVal(slots - 1, 32)}
        names |= {"old_index": low(before), "new_index": low(after)}
        rung = term(passes, {**names, "wake": term(wake, names)})
        crossed = z3.And(
            z3.ULT(slots - (mine - before), enough), z3.UGE(slots - (mine - after), enough)
        )
        yield given, rung == crossed


@proof(
    MASK,
    (RING, "ring->slots + {(size_t)(index & ring->mask) * ring->slot_size};"),
    (
        RING,
        "return {(int64_t)2 * geometry->line + (int64_t)geometry->slots * geometry->slot_size};",
    ),
    wrong=[
        ("slots - 1", "slots"),
        ("index & ring->mask", "index"),
        ("* ring->slot_size", "+ ring->slot_size"),
        ("(int64_t)geometry->slots", "geometry->slots"),
    ],
)
def slots_lie_inside_and_apart(mask: str, offset: str, size: str) -> Claims:
    """Numbers below that of the slots, all different; and no product of them is cut."""
    first, other = count("first"), count("other")
    slot_size, line = fewer(word("slot_size", 17), 32), fewer(word("line", 11), 32)
    for slots in SLOTS:
        geometry = {"slots": z3.BitVecVal(slots, 32), "slot_size": slot_size, "line": line}
        names = {"mask": term(mask, geometry), "slot_size": z3.BitVecVal(1, 32)}
        one, two = (term(offset, {**names, "index": low(each)}) for each in (first, other))
        near = [z3.ULT(first, other), z3.ULT(other - first, slots)]
        yield [*rising(first, other), *near], z3.And(z3.ULT(one, slots), one != two)
        names["slot_size"] = slot_size
        index = fewer(word("index", slots.bit_length() - 1), 32)
        found = term(offset, {**names, "index": index})
        yield [], wide(found) == wide(index) * wide(slot_size)
        whole = 2 * wide(line) + slots * wide(slot_size)
        given = [z3.ULE(slot_size, 65536), z3.ULE(line, 1024)]
        yield given, wide(term(size, geometry)) == whole


# -- area.c ----------------------------------------------------------------------------------


@proof(
    (
        "firmware/core/area.c",
        "if ({buffer->offset > area->size || buffer->size > area->size - buffer->offset})",
    ),
    ("firmware/core/area.c", "{(size_t)buffer->offset};"),
    wrong=[
        ("buffer->offset > area->size ||", ""),
        ("buffer->offset > area", "buffer->offset >= area"),
        (
            "buffer->size > area->size - buffer->offset",
            "buffer->offset + buffer->size > area->size",
        ),
        ("buffer->size > area", "buffer->size >= area"),
    ],
)
def a_buffer_in_its_area(refused: str, reach: str) -> Claims:
    offset, size = word("offset", 64), word("size", 64)
    for size_t in (32, 64):
        area = word("area", size_t)
        names = {"buffer.offset": offset, "buffer.size": size, "area.size": area}
        said = term(refused, names, size_t)
        yield [], said == z3.UGT(wide(offset) + wide(size), wide(area))
        yield [z3.Not(said)], wide(term(reach, names, size_t)) == wide(offset)


# -- channel.c -------------------------------------------------------------------------------

CHANNEL = "firmware/core/channel.c"
FRAME, RECORD = 40, 24  # bytes, as wire.h asserts


@proof(
    (CHANNEL, "if ({buffer_count > channel->buffers})"),
    (
        CHANNEL,
        "(uint32_t){(sizeof(struct sbe_wire_frame) +"
        " buffer_count * sizeof(struct sbe_wire_buffer))}",
    ),
    (CHANNEL, "used > size || inline_bytes > size - used"),
    (CHANNEL, "return {size - used - (uint32_t)inline_bytes};"),
    wrong=[
        ("buffer_count > channel->buffers", "buffer_count == 77"),
        ("used > size ||", ""),
        ("inline_bytes > size - used", "(uint32_t)inline_bytes > size - used"),
        ("inline_bytes > size - used", "inline_bytes + used > size"),
        ("- used -", "-"),
    ],
)
def room_in_a_frame(many: str, needed: str, full: str, left: str) -> Claims:
    """What is left is exactly what the slot has beyond the records and the inline bytes."""
    buffers, allowed, size = word("buffers"), word("allowed"), word("size")
    inline = word("inline", 64)
    for size_t in (32, 64):
        names = {
            "buffer_count": buffers,
            "channel.buffers": allowed,
            "sizeof_sbe_wire_frame": fewer(FRAME, size_t),
            "sizeof_sbe_wire_buffer": fewer(RECORD, size_t),
            "size": size,
            "inline_bytes": inline,
        }
        names["used"] = fewer(term(needed, names, size_t), 32)
        none = z3.Or(term(many, names), term(full, names))
        used = wide(FRAME) + wide(buffers) * RECORD
        fits = z3.And(z3.ULE(buffers, allowed), z3.ULE(used + wide(inline), wide(size)))
        given = [z3.ULE(allowed, 16)]
        yield given, none == z3.Not(fits)
        rest = wide(term(left, names))
        yield [*given, z3.Not(none)], rest + used + wide(inline) == wide(size)


@proof(
    (CHANNEL, "if ({size > to->left}) return false;"),
    (CHANNEL, "to->left -= {(uint32_t)size};"),
    wrong=[("size > to->left", "(uint32_t)size > to->left"), (" > ", " >= ")],
)
def bytes_put_into_a_slot(refused: str, taken: str) -> Claims:
    size, left = word("size", 64), word("left")
    names = {"size": size, "to.left": left}
    no = term(refused, names)
    yield [], no == z3.UGT(wide(size), wide(left))
    yield [z3.Not(no)], wide(left - term(taken, names)) == wide(left) - wide(size)


@proof(
    (
        CHANNEL,
        "return {frame->size >= sizeof(struct sbe_wire_frame) && frame->size <= slot_size} &&",
    ),
    (CHANNEL, "left = {frame->size - (uint32_t)sizeof(struct sbe_wire_frame)};"),
    (CHANNEL, "if ({left < sizeof(struct sbe_wire_buffer)})"),
    (CHANNEL, "left -= {(uint32_t)sizeof(struct sbe_wire_buffer)};"),
    (CHANNEL, "if ({frame->payload_size > left})"),
    (CHANNEL, "if ({buffer->size > left})"),
    (CHANNEL, "left -= {(uint32_t)buffer->size};"),
    wrong=[
        ("frame->size >= sizeof(struct sbe_wire_frame) &&", ""),
        ("frame->size <= slot_size", "frame->size <= slot_size + 1"),
        ("left < sizeof(struct sbe_wire_buffer)", "left == 0"),
        ("frame->payload_size > left", "frame->payload_size > frame->size"),
        ("buffer->size > left", "(uint32_t)buffer->size > left"),
    ],
)
def bytes_taken_from_a_slot(
    legal: str, begin: str, short: str, record: str, payload: str, more: str, taken: str
) -> Claims:
    """Each step leaves what there was less what it took, and the first is inside the slot."""
    slot, size, left = map(word, ("slot", "size", "left"))
    payload_size, carried = word("payload_size"), word("carried", 64)
    names = {"frame.size": size, "slot_size": slot, "payload_size": payload_size, "left": left}
    names |= {"sizeof_sbe_wire_frame": FRAME, "sizeof_sbe_wire_buffer": RECORD}
    names["buffer.size"] = carried
    ok = term(legal, names)
    rest = wide(term(begin, names))
    yield [ok], z3.And(rest + FRAME == wide(size), z3.ULE(rest + FRAME, wide(slot)))
    ok = z3.Not(term(short, names))
    yield [ok], wide(left - term(record, names)) + RECORD == wide(left)
    ok = z3.Not(term(payload, names))
    yield [ok], wide(left - payload_size) + wide(payload_size) == wide(left)
    ok = z3.Not(term(more, names))
    yield [ok], wide(left - term(taken, names)) + wide(carried) == wide(left)


# -- session_peer.c --------------------------------------------------------------------------

PEER = "firmware/core/session_peer.c"


@proof(
    (PEER, "last = {UINT64_MAX >> (64 - session->config->address_bits)};"),
    (PEER, "if ({segment->size - 1 >= left})"),
    (PEER, "segment_last = {segment->address + (segment->size - 1)};"),
    (PEER, "segment_last > last || segment_last < segment->address"),
    (PEER, "left -= {(size_t)segment->size};"),
    wrong=[
        ("segment->size - 1 >= left", "segment->size - 1 > left"),
        ("segment->size - 1 >= left", "segment->size > left"),
        ("segment_last > last ||", ""),
        ("segment_last > last", "segment_last >= last"),
        ("|| segment_last < segment->address", ""),
        ("(segment->size - 1)", "segment->size"),
        ("(64 -", "(63 -"),
    ],
)
def segments_of_an_area(last: str, much: str, end: str, outside: str, taken: str) -> Claims:
    """Of each segment: none is empty, wraps, leaves the address space or is too much."""
    address, size = word("address", 64), word("size", 64)
    bits = word("bits", 64)
    for size_t in (32, 64):
        left = word("left", size_t)
        names = {"segment.size": size, "segment.address": address, "left": left}
        names |= {"address_bits": bits, "UINT64_MAX": z3.BitVecVal(2**64 - 1, 64)}
        names["last"] = term(last, names)
        names["segment_last"] = term(end, names)
        refused = z3.Or(term(much, names), term(outside, names))
        whole = z3.And(
            size != 0,
            z3.ULE(wide(size), wide(left)),
            z3.ULE(wide(address) + wide(size), z3.BitVecVal(1, WIDE) << wide(bits)),
        )
        given = [z3.UGE(bits, 1), z3.ULE(bits, 64)]
        yield given, refused == z3.Not(whole)
        rest = left - term(taken, names, size_t)
        yield [*given, z3.Not(refused)], wide(rest) == wide(left) - wide(size)


@proof(
    (PEER, "count = {former + map->segment_count};"),
    (PEER, "if ({count > UINT16_MAX || count > (size_t)map->size / SBE_SEGMENT_MIN + 2})"),
    (PEER, "{(uint16_t)(area->segments + map->segment_count)};"),
    wrong=[("count > UINT16_MAX ||", ""), ("> UINT16_MAX", "> UINT32_MAX")],
)
def segments_are_counted(total: str, refused: str, noted: str) -> Claims:
    """The area's count has 16 bits; a message has no more than it holds."""
    former, more, size = word("former"), word("more"), word("size", 64)
    for size_t in (32, 64):
        names = {"former": former, "segment_count": more, "segments": former, "map.size": size}
        names |= {"UINT16_MAX": 0xFFFF, "UINT32_MAX": 0xFFFFFFFF, "SBE_SEGMENT_MIN": 4096}
        names["count"] = term(total, names)
        given = [
            z3.ULE(former, 0xFFFF),
            z3.ULE(more, 0xFFFF),
            z3.ULT(wide(size), z3.BitVecVal(1, WIDE) << size_t),
            z3.Not(term(refused, names, size_t)),
        ]
        yield given, wide(term(noted, names)) == wide(former) + wide(more)


@proof(
    (PEER, "if ({(uint64_t)size > room})"),
    (PEER, "room -= {(size_t)size};"),
    (PEER, "if ({open->send_offset > room || open->receive_offset > room})"),
    (PEER, "{(send < receive ? receive - send : send - receive) < (size_t)size})"),
    wrong=[
        ("(uint64_t)size > room", "(size_t)size > room"),
        ("(uint64_t)size > room", "(uint64_t)size > room + 1"),
        ("open->send_offset > room ||", ""),
        ("open->receive_offset > room", "open->receive_offset >= room"),
        ("< (size_t)size", "<= (size_t)size"),
        ("receive - send : send - receive", "send - receive : send - receive"),
    ],
)
def two_rings_in_an_area(much: str, size_: str, outside: str, near: str) -> Claims:
    send, receive = word("send", 64), word("receive", 64)
    size = word("size", 64)
    for size_t in (32, 64):
        area = word("area", size_t)
        names = {"size": size, "room": area, "open.send_offset": send}
        names["open.receive_offset"] = receive
        too_much = term(much, names, size_t)
        names["room"] = area - term(size_, names, size_t)
        beyond = term(outside, names, size_t)
        names |= {"send": fewer(send, size_t), "receive": fewer(receive, size_t)}
        one, two, bytes_ = wide(send), wide(receive), wide(size)
        inside = [z3.ULE(start + bytes_, wide(area)) for start in (one, two)]
        given = [z3.UGE(size, 1), z3.ULT(size, 1 << 33)]
        yield given, z3.Or(too_much, beyond) == z3.Not(z3.And(*inside))
        apart = z3.Or(z3.ULE(one + bytes_, two), z3.ULE(two + bytes_, one))
        for order in (z3.ULT(send, receive), z3.UGE(send, receive)):
            yield [*given, *inside, order], term(near, names, size_t) == z3.Not(apart)


# -- mirror.c --------------------------------------------------------------------------------

MIRROR = "firmware/mirror/mirror.c"


@proof(
    (MIRROR, "if ({tail - out->published <= out->mine - out->published})"),
    wrong=[("<=", "<"), ("tail - out->published", "tail"), ("out->mine - ", "")],
)
def what_a_mirror_is_told(text: str) -> Claims:
    """A tail from the last one to what was sent."""
    published, mine, tail = map(count, ("published", "mine", "tail"))
    names = {"tail": low(tail), "published": low(published), "mine": low(mine)}
    given = [*rising(published, mine), z3.ULE(mine - published, 65536), ahead(tail, published)]
    yield given, term(text, names) == z3.ULE(tail, mine)


@proof(
    (
        MIRROR,
        "wanted = {in->mask + 1 - (in->mine - mirror->told) + enough(mirror, all)};",
    ),
    WAKE,
    PASSES,
    wrong=[("in->mask + 1", "in->mask"), ("mirror->told", "in->theirs"), ("- 2", "- 1")],
)
def a_doorbell_for_what_is_not_told(wanted: str, wake: str, passes: str) -> Claims:
    """Rung exactly when as many are taken beyond those told as are worth a message."""
    told, before, after, mine = map(count, ("told", "before", "after", "mine"))
    enough = word("enough")
    point = told + fewer(enough, COUNT)
    wanted = wanted.replace("enough(mirror, all)", "enough")
    names = {"mine": low(mine), "told": low(told), "theirs": low(before), "enough": enough}
    names |= {"old_index": low(before), "new_index": low(after)}
    for slots in SLOTS:
        given = [
            *rising(told, before, after, mine),
            z3.ULE(mine - before, slots),
            z3.ULE(before - told, slots),
            z3.UGE(enough, 1),
            z3.ULE(enough, slots),
        ]
        names["mask"] = z3.BitVecVal(slots - 1, 32)
        names["wanted"] = term(wanted, names)
        names["wake"] = term(wake, names)
        yield given, term(passes, names) == z3.And(z3.ULT(before, point), z3.UGE(after, point))


# -- vring.c ---------------------------------------------------------------------------------

VRING = "firmware/ports/virtio/vring.c"
RINGS = [1 << bits for bits in range(16)]


@proof(
    (VRING, "buffer->id = {head & (ring->count - 1u)};"),
    (VRING, "load(ring->available + {4 + 2u * (ring->taken & (ring->count - 1u))});"),
    (VRING, "memcpy(ring->used + {4 + 8u * (ring->given & (ring->count - 1u))}, element"),
    (VRING, "return used_offset(count, align) + {6u + 8u * count};"),
    wrong=[
        ("head & (ring->count - 1u)", "head"),
        ("(ring->taken & (ring->count - 1u))", "ring->taken"),
        ("(ring->given & (ring->count - 1u))", "(ring->given & ring->count)"),
        ("4 + 8u", "8 + 8u"),
    ],
)
def entries_of_a_virtqueue(id_: str, entry: str, element: str, size: str) -> Claims:
    """The driver's head and our own 16-bit indices, wherever they stand, lead into the tables."""
    head, taken, given = (word(name, 16) for name in ("head", "taken", "given"))
    for ring in RINGS:
        names = {"head": head, "taken": taken, "given": given, "count": z3.BitVecVal(ring, 32)}
        yield [], z3.ULT(term(id_, names), ring)
        yield [], z3.ULE(term(entry, names) + 2, 4 + 2 * ring)
        yield [], z3.ULE(term(element, names) + 8, term(size, names) - 2)


@proof(
    (VRING, "before = {count * (uint32_t)sizeof(struct descriptor) + 2u * (3u + count)};"),
    (VRING, "return {(before + align - 1u) & ~(align - 1u)};"),
    wrong=[("+ align - 1u", "+ align"), ("& ~(align - 1u)", "| (align - 1u)"), ("3u +", "2u +")],
)
def where_the_used_ring_begins(before: str, aligned: str) -> Claims:
    align = word("align")
    power = z3.Or(*(align == 1 << bit for bit in range(1, 17)))
    for ring in RINGS:
        names: dict[str, Any] = {"count": z3.BitVecVal(ring, 32), "sizeof_descriptor": 16}
        names["before"] = term(before, names)
        start = term(aligned, {**names, "align": align})
        needed = 16 * ring + 6 + 2 * ring
        last = wide(needed) + wide(align)
        yield (
            [power],
            z3.And(start & (align - 1) == 0, z3.UGE(start, needed), z3.ULT(wide(start), last)),
        )


# -- the proofs, and wrong forms --------------------------------------------------------------


@cache
def code(file: str) -> str:
    return " ".join((ROOT / file).read_text().split())


CUTS = sorted({(cut.file, cut.around) for each in PROOFS.values() for cut in each.cuts})


@pytest.mark.parametrize(("file", "around"), CUTS, ids=[f"{f} {a}"[:70] for f, a in CUTS])
def test_what_is_proven_is_what_the_code_has(file: str, around: str) -> None:
    line = Cut(file, around).line
    found = code(file).count(" ".join(line.split()))
    assert found >= 1, f"{file} has no {line!r} any more: prove what is there instead"


def test_sizes_of_the_records() -> None:
    header = code("firmware/core/wire.h")
    assert f"SBE_SIZE(sbe_wire_frame, {FRAME})" in header
    assert f"SBE_SIZE(sbe_wire_buffer, {RECORD})" in header


@pytest.mark.parametrize("name", PROOFS)
def test_proof(name: str) -> None:
    each = PROOFS[name]
    assert each.refuted(*(cut.text for cut in each.cuts)) is None


WRONG = [(name, old, new) for name, each in PROOFS.items() for old, new in each.wrong]


@pytest.mark.parametrize(("name", "old", "new"), WRONG)
def test_wrong_form_is_refuted(name: str, old: str, new: str) -> None:
    each = PROOFS[name]
    texts = [cut.text for cut in each.cuts]
    changed = [text.replace(old, new, 1) for text in texts]
    assert changed != texts
    assert each.refuted(*changed) is not None
