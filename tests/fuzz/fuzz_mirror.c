/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mirror between two that it does not trust: a peer that sends what it likes, and its own end,
 * which may be a process and changes the rings between any two looks at them.
 */
#include "mirror/mirror.h"

#include "core/status.h"
#include "input.h"
#include "race.h"

#define SLOTS     4u
#define SLOT_SIZE 128u
#define LINE      64u
#define RING      (2 * LINE + SLOTS * SLOT_SIZE)

static const struct sbe_ring_geometry GEOMETRY = {SLOTS, SLOT_SIZE, LINE};

static struct input input;
static struct sbe_mirror mirror;
static uint8_t *memory; /* out, then in */

static void receive(void)
{
    uint32_t usual = sizeof(struct sbe_wire_frame) + pick(&input, 80);
    uint32_t frame = (uint32_t)number(&input, (take_u8(&input) & 1u) != 0 ? usual : 0) % 600;
    uint32_t tail = number32(&input, mirror.out.published + pick(&input, SLOTS));
    uint32_t size = SBE_MIRROR_HEADER + frame, told = number32(&input, frame);
    uint8_t bytes[SBE_MIRROR_HEADER + 600];
    memcpy(bytes, &tail, sizeof tail);
    take_bytes(&input, bytes + sizeof tail, frame);
    if (frame >= sizeof told)
        memcpy(bytes + sizeof tail, &told, sizeof told);
    if (rarely(&input))
        size = pick(&input, 5);
    uint8_t *exact = malloc(size + 1u);
    memcpy(exact, bytes, size);
    (void)sbe_mirror_receive(&mirror, exact, size);
    free(exact);
}

static void send(void)
{
    uint8_t *message = malloc(SBE_MIRROR_MAX);
    bool all = (take_u8(&input) & 1u) != 0;
    race_once(mirror.out.slots, (size_t)SLOTS * SLOT_SIZE);
    uint32_t size = sbe_mirror_next(&mirror, message, all);
    race_once(NULL, 0);
    HOLDS(size <= SBE_MIRROR_HEADER + SLOT_SIZE && size != 1 && size != 2 && size != 3);
    if (size > SBE_MIRROR_HEADER) { /* says its own length, whatever the slot says by now */
        uint32_t length;
        memcpy(&length, message + SBE_MIRROR_HEADER, sizeof length);
        HOLDS(length == size - SBE_MIRROR_HEADER);
    }
    if (size != 0 && !rarely(&input))
        sbe_mirror_sent(&mirror);
    free(message);
}

/* The own end publishes a frame, returns slots, or writes any word. */
static void own_end(void)
{
    uint32_t word;
    race_pause(true);
    switch (pick(&input, 3)) {
    case 0:
        word = number32(&input, sizeof(struct sbe_wire_frame) + pick(&input, 90));
        memcpy(memory + 2 * LINE + (mirror.out.mine % SLOTS) * SLOT_SIZE, &word, sizeof word);
        word = number32(&input, mirror.out.theirs + 1);
        memcpy(memory, &word, sizeof word);
        break;
    case 1:
        word = number32(&input, mirror.in.theirs + 1);
        memcpy(memory + RING + LINE, &word, sizeof word);
        break;
    default:
        scribble(&input, memory, 2 * RING, take_u8(&input), mirror.in.published);
    }
    race_pause(false);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    input = (struct input){bytes, size};
    uint32_t seed = take_u16(&input), rate = 1 + pick(&input, 16), start = number32(&input, 0);
    memory = aligned_alloc(LINE, (size_t)2 * RING);
    memset(memory, 0, (size_t)2 * RING);
    sbe_ring_clear(memory, &GEOMETRY, start);
    sbe_ring_clear(memory + RING, &GEOMETRY, start);
    race_begin(memory, (size_t)2 * RING, seed, rate);
    HOLDS(sbe_mirror_open(&mirror, memory, memory + RING, &GEOMETRY) == SBE_OK);
    for (uint32_t steps = 0; input.left > 0 && steps < 200; steps++) {
        bool was_shut = mirror.out.broken;
        switch (pick(&input, 8)) {
        case 0:
            (void)sbe_mirror_owes(&mirror);
            break;
        case 1:
            (void)sbe_mirror_sleep(&mirror, (take_u8(&input) & 1u) != 0);
            break;
        case 2:
        case 3:
            own_end();
            break;
        case 4:
        case 5:
            send();
            break;
        default:
            receive();
        }
        HOLDS(!was_shut || mirror.out.broken);
    }
    race_end();
    free(memory);
    return 0;
}
