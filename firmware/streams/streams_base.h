/* SPDX-License-Identifier: Apache-2.0 */
/* What the module's files share: requests (streams.c), movement (move.c) and blocks (queue.c). */
#ifndef SBE_STREAMS_STREAMS_BASE_H
#define SBE_STREAMS_STREAMS_BASE_H

#include "core/status.h"
#include "streams/streams.h"

#define SBE_STREAM_PERIODS_A_SECOND 2000u /* at most: each wakes both ends */

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

/* -- mode QUEUE ---------------------------------------------------------------------------------*/

static inline bool sbe_stream_takes_blocks(const struct sbe_stream *stream)
{
    return stream->settings.mode == SBE_STREAM_QUEUE;
}

/* Keeps a request as the last block; what the handler returns. */
int sbe_stream_block_put(struct sbe_stream *stream, struct sbe_request *request);
/* Answers a request for a block at once: the stream is in no state for it. */
int sbe_stream_block_refuse(const struct sbe_stream *stream, struct sbe_request *request,
                            int result);
/* The block of a kept request, or NULL: it is an OPEN. */
struct sbe_stream_block *sbe_stream_block_of(struct sbe_kept *kept);
/* Takes one out of its queue, and answers. */
void sbe_stream_block_end(struct sbe_stream_block *block, int result);
/* The same with all that are left, in order. */
void sbe_stream_blocks_return(struct sbe_stream *stream);
/* Bytes of all that are queued and not yet moved; the status says so, too. */
uint32_t sbe_stream_blocks_room(struct sbe_stream *stream);
/* Bytes until something is to be done: the block that moves ends, or there is none. */
uint32_t sbe_stream_blocks_step(const struct sbe_stream *stream);
/* Moves bytes of the first block, or, as there is none, silence or what nobody takes. */
void sbe_stream_blocks_move(struct sbe_stream *stream, uint32_t bytes);

#endif
