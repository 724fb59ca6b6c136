/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two ends in one process, each a shared object with a copy of the core of its own, so that all it
 * has in private is what its object has in writable memory: a death puts that back to what it was
 * when it was loaded. What both reach is the world's: memory, messages under way, and a record of
 * all that was asked, which no death takes away.
 */
#ifndef SBE_TESTS_DEATHS_ENDS_H
#define SBE_TESTS_DEATHS_ENDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "carveout/layout.h"

#define BLOCK  4096u /* bytes of memory that the host hands out at a time */
#define BLOCKS 12u
#define WINDOW                                                     \
    (SBE_CARVEOUT_ARENA + BLOCKS * BLOCK > SBE_CARVEOUT_WINDOW_MIN \
         ? SBE_CARVEOUT_ARENA + BLOCKS * BLOCK                     \
         : SBE_CARVEOUT_WINDOW_MIN)
#define SLOTS     8u
#define SLOT_SIZE 192u
#define LINE      64u
#define RING      (2 * LINE + SLOTS * SLOT_SIZE)

_Static_assert(2 * RING <= BLOCK, "both rings of a channel fit a block");

enum binding {
    MAIL,     /* as a socket: messages, and an end of file when the other end has died */
    RESIDENT, /* as rpmsg: messages that outlive who sent them, and only a HELLO tells of a death */
    CARVED,   /* as a carve-out: all in shared memory, and doorbells as bytes */
    BINDINGS
};

enum which {
    HOST,
    REMOTE,
    ENDS
};

/* What an end can be told by the world; one call at a time, and it may not come back from it. */
struct end {
    void (*begin)(enum binding binding);
    void (*connected)(void); /* by messages: they go through (again) */
    void (*lost)(void);      /* MAIL: it was, and is gone */
    void (*take_message)(const void *message, uint32_t size);
    void (*take_bell)(uint32_t channel);
    void (*take_byte)(uint8_t byte);
    bool (*run)(void);      /* false: it sleeps until it is told something */
    bool (*finished)(void); /* the host: its script has ended */
    /* What it holds of the other end: areas, contexts, channels, requests. 0 when there is none. */
    uint32_t (*holds)(void);
};

/* -- the world, for the ends ------------------------------------------------------------------- */

/* A sentence about what went wrong; the run and its place are told, and the program ends. */
_Noreturn void world_fail(const char *text, long value);
#define HOLDS(condition)                                    \
    do                                                      \
        if (!(condition))                                   \
            world_fail(__FILE__ ": " #condition, __LINE__); \
    while (0)

uint8_t *world_window(void);
uint32_t world_epoch(void); /* never the same twice */
uint64_t world_now_ns(void *self);
uint32_t world_draw(uint32_t below); /* from the seed */
void world_send(enum which to, const void *message, uint32_t size);
void world_ring(enum which to, uint32_t channel);
void world_send_byte(enum which to, uint8_t byte);

/* The host's memory. What is free is poisoned: who writes it is found, who reads it is, too. */
uint8_t *world_take_block(bool for_rings);
void world_give_block(uint8_t *block);
void world_take_orphans(void); /* those of a host that died: no remote may touch them any more */

/* What somebody waits for: it ends once, with its true answer or an error that fits. */
enum kind {
    CONTROL,
    CALL,
    CANCELLED, /* a call that may be answered or may end as cancelled */
    ABANDONED, /* a call whose channel its own end closes */
    ROBBED,    /* a call whose area its own end unmaps */
};
uint32_t world_asked(enum kind kind);
void world_expects(uint32_t record, enum kind kind);
void world_answered(uint32_t record, int status, bool right);
/* The host has begun a new epoch of itself: what was under way may end as after a death. */
void world_reset(void);
/* The host is connected: at this moment the other end holds nothing. */
void world_met(void);

/* -- the ends, for the world ------------------------------------------------------------------- */

extern const struct end end; /* of each object */

#endif
