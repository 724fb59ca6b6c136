/* SPDX-License-Identifier: Apache-2.0 */
/* Zephyr's fatal errors as crash records, on Cortex-M. The fault status it has cleared by then. */
#include <string.h>
#include <zephyr/fatal.h>
#include <zephyr/kernel.h>

#include "carveout/layout.h"
#include "zephyr/src/port.h"

#define SCB_ICSR ((const volatile uint32_t *)0xe000ed04u)

static const char *const REASONS[] = {
    [K_ERR_CPU_EXCEPTION] = "CPU exception",   [K_ERR_SPURIOUS_IRQ] = "spurious interrupt",
    [K_ERR_STACK_CHK_FAIL] = "stack overflow", [K_ERR_KERNEL_OOPS] = "kernel oops",
    [K_ERR_KERNEL_PANIC] = "kernel panic",
};

void k_sys_fatal_error_handler(unsigned int reason, const struct arch_esf *esf)
{
    static struct sbe_crash_record record;
    bool known = reason < ARRAY_SIZE(REASONS); /* or a number for this kind of core */
    bool meant = reason == K_ERR_KERNEL_OOPS || reason == K_ERR_KERNEL_PANIC;
    record.kind = meant ? SBE_CRASH_ASSERT : SBE_CRASH_FAULT;
    record.exception = meant ? 0 : *SCB_ICSR & 0x1ffu;
    if (esf != NULL) {
        _Static_assert(sizeof record.registers <= sizeof esf->basic, "r0-r3, r12, lr, pc, xpsr");
        memcpy(record.registers, &esf->basic, sizeof record.registers);
        record.stack_pointer = (uint32_t)(uintptr_t)esf + (uint32_t)sizeof *esf;
    }
    strncpy(record.text, known ? REASONS[reason] : "CPU exception", sizeof record.text - 1);
    sbe_carveout_last_words(&record);
    k_fatal_halt(reason);
}
