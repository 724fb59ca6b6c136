/* SPDX-License-Identifier: Apache-2.0 */
/* What the module's two files share: requests (streams.c) and movement (move.c). */
#ifndef SBE_STREAMS_STREAMS_BASE_H
#define SBE_STREAMS_STREAMS_BASE_H

#include "core/status.h"
#include "streams/streams.h"

extern struct sbe_stream sbe_stream_pool[SBE_STREAMS];
extern bool sbe_streams_changed; /* another one may be due first */

static inline bool sbe_stream_moves(const struct sbe_stream *stream)
{
    return stream->id != 0 && (stream->status.state == SBE_STREAM_RUNNING ||
                               stream->status.state == SBE_STREAM_DRAINING);
}

/* The clock runs from now on. */
void sbe_stream_begin(struct sbe_stream *stream, uint64_t now_ns);
/* Moves what is due by now and shows it. */
void sbe_stream_advance(struct sbe_stream *stream, uint64_t now_ns);
/* Changes the state, shows it and tells it. */
void sbe_stream_enter(struct sbe_stream *stream, enum sbe_stream_state state);
/* Position 0 of a new run. */
void sbe_stream_reset(struct sbe_stream *stream, uint32_t generation);

#endif
