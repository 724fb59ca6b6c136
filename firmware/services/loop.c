/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop: what a context plays to it, the same context captures from it, DELAY bytes later, zeros
 * before. It is the sample of a service with streams in both directions. Any format. Both are to be
 * started by one START; each context has one such pair.
 */
#include <string.h>

#include "core/status.h"
#include "services/service_util.h"
#include "streams/streams.h"

#define LOOPS SBE_STREAMS_SHARE
#ifndef SBE_LOOP_BYTES
#ifdef SBE_SMALL
#define SBE_LOOP_BYTES 4096u
#else
#define SBE_LOOP_BYTES 65536u
#endif
#endif
#define DELAY (SBE_LOOP_BYTES / 4)

static struct loop {
    uint32_t context; /* 0: free */
    uint8_t bytes[SBE_LOOP_BYTES];
} loops[LOOPS];

static struct loop *loop_of(uint32_t context)
{
    struct loop *found = NULL;
    for (uint32_t i = 0; i < LOOPS; i++) {
        if (loops[i].context == context)
            return &loops[i];
        if (loops[i].context == 0)
            found = &loops[i];
    }
    if (found != NULL) {
        memset(found, 0, sizeof *found);
        found->context = context;
    }
    return found;
}

static int trigger(struct sbe_stream *stream, enum sbe_stream_state next)
{
    bool playback = stream->settings.direction == SBE_STREAM_PLAYBACK;
    struct loop *loop = next == SBE_STREAM_DISCONNECTED ? NULL : loop_of(stream->context);
    if (next == SBE_STREAM_DISCONNECTED) {
        uint8_t others = playback ? SBE_STREAM_CAPTURE : SBE_STREAM_PLAYBACK;
        if (sbe_stream_other(stream, others) == NULL)
            for (uint32_t i = 0; i < LOOPS; i++)
                if (loops[i].context == stream->context)
                    loops[i].context = 0;
        return SBE_OK;
    }
    if (loop == NULL)
        return SBE_EBUSY;
    if (next == SBE_STREAM_PREPARED && playback)
        memset(loop->bytes, 0, sizeof loop->bytes);
    stream->status.delay_bytes = DELAY;
    return SBE_OK;
}

/* A position's place, without a division: the size is a power of two. */
static void move(struct sbe_stream *stream, uint8_t *data, uint32_t bytes)
{
    bool playback = stream->settings.direction == SBE_STREAM_PLAYBACK;
    struct loop *loop = loop_of(stream->context);
    uint32_t at = (uint32_t)stream->status.position + (playback ? DELAY : 0);
    if (loop == NULL)
        return;
    for (uint32_t i = 0; i < bytes; i++, at++) {
        uint8_t *byte = &loop->bytes[at & (SBE_LOOP_BYTES - 1)];
        if (!playback)
            data[i] = *byte;
        else
            *byte = data == NULL ? 0 : data[i];
    }
}

static const struct sbe_stream_kind LOOP = {
    .directions = SBE_STREAM_PLAYBACK | SBE_STREAM_CAPTURE,
    .trigger = trigger,
    .move = move,
    .together = SBE_LOOP_BYTES - DELAY,
};
SBE_STREAM(loop, 1, LOOP);
