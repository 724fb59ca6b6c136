/* SPDX-License-Identifier: Apache-2.0 */
#include "core/engine_base.h"

#include "core/status.h"

uint32_t sbe_between(uint64_t from_ns, uint64_t to_ns)
{
    uint64_t duration_ns = to_ns - from_ns;
    return duration_ns >> 32 != 0 ? UINT32_MAX : (uint32_t)duration_ns;
}

void sbe_engine_maintain(struct sbe_channel *channel, enum sbe_handover step,
                         const struct sbe_buffer *buffer, uint32_t count)
{
    for (; count > 0; count--, buffer++) {
        const struct sbe_area *area = sbe_area_find(channel->areas, buffer->area);
        if (area != NULL && (area->flags & SBE_AREA_COHERENT) == 0) /* NULL: it rides inline */
            channel->counters.synced += sbe_cache_handover(channel->port, step, buffer);
    }
}

int sbe_engine_respond(const struct sbe_request *request, int result, const void *payload,
                       uint32_t payload_size, const struct sbe_buffer *buffers,
                       const uint64_t *written)
{
    struct sbe_engine *engine = request->engine;
    struct sbe_channel *channel = request->channel;
    struct sbe_frame *frame = &engine->response;
    struct sbe_buffer *next = frame->buffers;
    frame->status = result;
    frame->payload = payload;
    frame->payload_size = payload_size;
    frame->transaction = request->transaction;
    frame->waited_ns = request->waited_ns;
    for (uint32_t left = request->buffer_count; left > 0; left--, buffers++, written++) {
        if (!sbe_is_output(buffers))
            continue;
        sbe_engine_hand_over(channel, SBE_GIVE_BACK, buffers, 1);
        *next = *buffers;
        if (*written < next->size)
            next->size = *written;
        next++;
    }
    frame->type = SBE_FRAME_RESPONSE;
    frame->buffer_count = (uint16_t)(next - frame->buffers);
    frame->handled_ns = sbe_between(request->begun_ns, sbe_engine_now(engine));
    int status = sbe_channel_send(channel, frame);
    if (status == SBE_EMSGSIZE) {
        frame->status = SBE_ENOSPC; /* the answer does not fit: say so rather than nothing */
        frame->buffer_count = 0;
        frame->payload_size = 0;
        status = sbe_channel_send(channel, frame);
    }
    return status;
}

void sbe_engine_pin(struct sbe_engine *engine, const struct sbe_buffer *buffer, uint32_t count,
                    bool hold)
{
    for (; count > 0; count--, buffer++) {
        struct sbe_area *area = sbe_area_find(&engine->session.areas, buffer->area);
        if (area == NULL)
            continue; /* inline */
        if (hold)
            area->pins++;
        else
            sbe_session_unpin(&engine->session, area);
    }
}
