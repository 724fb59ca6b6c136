/* SPDX-License-Identifier: Apache-2.0 */
/* Describes Zephyr 4.3.0: see tests/declarations/README.md. */
#ifndef DECLARED_ZEPHYR_DEVICE_H
#define DECLARED_ZEPHYR_DEVICE_H

#include <stdbool.h>

struct device {
    const char *name;
};

extern const struct device declared_device;
#define DEVICE_DT_GET(node) (&declared_device)

bool device_is_ready(const struct device *device);

#endif
