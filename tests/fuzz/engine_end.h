/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An engine with all services and small tables, and a host beside it that is nothing but memory and
 * messages. Each area lies in memory of exactly its size.
 */
#ifndef SBE_TESTS_FUZZ_ENGINE_END_H
#define SBE_TESTS_FUZZ_ENGINE_END_H

#include "control.h"
#include "core/engine.h"

#define END_AREAS     8u
#define END_CONTEXTS  3u
#define END_CHANNELS  3u
#define END_SLOTS     4u
#define END_SLOT_SIZE 512u
#define END_LINE      64u
#define END_RING      (2 * END_LINE + END_SLOTS * END_SLOT_SIZE)
#define END_SERVICES  16u

struct end_ring { /* the host's view of a channel's rings; NULL where there are none */
    uint8_t *to_engine;
    uint8_t *to_host;
    uint32_t head; /* as the host last published */
    uint32_t tail;
};

extern struct sbe_engine end_engine;
extern struct sbe_area end_areas[END_AREAS];
extern uint32_t end_attached;
extern bool end_incoherent; /* set before end_begin() */

/* Negotiated: the host's epoch is 2. */
void end_begin(void);
/* The host is gone: everything ends, and nothing is left. */
void end_finish(void);
/* As honest hosts do; what they make is there when these return. */
void end_context(uint32_t id);
void end_map(uint32_t index, uint32_t context, uint32_t flags, uint32_t size);
void end_open(uint32_t channel, uint32_t context, uint32_t ring_area, uint32_t priority,
              struct end_ring *ring);
/* Time passes. */
void end_pass(uint64_t ns);
/* At most so many rounds; what the engine asks the host is answered. */
void end_run(uint32_t rounds);
void end_bell(uint32_t channel);
/* The id of a service. */
uint16_t end_service(const char *name);
/* The host writes a frame into the next slot and publishes it. */
void end_put(struct end_ring *ring, const void *frame, uint32_t size);
/* The slot of the next frame for the host, NULL if there is none. */
const uint8_t *end_take(struct end_ring *ring);

#endif
