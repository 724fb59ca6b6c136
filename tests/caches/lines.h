/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cache in front of memory, simulated: this end's own copy of an area, of which lines move only
 * when they are told to, or when nobody expects it.
 */
#ifndef TESTS_CACHES_LINES_H
#define TESTS_CACHES_LINES_H

#include <stdint.h>

struct lines {
    uint8_t *memory; /* what both ends reach */
    uint8_t *copy;   /* what this end sees */
    uint8_t *known;  /* the copy as it was filled or written back: where they differ it is dirty */
    uint64_t size;   /* whole lines */
    uint32_t line;   /* bytes, a power of two of 8 to 4096 */
    uint64_t state;  /* of what looks random; 0: no line moves unless it is told to */
};

/* For a copy, or what is known of one: zero, and taken only as it is used. NULL: none. */
void *lines_memory(uint64_t size);

/* Fills the copy, for memory that was used before. */
void lines_begin(struct lines *lines);

/* Dirty lines of the range are written to memory, whole. */
void lines_clean(struct lines *lines, uint64_t offset, uint64_t size);

/*
 * Lines of the range are dropped, and filled again at once, as a core may that guesses what is read
 * next. Hardware may write a dirty one before it drops it, or not: so may this, by chance.
 */
void lines_invalidate(struct lines *lines, uint64_t offset, uint64_t size);

/*
 * Some lines move that nobody asked for, beside the range, in it, and elsewhere: a dirty one is
 * evicted, which writes it; a clean one is evicted and filled again.
 */
void lines_disturb(struct lines *lines, uint64_t offset, uint64_t size);

#endif
