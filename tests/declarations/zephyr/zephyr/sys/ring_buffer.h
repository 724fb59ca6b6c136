/* SPDX-License-Identifier: Apache-2.0 */
/* Describes Zephyr 4.3.0: see tests/declarations/README.md. */
#ifndef DECLARED_ZEPHYR_SYS_RING_BUFFER_H
#define DECLARED_ZEPHYR_SYS_RING_BUFFER_H

#include <stdint.h>

struct ring_buf {
    uint8_t *buffer;
    uint32_t size;
};
#define RING_BUF_DECLARE(name, bytes)  \
    static uint8_t name##_data[bytes]; \
    static struct ring_buf name = {name##_data, bytes}

uint32_t ring_buf_put(struct ring_buf *ring, const uint8_t *data, uint32_t size);
uint32_t ring_buf_get(struct ring_buf *ring, uint8_t *data, uint32_t size);

#endif
