/* SPDX-License-Identifier: Apache-2.0 */
/* What the carrier of doorbells knows of a channel, and the endpoint of one. */
#ifndef SBE_NATIVE_DOORBELLS_H
#define SBE_NATIVE_DOORBELLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mirror/mirror.h"
#include "native.h"

#define FRAMES_TELL_NS 1000000u /* the next frame tells of free slots, unless it takes longer */

struct doorbell {          /* of one channel */
    struct doorbell *next; /* whose channel's number is alike */
    struct doorbell *busy_next;
    bool busy; /* in the list of those that are looked at each turn */
    uint32_t channel;
    int ring_fd;     /* rung here, for the remote */
    int wake_fd;     /* rung by the remote */
    int endpoint_fd; /* messages of this channel alone, non-blocking; -1: tokens on the stream */
    bool owed;       /* a token or message that was not taken */
    struct frames *frames; /* that travel in the endpoint's messages; NULL: in shared memory */
};

struct frames {
    struct sbe_mirror mirror;
    void *memory;
    size_t size;
    uint64_t tell_ns; /* when to tell of slots that no frame has told of, 0 not yet */
    bool tell;        /* as soon as there are any */
};

#define DOORBELL_BUCKETS 512u

/* One of thousands may have something to do: it is found by number, and only the busy are looked
 * at each turn. */
struct doorbell_table {
    struct doorbell *all[DOORBELL_BUCKETS]; /* by channel modulo its size */
    struct doorbell *busy, **busy_end;      /* those that owe something, or have to look again */
    struct doorbell *dead; /* removed, freed by the thread: its batch may name them */
};

/* -- doorbell_table.c -- */

/* Where the one of this channel hangs; NULL there if there is none. */
struct doorbell **native_doorbell_find(struct doorbell_table *table, unsigned long channel);
void native_doorbell_note(struct doorbell_table *table, struct doorbell *doorbell);
void native_doorbell_busy(struct doorbell_table *table, struct doorbell *doorbell);
/* The list, which is empty then: each is to be marked as no longer in it. */
struct doorbell *native_doorbell_take_busy(struct doorbell_table *table);
/* Frees the dead, but for those that are in the list still, which a turn takes out. */
void native_doorbell_free_dead(struct doorbell_table *table);

/* -- endpoint.c -- */

/*
 * Sends what there is, some at most; `late`: its time to tell has come. Nanoseconds after which to
 * go on; 0: all was sent. An endpoint that is gone takes everything.
 */
uint64_t native_endpoint_send(const struct doorbell *doorbell, bool late);
/* Takes what came and rings for it. False: the endpoint is gone, look no more. */
bool native_endpoint_read(const struct doorbell *doorbell);

/*
 * The channel's rings in memory that the remote does not see: None, or a tuple of the descriptor of
 * a file that can't shrink, its size, offsets and the geometry. False: an exception is set.
 */
bool native_frames_parse(PyObject *rings, struct frames **frames);
void native_frames_free(struct frames *frames);

#endif
