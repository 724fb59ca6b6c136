/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A service that is an Address Space Graphics stream over an area of SBE's, in one file:
 *
 *     static bool serve(struct sbe_asg_stream *stream) { ... sbe_asg_server_read(...) ... }
 *     SBE_ASG(upper, 1, serve);
 *
 * The requester owns the region, an area, and rings by a message. The region is held by a request
 * that is kept, so that its end is that of any request: nothing is touched after it.
 */
#ifndef SBE_ASG_STREAM_H
#define SBE_ASG_STREAM_H

#include "asg/server.h"
#include "core/service.h"

#ifndef SBE_ASG_STREAMS
#define SBE_ASG_STREAMS 4u /* open at a time */
#endif
#ifndef SBE_ASG_STREAMS_SHARE
#define SBE_ASG_STREAMS_SHARE 2u /* of one context */
#endif

/* Payload of requests and messages to such a service. */
enum sbe_asg_op {
    SBE_ASG_OPEN = 1, /* SHARED: the region, laid out. Kept until it is cancelled */
    SBE_ASG_RING = 2, /* the doorbell: a message, or a request, which is answered at once */
};

struct sbe_asg_request {
    uint32_t op;
    uint32_t stream; /* id, chosen by the requester, one of its context, not 0 */
    uint32_t size;   /* OPEN: bytes of the transfer buffer; else 0 */
    uint32_t reserved;
};

struct sbe_asg_stream;

/*
 * Reads what there is, and replies: a piece of it, some ten microseconds' work, without waiting.
 * True: it did something, it is called again in the next round. False: it has to wait, for bytes or
 * for room, and is called when the client rings.
 */
typedef bool sbe_asg_serve(struct sbe_asg_stream *stream);

struct sbe_asg_stream {
    struct sbe_asg_server server;
    uint64_t state[4]; /* the service's own, zero when it is opened */
    /* This module's: */
    sbe_asg_serve *serve;
    struct sbe_kept kept;
    struct sbe_task task;
    uint32_t id; /* 0: free */
    uint32_t context;
    struct sbe_asg_request opened; /* where the kept request has its payload */
};

int sbe_asg_handle(struct sbe_request *request, sbe_asg_serve *serve);
void sbe_asg_cancel(struct sbe_kept *kept);
/* One that is at work is in the way of a suspend. */
int sbe_asg_rest(const struct sbe_engine *engine, bool now);

#define SBE_ASG(name_, version_, serve_)                           \
    static int sbe_asg_handle_##name_(struct sbe_request *request) \
    {                                                              \
        return sbe_asg_handle(request, serve_);                    \
    }                                                              \
    SBE_SERVICE_THAT_LASTS(name_, version_, sbe_asg_handle_##name_, sbe_asg_cancel, sbe_asg_rest)

#endif
