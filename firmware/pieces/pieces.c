/* SPDX-License-Identifier: Apache-2.0 */
#include "pieces/pieces.h"

#include "core/engine_base.h"
#include "core/status.h"

#define LOOKS 64u

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

/*
 * A CANCEL of it lies behind it in the ring, where it stays: taken in its turn, it names nothing
 * any more. Each frame is looked at once, and some of them a turn, whatever the requester sends.
 */
static bool is_cancelled(struct sbe_paused *paused, const struct sbe_ring *ring)
{
    uint32_t ahead = sbe_load_acquire(&ring->producer->head) - ring->mine;
    uint32_t at = paused->looked - ring->mine;
    if (ahead > ring->mask + 1 || at > ahead) /* nonsense, which the next receive tells */
        return false;
    for (uint32_t left = LOOKS; left > 0 && at < ahead; left--, at++) {
        struct sbe_wire_frame frame;
        paused->looked++;
        sbe_snapshot(&frame,
                     ring->slots + (size_t)((ring->mine + at) & ring->mask) * ring->slot_size,
                     sizeof frame);
        if (frame.type == SBE_FRAME_CANCEL && frame.transaction == paused->request.transaction)
            return true;
    }
    return false;
}

static void pause_request(struct sbe_engine *engine, struct sbe_engine_channel *entry)
{
    struct sbe_paused *paused = place_of(engine, entry);
    if (paused->request.transaction != engine->request.transaction)
        paused->looked = entry->channel.rx.mine;
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
    int status = SBE_OK;
    if (sbe_is_late(&engine->frame, now_ns))
        status = SBE_ETIMEDOUT;
    else if (is_cancelled(paused, &entry->channel.rx))
        status = SBE_ECANCELED;
    sbe_engine_settle(engine, status < 0 ? status : sbe_engine_handle(engine, now_ns));
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
