/* SPDX-License-Identifier: Apache-2.0 */
/* The ring: indices, full and empty, doorbell suppression, a peer that publishes nonsense. */
#include "core/ring.h"

#include <string.h>

#include "check.h"
#include "core/status.h"

#define SLOTS     8u
#define SLOT_SIZE 64u
#define LINE      64u

static const struct sbe_ring_geometry GEOMETRY = {SLOTS, SLOT_SIZE, LINE};

struct pair {
    _Alignas(LINE) uint8_t memory[2 * LINE + SLOTS * SLOT_SIZE];
    struct sbe_ring tx, rx;
};

/* Where every test begins: at zero, before the sign and before the wrap of 32 bits. */
static const uint32_t STARTS[] = {
    0, 0x7ffffffcu, 0xfffffff8u, 0xfffffffcu, 0xfffffffeu, 0xffffffffu,
};
#define START_COUNT (sizeof STARTS / sizeof STARTS[0])

static void open_pair(struct pair *pair, uint32_t start)
{
    memset(pair->memory, 0xaa, sizeof pair->memory);
    sbe_ring_clear(pair->memory, &GEOMETRY, start);
    CHECK_EQ(sbe_ring_attach(&pair->tx, pair->memory, &GEOMETRY), SBE_OK);
    CHECK_EQ(sbe_ring_attach(&pair->rx, pair->memory, &GEOMETRY), SBE_OK);
}

static void put(struct pair *pair, uint32_t value)
{
    void *slot;
    CHECK_EQ(sbe_ring_reserve(&pair->tx, &slot), SBE_OK);
    memcpy(slot, &value, sizeof value);
    sbe_ring_commit(&pair->tx);
}

static uint32_t get(struct pair *pair)
{
    const void *slot;
    uint32_t value;
    CHECK_EQ(sbe_ring_peek(&pair->rx, &slot), 1);
    memcpy(&value, slot, sizeof value);
    sbe_ring_release(&pair->rx);
    return value;
}

static void get_nothing(struct pair *pair)
{
    const void *slot;
    CHECK_EQ(sbe_ring_peek(&pair->rx, &slot), 0);
}

static int64_t size_of(uint32_t slots, uint32_t slot_size, uint32_t line)
{
    struct sbe_ring_geometry geometry = {slots, slot_size, line};
    return sbe_ring_size(&geometry);
}

static void test_geometry(void)
{
    CHECK_EQ(sbe_ring_size(&GEOMETRY), sizeof(((struct pair *)0)->memory));
    CHECK_EQ(size_of(SBE_SLOTS_MAX, SBE_SLOT_SIZE_MAX, SBE_LINE_MAX),
             2 * (int64_t)SBE_LINE_MAX + (int64_t)SBE_SLOTS_MAX * SBE_SLOT_SIZE_MAX);
    static const uint32_t BAD[][3] = {
        {0, 64, 64},
        {1, 64, 64},
        {3, 64, 64},
        {SBE_SLOTS_MAX * 2, 64, 64},
        {0x80000000u, 64, 64},
        {8, 0, 64},
        {8, 63, 64},
        {8, 96, 64},
        {8, SBE_SLOT_SIZE_MAX + 64, 64},
        {8, 64, 0},
        {8, 64, 8},
        {8, 64, 48},
        {8, 64, SBE_LINE_MAX * 2},
    };
    for (uint32_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++)
        CHECK_EQ(size_of(BAD[i][0], BAD[i][1], BAD[i][2]), SBE_EINVAL);
}

static void test_attach(void)
{
    struct pair pair;
    struct sbe_ring_geometry bad = {SLOTS, SLOT_SIZE, 8};
    open_pair(&pair, 0);
    CHECK_EQ(sbe_ring_attach(&pair.tx, pair.memory, &bad), SBE_EINVAL);
    CHECK_EQ(sbe_ring_attach(&pair.tx, pair.memory + LINE / 2, &GEOMETRY), SBE_EINVAL);
}

static void test_full_and_empty(void)
{
    for (uint32_t s = 0; s < START_COUNT; s++) {
        struct pair pair;
        void *slot;
        open_pair(&pair, STARTS[s]);
        for (uint32_t round = 0; round < 3; round++) {
            get_nothing(&pair);
            CHECK_EQ(sbe_ring_free(&pair.tx, SLOTS), SLOTS);
            for (uint32_t i = 0; i < SLOTS; i++)
                put(&pair, round * 100 + i);
            CHECK_EQ(sbe_ring_reserve(&pair.tx, &slot), SBE_EAGAIN);
            get_nothing(&pair); /* committed is not published */
            sbe_ring_publish(&pair.tx);
            for (uint32_t i = 0; i < SLOTS; i++)
                CHECK_EQ(get(&pair), round * 100 + i);
            get_nothing(&pair);
            CHECK_EQ(sbe_ring_reserve(&pair.tx, &slot), SBE_EAGAIN); /* released is not returned */
            sbe_ring_return(&pair.rx);
            CHECK_EQ(sbe_ring_in_flight(&pair.tx), SLOTS); /* not looked yet */
        }
        CHECK(!pair.tx.broken && !pair.rx.broken);
    }
}

/* One frame at a time across the wrap, with every distance between the two ends. */
static void test_wrap(void)
{
    for (uint32_t ahead = 1; ahead <= SLOTS; ahead++) {
        struct pair pair;
        uint32_t sent = 0, taken = 0;
        open_pair(&pair, 0u - 20u);
        while (taken < 60) {
            while (sent - taken < ahead) {
                put(&pair, sent++);
                sbe_ring_publish(&pair.tx);
            }
            CHECK_EQ(get(&pair), taken++);
            sbe_ring_return(&pair.rx);
        }
    }
}

static void test_data_doorbell(void)
{
    for (uint32_t s = 0; s < START_COUNT; s++) {
        struct pair pair;
        open_pair(&pair, STARTS[s]);
        put(&pair, 1);
        CHECK(!sbe_ring_publish(&pair.tx));   /* nobody asked: fresh rings look before they sleep */
        CHECK(!sbe_ring_publish(&pair.tx));   /* nothing new */
        CHECK(!sbe_ring_wait_data(&pair.rx)); /* something is there, do not sleep */
        CHECK_EQ(get(&pair), 1);
        CHECK(sbe_ring_wait_data(&pair.rx));
        CHECK(sbe_ring_wait_data(&pair.rx)); /* asking twice changes nothing */
        put(&pair, 2);
        put(&pair, 3);
        CHECK(sbe_ring_publish(&pair.tx)); /* one doorbell for the batch */
        put(&pair, 4);
        CHECK(!sbe_ring_publish(&pair.tx)); /* it was rung, it has not asked again */
        for (uint32_t value = 2; value <= 4; value++)
            CHECK_EQ(get(&pair), value);
        put(&pair, 5);
        CHECK(!sbe_ring_publish(&pair.tx)); /* awake consumers are not rung */
        CHECK_EQ(get(&pair), 5);
        CHECK(sbe_ring_wait_data(&pair.rx));
        put(&pair, 6);
        CHECK(sbe_ring_publish(&pair.tx));
        CHECK_EQ(sbe_load_relaxed(&pair.tx.producer->doorbells), 2);
    }
}

static void test_space_doorbell(void)
{
    for (uint32_t s = 0; s < START_COUNT; s++) {
        struct pair pair;
        open_pair(&pair, STARTS[s]);
        for (uint32_t i = 0; i < SLOTS; i++)
            put(&pair, i);
        sbe_ring_publish(&pair.tx);
        get(&pair);
        CHECK(!sbe_ring_return(&pair.rx));        /* nobody asked */
        CHECK(!sbe_ring_return(&pair.rx));        /* nothing new */
        CHECK(!sbe_ring_wait_space(&pair.tx, 1)); /* there is space, do not sleep */
        put(&pair, 8);
        sbe_ring_publish(&pair.tx);
        CHECK(sbe_ring_wait_space(&pair.tx, 1));
        get(&pair);
        CHECK(sbe_ring_return(&pair.rx));
        get(&pair);
        CHECK(!sbe_ring_return(&pair.rx)); /* once */
        CHECK_EQ(sbe_ring_free(&pair.tx, 2), 2);
        CHECK_EQ(sbe_load_relaxed(&pair.rx.consumer->doorbells), 1);
    }
}

/*
 * Waiting for several slots while some have come back already: the doorbell must follow the return
 * that makes enough, wherever the index stood when the producer last looked.
 */
static void test_space_for_several(void)
{
    for (uint32_t wanted = 1; wanted <= SLOTS; wanted++) {
        for (uint32_t early = 0; early < wanted; early++) {
            struct pair pair;
            open_pair(&pair, 0u - 11u);
            for (uint32_t i = 0; i < SLOTS; i++)
                put(&pair, i);
            sbe_ring_publish(&pair.tx);
            for (uint32_t i = 0; i < early; i++) {
                get(&pair);
                sbe_ring_return(&pair.rx);
            }
            CHECK(sbe_ring_wait_space(&pair.tx, wanted));
            for (uint32_t free_now = early + 1; free_now <= SLOTS; free_now++) {
                get(&pair);
                CHECK_EQ(sbe_ring_return(&pair.rx), free_now == wanted);
            }
        }
    }
}

/* A peer's index must lie between what it published before and what we published. */
static void test_hostile_head(void)
{
    for (uint32_t s = 0; s < START_COUNT; s++) {
        static const uint32_t OFFSETS[] = {
            SLOTS + 1, SLOTS + 2, 0x7fffffffu, 0x80000000u, 0xffffffffu /* one back */, 0u - SLOTS};
        for (uint32_t i = 0; i < sizeof OFFSETS / sizeof OFFSETS[0]; i++) {
            struct pair pair;
            const void *slot;
            open_pair(&pair, STARTS[s]);
            sbe_store_relaxed(&pair.rx.producer->head, STARTS[s] + OFFSETS[i]);
            CHECK_EQ(sbe_ring_peek(&pair.rx, &slot), SBE_EPROTO);
            CHECK(pair.rx.broken);
            sbe_store_relaxed(&pair.rx.producer->head, STARTS[s]);
            CHECK_EQ(sbe_ring_peek(&pair.rx, &slot), SBE_EPROTO); /* for good */
            CHECK(!sbe_ring_wait_data(&pair.rx));
        }
        struct pair pair;
        open_pair(&pair, STARTS[s]);
        sbe_store_relaxed(&pair.rx.producer->head, STARTS[s] + SLOTS); /* the most that is legal */
        for (uint32_t i = 0; i < SLOTS; i++)
            get(&pair);
        get_nothing(&pair);
        /* Released slots belong to us until they are returned. */
        sbe_store_relaxed(&pair.rx.producer->head, STARTS[s] + SLOTS + 1);
        const void *slot;
        CHECK_EQ(sbe_ring_peek(&pair.rx, &slot), SBE_EPROTO);
    }
}

static void test_hostile_tail(void)
{
    for (uint32_t s = 0; s < START_COUNT; s++) {
        static const uint32_t OFFSETS[] = {4, 5, SLOTS, 0x80000000u, 0xffffffffu};
        for (uint32_t i = 0; i < sizeof OFFSETS / sizeof OFFSETS[0]; i++) {
            struct pair pair;
            void *slot;
            open_pair(&pair, STARTS[s]);
            for (uint32_t k = 0; k < 3; k++)
                put(&pair, k);
            sbe_ring_publish(&pair.tx);
            for (uint32_t k = 3; k < SLOTS; k++)
                put(&pair, k); /* not published: not the peer's to return */
            sbe_store_relaxed(&pair.tx.consumer->tail, STARTS[s] + OFFSETS[i]);
            CHECK_EQ(sbe_ring_reserve(&pair.tx, &slot), SBE_EPROTO);
            CHECK(pair.tx.broken);
            CHECK_EQ(sbe_ring_free(&pair.tx, 1), 0);
            CHECK(!sbe_ring_wait_space(&pair.tx, 1)); /* never sleeps on a dead ring */
        }
    }
}

/* Wake indices and statistics are only hints: nonsense there costs doorbells, nothing else. */
static void test_hostile_hints(void)
{
    struct pair pair;
    open_pair(&pair, 0xfffffff0u);
    for (uint32_t i = 0; i < 100; i++) {
        sbe_store_relaxed(&pair.tx.consumer->data_wake, i * 0x9e3779b9u);
        sbe_store_relaxed(&pair.rx.producer->space_wake, i * 0x85ebca6bu);
        sbe_store_relaxed(&pair.tx.producer->doorbells, ~i);
        put(&pair, i);
        sbe_ring_publish(&pair.tx);
        CHECK_EQ(get(&pair), i);
        sbe_ring_return(&pair.rx);
    }
    CHECK(!pair.tx.broken && !pair.rx.broken);
}

int main(void)
{
    test_geometry();
    test_attach();
    test_full_and_empty();
    test_wrap();
    test_data_doorbell();
    test_space_doorbell();
    test_space_for_several();
    test_hostile_head();
    test_hostile_tail();
    test_hostile_hints();
    return 0;
}
