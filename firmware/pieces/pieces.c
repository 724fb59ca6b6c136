/* SPDX-License-Identifier: Apache-2.0 */
#include "pieces/pieces.h"

#include "core/engine_base.h"
#include "core/status.h"

_Static_assert(sizeof(struct sbe_paused) % 8 == 0, "what lies behind it is aligned as it is");

static struct sbe_paused *place_of(const struct sbe_engine *engine,
                                   const struct sbe_engine_channel *entry)
{
    const struct sbe_engine_config *config = engine->config;
    size_t slot_size = config->session.limits.slot_size;
    uint8_t *at = config->paused;
    at += (size_t)(entry - config->channels) * SBE_PAUSED_SIZE(slot_size);
    struct sbe_paused *paused = (void *)at;
    if (paused->in == NULL) {
        paused->in = at + sizeof *paused;
        paused->out = at + sizeof *paused + slot_size;
    }
    return paused;
}

static void swap(void **one, void **other)
{
    void *was = *one;
    *one = *other;
    *other = was;
}

/* What the request points to stays where it is: the engine goes on with other memory, or back. */
static void swap_scratch(struct sbe_engine *engine, struct sbe_paused *paused)
{
    swap(&engine->config->scratch_in, &paused->in);
    swap(&engine->config->scratch_out, &paused->out);
}

static void pause_request(struct sbe_engine *engine, struct sbe_engine_channel *entry)
{
    struct sbe_paused *paused = place_of(engine, entry);
    swap_scratch(engine, paused);
    paused->request = engine->request;
    paused->frame = engine->frame;
    entry->paused = true;
    sbe_engine_pin(engine, engine->frame.buffers, engine->request.buffer_count, true);
}

static void go_on(struct sbe_engine *engine, struct sbe_engine_channel *entry)
{
    struct sbe_paused *paused = place_of(engine, entry);
    uint64_t now_ns = sbe_engine_now(engine);
    swap_scratch(engine, paused);
    engine->request = paused->request;
    engine->frame = paused->frame;
    entry->paused = false;
    uint32_t count = engine->request.buffer_count;
    /* Nobody waits any more when it is late: the requester has that deadline, too. */
    bool late = sbe_is_late(&engine->frame, now_ns);
    sbe_engine_settle(engine, late ? SBE_ETIMEDOUT : sbe_engine_handle(engine, now_ns));
    sbe_engine_pin(engine, engine->frame.buffers, count, false); /* or it is held once more */
}

/* The requester is gone, and the memory perhaps with it. */
static void drop(struct sbe_engine *engine, struct sbe_engine_channel *entry)
{
    const struct sbe_paused *paused = place_of(engine, entry);
    const struct sbe_buffer *buffers = paused->frame.buffers;
    uint32_t count = paused->request.buffer_count;
    entry->paused = false;
    sbe_engine_hand_over(&entry->channel, SBE_GIVE_BACK, buffers, count);
    sbe_engine_pin(engine, buffers, count, false);
}

void sbe_pieces_use(struct sbe_engine_config *config, void *memory)
{
    static const struct sbe_engine_pieces PIECES = {pause_request, go_on, drop};
    config->pieces = &PIECES;
    config->paused = memory;
}
