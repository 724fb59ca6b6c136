/* SPDX-License-Identifier: Apache-2.0 */
/* The channels that the carrier of doorbells has, by number and by what they have to do. */
#ifndef SBE_NATIVE_DOORBELL_TABLE_H
#define SBE_NATIVE_DOORBELL_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "patience/bell.h"

struct doorbell {          /* of one channel */
    struct doorbell *next; /* whose channel's number is alike */
    struct doorbell *busy_next;
    bool busy; /* in the list of those that are looked at each turn */
    uint32_t channel;
    int ring_fd;     /* rung here, for the remote */
    int wake_fd;     /* rung by the remote */
    int endpoint_fd; /* messages of this channel alone, non-blocking; -1: tokens on the stream */
    bool owed;       /* a token or message that was not taken */
    bool wake_owed;  /* wake_fd is to be rung */
    struct sbe_bell bell;  /* what that costs us */
    struct frames *frames; /* that travel in the endpoint's messages; NULL: in shared memory */
};

#define DOORBELL_BUCKETS 512u

/* One of thousands may have something to do: it is found by number, and only the busy are looked
 * at each turn. */
struct doorbell_table {
    struct doorbell *all[DOORBELL_BUCKETS]; /* by channel modulo its size */
    struct doorbell *busy, **busy_end;      /* those that owe something, or have to look again */
    struct sbe_bells bells;                 /* of all wake_fd */
    struct doorbell *dead; /* removed, freed by the thread: its batch may name them */
};

/* Where the one of this channel hangs; NULL there if there is none. */
struct doorbell **native_doorbell_find(struct doorbell_table *table, unsigned long channel);
void native_doorbell_note(struct doorbell_table *table, struct doorbell *doorbell);
void native_doorbell_busy(struct doorbell_table *table, struct doorbell *doorbell);
/* It has a token or message to send. */
void native_doorbell_owe(struct doorbell_table *table, struct doorbell *doorbell);
/*
 * Rings wake_fd, if that is owed. True: it costs too much and waits, busy, until bells.next_ns; it
 * keeps nobody else.
 */
bool native_doorbell_wake(struct doorbell_table *table, struct doorbell *doorbell);
/* The list, which is empty then: each is to be marked as no longer in it. */
struct doorbell *native_doorbell_take_busy(struct doorbell_table *table);
/* Frees the dead, but for those that are in the list still, which a turn takes out. */
void native_doorbell_free_dead(struct doorbell_table *table);

#endif
