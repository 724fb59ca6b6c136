/* SPDX-License-Identifier: Apache-2.0 */
/* The last words: a record in the window, a doorbell, a line on the console, then silence. */
#include <string.h>

#include "carveout/crash.h"
#include "ninep/files.h"
#include "ports/carveout/carveout.h"
#include "ports/mps2/board.h"

#define SCB_FAULTS ((const volatile uint32_t *)0xe000ed28u) /* CFSR, HFSR, DFSR, MMFAR, BFAR */
#define SCB_SECURE ((const volatile uint32_t *)0xe000ede4u) /* SFSR, SFAR */

/* CFSR */
#define FETCH       (1u << 0 | 1u << 8 | 1u << 17 | 1u << 18) /* IACCVIOL IBUSERR INVSTATE INVPC */
#define ACCESS      (1u << 1 | 1u << 9 | 1u << 10)            /* DACCVIOL PRECISERR IMPRECISERR */
#define STACKING    (1u << 4 | 1u << 12) /* MSTKERR STKERR: the frame was not written */
#define STACK_LIMIT (1u << 20)
#define UNDEFINED   (1u << 16 | 1u << 19) /* UNDEFINSTR NOCP */
#define UNALIGNED   (1u << 24)
#define DIVIDED     (1u << 25)
/* SFSR */
#define SECURE_FETCH (1u << 0 | 1u << 1)

#define FRAME_WORDS     8u
#define XPSR_REALIGNED  (1u << 9)
#define FIRST_INTERRUPT 16u

/* For fault_entry(). Bytes, which `make firmware` checks to be enough. */
#define STACK 512u
static uint64_t crash_stack[STACK / sizeof(uint64_t)];
__attribute__((used)) uint64_t *const crash_stack_top = crash_stack + STACK / sizeof(uint64_t);

static struct sbe_crash_record record;
static bool crashed;

void crash_show_last(void)
{
    static char text[CARVEOUT_CRASH_TEXT];
    if (sbe_crash_read((const void *)BOARD_WINDOW, &record)) {
        carveout_crash_text(&record, text);
        ninep_set_crash(text);
    }
    memset(&record, 0, sizeof record); /* for this life's own */
}

static void put_hex(char *at, uint32_t value)
{
    for (uint32_t i = 0; i < 8; i++, value <<= 4)
        at[i] = "0123456789abcdef"[value >> 28];
}

static void __attribute__((noreturn)) stop(void)
{
    for (;;)
        __asm__ volatile("cpsid i\n\twfi");
}

static void __attribute__((noreturn)) tell(void)
{
    static char line[] = "crash at 00000000: ";
    __asm__ volatile("cpsid i");
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

static const char *name_of(uint32_t exception)
{
    static const char *const NAMES[] = {
        [2] = "NMI",      [3] = "HardFault",  [4] = "MemManage",
        [5] = "BusFault", [6] = "UsageFault", [7] = "SecureFault",
    };
    if (exception < sizeof NAMES / sizeof *NAMES && NAMES[exception] != NULL)
        return NAMES[exception];
    return "exception without a handler";
}

static enum sbe_crash_kind kind_of(uint32_t exception, uint32_t faults, uint32_t secure)
{
    static const struct {
        uint32_t bits;
        enum sbe_crash_kind kind;
    } KINDS[] = {
        /* First, because the frame of another fault may be what did not fit. */
        {STACKING | STACK_LIMIT, SBE_CRASH_STACK},
        {FETCH, SBE_CRASH_EXECUTE},
        {ACCESS, SBE_CRASH_ACCESS},
        {UNALIGNED, SBE_CRASH_ALIGNMENT},
        {DIVIDED, SBE_CRASH_DIVISION},
        {UNDEFINED, SBE_CRASH_INSTRUCTION},
    };
    if (exception >= FIRST_INTERRUPT)
        return SBE_CRASH_INTERRUPT;
    for (uint32_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++)
        if ((faults & KINDS[i].bits) != 0)
            return KINDS[i].kind;
    if (secure != 0)
        return (secure & SECURE_FETCH) != 0 ? SBE_CRASH_EXECUTE : SBE_CRASH_ACCESS;
    return SBE_CRASH_FAULT;
}

static void read_status(void)
{
    uint32_t *status = record.fault_status;
    status[0] = SCB_FAULTS[0];
    status[1] = SCB_FAULTS[1];
    status[2] = SCB_FAULTS[3];
    status[3] = SCB_FAULTS[4];
#if defined(__ARM_ARCH_8M_MAIN__)
    status[4] = SCB_SECURE[0];
    status[5] = SCB_SECURE[1];
#endif
}

static void trace_back(const uint32_t *stack)
{
    const struct carveout_code code = {(uintptr_t)code_begin, (uintptr_t)code_end};
    carveout_backtrace(&record, stack, stack_bottom, stack_top, code);
}

void crash_fault(const uint32_t *frame)
{
    uint32_t number;
    __asm__ volatile("mrs %0, ipsr" : "=r"(number));
    record.exception = number & 0x1ffu;
    read_status();
    record.kind = kind_of(record.exception, record.fault_status[0], record.fault_status[4]);
    const uint32_t *stack = frame;
    /* At the limit itself nothing was written. */
    bool full = (record.fault_status[0] & STACK_LIMIT) != 0 && frame == stack_bottom;
    bool there = frame >= stack_bottom && frame + FRAME_WORDS <= stack_top;
    if (there && !full && (record.fault_status[0] & STACKING) == 0) {
        memcpy(record.registers, frame, sizeof record.registers);
        stack += FRAME_WORDS + ((record.registers[7] & XPSR_REALIGNED) != 0);
    }
    record.stack_pointer = (uint32_t)(uintptr_t)stack;
    trace_back(stack);
    set_text(name_of(record.exception));
    tell();
}

/* What the core did not find: where is in `pc`, about. */
static void __attribute__((noreturn)) crash(enum sbe_crash_kind kind, const void *pc)
{
    const uint32_t *stack = __builtin_frame_address(0);
    record.kind = kind;
    record.registers[6] = (uint32_t)(uintptr_t)pc;
    record.stack_pointer = (uint32_t)(uintptr_t)stack;
    trace_back(stack);
    tell();
}

void crash_assert(const char *text)
{
    set_text("assertion failed: ");
    strncat(record.text, text, sizeof record.text - 1 - strlen(record.text));
    crash(SBE_CRASH_ASSERT, __builtin_return_address(0));
}

void crash_storm(void)
{
    set_text("interrupts without end");
    crash(SBE_CRASH_INTERRUPT, __builtin_return_address(0));
}
