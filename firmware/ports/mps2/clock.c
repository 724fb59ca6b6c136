/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A free-running CMSDK timer. It wraps after minutes; idle time beyond a wrap is not counted. And
 * the timer behind it, which interrupts once when a stream is due.
 */
#include <stddef.h>

#include "ports/mps2/board.h"

struct timer {
    volatile uint32_t control;
    volatile uint32_t value; /* counts down */
    volatile uint32_t reload;
    volatile uint32_t clear;
};

#define TIMER ((struct timer *)BOARD_TIMER)
#define BELL  ((struct timer *)(BOARD_TIMER + 0x1000u))

#define ENABLE    1u
#define INTERRUPT 8u

static struct { /* in one place: one address to load */
    uint64_t now_ns;
    uint32_t last;
} state;

void clock_start(void)
{
    TIMER->reload = UINT32_MAX;
    TIMER->value = UINT32_MAX;
    TIMER->control = ENABLE;
    state.last = UINT32_MAX;
    NVIC_ENABLE[BOARD_RING_IRQ / 32] = 1u << BOARD_RING_IRQ % 32;
}

/* It counts down to 0 once, and is off then: nothing is loaded again. */
void clock_ring_at(uint64_t due_ns)
{
    static bool set;
    if (!set && due_ns == UINT64_MAX)
        return;
    BELL->control = 0;
    BELL->clear = 1;
    set = due_ns != UINT64_MAX;
    if (!set)
        return;
    uint64_t now_ns = clock_now_ns(NULL), left_ns = due_ns > now_ns ? due_ns - now_ns : 0;
    uint64_t most_ns = (uint64_t)INT32_MAX; /* seconds: then it is set again */
    uint32_t ticks = (uint32_t)(left_ns < most_ns ? left_ns : most_ns) / BOARD_TICK_NS + 1;
    BELL->reload = 0;
    BELL->value = ticks;
    BELL->control = ENABLE | INTERRUPT;
}

void clock_ring(void)
{
    BELL->control = 0;
    BELL->clear = 1;
}

uint64_t clock_now_ns(void *self)
{
    (void)self;
    uint32_t value = TIMER->value;
    state.now_ns += (uint64_t)(state.last - value) * BOARD_TICK_NS; /* one instruction, UMLAL */
    state.last = value;
    return state.now_ns;
}
