/* SPDX-License-Identifier: Apache-2.0 */
/* Vectors, and the way from reset to main(). */
#include <stddef.h>
#include <string.h>

#include "ports/mps2/board.h"

#define SCB_VTOR (*(volatile uint32_t *)0xe000ed08u)

extern uint32_t data_load[], data_begin[], data_end[], bss_begin[], bss_end[];

int main(void);
void reset(void) __attribute__((noreturn));
static void fault_entry(void) __attribute__((naked));

typedef void (*handler)(void);

/* What the core reads at reset. On one board it lies in the null page, which is shut then. */
__attribute__((used, section(".boot"))) static const struct {
    uint32_t *stack;
    handler system[3];
} boot = {.stack = stack_top, .system = {reset, fault_entry, fault_entry}};

#define LOWER_IRQ  (BOARD_RX1_IRQ < BOARD_RING_IRQ ? BOARD_RX1_IRQ : BOARD_RING_IRQ)
#define HIGHER_IRQ (BOARD_RX1_IRQ < BOARD_RING_IRQ ? BOARD_RING_IRQ : BOARD_RX1_IRQ)

__attribute__((used, section(".vectors"), aligned(512))) static const struct {
    uint32_t *stack;
    handler system[15];
    handler interrupts[BOARD_IRQS];
} vectors = {
    .stack = stack_top,
    .system = {reset, [1 ... 14] = fault_entry},
    .interrupts = {[0 ... LOWER_IRQ - 1] = fault_entry,
                   [LOWER_IRQ + 1 ... HIGHER_IRQ - 1] = fault_entry,
                   [HIGHER_IRQ + 1 ... BOARD_IRQS - 1] = fault_entry,
                   [BOARD_RX1_IRQ] = uart_receive,
                   [BOARD_RING_IRQ] = clock_ring},
};

void reset(void)
{
#if defined(__ARM_ARCH_8M_MAIN__)
    __asm__ volatile("msr msplim, %0" ::"r"(stack_bottom));
#endif
    SCB_VTOR = (uint32_t)(uintptr_t)&vectors;
    memcpy(data_begin, data_load, (size_t)((char *)data_end - (char *)data_begin));
    memset(bss_begin, 0, (size_t)((char *)bss_end - (char *)bss_begin));
    (void)main();
    for (;;)
        __asm__ volatile("wfi");
}

/*
 * The frame lies on the main stack: nothing here uses the other one. That stack may be what has
 * overflowed, so what tells of it has one of its own.
 */
static void fault_entry(void)
{
    __asm__ volatile("mov r0, sp\n\t"
                     "ldr r1, =crash_stack_top\n\t"
                     "ldr sp, [r1]\n\t"
                     "b crash_fault");
}
