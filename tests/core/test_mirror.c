/* SPDX-License-Identifier: Apache-2.0 */
/* Rings without shared memory: two mirrors, the messages between them, and what breaks the rules.
 */
#include "mirror/mirror.h"

#include <stddef.h>
#include <string.h>

#include "check.h"
#include "core/status.h"

#define SLOTS     8u
#define SLOT_SIZE 128u
#define LINE      64u
#define RING      (2 * LINE + SLOTS * SLOT_SIZE)
#define FRAME     ((uint32_t)sizeof(struct sbe_wire_frame))

static const struct sbe_ring_geometry GEOMETRY = {SLOTS, SLOT_SIZE, LINE};

struct end { /* one end of a channel: its rings, itself, its mirror */
    _Alignas(LINE) uint8_t memory[2][RING];
    struct sbe_ring tx, rx;
    struct sbe_mirror mirror;
    uint32_t sent, received; /* frames, numbered from 0 */
};

static struct end ends[2];

static void open_ends(uint32_t start)
{
    memset(ends, 0, sizeof ends);
    for (int i = 0; i < 2; i++) {
        struct end *end = &ends[i];
        sbe_ring_clear(end->memory[0], &GEOMETRY, start);
        sbe_ring_clear(end->memory[1], &GEOMETRY, start);
        CHECK_EQ(sbe_ring_attach(&end->tx, end->memory[0], &GEOMETRY), SBE_OK);
        CHECK_EQ(sbe_ring_attach(&end->rx, end->memory[1], &GEOMETRY), SBE_OK);
        CHECK_EQ(sbe_mirror_open(&end->mirror, end->memory[0], end->memory[1], &GEOMETRY), SBE_OK);
    }
}

/* A frame as the channel would write it: its number fills it. */
static bool put_sized(struct end *end, uint32_t size)
{
    void *slot;
    if (sbe_ring_reserve(&end->tx, &slot) != SBE_OK)
        return false;
    memset(slot, (int)(end->sent & 0xffu), size);
    memcpy(slot, &size, sizeof size);
    sbe_ring_commit(&end->tx);
    (void)sbe_ring_publish(&end->tx);
    end->sent++;
    return true;
}

static bool put(struct end *end)
{
    return put_sized(end, FRAME + end->sent % (SLOT_SIZE - FRAME + 1u));
}

static bool take(struct end *end)
{
    const void *slot;
    uint8_t bytes[SLOT_SIZE];
    uint32_t size;
    int found = sbe_ring_peek(&end->rx, &slot);
    CHECK(found >= 0);
    if (found == 0)
        return false;
    memcpy(bytes, slot, sizeof bytes);
    memcpy(&size, bytes, sizeof size);
    CHECK_EQ(size, FRAME + end->received % (SLOT_SIZE - FRAME + 1u));
    for (uint32_t i = sizeof size; i < size; i++)
        CHECK_EQ(bytes[i], end->received & 0xffu);
    end->received++;
    sbe_ring_release(&end->rx);
    (void)sbe_ring_return(&end->rx);
    return true;
}

/* Messages from one end to the other, at most so many. How many there were. */
static uint32_t carry(struct end *from, struct end *to, bool all, uint32_t limit)
{
    uint8_t message[SBE_MIRROR_MAX];
    uint32_t size, count = 0;
    while (count < limit && (size = sbe_mirror_next(&from->mirror, message, all)) != 0) {
        CHECK(size <= SBE_MIRROR_MAX);
        sbe_mirror_sent(&from->mirror);
        (void)sbe_mirror_receive(&to->mirror, message, size);
        count++;
    }
    return count;
}

static bool is_shut(struct end *end)
{
    const void *slot;
    return sbe_ring_peek(&end->rx, &slot) == SBE_EPROTO;
}

static void test_frames_arrive_whole_and_in_order(void)
{
    static const uint32_t STARTS[] = {0, 0x7ffffffcu, 0xfffffff8u, 0xffffffffu};
    for (size_t i = 0; i < sizeof STARTS / sizeof STARTS[0]; i++) {
        open_ends(STARTS[i]);
        uint32_t random = 1;
        while (ends[0].received < 3000 || ends[1].received < 3000) {
            random = random * 1664525u + 1013904223u;
            struct end *end = &ends[random >> 31], *other = &ends[1 - (random >> 31)];
            switch (random >> 28 & 3u) {
            case 0:
                if (end->sent < 3000)
                    (void)put(end);
                break;
            case 1:
                (void)take(end);
                break;
            default:
                (void)carry(end, other, (random >> 27 & 1u) != 0, random >> 24 & 3u);
            }
        }
        CHECK_EQ(ends[0].received, ends[1].sent);
    }
}

static void test_a_full_ring_waits_for_the_peer(void)
{
    open_ends(0);
    for (uint32_t i = 0; i < SLOTS; i++)
        CHECK(put(&ends[0]));
    CHECK(!put(&ends[0]));
    CHECK_EQ(carry(&ends[0], &ends[1], true, 100), SLOTS);
    CHECK(!put(&ends[0])); /* sent is not taken */
    CHECK(take(&ends[1]));
    CHECK_EQ(carry(&ends[1], &ends[0], false, 100), 0); /* a quarter is told at once, less is not */
    CHECK(!put(&ends[0]));
    CHECK_EQ(carry(&ends[1], &ends[0], true, 100), 1);
    CHECK(put(&ends[0]));
    CHECK(!put(&ends[0]));
    CHECK(take(&ends[1]) && take(&ends[1]));
    CHECK_EQ(carry(&ends[1], &ends[0], false, 100), 1);
    CHECK(put(&ends[0]) && put(&ends[0]) && !put(&ends[0]));
}

static void test_an_answer_tells_of_slots(void)
{
    open_ends(0);
    for (int i = 0; i < 100; i++) { /* a message each way, no more */
        CHECK(put(&ends[0]));
        CHECK_EQ(carry(&ends[0], &ends[1], false, 100), 1);
        CHECK(take(&ends[1]) && put(&ends[1]));
        CHECK_EQ(carry(&ends[1], &ends[0], false, 100), 1);
        CHECK(take(&ends[0]));
        CHECK_EQ(ends[0].mirror.out.published, ends[0].tx.mine);
    }
    CHECK(sbe_mirror_owes(&ends[0].mirror));
    CHECK(!sbe_mirror_owes(&ends[1].mirror));
}

static void test_a_message_that_was_not_sent_is_next(void)
{
    uint8_t one[SBE_MIRROR_MAX], two[SBE_MIRROR_MAX];
    open_ends(0);
    CHECK(put(&ends[0]));
    uint32_t size = sbe_mirror_next(&ends[0].mirror, one, false);
    CHECK_EQ(sbe_mirror_next(&ends[0].mirror, two, false), size);
    CHECK(memcmp(one, two, size) == 0);
}

static void test_doorbells_between_an_end_and_its_mirror(void)
{
    void *slot;
    uint32_t size = FRAME;
    open_ends(0);
    CHECK(sbe_mirror_sleep(&ends[0].mirror, false));
    CHECK_EQ(sbe_ring_reserve(&ends[0].tx, &slot), SBE_OK);
    memcpy(slot, &size, sizeof size);
    sbe_ring_commit(&ends[0].tx);
    CHECK(sbe_ring_publish(&ends[0].tx)); /* the mirror sleeps: it is rung */
    CHECK(!sbe_mirror_sleep(&ends[0].mirror, false));
    CHECK(sbe_ring_wait_data(&ends[1].rx));
    uint8_t message[SBE_MIRROR_MAX];
    size = sbe_mirror_next(&ends[0].mirror, message, false);
    sbe_mirror_sent(&ends[0].mirror);
    CHECK(sbe_mirror_receive(&ends[1].mirror, message, size)); /* and so is the other end */
    /* One slot is not enough to be told unless it is asked for. */
    CHECK(sbe_mirror_sleep(&ends[1].mirror, false));
    CHECK_EQ(sbe_ring_peek(&ends[1].rx, (const void **)&slot), 1);
    sbe_ring_release(&ends[1].rx);
    CHECK(sbe_mirror_sleep(&ends[1].mirror, true));
    CHECK(sbe_ring_return(&ends[1].rx));
    CHECK(!sbe_mirror_sleep(&ends[1].mirror, true));
}

/* Whatever the peer breaks, its end finds the channel shut and nothing else happens. */
static void test_broken_messages_shut_the_channel(void)
{
    struct wrong {
        uint32_t tail, length, size;
    } wrong[] = {
        {0, FRAME, 0},                     /* empty */
        {0, FRAME, 3},                     /* less than a tail */
        {1, 0, 4},                         /* slots that were never sent */
        {UINT32_MAX, 0, 4},                /* a tail that goes back */
        {0, FRAME - 1, 4 + FRAME - 1},     /* no header */
        {0, FRAME, 5},                     /* cut */
        {0, FRAME + 1, 4 + FRAME},         /* a length that is not the message's */
        {0, SLOT_SIZE + 1, 5 + SLOT_SIZE}, /* more than a slot */
        {0, UINT32_MAX, 4 + FRAME},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        uint8_t message[SBE_MIRROR_MAX] = {0};
        memcpy(message, &wrong[i].tail, 4);
        memcpy(message + 4, &wrong[i].length, 4);
        open_ends(0);
        CHECK(sbe_mirror_receive(&ends[0].mirror, message, wrong[i].size));
        CHECK(is_shut(&ends[0]));
        CHECK_EQ(sbe_mirror_next(&ends[0].mirror, message, true), 0);
        CHECK(!sbe_mirror_receive(&ends[0].mirror, message, 4 + FRAME));
        CHECK(sbe_mirror_sleep(&ends[0].mirror, true));
    }
}

static void test_more_frames_than_slots_shut_the_channel(void)
{
    uint8_t message[SBE_MIRROR_MAX] = {0};
    const uint32_t size = FRAME;
    memcpy(message + 4, &size, sizeof size);
    open_ends(0);
    for (uint32_t i = 0; i < SLOTS; i++)
        (void)sbe_mirror_receive(&ends[0].mirror, message, 4 + FRAME);
    CHECK(!ends[0].mirror.in.broken);
    CHECK(sbe_mirror_receive(&ends[0].mirror, message, 4 + FRAME));
    CHECK(is_shut(&ends[0]));
}

static void test_an_end_that_breaks_its_own_rings(void)
{
    uint8_t message[SBE_MIRROR_MAX];
    static const uint32_t LENGTHS[] = {0, FRAME - 1, SLOT_SIZE + 1, UINT32_MAX};
    for (size_t i = 0; i < sizeof LENGTHS / sizeof LENGTHS[0]; i++) {
        open_ends(0);
        CHECK(put(&ends[0]));
        memcpy(ends[0].memory[0] + 2 * LINE, &LENGTHS[i], 4);
        CHECK_EQ(sbe_mirror_next(&ends[0].mirror, message, true), 0);
        CHECK(is_shut(&ends[0]));
    }
    open_ends(0); /* an index out of bounds: of what it produces, of what it consumes */
    sbe_store_release(&ends[0].tx.producer->head, SLOTS + 1);
    CHECK_EQ(sbe_mirror_next(&ends[0].mirror, message, true), 0);
    CHECK(is_shut(&ends[0]));
    open_ends(0);
    CHECK(put(&ends[1]));
    CHECK_EQ(carry(&ends[1], &ends[0], true, 1), 1);
    sbe_store_release(&ends[0].rx.consumer->tail, 2);
    CHECK_EQ(sbe_mirror_next(&ends[0].mirror, message, true), 0);
    CHECK(is_shut(&ends[0]));
}

static void test_slots_that_no_message_holds(void)
{
    struct sbe_ring_geometry large = {SLOTS, SBE_MIRROR_SLOT_MAX + SBE_SLOT_ALIGN, LINE};
    static _Alignas(LINE) uint8_t memory[2][2 * LINE + SLOTS * 512];
    struct sbe_mirror mirror;
    CHECK_EQ(sbe_mirror_open(&mirror, memory[0], memory[1], &large), SBE_EMSGSIZE);
    large.slot_size = SBE_MIRROR_SLOT_MAX;
    CHECK_EQ(sbe_mirror_open(&mirror, memory[0], memory[1], &large), SBE_OK);
    CHECK_EQ(SBE_MIRROR_SLOT_MAX, 448);
}

int main(void)
{
    test_frames_arrive_whole_and_in_order();
    test_a_full_ring_waits_for_the_peer();
    test_an_answer_tells_of_slots();
    test_a_message_that_was_not_sent_is_next();
    test_doorbells_between_an_end_and_its_mirror();
    test_broken_messages_shut_the_channel();
    test_more_frames_than_slots_shut_the_channel();
    test_an_end_that_breaks_its_own_rings();
    test_slots_that_no_message_holds();
    return 0;
}
