/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For cbmc: ring.c against a peer that may store anything at any time, so that every load of a
 * shared word gives any value. One operation from any state that the invariant allows ends in such
 * a state, so all that follow each other do. README.md beside has the command.
 */
#include <stdlib.h>

#include "core/atomic.h"

uint32_t nondet_word(void);
#define sbe_load_acquire(word) ((void)(word), nondet_word())
#define sbe_load_relaxed(word) ((void)(word), nondet_word())

#include "core/ring.c"

struct sbe_ring_geometry nondet_geometry(void);
struct sbe_ring nondet_ring(void);

static struct sbe_ring_geometry geometry;
static uint8_t *memory;
static size_t size;
static struct sbe_ring ring;

/* Any ring of up to eight slots of up to 64 bytes, somewhere in its life. */
static void any_ring(void)
{
    geometry = nondet_geometry();
    __CPROVER_assume(geometry.slots <= 8 && geometry.slot_size <= 64 && geometry.line <= 64);
    int64_t wanted = sbe_ring_size(&geometry);
    __CPROVER_assume(wanted >= 0);
    size = (size_t)wanted;
    memory = malloc(size);
    __CPROVER_assume(memory != NULL && ((uintptr_t)memory & (geometry.line - 1)) == 0);
    struct sbe_ring any = nondet_ring();
    __CPROVER_assert(sbe_ring_attach(&ring, memory, &geometry) == SBE_OK, "a legal one attaches");
    ring.mine = any.mine;
    ring.published = any.published;
    ring.theirs = any.theirs;
    ring.broken = nondet_word() % 2 != 0;
}

static void slot_is_inside(const void *slot)
{
    size_t at = (size_t)((const uint8_t *)slot - memory);
    __CPROVER_assert(at >= 2u * geometry.line && at + geometry.slot_size <= size, "slot inside");
    __CPROVER_assert((at - 2u * geometry.line) % geometry.slot_size == 0, "a whole slot");
}

static bool producer_is_sound(void)
{
    uint32_t used = ring.mine - ring.theirs;
    return used <= geometry.slots && ring.published - ring.theirs <= used;
}

void check_producer(void)
{
    void *slot;
    any_ring();
    __CPROVER_assume(producer_is_sound());
    uint32_t wanted = nondet_word();
    __CPROVER_assume(wanted >= 1 && wanted <= geometry.slots);
    switch (nondet_word() % 4) {
    case 0:
        if (sbe_ring_reserve(&ring, &slot) == SBE_OK) {
            slot_is_inside(slot);
            sbe_ring_commit(&ring);
        }
        break;
    case 1:
        (void)sbe_ring_publish(&ring);
        __CPROVER_assert(ring.published == ring.mine, "published");
        break;
    case 2:
        __CPROVER_assert(sbe_ring_free(&ring, wanted) <= geometry.slots, "no more than all");
        break;
    default:
        if (sbe_ring_wait_space(&ring, wanted))
            __CPROVER_assert(ring.mine - ring.theirs + wanted > geometry.slots, "may sleep");
    }
    __CPROVER_assert(producer_is_sound(), "a producer stays inside");
}

static bool consumer_is_sound(void)
{
    uint32_t known = ring.theirs - ring.published;
    return known <= geometry.slots && ring.mine - ring.published <= known;
}

void check_consumer(void)
{
    const void *slot;
    any_ring();
    __CPROVER_assume(consumer_is_sound());
    switch (nondet_word() % 3) {
    case 0:
        if (sbe_ring_peek(&ring, &slot) == 1) {
            slot_is_inside(slot);
            sbe_ring_release(&ring);
        }
        break;
    case 1:
        (void)sbe_ring_return(&ring);
        break;
    default:
        if (sbe_ring_wait_data(&ring))
            __CPROVER_assert(ring.mine == ring.theirs, "may sleep");
    }
    __CPROVER_assert(consumer_is_sound(), "a consumer stays inside");
}
