/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both ends of a link in C: a host's session and channel, and a remote's engine with its services.
 * Control messages pass through queues while the link is made; after that the ends share only
 * memory that a fork keeps, so each may live in a process of its own.
 */
#ifndef SBE_BENCH_CORE_LINK_H
#define SBE_BENCH_CORE_LINK_H

#include "core/engine.h"
#include "core/status.h"

#define LINK_SLOTS     256u /* what sbe.connect() asks for */
#define LINK_SLOT_SIZE 1024u
#define LINK_AREA      0x10002u
#define LINK_AREA_SIZE (1u << 20)

struct core_link {
    struct sbe_channel *channel;        /* the host's end */
    struct sbe_engine *engine;          /* the remote */
    struct sbe_channel *remote_channel; /* the engine's end of the channel */
    uint8_t *scratch;                   /* for sbe_channel_receive() */
    uint16_t echo;                      /* the service's id */
};

/* Where doorbells and time come from; `self` of both hooks is NULL. */
struct core_link_hooks {
    uint64_t (*now_ns)(void *self);
    void (*ring_remote)(void *self, const struct sbe_channel *channel);
    void (*ring_host)(void *self, const struct sbe_channel *channel);
};

/* There is one link a program. Ends the program when it can't be made. */
void core_link_open(struct core_link *link, const struct core_link_hooks *hooks);

/* An echo request with this many buffers of 64 bytes in the area, IN and OUT in turn. */
struct sbe_frame core_link_request(const struct core_link *link, uint16_t buffers);

#endif
