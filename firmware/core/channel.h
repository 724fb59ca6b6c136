/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A channel: a pair of rings owned by one context. Frames go in and out in private form; what
 * comes out has been copied from shared memory once, checked and resolved.
 *
 * Not thread-safe: the owner serialises all calls of one channel.
 */
#ifndef SBE_CORE_CHANNEL_H
#define SBE_CORE_CHANNEL_H

#include <stdbool.h>
#include <stdint.h>

#include "core/area.h"
#include "core/port.h"
#include "core/ring.h"

#ifndef SBE_BUFFERS_MAX
#define SBE_BUFFERS_MAX 16u /* per frame; costs 40 bytes each in struct sbe_frame */
#endif

struct sbe_frame {
    /* as struct sbe_wire_frame; size, flags and reserved are the channel's to fill */
    uint32_t size;
    uint8_t type; /* enum sbe_frame_type */
    uint8_t flags;
    uint16_t service;
    uint64_t transaction;
    int32_t status;
    uint16_t buffer_count;
    uint16_t reserved;
    uint32_t payload_size;
    uint32_t deadline_us;
    uint32_t waited_ns;
    uint32_t handled_ns;

    uint64_t seen_ns; /* received, no response: when this end saw it in the ring, by port->now_ns */
    void *owner;      /* received response: what sbe_channel_request() was given */
    const void *payload;
    struct sbe_buffer buffers[SBE_BUFFERS_MAX];
};

struct sbe_call { /* an open transaction of a requester; caller-owned storage */
    void *owner;  /* NULL: free */
    uint32_t generation;
    uint32_t next_free;
};

struct sbe_channel_counters {
    uint32_t sent;
    uint32_t received;
    uint32_t doorbells; /* rung by this end */
    uint32_t bad;       /* malformed frames refused or dropped */
    uint32_t late;      /* responses that met no open transaction */
    uint32_t full;      /* sends that found the ring full */
    uint64_t synced;    /* bytes of cache maintenance */
};

struct sbe_channel_config {
    struct sbe_ring_geometry geometry;
    void *send;    /* memory of the ring this end produces */
    void *receive; /* memory of the ring this end consumes */
    /* from here on as in struct sbe_channel, which takes them over */
    uint32_t id;
    uint32_t context;
    const struct sbe_port *port;
    struct sbe_area_table *areas;
    struct sbe_call *calls;  /* storage for open transactions, may be NULL */
    uint32_t call_count;     /* at most 2^16 */
    uint32_t flush_interval; /* publish after this many frames at the latest, 0: half a ring */
    uint32_t buffers;        /* that the peer takes in a frame, 0: SBE_BUFFERS_MAX */
    void *handle;            /* the port's own, e.g. its doorbell */
};

/* What is used often comes first: Thumb's short instructions reach 124 bytes. */
struct sbe_channel {
    struct sbe_ring rx;
    uint32_t id;
    uint32_t context;
    const struct sbe_port *port;
    struct sbe_area_table *areas;
    struct sbe_call *calls;
    uint32_t call_count;
    uint32_t flush_interval;
    uint32_t buffers; /* in a frame that is sent, at most; SBE_BUFFERS_MAX or less */
    void *handle;
    uint32_t call_free; /* index of the first free call, call_count: none */
    uint32_t promised;  /* responses owed: slots that nothing else may take */
    struct sbe_channel_counters counters;
    uint64_t seen_ns;
    struct sbe_ring tx;
};

/* Attaches to ring memory (the opener has cleared it). SBE_EINVAL on illegal geometry. */
int sbe_channel_open(struct sbe_channel *channel, const struct sbe_channel_config *config);

/*
 * Writes a frame into the next slot; it is published by sbe_channel_flush() or after
 * flush_interval frames. SBE_EMSGSIZE too large for a slot or more buffers than the peer takes,
 * SBE_EAGAIN ring full, SBE_EPROTO shut.
 */
int sbe_channel_send(struct sbe_channel *channel, const struct sbe_frame *frame);

/*
 * The same for a REQUEST or SYNC: opens a transaction and stores its id in the frame. `owner` must
 * not be NULL and comes back with the response. SBE_ENOMEM when all calls are open.
 */
int sbe_channel_request(struct sbe_channel *channel, struct sbe_frame *frame, void *owner);

/* Publishes what was sent and rings if the peer sleeps. True if it rang. */
bool sbe_channel_flush(struct sbe_channel *channel);

/*
 * Takes one frame: 1 a frame, 0 nothing there, SBE_EBADMSG one malformed frame was dropped (go
 * on), SBE_EPROTO the ring is shut. scratch has slot_size bytes; payload and inline buffers point
 * into it, valid until its next use. A request, message or event whose buffers do not resolve
 * comes with the reason in status and must be refused; so does a malformed request. A response ends
 * its transaction, a malformed one with SBE_EBADMSG: nobody waits for a second one.
 */
int sbe_channel_receive(struct sbe_channel *channel, struct sbe_frame *frame, void *scratch);

/*
 * Checks that a response's buffers are the OUT, INOUT and SHARED ones asked for, within their room.
 * A success describes all of them, a failure may stop early.
 */
int sbe_frame_check_response(const struct sbe_frame *response, const struct sbe_buffer *asked,
                             uint32_t asked_count);

/* Returns slots, publishes, asks for a doorbell. True: nothing to do, the owner may sleep. */
bool sbe_channel_idle(struct sbe_channel *channel);

/* Ends all open transactions, calling `each` with every owner; for a channel that has died. */
void sbe_channel_abort(struct sbe_channel *channel, void (*each)(void *self, void *owner),
                       void *self);

/* Slots that may be sent into now, not counting those promised to responses. */
uint32_t sbe_channel_room(struct sbe_channel *channel);

/* As sbe_channel_idle(), for an owner that waits for room to send. True: none yet, it may sleep. */
bool sbe_channel_wait_room(struct sbe_channel *channel);

/* Bytes of payload that fit a frame with this many buffers and inline bytes, 0 if none. */
uint32_t sbe_channel_payload_room(const struct sbe_channel *channel, uint32_t buffer_count,
                                  uint64_t inline_bytes);

#endif
