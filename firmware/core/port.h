/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a platform gives the core: hooks and facts. A hook left NULL is not needed there (a coherent
 * port has no cache hooks). The core calls them from the thread that called the core, never from an
 * interrupt. `self` comes back as the first argument.
 */
#ifndef SBE_CORE_PORT_H
#define SBE_CORE_PORT_H

#include <stdint.h>

/*
 * Where -Os inlines a function of one or two callers and the text grows: each of its returns is
 * threaded through the caller's code, or its frame is paid by every path.
 */
#define SBE_OUT_OF_LINE __attribute__((noinline))

struct sbe_area;
struct sbe_area_map;
struct sbe_channel;

struct sbe_port {
    void *self;

    /* Monotonic time in nanoseconds. Required; may be coarse. */
    uint64_t (*now_ns)(void *self);

    /*
     * Sends one control message, size at most SBE_CONTROL_MAX. Zero, or a negative status;
     * must not block: a port that can't send now queues it within its own bound.
     */
    int (*control_send)(void *self, const void *message, uint32_t size);

    /*
     * Makes the memory of an area reachable: sets area->base (or leaves it NULL for memory that is
     * never mapped). Handles that came with the message are the port's to take. Zero or a status.
     * While area->missing is not zero, more segments follow by area_extend.
     */
    int (*area_attach)(void *self, struct sbe_area *area, const struct sbe_area_map *message);
    /*
     * Further segments of an area whose list takes several messages; area->segments of them are
     * known. A failure ends the area with area_detach. NULL: one message must hold the whole list.
     */
    int (*area_extend)(void *self, struct sbe_area *area, const struct sbe_area_map *message);
    /* The area is gone from the table and no request holds it: release the memory. */
    void (*area_detach)(void *self, struct sbe_area *area);

    /* Wakes the peer of this channel. Doorbells may coalesce. */
    void (*doorbell)(void *self, const struct sbe_channel *channel);

    /* Cache maintenance by range, line-aligned by the hook. NULL where memory is coherent. */
    void (*cache_clean)(void *self, const void *start, uint64_t size);
    void (*cache_invalidate)(void *self, void *start, uint64_t size);

    /* Before a handler runs for this context: program the MPU or MMU. Optional. */
    void (*context_enter)(void *self, uint32_t context);
};

#endif
