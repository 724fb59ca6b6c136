/* SPDX-License-Identifier: Apache-2.0 */
/* Describes Zephyr 4.3.0: see tests/declarations/README.md. */
#ifndef DECLARED_ZEPHYR_DRIVERS_UART_H
#define DECLARED_ZEPHYR_DRIVERS_UART_H

#include <zephyr/device.h>

typedef void (*uart_irq_callback_user_data_t)(const struct device *device, void *user);

int uart_irq_callback_user_data_set(const struct device *device,
                                    uart_irq_callback_user_data_t callback, void *user);
void uart_irq_rx_enable(const struct device *device);
void uart_irq_tx_enable(const struct device *device);
void uart_irq_tx_disable(const struct device *device);
int uart_irq_update(const struct device *device);
int uart_irq_rx_ready(const struct device *device);
int uart_irq_tx_ready(const struct device *device);
int uart_fifo_read(const struct device *device, unsigned char *data, const int size);
int uart_fifo_fill(const struct device *device, const unsigned char *data, int size);
int uart_poll_in(const struct device *device, unsigned char *byte);
void uart_poll_out(const struct device *device, unsigned char byte);

#endif
