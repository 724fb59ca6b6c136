/* SPDX-License-Identifier: Apache-2.0 */
/* The cache rule, cell by cell, as the hooks see it. */
#include "core/cache.h"

#include <stddef.h>

#include "check.h"
#include "core/wire.h"

enum {
    NOTHING,
    CLEAN,
    INVALIDATE
};

/* [direction][step], after the table in cache.c */
static const int RULE[4][4] = {
    [SBE_DIR_IN] = {CLEAN, INVALIDATE, NOTHING, NOTHING},
    [SBE_DIR_OUT] = {CLEAN, INVALIDATE, CLEAN, INVALIDATE},
    [SBE_DIR_INOUT] = {CLEAN, INVALIDATE, CLEAN, INVALIDATE},
};

static uint8_t bytes[64];

static struct {
    int action;
    uint32_t calls;
} seen;

static void record(void *self, const void *start, uint64_t size, int action)
{
    CHECK(self == &seen && start == bytes + 3);
    CHECK_EQ(size, 17);
    seen.action = action;
    seen.calls++;
}

static void clean(void *self, const void *start, uint64_t size)
{
    record(self, start, size, CLEAN);
}

static void invalidate(void *self, void *start, uint64_t size)
{
    record(self, start, size, INVALIDATE);
}

int main(void)
{
    const struct sbe_port port = {
        .self = &seen, .cache_clean = clean, .cache_invalidate = invalidate};
    const struct sbe_port coherent_port = {.self = &seen};
    for (uint8_t direction = SBE_DIR_IN; direction <= SBE_DIR_INOUT; direction++) {
        for (int step = SBE_GIVE; step <= SBE_TAKE_BACK; step++) {
            struct sbe_buffer buffer = {.direction = direction, .data = bytes + 3, .size = 17};
            int expected = RULE[direction][step];
            seen.action = NOTHING;
            seen.calls = 0;
            CHECK_EQ(sbe_cache_handover(&port, (enum sbe_handover)step, &buffer),
                     expected == NOTHING ? 0 : 17);
            CHECK_EQ(seen.action, expected);
            CHECK_EQ(seen.calls, expected == NOTHING ? 0 : 1);

            /* nothing to do: a port without hooks, no bytes, no mapping */
            CHECK_EQ(sbe_cache_handover(&coherent_port, (enum sbe_handover)step, &buffer), 0);
            buffer.size = 0;
            CHECK_EQ(sbe_cache_handover(&port, (enum sbe_handover)step, &buffer), 0);
            buffer.size = 17;
            buffer.data = NULL;
            CHECK_EQ(sbe_cache_handover(&port, (enum sbe_handover)step, &buffer), 0);
            CHECK_EQ(seen.calls, expected == NOTHING ? 0 : 1);
        }
    }
    return 0;
}
