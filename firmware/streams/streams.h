/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams for service authors: data that flows at a rate. A stream is one file:
 *
 *     static void fill(struct sbe_stream *stream, void *data, uint32_t bytes) { ... }
 *     static const struct sbe_stream_kind TONE = {.directions = SBE_STREAM_CAPTURE, .move = fill};
 *     SBE_STREAM(tone, 1, TONE);
 *
 * This module keeps states, positions, events and the memory; a kind moves the bytes when it is
 * told to. A port calls sbe_streams_run() whenever sbe_streams_due_ns() has come, from the engine's
 * thread. Who links no stream does not pay for this.
 */
#ifndef SBE_STREAMS_STREAMS_H
#define SBE_STREAMS_STREAMS_H

#include "core/service.h"
#include "streams/block.h"

#ifndef SBE_STREAMS
#define SBE_STREAMS       8u /* open at a time */
#define SBE_STREAMS_SHARE 4u /* of them, one context's */
#endif
/* of them, one user's, in however many contexts */
#define SBE_STREAMS_OWNER \
    (SBE_STREAMS / 2u > SBE_STREAMS_SHARE ? SBE_STREAMS / 2u : SBE_STREAMS_SHARE)
#define SBE_STREAM_WAITING 4u /* events that may wait for room */
#ifndef SBE_STREAM_BLOCKS
#define SBE_STREAM_BLOCKS 4u /* that a stream of them may have queued */
#endif

#define SBE_STREAM_NEVER UINT64_MAX

struct sbe_stream {
    struct sbe_kept kept; /* the OPEN: memory, channel, context */
    const struct sbe_stream_kind *kind;
    uint32_t id; /* 0: free */
    uint32_t context;
    struct sbe_stream_settings settings;
    struct sbe_stream_status status;
    struct sbe_stream_place shown; /* the status, to the requester */
    struct sbe_stream_place seen;  /* its position, by us */
    uint32_t newest;
    uint8_t *data;
    uint32_t place;       /* of the position in the buffer */
    uint32_t to_period;   /* bytes until the next period ends */
    uint64_t moved_ns;    /* when it was moved last; of a whole frame */
    uint32_t fraction;    /* of a frame, in billionths of a second times the rate */
    uint32_t owed;        /* bytes that were due and for which its context had no time left */
    uint64_t lost_from;   /* of the xrun that goes on */
    uint64_t lost_before; /* status.lost_bytes when it began */
    uint32_t was;         /* the state before SUSPENDED */
    bool lacks;           /* an xrun goes on */
    bool passed;          /* the end of a period, and no event has said so */
    uint32_t sequence;
    uint32_t waiting_count;
    struct sbe_stream_event waiting[SBE_STREAM_WAITING];
    struct sbe_stream_block *queue; /* mode QUEUE: the one that moves, and those after it */
    uint32_t queued;                /* blocks of this run, ever */
    uint64_t state[2];              /* the kind's own, zero when it is opened */
    uint32_t event_data[2];         /* the kind's, in its next events */
    uint64_t scratch[(sizeof(struct sbe_stream_request) + sizeof(struct sbe_stream_settings)) / 8];
};

struct sbe_stream_kind {
    uint32_t directions; /* a set of enum sbe_stream_direction */
    /*
     * Changes settings to what it can do, or refuses them with a negative status. What any stream
     * must keep to is checked before and after. May be NULL.
     */
    int (*negotiate)(struct sbe_stream_settings *settings);
    /*
     * Before a transition to PREPARED, RUNNING, PAUSED, DRAINING or SETUP, which it may refuse, and
     * to SUSPENDED or DISCONNECTED, which it can't. May be NULL.
     */
    int (*trigger)(struct sbe_stream *stream, enum sbe_stream_state next);
    /*
     * Moves this many bytes, whole frames: reads them from `data` or writes them there. They end
     * where the buffer, a block or a period does at the latest. Playback in an xrun that goes on:
     * NULL, silence. Position and clock are those before.
     */
    void (*move)(struct sbe_stream *stream, uint8_t *data, uint32_t bytes);
    /*
     * Bytes that playback of a context may be before its capture by the same kind, which gets what
     * is played: both are moved in turns of as many. 0: they have nothing to do with each other.
     */
    uint32_t together;
    /*
     * Capture into blocks, an xrun that goes on: there is no memory for this many bytes, the next
     * ones are those after them. May be NULL: nothing is to be done for that.
     */
    void (*skip)(struct sbe_stream *stream, uint32_t bytes);
};

int sbe_stream_handle(struct sbe_request *request, const struct sbe_stream_kind *kind);
void sbe_stream_cancel(struct sbe_kept *kept);
/* All of the engine's: whether each can rest; `now` what moves is suspended. */
int sbe_streams_rest(const struct sbe_engine *engine, bool now);

#define SBE_STREAM(name_, version_, kind_)                                                \
    static int sbe_stream_handle_##name_(struct sbe_request *request)                     \
    {                                                                                     \
        return sbe_stream_handle(request, &(kind_));                                      \
    }                                                                                     \
    SBE_SERVICE_THAT_LASTS(name_, version_, sbe_stream_handle_##name_, sbe_stream_cancel, \
                           sbe_streams_rest)

/* Another open stream of the same kind and context, or NULL. */
struct sbe_stream *sbe_stream_other(const struct sbe_stream *stream, uint8_t direction);

/* When a stream has bytes to move next, by the engine's clock; SBE_STREAM_NEVER. */
uint64_t sbe_streams_due_ns(void);
/* Moves what is due, if anything is. */
void sbe_streams_run(uint64_t now_ns);

/*
 * The same in each round of a port, which asks for the time only while a stream runs. When the next
 * one is due.
 */
static inline uint64_t sbe_streams_round(const struct sbe_port *port)
{
    if (sbe_streams_due_ns() != SBE_STREAM_NEVER)
        sbe_streams_run(port->now_ns(port->self));
    return sbe_streams_due_ns();
}

#endif
