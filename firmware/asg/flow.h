/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One direction of a region of Address Space Graphics, seen by one of its ends.
 *
 * An end keeps its own position private and only shows it: a peer that writes over it changes
 * nothing here, and what it writes over its own is masked to the ring. Not thread-safe.
 */
#ifndef SBE_ASG_FLOW_H
#define SBE_ASG_FLOW_H

#include <stdint.h>

#include "asg/layout.h"

struct sbe_asg_flow {
    struct sbe_asg_page *page;
    uint8_t *bytes;
    uint32_t mask;
    uint32_t mine; /* the next position of this end, shown up to here */
};

struct sbe_asg_region { /* what both ends make of it */
    struct sbe_asg_storage *storage;
    uint8_t *buffer;
    uint32_t buffer_size;
    uint32_t view_size; /* of both large rings: the largest power of two in the buffer */
};

/*
 * Memory of SBE_ASG_STORAGE + size bytes, aligned to a word. SBE_EINVAL: no such thing, or a size
 * without room for two steps of one byte, or beyond SBE_ASG_BUFFER_MAX.
 */
int sbe_asg_attach(struct sbe_asg_region *region, void *memory, uint32_t size);

/*
 * Lays out rings and configuration, whatever was there: once, by whoever owns the region, before
 * either end attaches. A step is a power of two, below half of the buffer, which is whole steps.
 */
int sbe_asg_lay_out(const struct sbe_asg_region *region, uint32_t step);

/* That rule, for numbers that somebody else wrote. */
int sbe_asg_check_step(uint32_t buffer_size, uint32_t step);

/* The writer's, or the reader's, end of a ring, from where it stands. */
struct sbe_asg_flow sbe_asg_flow_write(struct sbe_asg_page *page, uint8_t *bytes, uint32_t size);
struct sbe_asg_flow sbe_asg_flow_read(struct sbe_asg_page *page, uint8_t *bytes, uint32_t size);

/* Writer: bytes that it can put. A ring is full at its size less one. */
uint32_t sbe_asg_room(const struct sbe_asg_flow *flow);
/* Writer: bytes that the reader has not taken. */
uint32_t sbe_asg_unread(const struct sbe_asg_flow *flow);
/* Writer: puts that many, which there is room for, and shows them. */
void sbe_asg_put(struct sbe_asg_flow *flow, const void *data, uint32_t size);

/* Reader: bytes that it can take. */
uint32_t sbe_asg_readable(const struct sbe_asg_flow *flow);
/* Reader: copies that many, which are there, once. */
void sbe_asg_peek(const struct sbe_asg_flow *flow, void *data, uint32_t size);
/* Reader: gives that many back to the writer. */
void sbe_asg_release(struct sbe_asg_flow *flow, uint32_t size);

#endif
