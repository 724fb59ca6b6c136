/* SPDX-License-Identifier: Apache-2.0 */
/* Mode QUEUE: blocks of several areas. Each is a request that is kept until it has been used. */
#include <string.h>

#include "streams/streams_base.h"

struct sbe_stream_block {
    struct sbe_kept kept;
    struct sbe_stream_block *next;
    struct sbe_stream *stream; /* NULL: free */
    uint32_t sequence;
    uint32_t moved; /* bytes of it */
    uint64_t scratch[sizeof(struct sbe_stream_request) / 8];
};

/* Each stream has its own: what one requester queues takes nobody's place. */
static struct sbe_stream_block pool[SBE_STREAMS][SBE_STREAM_BLOCKS];

static uint32_t left_of(const struct sbe_stream_block *block)
{
    return (uint32_t)block->kept.buffers[0].size - block->moved;
}

uint32_t sbe_stream_blocks_room(struct sbe_stream *stream)
{
    uint32_t room = 0;
    for (const struct sbe_stream_block *block = stream->queue; block != NULL; block = block->next)
        room += left_of(block); /* at most the buffer's size, by the bounds of both */
    stream->status.application = stream->status.position + room;
    return room;
}

uint32_t sbe_stream_blocks_step(const struct sbe_stream *stream)
{
    if (stream->queue != NULL)
        return left_of(stream->queue);
    /* A stream that lacks the next block ends soon, or is silent in pieces as long as a block. */
    bool ends = stream->status.state == SBE_STREAM_DRAINING ||
                stream->settings.on_xrun == SBE_STREAM_XRUN_STOPS;
    return ends ? stream->settings.frame_bytes : stream->settings.period_bytes;
}

/* -- answers ------------------------------------------------------------------------------------*/

static struct sbe_stream_block_answer answer_of(const struct sbe_stream *stream, int result)
{
    return (struct sbe_stream_block_answer){
        .result = result,
        .stream = stream->id,
        .generation = stream->status.generation,
        .position = stream->status.position,
        .clock_ns = stream->status.clock_ns,
        .state = stream->status.state,
    };
}

int sbe_stream_block_refuse(const struct sbe_stream *stream, struct sbe_request *request,
                            int result)
{
    struct sbe_stream_block_answer answer = answer_of(stream, result);
    memcpy(request->reply, &answer, sizeof answer);
    request->reply_size = sizeof answer;
    return SBE_OK;
}

struct sbe_stream_block *sbe_stream_block_of(struct sbe_kept *kept)
{
    const struct sbe_stream_request *asked = kept->payload;
    return asked->op == SBE_STREAM_QUEUE_BLOCK ? (struct sbe_stream_block *)(void *)kept : NULL;
}

/* Nothing of it is touched afterwards. */
void sbe_stream_block_end(struct sbe_stream_block *block, int result)
{
    struct sbe_stream *stream = block->stream;
    struct sbe_stream_block **link = &stream->queue;
    while (*link != block)
        link = &(*link)->next;
    *link = block->next;
    struct sbe_stream_block_answer answer = answer_of(stream, result);
    answer.sequence = block->sequence;
    answer.position -= block->moved; /* it moved without a gap */
    answer.used_bytes = block->moved;
    block->kept.written[0] = block->moved;
    block->stream = NULL;
    sbe_streams_changed = true;
    (void)sbe_kept_answer(&block->kept, SBE_OK, &answer, sizeof answer);
}

void sbe_stream_blocks_return(struct sbe_stream *stream)
{
    while (stream->queue != NULL)
        sbe_stream_block_end(stream->queue, SBE_ECANCELED);
    if (sbe_stream_takes_blocks(stream))
        (void)sbe_stream_blocks_room(stream);
}

/* -- the queue ----------------------------------------------------------------------------------*/

int sbe_stream_block_put(struct sbe_stream *stream, struct sbe_request *request)
{
    struct sbe_stream_block *blocks = pool[stream - sbe_stream_pool], *block = NULL;
    struct sbe_stream_block **last = &stream->queue;
    uint32_t count = 0;
    for (; *last != NULL; last = &(*last)->next)
        count++;
    if (count >= (uint32_t)stream->settings.buffer_bytes / stream->settings.period_bytes)
        return SBE_EBUSY;
    for (uint32_t i = 0; i < SBE_STREAM_BLOCKS; i++)
        if (blocks[i].stream == NULL)
            block = &blocks[i];
    if (block == NULL)
        return SBE_EBUSY;
    int status = sbe_request_keep(request, &block->kept, block->scratch, sizeof block->scratch);
    if (status < 0)
        return status;
    block->stream = stream;
    block->next = NULL;
    block->moved = 0;
    block->sequence = ++stream->queued;
    *last = block;
    (void)sbe_stream_blocks_room(stream);
    sbe_streams_changed = true; /* it may be due before the others */
    return SBE_KEPT;
}

void sbe_stream_blocks_move(struct sbe_stream *stream, uint32_t bytes)
{
    struct sbe_stream_block *block = stream->queue;
    const struct sbe_stream_kind *kind = stream->kind;
    if (block != NULL)
        kind->move(stream, (uint8_t *)block->kept.buffers[0].data + block->moved, bytes);
    else if (stream->settings.direction == SBE_STREAM_PLAYBACK)
        kind->move(stream, NULL, bytes);
    else if (kind->skip != NULL)
        kind->skip(stream, bytes);
    stream->status.position += bytes;
    if (block == NULL)
        return;
    block->moved += bytes;
    if (left_of(block) == 0)
        sbe_stream_block_end(block, SBE_OK);
}
