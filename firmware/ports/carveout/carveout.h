/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The remote's end of a carve-out link, for firmware without an operating system: the engine over
 * a window of RAM and a byte stream. A board brings the window, a way to send bytes and a clock:
 *
 *     in the interrupt of the stream:  carveout_take_byte(&link, byte)
 *     in main():                       carveout_start(&link, &config);
 *                                      for (;;) { if (!carveout_run(&link)) sleep unless
 *                                                 carveout_rung(&link); }
 */
#ifndef SBE_PORTS_CARVEOUT_CARVEOUT_H
#define SBE_PORTS_CARVEOUT_CARVEOUT_H

#include "carveout/bootstrap.h"
#include "carveout/token.h"
#include "core/engine.h"
#include "pieces/pieces.h"
#include "power/power.h"

/* What the link can hold; RAM is spent accordingly. SDK programs open rings of 256 x 1024 bytes. */
#ifndef CARVEOUT_AREAS
#define CARVEOUT_AREAS 256u
#endif
#ifndef CARVEOUT_CONTEXTS
#define CARVEOUT_CONTEXTS 32u
#endif
#ifndef CARVEOUT_CHANNELS
#define CARVEOUT_CHANNELS 32u /* a power of two */
#endif
#ifndef CARVEOUT_SLOTS
#define CARVEOUT_SLOTS 1024u
#endif
#ifndef CARVEOUT_SLOT_SIZE
#define CARVEOUT_SLOT_SIZE 4096u
#endif
#ifndef CARVEOUT_LINE
#define CARVEOUT_LINE 32u
#endif
/* 1: handlers in pieces let others have their turn. RAM for three slots' worth of each channel. */
#ifndef CARVEOUT_PIECES
#define CARVEOUT_PIECES 1
#endif
/* 1: services may be streams (firmware/streams). */
#ifndef CARVEOUT_STREAMS
#define CARVEOUT_STREAMS 1
#endif
#define CARVEOUT_CALLS   8u /* of this end to the host, per channel */
#define CARVEOUT_PENDING 8u
#define CARVEOUT_KEPT    4u   /* requests of one context: half of what a service has room for */
#define CARVEOUT_FIFO    256u /* bytes between the interrupt and the main loop, a power of two */

struct carveout_config {
    void *self;
    void *window; /* as this end sees it; its device address is the same number */
    uint64_t window_size;
    const char *board;
    const char *image;
    struct sbe_carveout_region regions[SBE_CARVEOUT_OFFERS];
    uint32_t seed;
    uint16_t version_min; /* of the protocol; both 0: what this code speaks */
    uint16_t version_max;
    bool coherent;
    void (*send_byte)(void *self, uint8_t byte); /* may drop it rather than wait long */
    uint64_t (*now_ns)(void *self);
    void (*cache_clean)(void *self, const void *start, uint64_t size); /* NULL: coherent */
    void (*cache_invalidate)(void *self, void *start, uint64_t size);
    const struct sbe_power_hooks *power; /* NULL: it can be suspended, which saves nothing */
};

struct carveout {
    const struct carveout_config *config;
    struct sbe_bootstrap bootstrap;
    struct sbe_token_reader reader;
    struct sbe_port port;
    struct sbe_engine_config engine_config;
    struct sbe_engine engine;
    struct sbe_power power;
    /* Written by the interrupt: fifo, fifo_head, overrun. By the main loop: fifo_tail. */
    volatile uint32_t fifo_head;
    volatile uint32_t fifo_tail;
    volatile bool overrun;
    volatile uint8_t fifo[CARVEOUT_FIFO];
    bool look; /* at the control side */
    uint32_t epoch;
    uint32_t context; /* whose request a handler has at hand, SBE_CONTEXT_GLOBAL: none has */
    struct sbe_channel *by_id[CARVEOUT_CHANNELS]; /* at id modulo its size, or elsewhere */
    /* Statistics, for a debugger and the console. */
    uint32_t lives;   /* sessions begun */
    uint32_t dropped; /* control messages that did not fit the ring */
    uint32_t strange; /* tokens that name no channel of ours */
    uint32_t bad;     /* malformed control messages */
};

/* Starts: the window's blocks are written and the host is told. A status. */
int carveout_start(struct carveout *link, const struct carveout_config *config);
/* One round of everything. False: nothing to do until the next byte comes, or carveout_due_ns(). */
bool carveout_run(struct carveout *link);
/* When a stream has bytes to move, by the link's clock; UINT64_MAX never. */
uint64_t carveout_due_ns(void);
/* Bytes wait. Ask with interrupts off, before sleeping. */
static inline bool carveout_rung(const struct carveout *link)
{
    return link->fifo_head != link->fifo_tail || link->overrun;
}
/* From the stream's interrupt only. */
void carveout_take_byte(struct carveout *link, uint8_t byte);
/* The same for a doorbell that carries no bytes: it may be for any channel. */
void carveout_take_ring(struct carveout *link);
void carveout_send_token(const struct carveout *link, uint32_t token);

/*
 * The last words of this life: fill what the core and the board know, then do nothing more. Magic,
 * check, generation and the request at hand are filled here. Needs no stack to speak of and of the
 * state only what is of use when it is sound.
 */
void carveout_crash(struct carveout *link, struct sbe_crash_record *record);

/*
 * What a record says, as text of lines of a name and a value, for people. Characters that no
 * terminal should get are '?'. The text ends where there is no room.
 */
#define CARVEOUT_CRASH_TEXT 640u
void carveout_crash_text(const struct sbe_crash_record *record,
                         char text[static CARVEOUT_CRASH_TEXT]);

struct carveout_code { /* of a Thumb image */
    uintptr_t begin;
    uintptr_t end;
};

/*
 * Fills the record's backtrace with what looks like a return address on a stack of `bottom` to
 * `top`: an address of Thumb code behind a call. Some may be what a former call left. The innermost
 * ones, above what was in use; where the stack pointer is beyond, the outermost ones of all of it.
 */
void carveout_backtrace(struct sbe_crash_record *record, const uint32_t *stack,
                        const uint32_t *bottom, const uint32_t *top, struct carveout_code code);

#endif
