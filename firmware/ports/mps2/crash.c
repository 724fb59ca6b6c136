/* SPDX-License-Identifier: Apache-2.0 */
/* The last words: a record in the window, a doorbell, a line on the console, then silence. */
#include <string.h>

#include "ports/carveout/carveout.h"
#include "ports/mps2/board.h"

#define SCB_FAULTS ((const volatile uint32_t *)0xe000ed28u) /* CFSR, HFSR, DFSR, MMFAR, BFAR */

static struct sbe_crash_record record;
static bool crashed;

static void put_hex(char *at, uint32_t value)
{
    for (uint32_t i = 0; i < 8; i++, value <<= 4)
        at[i] = "0123456789abcdef"[value >> 28];
}

static void __attribute__((noreturn)) stop(void)
{
    __asm__ volatile("cpsid i");
    for (;;)
        __asm__ volatile("wfi");
}

static void __attribute__((noreturn)) tell(void)
{
    static char line[] = "crash at 00000000: ";
    if (crashed)
        stop(); /* while telling of the first one */
    crashed = true;
    put_hex(line + 9, record.registers[6]);
    carveout_crash(&board_link, &record);
    console_write(line);
    console_write(record.text);
    console_write("\n");
    stop();
}

static void set_text(const char *text)
{
    strncpy(record.text, text, sizeof record.text - 1);
}

void crash_fault(const uint32_t *frame)
{
    uint32_t number;
    __asm__ volatile("mrs %0, ipsr" : "=r"(number));
    record.kind = SBE_CRASH_FAULT;
    record.exception = number & 0x1ffu;
    memcpy(record.registers, frame, sizeof record.registers);
    record.stack_pointer = (uint32_t)(uintptr_t)frame + 32;
    record.fault_status[0] = SCB_FAULTS[0];
    record.fault_status[1] = SCB_FAULTS[1];
    record.fault_status[2] = SCB_FAULTS[3];
    record.fault_status[3] = SCB_FAULTS[4];
    set_text(record.exception == 3 ? "HardFault" : "exception without a handler");
    tell();
}

void crash_assert(const char *text)
{
    record.kind = SBE_CRASH_ASSERT;
    record.registers[6] = (uint32_t)(uintptr_t)__builtin_return_address(0);
    record.stack_pointer = (uint32_t)(uintptr_t)__builtin_frame_address(0);
    set_text("assertion failed: ");
    strncat(record.text, text, sizeof record.text - 1 - strlen(record.text));
    tell();
}
