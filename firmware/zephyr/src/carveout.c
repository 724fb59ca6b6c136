/* SPDX-License-Identifier: Apache-2.0 */
/* The carve-out link on Zephyr: a UART or a mailbox that wakes the thread which serves. */
#include <zephyr/device.h>
#include <zephyr/devicetree.h>
#include <zephyr/irq.h>
#include <zephyr/kernel.h>
#include <zephyr/version.h>

#include "ports/carveout/carveout.h"
#include "zephyr/src/port.h"

#define LINK   DT_COMPAT_GET_ANY_STATUS_OKAY(sbe_carveout)
#define WINDOW DT_PHANDLE(LINK, memory_region)

static struct carveout link;
static bool crashed;
static K_SEM_DEFINE(rung, 0, 1);

#if DT_NODE_HAS_PROP(LINK, uart)
#include <zephyr/drivers/uart.h>
#include <zephyr/sys/ring_buffer.h>

static const struct device *const wire = DEVICE_DT_GET(DT_PHANDLE(LINK, uart));
RING_BUF_DECLARE(out, 64);

/* Not a loop until nothing is pending: some drivers call an idle transmitter pending. */
static void uart_event(const struct device *device, void *self)
{
    uint8_t byte;
    (void)self;
    if (uart_irq_update(device) == 0)
        return;
    while (uart_irq_rx_ready(device) > 0 && uart_fifo_read(device, &byte, 1) == 1) {
        carveout_take_byte(&link, byte);
        k_sem_give(&rung);
    }
    if (uart_irq_tx_ready(device) <= 0)
        return;
    if (ring_buf_get(&out, &byte, 1) == 1)
        (void)uart_fifo_fill(device, &byte, 1);
    else
        uart_irq_tx_disable(device);
}

/* What does not fit is lost: a host that does not read has a backstop, and must not stop us. */
static void send_byte(void *self, uint8_t byte)
{
    (void)self;
    if (crashed) {
        uart_poll_out(wire, byte); /* there are no interrupts any more */
        return;
    }
    unsigned int key = irq_lock();
    (void)ring_buf_put(&out, &byte, 1);
    irq_unlock(key);
    uart_irq_tx_enable(wire);
}

static int start_doorbell(void)
{
    uint8_t byte;
    int status = uart_irq_callback_user_data_set(wire, uart_event, NULL);
    if (status < 0)
        return status;
    uart_irq_rx_enable(wire);
    /* A byte that came before that interrupts nobody, and no other comes until it is read. */
    unsigned int key = irq_lock();
    if (uart_poll_in(wire, &byte) == 0)
        carveout_take_byte(&link, byte);
    irq_unlock(key);
    return 0;
}
#else
#include "zephyr/src/mailbox.h"

static const struct device *const wire = DEVICE_DT_GET(DT_PHANDLE(LINK, ipm));

static void ipm_event(const struct device *device, void *self, uint32_t id, volatile void *data)
{
    (void)device, (void)self, (void)id, (void)data;
    carveout_take_ring(&link);
    k_sem_give(&rung);
}

/* A ring for each token, whatever it says. */
static void send_byte(void *self, uint8_t byte)
{
    (void)self;
    if ((byte & 0x80u) != 0)
        mailbox_ring(wire, 0);
}

static int start_doorbell(void)
{
    return mailbox_start(wire, ipm_event);
}
#endif

static struct carveout_config config = {
    .window = (void *)DT_REG_ADDR(WINDOW),
    .window_size = DT_REG_SIZE(WINDOW),
    .board = CONFIG_BOARD_TARGET,
    .image = "sbe-zephyr " KERNEL_VERSION_STRING,
    .coherent = true,
    .send_byte = send_byte,
    .now_ns = sbe_zephyr_now_ns,
};

int sbe_carveout_serve(void)
{
    if (!device_is_ready(wire))
        return SBE_ENOTCONN;
    config.seed = k_cycle_get_32();
    int status = carveout_start(&link, &config);
    if (status >= 0)
        status = start_doorbell();
    while (status >= 0)
        if (!carveout_run(&link))
            (void)k_sem_take(&rung, sbe_until(carveout_due_ns()));
    return status;
}

void sbe_carveout_last_words(struct sbe_crash_record *record)
{
    crashed = true;
    carveout_crash(&link, record);
}
