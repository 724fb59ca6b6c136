/* SPDX-License-Identifier: Apache-2.0 */
/* Vectors, and the way from reset to main(). */
#include <stddef.h>
#include <string.h>

#include "ports/mps2/board.h"

extern uint32_t stack_top[], data_load[], data_begin[], data_end[], bss_begin[], bss_end[];

int main(void);
void reset(void) __attribute__((noreturn));
static void fault_entry(void) __attribute__((naked));

void reset(void)
{
    memcpy(data_begin, data_load, (size_t)((char *)data_end - (char *)data_begin));
    memset(bss_begin, 0, (size_t)((char *)bss_end - (char *)bss_begin));
    (void)main();
    for (;;)
        __asm__ volatile("wfi");
}

/* The frame lies on the main stack: nothing here uses the other one. */
static void fault_entry(void)
{
    __asm__ volatile("mov r0, sp\n\t"
                     "b crash_fault");
}

typedef void (*handler)(void);

__attribute__((used, section(".vectors"))) static const struct {
    uint32_t *stack;
    handler system[15];
    handler interrupts[BOARD_IRQS];
} vectors = {
    .stack = stack_top,
    .system = {reset, [1 ... 14] = fault_entry},
    .interrupts = {[0 ... BOARD_RX1_IRQ - 1] = fault_entry,
                   [BOARD_RX1_IRQ] = uart_receive,
                   [BOARD_RX1_IRQ + 1 ... BOARD_IRQS - 1] = fault_entry},
};
