/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both ends' rings over words that a hostile peer writes, also between any two looks at them:
 * whatever it publishes, an end stays within the slots, and what was shut stays shut.
 */
#include "core/ring.h"
#include "core/status.h"
#include "input.h"
#include "race.h"

static struct input input;

static void check_slot(const struct sbe_ring *ring, const void *slot)
{
    size_t at = (size_t)((const uint8_t *)slot - ring->slots);
    HOLDS(at % ring->slot_size == 0 && at / ring->slot_size <= ring->mask);
}

static void produce(struct sbe_ring *ring)
{
    void *slot;
    bool was_broken = ring->broken;
    uint32_t slots = ring->mask + 1, wanted = 1 + pick(&input, slots < 255 ? slots : 255);
    switch (pick(&input, 4)) {
    case 0:
        HOLDS(sbe_ring_free(ring, wanted) <= slots);
        break;
    case 1: {
        int status = sbe_ring_reserve(ring, &slot);
        HOLDS(status == SBE_OK || status == SBE_EAGAIN || status == SBE_EPROTO);
        if (status == SBE_OK) {
            check_slot(ring, slot);
            sbe_ring_commit(ring);
        }
        break;
    }
    case 2:
        (void)sbe_ring_publish(ring);
        break;
    default:
        (void)sbe_ring_publish(ring);
        (void)sbe_ring_wait_space(ring, wanted);
    }
    HOLDS(sbe_ring_in_flight(ring) <= slots);
    HOLDS(!was_broken || ring->broken);
}

static void consume(struct sbe_ring *ring)
{
    const void *slot;
    bool was_broken = ring->broken;
    switch (pick(&input, 3)) {
    case 0: {
        int status = sbe_ring_peek(ring, &slot);
        HOLDS(status == 0 || status == 1 || status == SBE_EPROTO);
        if (status == 1) {
            check_slot(ring, slot);
            sbe_ring_release(ring);
        }
        break;
    }
    case 1:
        (void)sbe_ring_return(ring);
        break;
    default:
        (void)sbe_ring_wait_data(ring);
    }
    /* What is known of the producer is never more than a ring ahead. */
    HOLDS(ring->theirs - ring->mine <= ring->mask + 1);
    HOLDS(!was_broken || ring->broken);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct sbe_ring producer, consumer;
    input = (struct input){bytes, size};
    struct sbe_ring_geometry geometry = {
        .slots = number32(&input, 1u << (1 + pick(&input, 4))),
        .slot_size = number32(&input, 64u << pick(&input, 2)),
        .line = number32(&input, 16u << pick(&input, 4)),
    };
    uint32_t start = number32(&input, 0), seed = take_u16(&input), rate = 1 + pick(&input, 16);
    int64_t needed = sbe_ring_size(&geometry);
    if (needed < 0 || needed > 65536)
        return 0;
    uint8_t *memory = aligned_alloc(SBE_LINE_MAX, ((size_t)needed + 1023) & ~(size_t)1023);
    memset(memory, 0, (size_t)needed);
    sbe_ring_clear(memory, &geometry, start);
    HOLDS(sbe_ring_attach(&producer, memory, &geometry) == SBE_OK);
    HOLDS(sbe_ring_attach(&consumer, memory, &geometry) == SBE_OK);
    race_begin(memory, 2 * geometry.line, seed, rate);
    for (uint32_t steps = 0; input.left > 0 && steps < 400; steps++) {
        uint8_t choice = take_u8(&input);
        if (choice < 100)
            produce(&producer);
        else if (choice < 200)
            consume(&consumer);
        else {
            uint32_t at = (choice & 1u) * geometry.line + (choice & 4u);
            uint32_t index = number32(&input, (choice & 2u) != 0 ? producer.mine : consumer.mine);
            memcpy(memory + at, &index, sizeof index);
        }
    }
    race_end();
    free(memory);
    return 0;
}
