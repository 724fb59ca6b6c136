/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that are answered later than their handler returns. */
#include <string.h>

#include "core/engine_base.h"
#include "core/status.h"

/* From `engine` on a kept request is as the request was. */
#define TAKEN_OVER (offsetof(struct sbe_kept, place) - offsetof(struct sbe_kept, engine))
#define SAME_PLACE(field)                                                                  \
    _Static_assert(offsetof(struct sbe_kept, field) - offsetof(struct sbe_kept, engine) == \
                       offsetof(struct sbe_request, field),                                \
                   #field)
SAME_PLACE(engine);
SAME_PLACE(channel);
SAME_PLACE(service);
SAME_PLACE(payload);
SAME_PLACE(payload_size);
SAME_PLACE(buffer_count);
SAME_PLACE(transaction);
SAME_PLACE(begun_ns);
SAME_PLACE(waited_ns);

/*
 * Those of a channel are a trie by the bits of their transactions, the lowest first, in which
 * requesters count. So the cost of each is that of the bits which tell it from the others, at most
 * 64 whatever a requester makes of them, and not of how many are kept or in which order they end.
 */
SBE_OUT_OF_LINE static struct sbe_kept **place_of(struct sbe_channel *channel, uint64_t transaction)
{
    struct sbe_kept **place = &sbe_entry_of(channel)->kept;
    for (uint64_t bits = transaction; *place != NULL; bits >>= 1) {
        if ((*place)->transaction == transaction)
            break;
        place = &(*place)->below[bits & 1];
    }
    return place;
}

static int stash(struct sbe_kept *kept, uint8_t *scratch, uint32_t room)
{
    uint32_t used = (kept->payload_size + 7u) & ~7u; /* came in a slot, so it can't wrap */
    if (used > room)
        return SBE_ENOSPC;
    if (kept->payload_size != 0)
        memcpy(scratch, kept->payload, kept->payload_size);
    kept->payload = scratch;
    struct sbe_buffer *buffer = kept->buffers;
    for (uint32_t left = kept->buffer_count; left > 0; left--, buffer++) {
        if ((buffer->flags & SBE_BUFFER_INLINE) == 0)
            continue;
        uint32_t size = (uint32_t)buffer->size; /* fits a slot: it came in one or was checked */
        if (size > room - used)
            return SBE_ENOSPC;
        if ((buffer->direction & SBE_DIR_IN) != 0 && size != 0)
            memcpy(scratch + used, buffer->data, size);
        buffer->data = scratch + used;
        used += size;
    }
    return SBE_OK;
}

int sbe_request_keep(struct sbe_request *request, struct sbe_kept *kept, void *scratch,
                     uint32_t scratch_size)
{
    struct sbe_engine *engine = request->engine;
    struct sbe_channel *channel = request->channel;
    uint32_t count = request->buffer_count;
    /* One slot is never promised to what is kept, or a CANCEL could not come in. */
    if (channel->promised > channel->tx.mask)
        return SBE_EAGAIN;
    struct sbe_share *share = sbe_entry_of(channel)->share;
    bool counts = request->service->rest == NULL;
    if (counts && share->kept > engine->config->kept_per_context - 1u) /* 0: as many as may be */
        return SBE_EBUSY;
    struct sbe_kept **place = place_of(channel, request->transaction);
    if (request->transaction == 0 || *place != NULL || count > SBE_KEPT_BUFFERS ||
        request->service->cancel == NULL)
        return SBE_ENOTSUP;
    kept->below[0] = kept->below[1] = NULL;
    kept->place = place;
    memcpy(&kept->engine, request, TAKEN_OVER);
    memcpy(kept->buffers, request->buffers, count * sizeof *kept->buffers);
    memcpy(kept->written, request->written, count * sizeof *kept->written);
    int status = stash(kept, scratch, scratch_size);
    if (status < 0)
        return status;
    sbe_engine_pin(engine, kept->buffers, count, true);
    channel->promised++;
    share->kept += counts;
    *place = kept;
    return SBE_OK;
}

/* The last one below takes its place: the bits that lead there are its own, too. */
static void take_out(struct sbe_kept *kept)
{
    struct sbe_kept *last = kept, *next = kept;
    do {
        last = next;
        next = last->below[last->below[0] == NULL];
    } while (next != NULL);
    *last->place = NULL;
    if (last != kept) {
        last->place = kept->place;
        *last->place = last;
        for (uint32_t i = 0; i < 2; i++) {
            last->below[i] = kept->below[i];
            if (last->below[i] != NULL)
                last->below[i]->place = &last->below[i];
        }
    }
    kept->channel->promised--;
    sbe_entry_of(kept->channel)->share->kept -= kept->service->rest == NULL;
}

int sbe_kept_answer(struct sbe_kept *kept, int status, const void *payload, uint32_t payload_size)
{
    struct sbe_channel *channel = kept->channel;
    if (channel == NULL)
        return SBE_OK;
    take_out(kept);
    int sent = sbe_engine_respond((const void *)&kept->engine, status, payload, payload_size,
                                  kept->buffers, kept->written);
    sbe_channel_flush(channel);
    sbe_engine_pin(kept->engine, kept->buffers, kept->buffer_count, false);
    kept->channel = NULL;
    return sent;
}

void sbe_kept_cancel(const struct sbe_engine *engine, struct sbe_channel *channel)
{
    struct sbe_kept *kept = *place_of(channel, engine->frame.transaction);
    if (kept != NULL)
        kept->service->cancel(kept);
}

void sbe_kept_drop(struct sbe_engine *engine, struct sbe_engine_channel *entry)
{
    struct sbe_kept *kept;
    while ((kept = entry->kept) != NULL) { /* the service may answer others as well */
        take_out(kept);
        kept->channel = NULL;
        kept->service->cancel(kept);
        sbe_engine_hand_over(&entry->channel, SBE_GIVE_BACK, kept->buffers, kept->buffer_count);
        sbe_engine_pin(engine, kept->buffers, kept->buffer_count, false);
    }
}
