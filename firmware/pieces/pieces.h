/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handlers that return SBE_MORE go on in a later turn, and others are served in between. It takes
 * memory for one more request of each channel; a port that has none leaves it out, and a handler's
 * pieces follow each other.
 */
#ifndef SBE_PIECES_PIECES_H
#define SBE_PIECES_PIECES_H

#include "core/engine.h"

struct sbe_paused { /* a request between two turns; behind it lies memory for two slots */
    void *in;       /* as scratch_in; they change places with each other and with the engine's */
    void *out;
    uint32_t looked; /* frames of its ring before this index were looked at for its CANCEL */
    struct sbe_request request;
    struct sbe_frame frame;
};

/* Bytes for one channel. A slot's size is a multiple of 64. */
#define SBE_PAUSED_SIZE(slot_size) (sizeof(struct sbe_paused) + 2u * (slot_size))

/*
 * Before sbe_engine_init(). `memory`: session.limits.channels times SBE_PAUSED_SIZE() of its
 * slot_size, 8-byte aligned and zeroed; a channel's is touched when it first pauses.
 */
void sbe_pieces_use(struct sbe_engine_config *config, void *memory);

#endif
