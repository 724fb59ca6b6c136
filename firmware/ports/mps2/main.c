/* SPDX-License-Identifier: Apache-2.0 */
#include "ports/carveout/carveout.h"
#include "ports/mps2/board.h"

#ifndef SBE_PROTOCOL /* other than the core's, to test refusals */
#define SBE_PROTOCOL 0
#endif

struct carveout board_link;

/* What the loader of an emulated board checks before it starts an image. */
__attribute__((used, section(".note.sbe"))) static const struct {
    uint32_t name_size, description_size, type;
    char name[4];
    char board[SBE_CARVEOUT_NAME_SIZE];
} note = {4, SBE_CARVEOUT_NAME_SIZE, 1, "SBE", BOARD_NAME};

static const struct carveout_config CONFIG = {
    .window = (void *)BOARD_WINDOW,
    .window_size = BOARD_WINDOW_SIZE,
    .board = BOARD_NAME,
    .image = "sbe-firmware " BOARD_NAME,
    .regions = {{"log", SBE_CARVEOUT_REGIONS, 0x4000}},
    .version_min = SBE_PROTOCOL,
    .version_max = SBE_PROTOCOL,
    .coherent = true,
    .send_byte = uart_send_byte,
    .now_ns = clock_now_ns,
};

/* step: sleep. Not if a byte came since the last look: a masked interrupt, too, ends WFI, of a
 * byte or of the timer. */
static void wait_for_byte(void)
{
    __asm__ volatile("cpsid i" ::: "memory");
    clock_ring_at(carveout_due_ns()); /* an interrupt before WFI would be over by then */
    if (!carveout_rung(&board_link))
        __asm__ volatile("dsb\n\twfi" ::: "memory");
    __asm__ volatile("cpsie i\n\tisb" ::: "memory");
}

int main(void)
{
    BOARD_ASSERT(protect_start());
    clock_start();
    crash_show_last();
    BOARD_ASSERT(carveout_start(&board_link, &CONFIG) == SBE_OK);
    uart_start();
    console_write("sbe-firmware on " BOARD_NAME "\n");
    for (;;)
        if (!carveout_run(&board_link))
            wait_for_byte();
}
