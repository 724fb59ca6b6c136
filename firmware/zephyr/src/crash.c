/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Zephyr's fatal errors as crash records, on Cortex-M. Zephyr has cleared the fault status by then
 * and says as its reason what it was; the address registers keep what they hold.
 */
#include <cmsis_core.h>
#include <string.h>
#include <zephyr/fatal.h>
#include <zephyr/kernel.h>
#include <zephyr/linker/linker-defs.h>

#include "ports/carveout/carveout.h"
#include "zephyr/src/port.h"

#define SCB_ICSR   ((const volatile uint32_t *)0xe000ed04u)
#define SCB_FAULTS ((const volatile uint32_t *)0xe000ed28u) /* CFSR, HFSR, DFSR, MMFAR, BFAR */

#define FRAME_BYTES    32u
#define XPSR_EXCEPTION 0x1ffu
#define XPSR_REALIGNED (1u << 9)

static const struct {
    unsigned int reason;
    enum sbe_crash_kind kind;
    const char *text;
} REASONS[] = {
    {K_ERR_SPURIOUS_IRQ, SBE_CRASH_INTERRUPT, "spurious interrupt"},
    {K_ERR_STACK_CHK_FAIL, SBE_CRASH_STACK, "stack check"},
    {K_ERR_KERNEL_OOPS, SBE_CRASH_ASSERT, "kernel oops"},
    {K_ERR_KERNEL_PANIC, SBE_CRASH_ASSERT, "kernel panic"},
#if defined(CONFIG_ARMV7_M_ARMV8_M_MAINLINE)
    {K_ERR_ARM_MEM_STACKING, SBE_CRASH_STACK, "MemManage"},
    {K_ERR_ARM_MEM_DATA_ACCESS, SBE_CRASH_ACCESS, "MemManage"},
    {K_ERR_ARM_MEM_INSTRUCTION_ACCESS, SBE_CRASH_EXECUTE, "MemManage"},
    {K_ERR_ARM_BUS_STACKING, SBE_CRASH_STACK, "BusFault"},
    {K_ERR_ARM_BUS_PRECISE_DATA_BUS, SBE_CRASH_ACCESS, "BusFault"},
    {K_ERR_ARM_BUS_IMPRECISE_DATA_BUS, SBE_CRASH_ACCESS, "BusFault"},
    {K_ERR_ARM_BUS_INSTRUCTION_BUS, SBE_CRASH_EXECUTE, "BusFault"},
    {K_ERR_ARM_USAGE_DIV_0, SBE_CRASH_DIVISION, "UsageFault"},
    {K_ERR_ARM_USAGE_UNALIGNED_ACCESS, SBE_CRASH_ALIGNMENT, "UsageFault"},
    {K_ERR_ARM_USAGE_STACK_OVERFLOW, SBE_CRASH_STACK, "UsageFault"},
    {K_ERR_ARM_USAGE_NO_COPROCESSOR, SBE_CRASH_INSTRUCTION, "UsageFault"},
    {K_ERR_ARM_USAGE_ILLEGAL_EXC_RETURN, SBE_CRASH_EXECUTE, "UsageFault"},
    {K_ERR_ARM_USAGE_ILLEGAL_EPSR, SBE_CRASH_EXECUTE, "UsageFault"},
    {K_ERR_ARM_USAGE_UNDEFINED_INSTRUCTION, SBE_CRASH_INSTRUCTION, "UsageFault"},
#endif
};

static struct sbe_crash_record record;

static void set_reason(unsigned int reason)
{
    const char *text = "CPU exception";
    record.kind = SBE_CRASH_FAULT;
    for (size_t i = 0; i < ARRAY_SIZE(REASONS); i++) {
        if (REASONS[i].reason != reason)
            continue;
        record.kind = REASONS[i].kind;
        text = REASONS[i].text;
    }
    strncpy(record.text, text, sizeof record.text - 1);
    record.exception = record.kind == SBE_CRASH_ASSERT ? 0 : *SCB_ICSR & XPSR_EXCEPTION;
}

/* A thread's stack; what an interrupt had in use is not known. `esf` is a copy by now. */
static void set_stack(const struct arch_esf *esf)
{
    if ((esf->basic.xpsr & XPSR_EXCEPTION) != 0)
        return;
    record.stack_pointer =
        __get_PSP() + FRAME_BYTES + ((esf->basic.xpsr & XPSR_REALIGNED) != 0 ? 4u : 0u);
#if defined(CONFIG_THREAD_STACK_INFO)
    const struct k_thread *thread = k_current_get();
    const struct carveout_code code = {(uintptr_t)__text_region_start,
                                       (uintptr_t)__text_region_end};
    uintptr_t bottom = thread->stack_info.start, top = bottom + thread->stack_info.size;
    carveout_backtrace(&record, (const uint32_t *)(uintptr_t)record.stack_pointer,
                       (const uint32_t *)bottom, (const uint32_t *)top, code);
#endif
}

void k_sys_fatal_error_handler(unsigned int reason, const struct arch_esf *esf)
{
    set_reason(reason);
#if defined(CONFIG_ARMV7_M_ARMV8_M_MAINLINE)
    record.fault_status[0] = SCB_FAULTS[0];
    record.fault_status[1] = SCB_FAULTS[1];
    record.fault_status[2] = SCB_FAULTS[3];
    record.fault_status[3] = SCB_FAULTS[4];
#endif
    if (esf != NULL) {
        _Static_assert(sizeof record.registers <= sizeof esf->basic, "r0-r3, r12, lr, pc, xpsr");
        memcpy(record.registers, &esf->basic, sizeof record.registers);
        set_stack(esf);
    }
    sbe_carveout_last_words(&record);
    k_fatal_halt(reason);
}
