/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A carve-out link: two ends share a window of RAM and a byte stream (a UART), nothing else. This
 * is what lies where in the window, for both ends; docs/spec/carveout.md tells it in words. Every
 * structure has one writer. Everything read from here is checked: RAM may hold anything at
 * power-on, and what a former life left.
 */
#ifndef SBE_CARVEOUT_LAYOUT_H
#define SBE_CARVEOUT_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#include "core/ring.h"
#include "core/wire.h"

#define SBE_CARVEOUT_MAGIC   0x54554f43u /* "COUT" */
#define SBE_CARVEOUT_VERSION 1u

/* Offsets into the window, bytes. */
#define SBE_CARVEOUT_HOST       0x0000u
#define SBE_CARVEOUT_REMOTE     0x0080u
#define SBE_CARVEOUT_INFO       0x0100u
#define SBE_CARVEOUT_CRASH      0x0400u
#define SBE_CARVEOUT_TO_REMOTE  0x1000u /* the control rings */
#define SBE_CARVEOUT_TO_HOST    0x4000u
#define SBE_CARVEOUT_REGIONS    0x8000u  /* memory that the remote owns and offers */
#define SBE_CARVEOUT_ARENA      0x10000u /* the host's to allocate, up to the end of the window */
#define SBE_CARVEOUT_WINDOW_MIN 0x20000u

#define SBE_CARVEOUT_SLOTS     16u
#define SBE_CARVEOUT_SLOT_SIZE 512u /* a size word, then a control message */
#define SBE_CARVEOUT_LINE      128u

struct sbe_carveout_block { /* one per end */
    sbe_shared_u32 magic;
    sbe_shared_u32 version;
    sbe_shared_u32 generation; /* of this life of this end, never 0 while it is valid */
    sbe_shared_u32 check;      /* ~generation: tells a block from what RAM happens to hold */
    sbe_shared_u32 peer_seen;  /* the peer's generation that this end has reset its words for */
    sbe_shared_u32 crashed;    /* 1: this life has ended in the crash record */
};

#define SBE_CARVEOUT_NAME_SIZE 32u
#define SBE_CARVEOUT_OFFERS    4u

struct sbe_carveout_region { /* memory of the remote, shown to the host read-only */
    char name[16];           /* zero-padded; empty: no region */
    uint32_t offset;         /* into the window */
    uint32_t size;           /* bytes */
};

struct sbe_carveout_info { /* the remote's word on itself and the window */
    uint32_t magic;
    uint32_t check; /* sbe_carveout_sum() of all that follows */
    uint64_t window_address;
    uint64_t window_size;
    char board[SBE_CARVEOUT_NAME_SIZE];
    char image[SBE_CARVEOUT_NAME_SIZE];
    struct sbe_carveout_region regions[SBE_CARVEOUT_OFFERS];
};

/* What ended a life, whatever the core calls it. */
enum sbe_crash_kind {
    SBE_CRASH_FAULT = 1, /* none of the others */
    SBE_CRASH_ASSERT = 2,
    SBE_CRASH_ACCESS = 3,      /* a load or store that the memory does not allow */
    SBE_CRASH_EXECUTE = 4,     /* code fetched from where none may be */
    SBE_CRASH_STACK = 5,       /* overflow */
    SBE_CRASH_ALIGNMENT = 6,   /* of a load or store */
    SBE_CRASH_DIVISION = 7,    /* by zero */
    SBE_CRASH_INSTRUCTION = 8, /* undefined */
    SBE_CRASH_INTERRUPT = 9,   /* one without a handler, or one that does not end */
};

#define SBE_CRASH_BACKTRACE 8u

struct sbe_crash_record {
    uint32_t magic;
    uint32_t check; /* sbe_carveout_sum() of all that follows */
    uint32_t generation;
    uint32_t kind;
    uint32_t exception;    /* number of the exception that was taken, 0 none */
    uint32_t registers[8]; /* r0 to r3, r12, lr, pc, xpsr; all 0: they were lost */
    uint32_t stack_pointer;
    uint32_t fault_status[6];                /* Arm: CFSR, HFSR, MMFAR, BFAR, SFSR, SFAR */
    uint32_t backtrace[SBE_CRASH_BACKTRACE]; /* return addresses, the innermost first, then 0 */
    uint32_t context;                        /* of the request at hand */
    uint32_t reserved;
    uint64_t transaction;        /* of the request at hand, 0 none or a message */
    char service[SBE_NAME_SIZE]; /* whose handler ran, zero-padded; empty: none */
    char text[128];
};

_Static_assert(sizeof(struct sbe_carveout_block) <= 0x80, "a block has a line of its own");
_Static_assert(sizeof(struct sbe_carveout_info) <= SBE_CARVEOUT_CRASH - SBE_CARVEOUT_INFO, "info");
_Static_assert(sizeof(struct sbe_crash_record) <= 0x400, "crash record");
_Static_assert(offsetof(struct sbe_carveout_info, window_address) == 8, "wire");
_Static_assert(sizeof(struct sbe_carveout_info) == 184, "wire");
_Static_assert(offsetof(struct sbe_crash_record, backtrace) == 80, "wire");
_Static_assert(offsetof(struct sbe_crash_record, transaction) == 120, "wire");
_Static_assert(sizeof(struct sbe_crash_record) == 288, "wire");

static inline uint32_t sbe_carveout_sum(const void *bytes, uint32_t size)
{
    const uint8_t *at = bytes;
    uint32_t sum = 0x811c9dc5u; /* FNV-1a: against accidents, not against malice */
    for (uint32_t i = 0; i < size; i++)
        sum = (sum ^ at[i]) * 0x01000193u;
    return sum;
}

/* What `check` is the sum of. */
#define SBE_CARVEOUT_SUM(structure) \
    sbe_carveout_sum((const uint8_t *)(structure) + 8, (uint32_t)sizeof *(structure)-8)

#endif
