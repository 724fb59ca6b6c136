/* SPDX-License-Identifier: Apache-2.0 */
#include "carveout/crash.h"

bool sbe_crash_read(const void *window, struct sbe_crash_record *record)
{
    const uint8_t *base = window;
    const struct sbe_carveout_block *remote = (const void *)(base + SBE_CARVEOUT_REMOTE);
    if (sbe_load_acquire(&remote->crashed) != 1)
        return false;
    sbe_snapshot(record, base + SBE_CARVEOUT_CRASH, sizeof *record);
    return record->magic == SBE_CARVEOUT_MAGIC && record->check == SBE_CARVEOUT_SUM(record) &&
           record->generation == sbe_load_relaxed(&remote->generation);
}

const char *sbe_crash_kind_name(const struct sbe_crash_record *record)
{
    static const char *const KINDS[] = {
        [SBE_CRASH_ASSERT] = "assert",           [SBE_CRASH_ACCESS] = "access",
        [SBE_CRASH_EXECUTE] = "execute",         [SBE_CRASH_STACK] = "stack",
        [SBE_CRASH_ALIGNMENT] = "alignment",     [SBE_CRASH_DIVISION] = "division",
        [SBE_CRASH_INSTRUCTION] = "instruction", [SBE_CRASH_INTERRUPT] = "interrupt",
    };
    uint32_t kind = record->kind;
    return kind < sizeof KINDS / sizeof *KINDS && KINDS[kind] != NULL ? KINDS[kind] : "fault";
}
