/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host beside firmware/ports/rpmsg/link.c, in the same thread: memory that both see is one pool,
 * the bus is two function calls. The link is built with the limits below.
 */
#ifndef SBE_TESTS_RPMSG_HOST_H
#define SBE_TESTS_RPMSG_HOST_H

#include "check.h"
#include "core/status.h"
#include "ports/rpmsg/link.h"

#define HOST_ENDPOINT(channel) (4096u + (channel)) /* of a channel's doorbell */
#define HOST_SLOT_SIZE         256u
#define HOST_RING_AREA(id)     (1u << 16 | ((id)-1u)) /* of channel id */
#define HOST_CALLS             2048u

struct rpmsg_host_channel {
    struct sbe_channel channel;
    struct sbe_mirror mirror; /* of a private one */
    bool private;
    uint32_t rung; /* messages to its endpoint */
};

struct rpmsg_host {
    struct rpmsg_link link;
    struct sbe_session session;
    struct rpmsg_host_channel *channels; /* by id */
    uint64_t scratch[HOST_SLOT_SIZE / sizeof(uint64_t)];
    uint64_t now_ns;
    uint32_t free;       /* buffers of the bus */
    uint32_t refused;    /* messages that found none */
    uint32_t status;     /* of the last answer, negated */
    uint16_t found;      /* service */
    const uint8_t *gone; /* private memory that was detached last */
    size_t gone_size;
};

extern struct rpmsg_host rpmsg_host;

/* A message on the bus. */
void rpmsg_host_to_link(uint32_t source, uint32_t destination, const void *message, uint32_t size);
/* The link is up and negotiated; what was before is gone. */
void rpmsg_host_begin(void);
/* Control requests, answered when these return. */
void rpmsg_host_context(uint32_t id, bool create);
void rpmsg_host_map(uint32_t area, uint32_t context, uint32_t flags, uint32_t size);
void rpmsg_host_unmap(uint32_t area);
uint16_t rpmsg_host_find(const char *name);
/* Opens channel `id` with its rings in the area of the same number; not bound yet. */
void rpmsg_host_open(uint32_t id, uint32_t context, uint32_t slots, bool private);
void rpmsg_host_close(uint32_t id);
/* Nothing has been written to private memory since it was detached. */
bool rpmsg_host_untouched(void);
/* Says for which channel an endpoint is. */
void rpmsg_host_bind(uint32_t id, uint32_t endpoint);
/* Sends what was queued on the channel, and a doorbell if it was asked for. */
void rpmsg_host_flush(uint32_t id);
/* Sends an empty request to a service; its transaction. */
uint64_t rpmsg_host_ask(uint32_t id, uint16_t service);
void rpmsg_host_cancel(uint32_t id, uint64_t transaction);
/* Takes a frame: its transaction, 0 none is there. */
uint64_t rpmsg_host_take(uint32_t id, int *status);
/* Has the link work until it has no more to do, at most so many rounds. */
void rpmsg_host_run(uint32_t rounds);

#endif
