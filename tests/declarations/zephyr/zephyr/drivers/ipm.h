/* SPDX-License-Identifier: Apache-2.0 */
/* Describes Zephyr 4.3.0: see tests/declarations/README.md. */
#ifndef DECLARED_ZEPHYR_DRIVERS_IPM_H
#define DECLARED_ZEPHYR_DRIVERS_IPM_H

#include <stdint.h>
#include <zephyr/device.h>

typedef void (*ipm_callback_t)(const struct device *device, void *user, uint32_t id,
                               volatile void *data);

int ipm_send(const struct device *device, int wait, uint32_t id, const void *data, int size);
void ipm_register_callback(const struct device *device, ipm_callback_t callback, void *user);
int ipm_max_data_size_get(const struct device *device);
int ipm_set_enabled(const struct device *device, int enable);

#endif
