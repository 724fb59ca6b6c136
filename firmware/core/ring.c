/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Comments with "step:" name what tests/model/doorbell.pml proves of the doorbells under the same
 * name; they stand where the model's step is done, here and in whoever uses the rings.
 */
#include "core/ring.h"

#include "core/status.h"

static bool power_of_two(uint32_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

bool sbe_ring_line_is_legal(uint32_t line)
{
    return power_of_two(line) && line >= 16 && line <= SBE_LINE_MAX;
}

int64_t sbe_ring_size(const struct sbe_ring_geometry *geometry)
{
    if (!power_of_two(geometry->slots) || geometry->slots < 2 || geometry->slots > SBE_SLOTS_MAX)
        return SBE_EINVAL;
    if (geometry->slot_size == 0 || geometry->slot_size % SBE_SLOT_ALIGN != 0 ||
        geometry->slot_size > SBE_SLOT_SIZE_MAX)
        return SBE_EINVAL;
    if (!sbe_ring_line_is_legal(geometry->line))
        return SBE_EINVAL;
    /* at most 2^32 + 2^11: no overflow */
    return (int64_t)2 * geometry->line + (int64_t)geometry->slots * geometry->slot_size;
}

int sbe_ring_attach(struct sbe_ring *ring, void *memory, const struct sbe_ring_geometry *geometry)
{
    if (sbe_ring_size(geometry) < 0 || ((uintptr_t)memory & (geometry->line - 1)) != 0)
        return SBE_EINVAL;
    uint8_t *base = memory;
    ring->producer = (struct sbe_ring_producer *)(void *)base;
    ring->consumer = (struct sbe_ring_consumer *)(void *)(base + geometry->line);
    ring->slots = base + 2 * geometry->line;
    ring->mask = geometry->slots - 1;
    ring->slot_size = geometry->slot_size;
    ring->broken = false;
    /*
     * The tail is where an untouched ring starts for either end; it is the opener's word before
     * the channel exists, so it needs no check: a wrong value only shuts this ring.
     */
    uint32_t start = sbe_load_acquire(&ring->consumer->tail); /* step: attach */
    ring->mine = ring->published = ring->theirs = start;
    return SBE_OK;
}

void sbe_ring_clear(void *memory, const struct sbe_ring_geometry *geometry, uint32_t start)
{
    uint8_t *base = memory;
    struct sbe_ring_producer *producer = (struct sbe_ring_producer *)(void *)base;
    struct sbe_ring_consumer *consumer =
        (struct sbe_ring_consumer *)(void *)(base + geometry->line);
    /* Wake indices behind the start ask for no doorbell; both ends look before they sleep. */
    sbe_store_relaxed(&producer->space_wake, start - 1);
    sbe_store_relaxed(&consumer->data_wake, start - 1);
    sbe_store_relaxed(&producer->doorbells, 0);
    sbe_store_relaxed(&consumer->doorbells, 0);
    sbe_store_relaxed(&consumer->at_work, 0);
    sbe_store_release(&producer->head, start); /* step: clear */
    sbe_store_release(&consumer->tail, start);
}

static void *slot_at(const struct sbe_ring *ring, uint32_t index)
{
    return ring->slots + (size_t)(index & ring->mask) * ring->slot_size;
}

/* True when publishing the range [old, new) passes the index at which the peer wants a doorbell. */
static bool passes(uint32_t wake, uint32_t old_index, uint32_t new_index)
{
    return wake - old_index < new_index - old_index;
}

/* Takes the peer's index, which may only move forward, at most to `ahead` past our published one.
 */
static void refresh(struct sbe_ring *ring, const sbe_shared_u32 *index, uint32_t ahead)
{
    /* step: look-at-index. Acquire: what the peer wrote or read is done. */
    uint32_t value = sbe_load_acquire(index);
    if (value - ring->theirs > ring->published + ahead - ring->theirs)
        ring->broken = true;
    if (!ring->broken)
        ring->theirs = value;
}

uint32_t sbe_ring_free(struct sbe_ring *ring, uint32_t wanted)
{
    if (ring->mask + 1 - sbe_ring_in_flight(ring) < wanted) /* none but what was published */
        refresh(ring, &ring->consumer->tail, 0);
    return ring->broken ? 0 : ring->mask + 1 - sbe_ring_in_flight(ring);
}

int sbe_ring_reserve(struct sbe_ring *ring, void **slot)
{
    if (sbe_ring_free(ring, 1) == 0)
        return ring->broken ? SBE_EPROTO : SBE_EAGAIN;
    *slot = slot_at(ring, ring->mine);
    return SBE_OK;
}

/* Publishes our index. True: the peer's wish was passed, ring. Bells are counted for observers. */
static bool announce(struct sbe_ring *ring, sbe_shared_u32 *index, const sbe_shared_u32 *wish,
                     sbe_shared_u32 *bells)
{
    uint32_t before = ring->published;
    if (before == ring->mine)
        return false;
    ring->published = ring->mine;
    /* step: order-contents, publish-index. Release: what we wrote or read comes first. */
    sbe_store_release(index, ring->mine);
    /* step: publish-fence. Our index is out before we read whether the peer sleeps. */
    sbe_full_barrier();
    if (!passes(sbe_load_relaxed(wish), before, ring->mine)) /* step: look-at-wish */
        return false;
    sbe_store_relaxed(bells, sbe_load_relaxed(bells) + 1);
    return true;
}

bool sbe_ring_publish(struct sbe_ring *ring)
{
    return announce(ring, &ring->producer->head, &ring->consumer->data_wake,
                    &ring->producer->doorbells);
}

bool sbe_ring_wait_space(struct sbe_ring *ring, uint32_t wanted)
{
    /*
     * step: arm-space. The last of the returns that make enough: an earlier one would wake us for
     * too little.
     */
    sbe_store_relaxed(&ring->producer->space_wake, ring->mine + wanted - ring->mask - 2);
    sbe_full_barrier(); /* step: arm-space-fence. Our wish is out before we look again. */
    return sbe_ring_free(ring, wanted) < wanted && !ring->broken; /* step: look-at-space */
}

int sbe_ring_peek(struct sbe_ring *ring, const void **slot)
{
    if (ring->mine == ring->theirs) { /* none known: at most as many as slots were returned */
        refresh(ring, &ring->producer->head, ring->mask + 1);
        if (ring->mine == ring->theirs)
            return ring->broken ? SBE_EPROTO : 0;
    }
    *slot = slot_at(ring, ring->mine);
    return 1;
}

bool sbe_ring_return(struct sbe_ring *ring)
{
    return announce(ring, &ring->consumer->tail, &ring->producer->space_wake,
                    &ring->consumer->doorbells);
}

bool sbe_ring_wait_data(struct sbe_ring *ring)
{
    sbe_store_relaxed(&ring->consumer->data_wake, ring->mine); /* step: arm-data */
    sbe_full_barrier(); /* step: arm-data-fence. Our wish is out before we look again. */
    const void *slot;
    return sbe_ring_peek(ring, &slot) == 0; /* step: look-at-data */
}
