/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to streams: what is legal when. */
#include "streams/streams.h"

#include <string.h>

#include "core/engine_base.h"
#include "streams/streams_base.h"

#define RATE_MAX  48000000u /* bytes a second: one stream takes no more of a remote */
#define FRAME_MAX 65536u    /* bytes */

struct sbe_stream sbe_stream_pool[SBE_STREAMS];

static struct sbe_stream *find(uint32_t context, uint32_t id)
{
    for (uint32_t i = 0; i < SBE_STREAMS && id != 0; i++)
        if (sbe_stream_pool[i].id == id && sbe_stream_pool[i].context == context)
            return &sbe_stream_pool[i];
    return NULL;
}

struct sbe_stream *sbe_stream_other(const struct sbe_stream *stream, uint8_t direction)
{
    for (uint32_t i = 0; i < SBE_STREAMS; i++) {
        struct sbe_stream *other = &sbe_stream_pool[i];
        if (other != stream && other->id != 0 && other->context == stream->context &&
            other->kind == stream->kind && other->settings.direction == direction)
            return other;
    }
    return NULL;
}

/* A free one, unless this context has its share, or its user half of all. */
static struct sbe_stream *take_free(uint32_t context)
{
    struct sbe_stream *found = NULL;
    struct sbe_share_count count = {.context = context};
    for (uint32_t i = 0; i < SBE_STREAMS; i++) {
        if (sbe_stream_pool[i].id == 0)
            found = &sbe_stream_pool[i];
        else
            sbe_share_count(&count, sbe_stream_pool[i].context);
    }
    return count.of_context < SBE_STREAMS_SHARE && count.of_owner < SBE_STREAMS_OWNER ? found
                                                                                      : NULL;
}

/* -- settings ---------------------------------------------------------------------------------- */

/* What no kind can change the meaning of. */
static int check(const struct sbe_stream_settings *settings, const struct sbe_stream_kind *kind)
{
    uint64_t second;
    if (settings->frame_bytes == 0 || settings->frame_bytes > FRAME_MAX || settings->rate_hz == 0 ||
        settings->on_suspend > SBE_STREAM_SUSPEND_PAUSES)
        return SBE_EINVAL;
    if ((settings->direction != SBE_STREAM_PLAYBACK && settings->direction != SBE_STREAM_CAPTURE) ||
        (kind->directions & settings->direction) == 0)
        return SBE_ENOTSUP;
    if (settings->mode < SBE_STREAM_CYCLIC || settings->mode > SBE_STREAM_QUEUE)
        return SBE_ENOTSUP;
    if (settings->on_xrun != SBE_STREAM_XRUN_STOPS && settings->on_xrun != SBE_STREAM_XRUN_GOES_ON)
        return SBE_EINVAL;
    second = (uint64_t)settings->frame_bytes * settings->rate_hz;
    if (second > RATE_MAX)
        return SBE_ERANGE;
    if (settings->period_bytes % settings->frame_bytes != 0 || settings->buffer_bytes == 0 ||
        settings->buffer_bytes > SBE_STREAM_BUFFER_MAX)
        return SBE_EINVAL;
    uint32_t buffer = (uint32_t)settings->buffer_bytes;
    uint32_t unit = settings->period_bytes != 0 ? settings->period_bytes : settings->frame_bytes;
    if (buffer % unit != 0)
        return SBE_EINVAL;
    if (settings->mode == SBE_STREAM_QUEUE &&
        (settings->period_bytes == 0 || buffer / unit > SBE_STREAM_BLOCKS))
        return SBE_ERANGE;
    return settings->period_bytes != 0 && second > (uint64_t)unit * SBE_STREAM_PERIODS_A_SECOND
               ? SBE_ERANGE
               : SBE_OK;
}

/* Legal periods and a whole number of them, as near as can be to what was asked for. */
static void fit(struct sbe_stream_settings *settings)
{
    uint32_t frame = settings->frame_bytes, period = settings->period_bytes;
    uint32_t shortest =
        (uint32_t)((uint64_t)frame * settings->rate_hz / SBE_STREAM_PERIODS_A_SECOND);
    uint64_t most = SBE_STREAM_BUFFER_MAX;
    if (period != 0 && period < shortest)
        period = shortest;
    if (period > most / 2)
        period = (uint32_t)(most / 2);
    period = (period + frame - 1) / frame * frame;
    settings->period_bytes = period;
    uint32_t unit = period != 0 ? period : frame;
    uint64_t buffer = settings->buffer_bytes < most ? settings->buffer_bytes : most;
    uint32_t count = ((uint32_t)buffer + unit - 1) / unit;
    if (count < 2)
        count = 2;
    if (settings->mode == SBE_STREAM_QUEUE && count > SBE_STREAM_BLOCKS)
        count = SBE_STREAM_BLOCKS;
    while ((uint64_t)count * unit > most)
        count--;
    settings->buffer_bytes = (uint64_t)count * unit;
}

static int negotiate(struct sbe_stream_settings *settings, const struct sbe_stream_kind *kind)
{
    if (settings->frame_bytes == 0 || settings->frame_bytes > FRAME_MAX ||
        (uint64_t)settings->frame_bytes * settings->rate_hz > RATE_MAX)
        return SBE_ERANGE;
    int status = kind->negotiate == NULL ? SBE_OK : kind->negotiate(settings);
    if (status < 0)
        return status;
    fit(settings);
    return check(settings, kind);
}

/* -- opening and closing ----------------------------------------------------------------------- */

/* Memory by reference, as its use needs it. */
static int check_buffer(const struct sbe_buffer *buffer, uint8_t direction)
{
    if (buffer->direction != direction || (buffer->flags & SBE_BUFFER_INLINE) != 0)
        return SBE_EINVAL;
    return buffer->data == NULL ? SBE_EFAULT : SBE_OK;
}

static int check_data(const struct sbe_buffer *data, const struct sbe_stream_settings *settings)
{
    bool playback = settings->direction == SBE_STREAM_PLAYBACK;
    return check_buffer(data, playback ? SBE_DIR_IN : SBE_DIR_OUT);
}

static bool are_apart(const struct sbe_buffer *one, const struct sbe_buffer *other)
{
    uintptr_t from = (uintptr_t)one->data, to = (uintptr_t)other->data;
    return from < to ? to - from >= one->size : from - to >= other->size;
}

/* The block of records and, unless blocks bring it, the data. */
static int check_memory(const struct sbe_request *request,
                        const struct sbe_stream_settings *settings)
{
    const struct sbe_buffer *block = &request->buffers[0], *data = &request->buffers[1];
    bool has_data = settings->mode != SBE_STREAM_QUEUE;
    if (request->buffer_count != 1u + has_data)
        return SBE_EINVAL;
    int status = check_buffer(block, SBE_DIR_INOUT);
    if (status == SBE_OK && has_data)
        status = check_data(data, settings);
    if (status < 0)
        return status;
    uint64_t stride = block->size / SBE_STREAM_BLOCK_RECORDS;
    if (stride < SBE_STREAM_STRIDE_MIN || stride > SBE_LINE_MAX || (stride & (stride - 1)) != 0 ||
        block->size % SBE_STREAM_BLOCK_RECORDS != 0 || (uintptr_t)block->data % stride != 0)
        return SBE_EINVAL;
    if (!has_data)
        return SBE_OK;
    return data->size == settings->buffer_bytes && are_apart(block, data) ? SBE_OK : SBE_EINVAL;
}

static bool is_coherent(const struct sbe_kept *kept, const struct sbe_buffer *buffer)
{
    const struct sbe_area *area = sbe_area_find(kept->channel->areas, buffer->area);
    return kept->channel->areas->coherent || (area->flags & SBE_AREA_COHERENT) != 0;
}

static void take_over(struct sbe_stream *stream)
{
    struct sbe_kept *kept = &stream->kept;
    bool coherent = true;
    for (uint32_t i = 0; i < kept->buffer_count; i++) {
        coherent = coherent && is_coherent(kept, &kept->buffers[i]);
        kept->written[i] = kept->buffers[i].size;
    }
    const struct sbe_port *port = coherent ? NULL : kept->channel->port;
    uint32_t stride = (uint32_t)kept->buffers[0].size / SBE_STREAM_BLOCK_RECORDS;
    stream->data = kept->buffer_count == 2 ? kept->buffers[1].data : NULL;
    stream->seen = sbe_stream_host_place(kept->buffers[0].data, port);
    stream->shown = sbe_stream_remote_place(kept->buffers[0].data, stride, port);
}

static int open_stream(struct sbe_request *request, const struct sbe_stream_request *asked,
                       const struct sbe_stream_kind *kind)
{
    struct sbe_stream_settings settings;
    uint32_t context = request->channel->context;
    memcpy(&settings, asked + 1, sizeof settings);
    int status = check(&settings, kind);
    if (status == SBE_OK)
        status = check_memory(request, &settings);
    if (status < 0)
        return status;
    if (find(context, asked->stream) != NULL)
        return SBE_EEXIST;
    struct sbe_stream *stream = take_free(context);
    if (stream == NULL)
        return SBE_EBUSY;
    *stream = (struct sbe_stream){.kind = kind, .context = context, .settings = settings};
    status = sbe_request_keep(request, &stream->kept, stream->scratch, sizeof stream->scratch);
    if (status < 0)
        return status;
    stream->id = asked->stream;
    take_over(stream);
    sbe_stream_enter(stream, SBE_STREAM_SETUP);
    return SBE_KEPT;
}

/* Nothing is touched after it. The last status is in the answer to OPEN. */
static void close_stream(struct sbe_stream *stream, int result)
{
    struct sbe_stream_answer answer = {.result = result, .stream = stream->id};
    if (stream->kind->trigger != NULL)
        (void)stream->kind->trigger(stream, SBE_STREAM_DISCONNECTED);
    sbe_stream_blocks_return(stream);
    if (stream->kept.channel != NULL)
        sbe_stream_enter(stream, SBE_STREAM_DISCONNECTED);
    answer.status = stream->status;
    stream->id = 0;
    sbe_streams_changed = true; /* also where nobody was told */
    (void)sbe_kept_answer(&stream->kept, result, &answer, sizeof answer);
}

/* Of a stream, or of a block alone. */
void sbe_stream_cancel(struct sbe_kept *kept)
{
    struct sbe_stream_block *block = sbe_stream_block_of(kept);
    if (block != NULL) {
        sbe_stream_block_end(block, SBE_ECANCELED);
        return;
    }
    struct sbe_stream *stream =
        (struct sbe_stream *)(void *)((uint8_t *)kept - offsetof(struct sbe_stream, kept));
    close_stream(stream, SBE_ECANCELED);
}

/* -- transitions ------------------------------------------------------------------------------- */

#define FROM(state) (1u << SBE_STREAM_##state)

/* From which states, and to which; the table of docs/spec/streams.md. */
static const struct {
    uint16_t from;
    uint8_t to;
} TRANSITIONS[] = {
    [SBE_STREAM_PREPARE] = {FROM(SETUP) | FROM(PREPARED) | FROM(XRUN) | FROM(SUSPENDED),
                            SBE_STREAM_PREPARED},
    [SBE_STREAM_START] = {FROM(PREPARED), SBE_STREAM_RUNNING},
    [SBE_STREAM_PAUSE] = {FROM(RUNNING), SBE_STREAM_PAUSED},
    [SBE_STREAM_RESUME] = {FROM(PAUSED) | FROM(SUSPENDED), SBE_STREAM_RUNNING},
    [SBE_STREAM_DRAIN] = {FROM(RUNNING), SBE_STREAM_DRAINING},
    [SBE_STREAM_STOP] = {FROM(SETUP) | FROM(PREPARED) | FROM(RUNNING) | FROM(PAUSED) |
                             FROM(DRAINING) | FROM(XRUN) | FROM(SUSPENDED),
                         SBE_STREAM_SETUP},
    [SBE_STREAM_QUEUE_BLOCK] = {FROM(PREPARED) | FROM(RUNNING) | FROM(PAUSED), 0},
};

static int may(const struct sbe_stream *stream, uint32_t op)
{
    if ((TRANSITIONS[op].from >> stream->status.state & 1u) == 0)
        return SBE_EPERM; /* the state is in the answer */
    if (op == SBE_STREAM_DRAIN && (stream->settings.direction != SBE_STREAM_PLAYBACK ||
                                   stream->settings.mode == SBE_STREAM_ENDLESS))
        return SBE_ENOTSUP;
    return SBE_OK;
}

static int change(struct sbe_stream *stream, const struct sbe_stream_request *asked,
                  uint64_t now_ns)
{
    enum sbe_stream_state next = (enum sbe_stream_state)TRANSITIONS[asked->op].to;
    if (sbe_stream_moves(stream)) {
        sbe_stream_advance(stream, now_ns); /* up to this moment, which may have been its end */
        int status = may(stream, asked->op);
        if (status < 0)
            return status;
    }
    int status = stream->kind->trigger == NULL ? SBE_OK : stream->kind->trigger(stream, next);
    if (status < 0)
        return status;
    if (asked->op == SBE_STREAM_PREPARE || asked->op == SBE_STREAM_STOP)
        sbe_stream_blocks_return(stream);
    if (asked->op == SBE_STREAM_PREPARE)
        sbe_stream_reset(stream, asked->generation);
    if (next == SBE_STREAM_RUNNING)
        sbe_stream_begin(stream, now_ns);
    if (stream->status.state == SBE_STREAM_SUSPENDED && next == SBE_STREAM_RUNNING)
        next = (enum sbe_stream_state)stream->was;
    sbe_stream_enter(stream, next);
    return SBE_OK;
}

int sbe_streams_rest(const struct sbe_engine *engine, bool now)
{
    uint64_t now_ns = sbe_engine_now(engine);
    for (uint32_t i = 0; i < SBE_STREAMS; i++) {
        struct sbe_stream *stream = &sbe_stream_pool[i];
        if (!sbe_stream_moves(stream) || stream->kept.engine != engine)
            continue;
        if (stream->settings.on_suspend != SBE_STREAM_SUSPEND_PAUSES)
            return SBE_EBUSY;
        if (!now)
            continue;
        sbe_stream_advance(stream, now_ns); /* which may have been its end */
        if (!sbe_stream_moves(stream))
            continue;
        if (stream->kind->trigger != NULL)
            (void)stream->kind->trigger(stream, SBE_STREAM_SUSPENDED);
        stream->was = stream->status.state;
        sbe_stream_enter(stream, SBE_STREAM_SUSPENDED);
    }
    return SBE_OK;
}

/* All of them, or none. */
static int start(struct sbe_stream *first, const struct sbe_stream_request *asked, uint64_t now_ns)
{
    struct sbe_stream *group[SBE_STREAM_GROUP_MAX + 1] = {first};
    uint32_t ids[SBE_STREAM_GROUP_MAX], count = asked->count;
    if (count > SBE_STREAM_GROUP_MAX)
        return SBE_EINVAL;
    memcpy(ids, asked + 1, count * sizeof *ids);
    for (uint32_t i = 0; i < count; i++) {
        group[i + 1] = find(first->context, ids[i]);
        if (group[i + 1] == NULL)
            return SBE_ENOENT;
        for (uint32_t k = 0; k <= i; k++)
            if (group[k] == group[i + 1])
                return SBE_EINVAL;
    }
    int status = SBE_OK;
    for (uint32_t i = 0; i <= count && status == SBE_OK; i++)
        status = may(group[i], SBE_STREAM_START);
    for (uint32_t i = 0; i <= count && status == SBE_OK; i++)
        status = change(group[i], asked, now_ns);
    return status;
}

static int carry_out(struct sbe_stream *stream, const struct sbe_stream_request *asked,
                     uint64_t now_ns)
{
    if (asked->op == SBE_STREAM_QUERY) {
        if (sbe_stream_moves(stream))
            sbe_stream_advance(stream, now_ns);
        stream->status.clock_ns = now_ns; /* also where it stands still */
        return SBE_OK;
    }
    int status = may(stream, asked->op);
    if (status < 0)
        return status;
    if (asked->op == SBE_STREAM_START)
        return start(stream, asked, now_ns);
    if (asked->op == SBE_STREAM_PREPARE &&
        (asked->generation == 0 || asked->generation == stream->status.generation))
        return SBE_EINVAL;
    return change(stream, asked, now_ns);
}

/* What the handler returns: the block is kept, unless the state is another. */
static int queue_block(struct sbe_stream *stream, struct sbe_request *request)
{
    const struct sbe_buffer *data = request->buffers;
    const struct sbe_stream_settings *settings = &stream->settings;
    if (settings->mode != SBE_STREAM_QUEUE)
        return SBE_ENOTSUP;
    int status = request->buffer_count == 1 ? check_data(data, settings) : SBE_EINVAL;
    if (status < 0)
        return status;
    if (data->size == 0 || data->size > settings->period_bytes ||
        (uint32_t)data->size % settings->frame_bytes != 0 ||
        !are_apart(&stream->kept.buffers[0], data))
        return SBE_EINVAL;
    if (sbe_stream_moves(stream))
        sbe_stream_advance(stream, sbe_engine_now(request->engine));
    status = may(stream, SBE_STREAM_QUEUE_BLOCK);
    return status < 0 ? sbe_stream_block_refuse(stream, request, status)
                      : sbe_stream_block_put(stream, request);
}

/* -- requests ---------------------------------------------------------------------------------- */

/* The payload has the size that its op says. */
static bool is_whole(const struct sbe_request *request, const struct sbe_stream_request *asked)
{
    uint64_t size = sizeof *asked;
    if (request->payload_size < sizeof *asked)
        return false;
    bool opens = asked->op == SBE_STREAM_NEGOTIATE || asked->op == SBE_STREAM_OPEN;
    if (opens)
        size += sizeof(struct sbe_stream_settings);
    else
        size += (uint64_t)asked->count * sizeof(uint32_t);
    return request->payload_size == size && (asked->op == SBE_STREAM_START || asked->count == 0) &&
           (asked->op == SBE_STREAM_PREPARE || asked->generation == 0) &&
           asked->op >= SBE_STREAM_NEGOTIATE && asked->op <= SBE_STREAM_QUEUE_BLOCK &&
           (asked->stream != 0 || asked->op == SBE_STREAM_NEGOTIATE) &&
           (asked->op == SBE_STREAM_OPEN || asked->op == SBE_STREAM_QUEUE_BLOCK ||
            request->buffer_count == 0);
}

static int propose(struct sbe_request *request, const struct sbe_stream_request *asked,
                   const struct sbe_stream_kind *kind)
{
    struct sbe_stream_proposal proposal = {.stream = asked->stream};
    if (request->reply_room < sizeof proposal)
        return SBE_ENOSPC;
    memcpy(&proposal.settings, asked + 1, sizeof proposal.settings);
    proposal.result = negotiate(&proposal.settings, kind);
    memcpy(request->reply, &proposal, sizeof proposal);
    request->reply_size = sizeof proposal;
    return SBE_OK;
}

int sbe_stream_handle(struct sbe_request *request, const struct sbe_stream_kind *kind)
{
    const struct sbe_stream_request *asked = request->payload; /* scratch, 8-byte aligned */
    struct sbe_stream_answer answer = {0};
    if (!is_whole(request, asked))
        return SBE_EINVAL;
    if (asked->op == SBE_STREAM_NEGOTIATE)
        return propose(request, asked, kind);
    if (asked->op == SBE_STREAM_OPEN)
        return open_stream(request, asked, kind);
    if (request->reply_room < sizeof answer)
        return SBE_ENOSPC;
    struct sbe_stream *stream = find(request->channel->context, asked->stream);
    if (stream == NULL)
        return SBE_ENOENT;
    if (asked->op == SBE_STREAM_QUEUE_BLOCK)
        return queue_block(stream, request);
    answer.stream = asked->stream;
    if (asked->op == SBE_STREAM_CLOSE)
        close_stream(stream, SBE_OK);
    else
        answer.result = carry_out(stream, asked, sbe_engine_now(request->engine));
    answer.status = stream->status;
    memcpy(request->reply, &answer, sizeof answer);
    request->reply_size = sizeof answer;
    return SBE_OK;
}
