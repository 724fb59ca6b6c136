/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One direction's shared-memory queue after Address Space Graphics: slots of a transfer buffer,
 * published by index, with a consumer state that suppresses doorbells.
 *
 * Each end keeps its own index private and only publishes it; the peer's index is checked against
 * the private one every time it is read, so a hostile peer can stop a ring but not leave it.
 * Not thread-safe: one producer and one consumer, each serialised by its owner.
 */
#ifndef SBE_CORE_RING_H
#define SBE_CORE_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "core/wire.h"

struct sbe_ring_geometry {
    uint32_t slots;     /* power of two, 2 to SBE_SLOTS_MAX */
    uint32_t slot_size; /* bytes, multiple of SBE_SLOT_ALIGN, to SBE_SLOT_SIZE_MAX */
    uint32_t line;      /* bytes, power of two, at least 16, to SBE_LINE_MAX */
};

struct sbe_ring { /* private to one end; the same form serves producer and consumer */
    struct sbe_ring_producer *producer;
    struct sbe_ring_consumer *consumer;
    uint8_t *slots;
    uint32_t mask;
    uint32_t slot_size;
    uint32_t mine;      /* the next index this end uses */
    uint32_t published; /* what this end has published of it */
    uint32_t theirs;    /* the peer's index as last seen and verified */
    bool broken;        /* the peer published nonsense; the ring is shut for good */
};

/* A power of two, at least 16, at most SBE_LINE_MAX. */
bool sbe_ring_line_is_legal(uint32_t line);

/* Bytes of one ring, or a negative status when the geometry is not legal. */
int64_t sbe_ring_size(const struct sbe_ring_geometry *geometry);

/*
 * Attaches to ring memory of sbe_ring_size() bytes, aligned to the line. The end that opens the
 * channel calls sbe_ring_clear() on the memory first.
 */
int sbe_ring_attach(struct sbe_ring *ring, void *memory, const struct sbe_ring_geometry *geometry);

/* Starts both indices of fresh ring memory at the same value, usually 0 (tests start near wrap). */
void sbe_ring_clear(void *memory, const struct sbe_ring_geometry *geometry, uint32_t start);

/* Producer: the next free slot in *slot, or SBE_EAGAIN (full), or SBE_EPROTO (broken). */
int sbe_ring_reserve(struct sbe_ring *ring, void **slot);
/* Producer: the slot last reserved is written. It stays private until sbe_ring_publish(). */
static inline void sbe_ring_commit(struct sbe_ring *ring)
{
    ring->mine++;
}
/* Producer: publishes all committed slots. True: the consumer sleeps, ring its doorbell. */
bool sbe_ring_publish(struct sbe_ring *ring);
/* Producer: free slots; looks at the peer's index only when fewer than `wanted` are known. */
uint32_t sbe_ring_free(struct sbe_ring *ring, uint32_t wanted);
/*
 * Producer: asks for a doorbell once `wanted` slots are free, at most all of them; what is
 * committed must be published, or nobody will return it. True: still fewer, it may sleep.
 */
bool sbe_ring_wait_space(struct sbe_ring *ring, uint32_t wanted);

/* Consumer: 1 and the next slot in *slot, 0 when empty, or SBE_EPROTO (broken). */
int sbe_ring_peek(struct sbe_ring *ring, const void **slot);
/* Consumer: done with the slot last peeked. Returned to the producer by sbe_ring_return(). */
static inline void sbe_ring_release(struct sbe_ring *ring)
{
    ring->mine++;
}
/* Consumer: returns all released slots. True: the producer waits for space, ring its doorbell. */
bool sbe_ring_return(struct sbe_ring *ring);
/* Consumer, for observers: works on a request of this ring; `beat` differs each time. */
static inline void sbe_ring_show_work(struct sbe_ring *ring, uint32_t beat, uint64_t transaction)
{
    uint32_t low = (uint32_t)transaction & SBE_AT_WORK_TRANSACTIONS;
    sbe_store_relaxed(&ring->consumer->at_work,
                      SBE_AT_WORK | (beat << 16 & SBE_AT_WORK_BEATS) | low);
}
static inline void sbe_ring_show_rest(struct sbe_ring *ring)
{
    sbe_store_relaxed(&ring->consumer->at_work, 0);
}
/* Consumer: asks for a doorbell at the next frame. True: still empty, it may sleep. */
bool sbe_ring_wait_data(struct sbe_ring *ring);

static inline uint32_t sbe_ring_in_flight(const struct sbe_ring *ring)
{
    return ring->mine - ring->theirs;
}

/* Consumer, for spinning: a hint that peek will find something new, or that the ring is broken. */
static inline bool sbe_ring_peer_moved(const struct sbe_ring *ring)
{
    return sbe_load_relaxed(&ring->producer->head) != ring->theirs;
}

#endif
