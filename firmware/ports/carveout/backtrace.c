/* SPDX-License-Identifier: Apache-2.0 */
/* Return addresses on a stack of Thumb code, without unwind tables. */
#include <string.h>

#include "ports/carveout/carveout.h"

#define BL_FIRST          0xf000u /* of the two halfwords of BL */
#define BL_FIRST_MASK     0xf800u
#define BL_SECOND         0xd000u
#define BL_SECOND_MASK    0xd000u
#define BLX_REGISTER      0x4780u
#define BLX_REGISTER_MASK 0xff80u

static bool follows_a_call(uint32_t value, struct carveout_code code)
{
    if ((value & 1u) == 0 || value < code.begin + 5 || value > code.end)
        return false;
    const uint16_t *next = (const uint16_t *)(uintptr_t)(value - 1);
    return ((next[-2] & BL_FIRST_MASK) == BL_FIRST && (next[-1] & BL_SECOND_MASK) == BL_SECOND) ||
           (next[-1] & BLX_REGISTER_MASK) == BLX_REGISTER;
}

void carveout_backtrace(struct sbe_crash_record *record, const uint32_t *stack,
                        const uint32_t *bottom, const uint32_t *top, struct carveout_code code)
{
    uint32_t *trace = record->backtrace, count = 0;
    /* Nobody knows then where the innermost frame is. */
    bool beyond = (uintptr_t)stack < (uintptr_t)bottom || (uintptr_t)stack > (uintptr_t)top;
    const uint32_t *at = beyond ? bottom : stack;
    for (; at < top && (beyond || count < SBE_CRASH_BACKTRACE); at++) {
        if (!follows_a_call(*at, code))
            continue;
        if (count == SBE_CRASH_BACKTRACE)
            memmove(trace, trace + 1, --count * sizeof *trace);
        trace[count++] = *at - 1;
    }
}
