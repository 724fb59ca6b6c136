/* SPDX-License-Identifier: Apache-2.0 */
/* A free-running CMSDK timer. It wraps after minutes; idle time beyond a wrap is not counted. */
#include "ports/mps2/board.h"

struct timer {
    volatile uint32_t control;
    volatile uint32_t value; /* counts down */
    volatile uint32_t reload;
};

#define TIMER ((struct timer *)BOARD_TIMER)

static struct { /* in one place: one address to load */
    uint64_t now_ns;
    uint32_t last;
} state;

void clock_start(void)
{
    TIMER->reload = UINT32_MAX;
    TIMER->value = UINT32_MAX;
    TIMER->control = 1;
    state.last = UINT32_MAX;
}

uint64_t clock_now_ns(void *self)
{
    (void)self;
    uint32_t value = TIMER->value;
    state.now_ns += (uint64_t)(state.last - value) * BOARD_TICK_NS; /* one instruction, UMLAL */
    state.last = value;
    return state.now_ns;
}
