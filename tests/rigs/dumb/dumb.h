/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Firmware that knows nothing of SBE, as the core of a remote processor of
 * linux/kernel/sbe_userproc.c: rpmsg endpoints that take messages in formats of their own, with
 * device addresses in them.
 */
#ifndef TESTS_RIGS_DUMB_H
#define TESTS_RIGS_DUMB_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct dumb_endpoint {
    const char *name; /* as announced */
    uint32_t address;
    /* Takes a message from the host's endpoint `source`, which may still change it; answers with
     * dumb_send(). */
    void (*received)(const struct dumb_endpoint *self, uint32_t source, const void *data,
                     uint32_t size);
};

extern const struct dumb_endpoint *const dumb_endpoints[]; /* NULL ends them */

void dumb_send(const struct dumb_endpoint *self, uint32_t destination, const void *data,
               uint32_t size);
/* What is there on the bus, NULL nothing. */
uint8_t *dumb_reach(uint64_t address, uint64_t size);

static inline uint32_t get16(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8;
}

static inline uint32_t get32(const uint8_t *at)
{
    return get16(at) | get16(at + 2) << 16;
}

static inline uint64_t get64(const uint8_t *at)
{
    return get32(at) | (uint64_t)get32(at + 4) << 32;
}

static inline void put32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> 8 * i);
}

#endif
