/* SPDX-License-Identifier: Apache-2.0 */
/* A free-running CMSDK timer. It wraps after minutes; idle time beyond a wrap is not counted. */
#include "ports/mps2/board.h"

struct timer {
    volatile uint32_t control;
    volatile uint32_t value; /* counts down */
    volatile uint32_t reload;
};

#define TIMER ((struct timer *)BOARD_TIMER)

static uint64_t ticks;
static uint32_t last;

void clock_start(void)
{
    TIMER->reload = UINT32_MAX;
    TIMER->value = UINT32_MAX;
    TIMER->control = 1;
    last = UINT32_MAX;
}

uint64_t clock_now_ns(void *self)
{
    (void)self;
    uint32_t value = TIMER->value;
    ticks += last - value;
    last = value;
    return ticks * BOARD_TICK_NS;
}
