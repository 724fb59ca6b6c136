/* SPDX-License-Identifier: Apache-2.0 */
/* CMSDK UARTs: one byte of buffer each way. UART0 is the console, UART1 carries doorbells. */
#include "ninep/files.h"
#include "ports/carveout/carveout.h"
#include "ports/mps2/board.h"

struct uart {
    volatile uint32_t data;
    volatile uint32_t state; /* 0: transmitter full, 1: receiver full */
    volatile uint32_t control;
    volatile uint32_t clear;
    volatile uint32_t divider;
};

#define TX_FULL      1u
#define RX_FULL      2u
#define TX_ENABLE    1u
#define RX_ENABLE    2u
#define RX_INTERRUPT 8u

#define UART0 ((struct uart *)BOARD_UART0)
#define UART1 ((struct uart *)BOARD_UART1)

/*
 * How long a byte may wait for room, in reads of the state. A host that does not read must not stop
 * the firmware: what it misses are doorbells, and it has a backstop.
 */
#define PATIENCE 20000u

/* Interrupts without a byte, one after another: some follow a byte that came late, never so many.
 */
#define STORM 1000u

#define LOG_SIZE 0x4000u

struct log { /* region "log": text behind a count of all bytes ever written */
    sbe_shared_u32 written;
    char text[LOG_SIZE - 4];
};

static bool send(struct uart *uart, uint8_t byte)
{
    for (uint32_t i = 0; (uart->state & TX_FULL) != 0; i++)
        if (i == PATIENCE)
            return false;
    uart->data = byte;
    return true;
}

void uart_send_byte(void *self, uint8_t byte)
{
    (void)self;
    (void)send(UART1, byte);
}

void uart_receive(void)
{
    static uint32_t empty;
    empty++;
    UART1->clear = RX_FULL; /* first: a byte that comes after the loop interrupts again */
    while ((UART1->state & RX_FULL) != 0) {
        carveout_take_byte(&board_link, (uint8_t)UART1->data);
        empty = 0;
    }
    if (empty == STORM)
        crash_storm(); /* or nothing else would run ever again */
}

void uart_start(void)
{
    UART0->divider = 16;
    UART0->control = TX_ENABLE;
    UART1->divider = 16;
    UART1->control = TX_ENABLE | RX_ENABLE | RX_INTERRUPT;
    /* A byte that came before the receiver was on keeps its line busy until somebody reads. */
    (void)UART1->data;
    NVIC_ENABLE[BOARD_RX1_IRQ / 32] = 1u << BOARD_RX1_IRQ % 32;
}

void console_write(const char *text)
{
    struct log *log = (struct log *)(BOARD_WINDOW + SBE_CARVEOUT_REGIONS);
    ninep_log_text(text);
    for (; *text != '\0'; text++) {
        uint32_t written = sbe_load_relaxed(&log->written);
        log->text[written % sizeof log->text] = *text;
        sbe_store_release(&log->written, written + 1);
        (void)send(UART0, (uint8_t)*text);
    }
}
