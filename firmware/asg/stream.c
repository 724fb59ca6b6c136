/* SPDX-License-Identifier: Apache-2.0 */
#include "asg/stream.h"

#include <stddef.h>

#include "core/engine.h"

static struct sbe_asg_stream pool[SBE_ASG_STREAMS];

#define STREAM_OF(pointer, member)                                                          \
    ((struct sbe_asg_stream *)(void *)((uint8_t *)(pointer)-offsetof(struct sbe_asg_stream, \
                                                                     member)))

static struct sbe_asg_stream *find(uint32_t context, uint32_t id)
{
    for (uint32_t i = 0; i < SBE_ASG_STREAMS && id != 0; i++)
        if (pool[i].id == id && pool[i].context == context)
            return &pool[i];
    return NULL;
}

/* One whose task is not queued any more either, unless this context has its share. */
static struct sbe_asg_stream *take_free(uint32_t context)
{
    struct sbe_asg_stream *found = NULL;
    struct sbe_share_count count = {.context = context};
    for (uint32_t i = 0; i < SBE_ASG_STREAMS; i++) {
        if (pool[i].id == 0 && !pool[i].task.queued)
            found = &pool[i];
        else if (pool[i].id != 0)
            sbe_share_count(&count, pool[i].context);
    }
    return count.of_context < SBE_ASG_STREAMS_SHARE && count.of_owner < SBE_ASG_STREAMS / 2u ? found
                                                                                             : NULL;
}

static bool run(struct sbe_task *task)
{
    struct sbe_asg_stream *stream = STREAM_OF(task, task);
    if (stream->id == 0)
        return false;
    return stream->serve(stream) || !sbe_asg_server_may_sleep(&stream->server);
}

void sbe_asg_cancel(struct sbe_kept *kept)
{
    struct sbe_asg_stream *stream = STREAM_OF(kept, kept);
    if (kept->channel != NULL) /* else there is nobody to tell, and perhaps no memory */
        sbe_asg_server_close(&stream->server, false);
    stream->id = 0;
    (void)sbe_kept_answer(kept, SBE_ECANCELED, NULL, 0);
}

int sbe_asg_rest(const struct sbe_engine *engine, bool now)
{
    (void)now; /* one that waits touches nothing until it is rung for */
    for (uint32_t i = 0; i < SBE_ASG_STREAMS; i++)
        if (pool[i].id != 0 && pool[i].task.queued && pool[i].kept.engine == engine)
            return SBE_EBUSY;
    return SBE_OK;
}

static int open_stream(struct sbe_request *request, const struct sbe_asg_request *asked,
                       uint32_t context, sbe_asg_serve *serve)
{
    const struct sbe_buffer *region = request->buffers;
    if (asked->stream == 0 || request->buffer_count != 1 || region->direction != SBE_DIR_SHARED)
        return SBE_EINVAL;
    if (region->data == NULL)
        return SBE_EFAULT;
    if (region->size < (uint64_t)SBE_ASG_STORAGE + asked->size)
        return SBE_ERANGE;
    if (find(context, asked->stream) != NULL)
        return SBE_EEXIST;
    struct sbe_asg_stream *stream = take_free(context);
    if (stream == NULL)
        return SBE_EBUSY;
    int status = sbe_asg_server_attach(&stream->server, region->data, asked->size);
    if (status == SBE_OK)
        status = sbe_request_keep(request, &stream->kept, &stream->opened, sizeof(stream->opened));
    if (status != SBE_OK)
        return status;
    for (uint32_t i = 0; i < sizeof(stream->state) / sizeof(stream->state[0]); i++)
        stream->state[i] = 0;
    stream->serve = serve;
    stream->context = context;
    stream->id = asked->stream;
    stream->task.run = run;
    sbe_engine_later(request->engine, &stream->task); /* it may have been written to before */
    return SBE_KEPT;
}

int sbe_asg_handle(struct sbe_request *request, sbe_asg_serve *serve)
{
    struct sbe_asg_request asked;
    uint32_t context = request->channel->context;
    if (request->payload_size != sizeof(asked))
        return SBE_EINVAL;
    sbe_copy_record(&asked, request->payload, sizeof(asked));
    if (asked.reserved != 0)
        return SBE_EINVAL;
    if (asked.op == SBE_ASG_OPEN)
        return open_stream(request, &asked, context, serve);
    if (asked.op != SBE_ASG_RING || request->buffer_count != 0 || asked.size != 0)
        return SBE_EINVAL;
    struct sbe_asg_stream *stream = find(context, asked.stream);
    if (stream == NULL)
        return SBE_ENOENT;
    sbe_engine_later(request->engine, &stream->task);
    return SBE_OK;
}
