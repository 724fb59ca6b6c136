/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the engine's parts share: requests that are answered now (engine.c), later (kept.c) or in
 * pieces (firmware/pieces). Nobody else includes this.
 */
#ifndef SBE_CORE_ENGINE_BASE_H
#define SBE_CORE_ENGINE_BASE_H

#include <stddef.h>

#include "core/cache.h"
#include "core/engine.h"

static inline struct sbe_engine_channel *sbe_entry_of(struct sbe_channel *channel)
{
    return (struct sbe_engine_channel *)(void *)channel;
}

static inline uint64_t sbe_engine_now(const struct sbe_engine *engine)
{
    return engine->port->now_ns(engine->port->self);
}

/* Nanoseconds, at most what a response can say. */
uint32_t sbe_between(uint64_t from_ns, uint64_t to_ns);

static inline bool sbe_is_output(const struct sbe_buffer *buffer)
{
    return (buffer->direction & (SBE_DIR_OUT | SBE_DIR_SHARED)) != 0;
}

static inline bool sbe_is_late(const struct sbe_frame *frame, uint64_t now_ns)
{
    return frame->deadline_us != 0 &&
           now_ns - frame->seen_ns > (uint64_t)frame->deadline_us * 1000u;
}

void sbe_engine_maintain(struct sbe_channel *channel, enum sbe_handover step,
                         const struct sbe_buffer *buffer, uint32_t count);

/* Moves buffers to this end or back; back also after a failure, and before memory is let go. */
static inline void sbe_engine_hand_over(struct sbe_channel *channel, enum sbe_handover step,
                                        const struct sbe_buffer *buffer, uint32_t count)
{
    if (!channel->areas->coherent)
        sbe_engine_maintain(channel, step, buffer, count);
}

/* Areas of buffers whose request is still open stay mapped: one pin each. */
void sbe_engine_pin(struct sbe_engine *engine, const struct sbe_buffer *buffer, uint32_t count,
                    bool hold);

/* Calls the handler of the request at hand for as many pieces as there is time for. */
int sbe_engine_handle(struct sbe_engine *engine, uint64_t turn_ns);

/* What that came to: an answer, or another turn. */
void sbe_engine_settle(struct sbe_engine *engine, int status);

/*
 * Answers a request, or what a kept one has of it; there is room, it was promised. The response is
 * a frame of its own because a handler may answer a kept request while it looks at another.
 */
int sbe_engine_respond(const struct sbe_request *request, int result, const void *payload,
                       uint32_t payload_size, const struct sbe_buffer *buffers,
                       const uint64_t *written);

/* The requester of what the CANCEL at hand names no longer wants it. */
void sbe_kept_cancel(const struct sbe_engine *engine, struct sbe_channel *channel);
/* The requester is gone: its kept requests end without an answer. */
void sbe_kept_drop(struct sbe_engine *engine, struct sbe_engine_channel *entry);

#endif
