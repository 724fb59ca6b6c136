/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fault: breaks the firmware in the way that the payload's first byte names, so that the other end
 * can be seen to notice: a function each, by whose name a test knows where the core should be
 * found.
 *
 * ask_power: asks the host as the payload says (event, value; two words) and answers with its
 * status.
 *
 * In the images sbe-firmware-faults alone.
 */
#include <string.h>

#include "core/service.h"
#include "ports/carveout/carveout.h"
#include "ports/mps2/board.h"

#define BREAKS        static void __attribute__((noinline, noclone))
#define NVIC_ENABLE   ((volatile uint32_t *)0xe000e100u)
#define NVIC_PEND     ((volatile uint32_t *)0xe000e200u)
#define UNHANDLED_IRQ 1u

#define BX_LR 0x4770u

static volatile uintptr_t null; /* not what a compiler may know */
static volatile uint32_t zero;
static uint16_t code_in_ram[] = {BX_LR};
static volatile uint32_t words[2];

BREAKS fail_assertion(void)
{
    crash_assert("the fault service was asked to");
}

BREAKS undefined_instruction(void)
{
    __asm__ volatile("udf #0");
}

BREAKS null_read(void)
{
    (void)*(volatile uint32_t *)null;
}

BREAKS null_write(void)
{
    *(volatile uint32_t *)null = 1;
}

BREAKS jump_to_null(void)
{
    ((void (*)(void))null)();
    __asm__ volatile(""); /* no tail call: the link register says who it was */
}

BREAKS overflow_stack(void)
{
    volatile uint8_t local[16384];
    for (uint32_t i = 0; i < sizeof local; i++)
        local[i] = (uint8_t)i;
}

static uint32_t __attribute__((noinline)) descend(uint32_t left)
{
    volatile uint32_t local[16];
    local[left % 16] = left;
    return left == 0 ? 0 : descend(left - 1) + local[left % 16];
}

BREAKS recurse(void)
{
    words[0] = descend(1000);
}

BREAKS write_to_code(void)
{
    *(volatile uint32_t *)code_begin = 1;
}

BREAKS unaligned_read(void)
{
    uintptr_t at = (uintptr_t)words + 1; /* a pair of words must be aligned whatever CCR says */
    __asm__ volatile("ldrd r2, r3, [%0]" ::"r"(at) : "r2", "r3");
}

BREAKS divide_by_zero(void)
{
    words[0] = 10 / zero;
}

BREAKS execute_ram(void)
{
    ((void (*)(void))((uintptr_t)code_in_ram + 1 + null))();
    __asm__ volatile("");
}

BREAKS execute_window(void)
{
    ((void (*)(void))(BOARD_WINDOW + SBE_CARVEOUT_ARENA + 1 + null))();
    __asm__ volatile("");
}

BREAKS stray_interrupt(void)
{
    NVIC_ENABLE[UNHANDLED_IRQ / 32] = 1u << UNHANDLED_IRQ % 32;
    NVIC_PEND[UNHANDLED_IRQ / 32] = 1u << UNHANDLED_IRQ % 32;
    __asm__ volatile("dsb\n\tisb");
}

BREAKS interrupt_storm(void)
{
    for (;;)
        NVIC_PEND[BOARD_RX1_IRQ / 32] = 1u << BOARD_RX1_IRQ % 32;
}

BREAKS endless_loop(void)
{
    for (;;)
        __asm__ volatile("");
}

BREAKS hang(void)
{
    __asm__ volatile("cpsid i");
    endless_loop();
}

static bool run_later(struct sbe_task *task)
{
    (void)task;
    null_write();
    return false;
}

/* In a round of its own, after the answer. */
BREAKS later(void)
{
    static struct sbe_task task = {.run = run_later};
    sbe_engine_later(&board_link.engine, &task);
}

static const struct {
    char how;
    void (*broken)(void);
} WAYS[] = {
    {'a', fail_assertion},  {'h', undefined_instruction},
    {'r', null_read},       {'w', null_write},
    {'j', jump_to_null},    {'o', overflow_stack},
    {'O', recurse},         {'c', write_to_code},
    {'u', unaligned_read},  {'d', divide_by_zero},
    {'x', execute_ram},     {'X', execute_window},
    {'i', stray_interrupt}, {'I', interrupt_storm},
    {'l', endless_loop},    {'s', hang},
    {'t', later},
};

static int fault(struct sbe_request *request)
{
    char how = request->payload_size == 0 ? '\0' : *(const char *)request->payload;
    for (uint32_t i = 0; i < sizeof WAYS / sizeof *WAYS; i++)
        if (WAYS[i].how == how) {
            WAYS[i].broken();
            return how == 't' ? SBE_OK : SBE_EIO; /* EIO: it was not noticed */
        }
    return SBE_EINVAL;
}

SBE_SERVICE(fault, 1, fault);

static struct sbe_kept asking;
static bool answered;

static void asked(void *self, int status)
{
    (void)self;
    if (!answered)
        (void)sbe_kept_answer(&asking, status, NULL, 0);
    answered = true;
}

static int ask_power(struct sbe_request *request)
{
    static uint64_t scratch[2];
    uint32_t asks[2];
    if (request->payload_size != sizeof asks || request->buffer_count != 0)
        return SBE_EINVAL;
    memcpy(asks, request->payload, sizeof asks);
    if (board_link.power.asked != 0)
        return SBE_EBUSY; /* `asking` is in use */
    int status = sbe_request_keep(request, &asking, scratch, sizeof scratch);
    if (status < 0)
        return status;
    answered = false;
    status = sbe_power_ask(&board_link.power, (enum sbe_event)asks[0], asks[1], asked, NULL);
    if (status < 0)
        asked(NULL, status);
    return SBE_KEPT;
}

static void ask_power_cancel(struct sbe_kept *kept)
{
    if (!answered)
        (void)sbe_kept_answer(kept, SBE_ECANCELED, NULL, 0);
    answered = true;
}

SBE_SERVICE_WITH_CANCEL(ask_power, 1, ask_power, ask_power_cancel);
