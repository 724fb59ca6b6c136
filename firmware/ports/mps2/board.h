/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arm's MPS2 boards, real or in QEMU: what differs between two of its FPGA images. The window is
 * all of the PSRAM, which is the RAM that the host maps.
 */
#ifndef SBE_PORTS_MPS2_BOARD_H
#define SBE_PORTS_MPS2_BOARD_H

#include <stdbool.h>
#include <stdint.h>

#if defined(BOARD_AN521) /* Cortex-M33, SSE-200; its secure view */
#define BOARD_NAME     "mps2-an521"
#define BOARD_CODE     0x10000000u
#define BOARD_DATA     0x38000000u
#define BOARD_WINDOW   0x80000000u
#define BOARD_TIMER    0x50000000u
#define BOARD_UART0    0x50200000u
#define BOARD_UART1    0x50201000u
#define BOARD_RX1_IRQ  34u
#define BOARD_RING_IRQ 4u  /* of the timer behind it */
#define BOARD_TICK_NS  50u /* 20 MHz */
#elif defined(BOARD_AN385) /* Cortex-M3 */
#define BOARD_NAME     "mps2-an385"
#define BOARD_CODE     0x00000000u /* from the null page on */
#define BOARD_DATA     0x20000000u
#define BOARD_WINDOW   0x21000000u
#define BOARD_TIMER    0x40000000u
#define BOARD_UART0    0x40004000u
#define BOARD_UART1    0x40005000u
#define BOARD_RX1_IRQ  2u
#define BOARD_RING_IRQ 9u
#define BOARD_TICK_NS  40u /* 25 MHz */
#else
#error "define BOARD_AN521 or BOARD_AN385"
#endif
#define BOARD_WINDOW_SIZE 0x1000000u
#define BOARD_CODE_SIZE   0x400000u
#define BOARD_DATA_SIZE   0x400000u
#define BOARD_IRQS        64u

/* sections.ld */
extern uint32_t stack_bottom[], stack_top[], code_begin[], code_end[];

/* protect.c */
bool protect_start(void); /* false: this core can't */

/* uart.c */
void uart_start(void);
void uart_send_byte(void *self, uint8_t byte); /* UART1, the doorbells */
void uart_receive(void);                       /* interrupt */
void console_write(const char *text);          /* UART0, and the log in the window */

/* clock.c */
void clock_start(void);
uint64_t clock_now_ns(void *self);
/* An interrupt at that time ends the next sleep; UINT64_MAX: none does. */
void clock_ring_at(uint64_t due_ns);
void clock_ring(void); /* interrupt */
#define NVIC_ENABLE ((volatile uint32_t *)0xe000e100u)

/* crash.c */
extern uint64_t *const crash_stack_top;
void crash_fault(const uint32_t *frame) __attribute__((noreturn, used));
void crash_show_last(void); /* before the start: in the file /crash, what ended the last life */
void crash_assert(const char *text) __attribute__((noreturn));
void crash_storm(void) __attribute__((noreturn));
#define BOARD_ASSERT(condition) ((condition) ? (void)0 : crash_assert(#condition))

/* main.c */
extern struct carveout board_link;

#endif
