/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The remote's end of a link over rpmsg, whoever brings the messages: the engine over two
 * endpoints. One carries control messages, one each. The other carries doorbells: a channel's
 * doorbell is bound to the host's endpoint that says for which, and every further message between
 * the two is a doorbell; or a frame, if the channel's rings are not shared. Single-threaded.
 *
 *     the bus is there:  announce both endpoints, rpmsg_link_up(&link, epoch)
 *     on a message:      rpmsg_link_receive(&link, ...)
 *     then:              while (rpmsg_link_run(&link)) ;  and sleep, a short while only if
 *                        rpmsg_link_waits(&link) and the bus does not tell of free buffers
 *     the bus is gone:   rpmsg_link_down(&link)
 */
#ifndef SBE_PORTS_RPMSG_LINK_H
#define SBE_PORTS_RPMSG_LINK_H

#include "core/engine.h"
#include "mirror/mirror.h"
#include "pieces/pieces.h"
#include "power/power.h"

#define RPMSG_LINK_CONTROL       1024u /* addresses of our endpoints */
#define RPMSG_LINK_DOORBELL      1025u
#define RPMSG_LINK_CONTROL_NAME  "sbe-control"
#define RPMSG_LINK_DOORBELL_NAME "sbe-doorbell"
#define RPMSG_LINK_BIND          0x42454253u /* "SBEB": begins a doorbell's first message */

/* What the link can hold; RAM is spent accordingly. */
#ifndef RPMSG_LINK_AREAS
#define RPMSG_LINK_AREAS 64u
#endif
#ifndef RPMSG_LINK_CONTEXTS
#define RPMSG_LINK_CONTEXTS 8u
#endif
#ifndef RPMSG_LINK_CHANNELS
#define RPMSG_LINK_CHANNELS 8u
#endif
#ifndef RPMSG_LINK_SLOTS
#define RPMSG_LINK_SLOTS 1024u
#endif
#ifndef RPMSG_LINK_SLOT_SIZE
#define RPMSG_LINK_SLOT_SIZE 2048u
#endif
#ifndef RPMSG_LINK_CALLS
#define RPMSG_LINK_CALLS 8u /* of this end to the host, per channel */
#endif
#ifndef RPMSG_LINK_OUTBOX
#define RPMSG_LINK_OUTBOX 16u /* control messages that wait for a buffer */
#endif
#ifndef RPMSG_LINK_LINE
#define RPMSG_LINK_LINE 32u
#endif
/* 1: handlers in pieces let others have their turn. RAM for three slots' worth of each channel. */
#ifndef RPMSG_LINK_PIECES
#define RPMSG_LINK_PIECES 0
#endif
/* 1: services may be streams (firmware/streams). */
#ifndef RPMSG_LINK_STREAMS
#define RPMSG_LINK_STREAMS 0
#endif
#ifndef RPMSG_LINK_KEPT
#define RPMSG_LINK_KEPT 4u /* requests of one context that are answered later, 0: any number */
#endif
#define RPMSG_LINK_PENDING 16u
/* 1: rings may be private (docs/spec/rpmsg.md). area_attach then gets areas of flags
 * RPMSG_LINK_PRIVATE with no segments, and gives them zeroed memory of this end. */
#ifndef RPMSG_LINK_PRIVATE_RINGS
#define RPMSG_LINK_PRIVATE_RINGS 0
#endif
#define RPMSG_LINK_PRIVATE (SBE_AREA_RING | SBE_AREA_COHERENT)

struct rpmsg_link_config {
    void *self;
    const char *name;     /* of the implementation, for people */
    uint16_t version_min; /* of the protocol; both 0: what this code speaks */
    uint16_t version_max;
    bool coherent;
    /* The platform's: now_ns, areas and caches. Their self is the link, whose config has self. */
    struct sbe_port port;
    /* Sends from one of our endpoints. False: no buffer is free. */
    bool (*send)(void *self, uint32_t source, uint32_t destination, const void *data,
                 uint32_t size);
    const struct sbe_power_hooks *power; /* NULL: it can be suspended, which saves nothing */
};

struct rpmsg_link_waiting {
    uint32_t size;
    uint8_t bytes[SBE_CONTROL_MAX];
};

struct rpmsg_link_channel { /* at the same index as the engine's */
    uint32_t host;          /* the host's endpoint, 0 unbound */
    struct rpmsg_link_channel *next;
    bool listed; /* among those with something to send */
    bool owed;   /* a doorbell without a buffer or an endpoint */
#if RPMSG_LINK_PRIVATE_RINGS
    bool private; /* frames go through the mirror */
    struct sbe_mirror mirror;
#endif
};

struct rpmsg_link {
    const struct rpmsg_link_config *config;
    bool up;
    bool waits;
    uint32_t host_address; /* of its control endpoint, 0 not heard of */
    uint32_t outbox_first, outbox_count;
    struct rpmsg_link_waiting outbox[RPMSG_LINK_OUTBOX];
    struct rpmsg_link_channel *last; /* of those with something to send; its next is the first */
    struct rpmsg_link_channel channels[RPMSG_LINK_CHANNELS];
    struct sbe_port port;
    struct sbe_engine_config engine_config;
    struct sbe_engine engine;
    struct sbe_power power;
};

/* A status. There is one link in a program: it owns the engine's tables. */
int rpmsg_link_init(struct rpmsg_link *link, const struct rpmsg_link_config *config);
/* epoch: not that of the time before; 0 counts up from there. */
void rpmsg_link_up(struct rpmsg_link *link, uint32_t epoch);
void rpmsg_link_down(struct rpmsg_link *link);
/* data may be shared memory, of any alignment: it is copied once. Other destinations are ignored.
 */
void rpmsg_link_receive(struct rpmsg_link *link, uint32_t source, uint32_t destination,
                        const void *data, uint32_t size);
/* Everything there is to do now. True: there is more. */
bool rpmsg_link_run(struct rpmsg_link *link);
/* When a stream has bytes to move, by the port's clock; UINT64_MAX never. */
uint64_t rpmsg_link_due_ns(void);
/* Something found no buffer. */
static inline bool rpmsg_link_waits(const struct rpmsg_link *link)
{
    return link->waits;
}

#endif
