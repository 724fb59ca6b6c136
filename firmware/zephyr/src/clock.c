/* SPDX-License-Identifier: Apache-2.0 */
/* The cycle counter, made 64 bits wide. Idle time beyond a wrap of it is not counted. */
#include <zephyr/kernel.h>

#include "zephyr/src/port.h"

uint64_t sbe_zephyr_now_ns(void *self)
{
    static uint64_t cycles;
    static uint32_t last;
    uint32_t now = k_cycle_get_32();
    (void)self;
    cycles += now - last;
    last = now;
    return k_cyc_to_ns_floor64(cycles);
}
