/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams on the wire: payloads of requests to a service that is a stream, events, and the block of
 * memory in which both ends show how far they are. docs/spec/streams.md has it in words.
 */
#ifndef SBE_STREAMS_LAYOUT_H
#define SBE_STREAMS_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "core/wire.h"

#define SBE_STREAM_FORMAT_SIZE 16u         /* a name, zero-padded, opaque */
#define SBE_STREAM_STRIDE_MIN  64u         /* bytes between records of the block */
#define SBE_STREAM_BUFFER_MAX  0x40000000u /* bytes: differences of positions fit 32 bits */
#define SBE_STREAM_GROUP_MAX   16u         /* that one START names */

enum sbe_stream_op {
    SBE_STREAM_NEGOTIATE = 1, /* what would be made of these settings */
    SBE_STREAM_OPEN = 2,      /* kept until the stream is closed */
    SBE_STREAM_QUERY = 3,
    SBE_STREAM_PREPARE = 4, /* position 0 of a new generation */
    SBE_STREAM_START = 5,
    SBE_STREAM_PAUSE = 6,
    SBE_STREAM_RESUME = 7,
    SBE_STREAM_DRAIN = 8, /* stop when all is consumed */
    SBE_STREAM_STOP = 9,
    SBE_STREAM_CLOSE = 10,       /* answered when the memory is not touched any more */
    SBE_STREAM_QUEUE_BLOCK = 11, /* kept until the block is consumed, or filled */
};

enum sbe_stream_state {
    SBE_STREAM_SETUP = 1,
    SBE_STREAM_PREPARED = 2,
    SBE_STREAM_RUNNING = 3,
    SBE_STREAM_PAUSED = 4,
    SBE_STREAM_DRAINING = 5,
    SBE_STREAM_XRUN = 6,
    SBE_STREAM_SUSPENDED = 7,    /* stopped because the responder was suspended */
    SBE_STREAM_DISCONNECTED = 8, /* closed */
};

enum sbe_stream_direction {
    SBE_STREAM_PLAYBACK = 1, /* from the requester to the responder */
    SBE_STREAM_CAPTURE = 2,
};

enum sbe_stream_mode {
    SBE_STREAM_CYCLIC = 1, /* periods of a ring, refilled as they are consumed */
    SBE_STREAM_ENDLESS =
        2,                /* the same bytes over and over: the application's position is nothing */
    SBE_STREAM_QUEUE = 3, /* blocks, each with memory of its own, in the order they came */
};

enum sbe_stream_on_xrun {
    SBE_STREAM_XRUN_STOPS = 1,
    SBE_STREAM_XRUN_GOES_ON = 2, /* playback: silence; capture: over the oldest bytes */
};

enum sbe_stream_on_suspend {
    SBE_STREAM_SUSPEND_REFUSED = 0, /* while it moves, the responder is not suspended */
    SBE_STREAM_SUSPEND_PAUSES = 1,
};

struct sbe_stream_settings {
    uint32_t frame_bytes;
    uint32_t rate_hz;      /* frames a second, a hint */
    uint64_t buffer_bytes; /* whole periods */
    uint32_t period_bytes; /* whole frames; 0: no events of the position */
    uint8_t direction;
    uint8_t mode;
    uint8_t on_xrun;
    uint8_t on_suspend;
    char format[SBE_STREAM_FORMAT_SIZE];
};

struct sbe_stream_request {
    uint32_t op;
    uint32_t stream;     /* id, chosen by the requester, not 0; one of its context */
    uint32_t generation; /* PREPARE: of the run that begins, not that of the last; else 0 */
    uint32_t count;      /* START: of further streams whose ids follow; else 0 */
    /* NEGOTIATE and OPEN: struct sbe_stream_settings. START: uint32_t streams[count] */
};

struct sbe_stream_status {
    uint32_t generation; /* 0 before the first PREPARE */
    uint32_t state;
    uint64_t position;    /* bytes moved in this generation */
    uint64_t clock_ns;    /* of the responder, when it measured that */
    uint64_t application; /* the requester's position as last seen */
    uint64_t lost_bytes;  /* played as silence, or not captured */
    uint32_t xruns;
    uint32_t delay_bytes; /* moved and not yet out, or in and not yet moved */
    uint32_t skipped;     /* events that found no room */
    uint32_t reserved;
    uint64_t reserved2;
};

struct sbe_stream_answer { /* to every request but NEGOTIATE and QUEUE_BLOCK */
    int32_t result;        /* zero or a negative status */
    uint32_t stream;
    struct sbe_stream_status status;
};

struct sbe_stream_block_answer { /* to QUEUE_BLOCK, in the order in which they came */
    int32_t result;              /* zero: used whole */
    uint32_t stream;
    uint32_t generation; /* of the run */
    uint32_t sequence;   /* of this run's blocks, from 1 on, in the order in which they came */
    uint64_t position;   /* of its first byte */
    uint64_t clock_ns;   /* of the responder, when it measured that it was done */
    uint32_t used_bytes; /* from its beginning on: consumed, or filled */
    uint32_t state;      /* of the stream, before that changes for the same reason */
};

struct sbe_stream_proposal { /* to NEGOTIATE */
    int32_t result;
    uint32_t stream;
    struct sbe_stream_settings settings; /* as asked, or as they can be */
};

enum sbe_stream_event_kind {
    SBE_STREAM_EVENT_PERIOD = 1, /* the position has passed the end of a period, or of several */
    SBE_STREAM_EVENT_STATE = 2,
    SBE_STREAM_EVENT_XRUN =
        3, /* `bytes` from `from` on are lost; again with all of them at its end */
};

struct sbe_stream_event {
    uint32_t stream;
    uint32_t generation;
    uint32_t kind;
    uint32_t sequence; /* of this stream's events, from 1 on; what is missing found no room */
    uint64_t position;
    uint64_t clock_ns;
    uint64_t from;
    uint64_t bytes;
    uint32_t state;
    uint32_t skipped; /* as in the status */
    uint32_t data[2]; /* the service's own */
};

/*
 * The block: four records, a stride apart. Who writes has written record `newest & 1` of its two
 * before it stores `newest`, and writes the other one next.
 */
struct sbe_stream_host_record { /* the first, written by the requester */
    sbe_shared_u32 newest;
    uint32_t reserved;
    uint64_t application[2]; /* position: bytes written, or read */
};

struct sbe_stream_remote_record { /* the second, written by the responder; two status follow */
    sbe_shared_u32 newest;
};

#define SBE_STREAM_BLOCK_RECORDS 4u

SBE_AT(sbe_stream_settings, frame_bytes, 0);
SBE_AT(sbe_stream_settings, rate_hz, 4);
SBE_AT(sbe_stream_settings, buffer_bytes, 8);
SBE_AT(sbe_stream_settings, period_bytes, 16);
SBE_AT(sbe_stream_settings, direction, 20);
SBE_AT(sbe_stream_settings, mode, 21);
SBE_AT(sbe_stream_settings, on_xrun, 22);
SBE_AT(sbe_stream_settings, on_suspend, 23);
SBE_AT(sbe_stream_settings, format, 24);
SBE_SIZE(sbe_stream_settings, 40);
SBE_AT(sbe_stream_request, op, 0);
SBE_AT(sbe_stream_request, stream, 4);
SBE_AT(sbe_stream_request, generation, 8);
SBE_AT(sbe_stream_request, count, 12);
SBE_SIZE(sbe_stream_request, 16);
SBE_AT(sbe_stream_status, generation, 0);
SBE_AT(sbe_stream_status, state, 4);
SBE_AT(sbe_stream_status, position, 8);
SBE_AT(sbe_stream_status, clock_ns, 16);
SBE_AT(sbe_stream_status, application, 24);
SBE_AT(sbe_stream_status, lost_bytes, 32);
SBE_AT(sbe_stream_status, xruns, 40);
SBE_AT(sbe_stream_status, delay_bytes, 44);
SBE_AT(sbe_stream_status, skipped, 48);
SBE_AT(sbe_stream_status, reserved, 52);
SBE_AT(sbe_stream_status, reserved2, 56);
SBE_SIZE(sbe_stream_status, 64);
SBE_AT(sbe_stream_answer, result, 0);
SBE_AT(sbe_stream_answer, stream, 4);
SBE_AT(sbe_stream_answer, status, 8);
SBE_SIZE(sbe_stream_answer, 72);
SBE_AT(sbe_stream_block_answer, result, 0);
SBE_AT(sbe_stream_block_answer, stream, 4);
SBE_AT(sbe_stream_block_answer, generation, 8);
SBE_AT(sbe_stream_block_answer, sequence, 12);
SBE_AT(sbe_stream_block_answer, position, 16);
SBE_AT(sbe_stream_block_answer, clock_ns, 24);
SBE_AT(sbe_stream_block_answer, used_bytes, 32);
SBE_AT(sbe_stream_block_answer, state, 36);
SBE_SIZE(sbe_stream_block_answer, 40);
SBE_AT(sbe_stream_proposal, result, 0);
SBE_AT(sbe_stream_proposal, stream, 4);
SBE_AT(sbe_stream_proposal, settings, 8);
SBE_SIZE(sbe_stream_proposal, 48);
SBE_AT(sbe_stream_event, stream, 0);
SBE_AT(sbe_stream_event, generation, 4);
SBE_AT(sbe_stream_event, kind, 8);
SBE_AT(sbe_stream_event, sequence, 12);
SBE_AT(sbe_stream_event, position, 16);
SBE_AT(sbe_stream_event, clock_ns, 24);
SBE_AT(sbe_stream_event, from, 32);
SBE_AT(sbe_stream_event, bytes, 40);
SBE_AT(sbe_stream_event, state, 48);
SBE_AT(sbe_stream_event, skipped, 52);
SBE_AT(sbe_stream_event, data, 56);
SBE_SIZE(sbe_stream_event, 64);
SBE_AT(sbe_stream_host_record, newest, 0);
SBE_AT(sbe_stream_host_record, reserved, 4);
SBE_AT(sbe_stream_host_record, application, 8);
SBE_SIZE(sbe_stream_host_record, 24);
SBE_AT(sbe_stream_remote_record, newest, 0);
SBE_SIZE(sbe_stream_remote_record, 4);

#endif
