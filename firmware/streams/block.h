/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records in shared memory that one end writes and the other reads at any time, whole or not at
 * all, without a lock: two places, of which `newest` says which is whole. Where memory is not
 * coherent each place and each word is in lines of its own, and the port's hooks move these.
 */
#ifndef SBE_STREAMS_BLOCK_H
#define SBE_STREAMS_BLOCK_H

#include <stdbool.h>
#include <string.h>

#include "core/port.h"
#include "streams/layout.h"

#define SBE_STREAM_LOOKS 8u /* at a record that changes meanwhile: an honest writer is slower */

struct sbe_stream_place { /* a record with its word */
    sbe_shared_u32 *newest;
    uint8_t *records[2];
    uint32_t size;               /* bytes of the record */
    const struct sbe_port *port; /* whose hooks move lines; NULL: coherent */
};

static inline struct sbe_stream_place sbe_stream_host_place(void *block,
                                                            const struct sbe_port *port)
{
    struct sbe_stream_host_record *record = block;
    return (struct sbe_stream_place){
        &record->newest,
        {(uint8_t *)&record->application[0], (uint8_t *)&record->application[1]},
        sizeof record->application[0],
        port,
    };
}

static inline struct sbe_stream_place sbe_stream_remote_place(void *block, uint32_t stride,
                                                              const struct sbe_port *port)
{
    uint8_t *at = (uint8_t *)block + stride;
    return (struct sbe_stream_place){
        &((struct sbe_stream_remote_record *)(void *)at)->newest,
        {at + stride, at + 2 * stride},
        sizeof(struct sbe_stream_status),
        port,
    };
}

static inline void sbe_stream_clean(const struct sbe_stream_place *place, const void *start,
                                    uint32_t size)
{
    if (place->port != NULL && place->port->cache_clean != NULL)
        place->port->cache_clean(place->port->self, start, size);
}

static inline void sbe_stream_invalidate(const struct sbe_stream_place *place, void *start,
                                         uint32_t size)
{
    if (place->port != NULL && place->port->cache_invalidate != NULL)
        place->port->cache_invalidate(place->port->self, start, size);
}

/* A word at a time: both ends may be at a record, and who reads it finds out afterwards. */
static inline void sbe_stream_put(uint8_t *shared, const void *record, uint32_t size)
{
    for (uint32_t i = 0; i < size; i += 4) {
        uint32_t word;
        memcpy(&word, (const uint8_t *)record + i, sizeof word);
        sbe_store_relaxed((sbe_shared_u32 *)(void *)(shared + i), word);
    }
}

static inline void sbe_stream_get(void *record, const uint8_t *shared, uint32_t size)
{
    for (uint32_t i = 0; i < size; i += 4) {
        uint32_t word = sbe_load_relaxed((const sbe_shared_u32 *)(const void *)(shared + i));
        memcpy((uint8_t *)record + i, &word, sizeof word);
    }
}

/* Shows a new record. `newest` is the writer's own count, from 0 on. */
static inline void sbe_stream_show(const struct sbe_stream_place *place, uint32_t *newest,
                                   const void *record)
{
    uint32_t next = *newest + 1;
    sbe_stream_put(place->records[next & 1], record, place->size);
    sbe_stream_clean(place, place->records[next & 1], place->size);
    sbe_store_release(place->newest, next); /* the record is whole before it is the newest */
    sbe_stream_clean(place, place->newest, sizeof *place->newest);
    sbe_full_barrier(); /* and no byte of the next one, in the other place, is out before */
    *newest = next;
}

/*
 * Takes the newest record. False: it changed in each of a number of looks, which only a writer does
 * that never rests. *newest is the count of what was taken.
 */
static inline bool sbe_stream_see(const struct sbe_stream_place *place, void *record,
                                  uint32_t *newest)
{
    /* A word that is stale in our cache is found out by the second look, and taken in the next. */
    for (uint32_t left = SBE_STREAM_LOOKS; left > 0; left--) {
        uint32_t seen = sbe_load_acquire(place->newest);
        sbe_stream_invalidate(place, place->records[seen & 1], place->size);
        sbe_stream_get(record, place->records[seen & 1], place->size);
        sbe_acquire_barrier(); /* all of it was read before the word is read again */
        sbe_stream_invalidate(place, place->newest, sizeof *place->newest);
        *newest = seen;
        if (sbe_load_relaxed(place->newest) == seen)
            return true; /* the writer was at most at the other place */
    }
    return false;
}

#endif
