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

k_timeout_t sbe_until(uint64_t due_ns)
{
    if (due_ns == UINT64_MAX)
        return K_FOREVER;
    uint64_t now_ns = sbe_zephyr_now_ns(NULL), left_ns = due_ns > now_ns ? due_ns - now_ns : 0;
    return K_USEC((left_ns + 999u) / 1000u);
}
