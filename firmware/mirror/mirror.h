/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rings without shared memory. Each end has both rings of a channel in memory of its own; a mirror
 * beside each end keeps the pairs alike by messages, a frame in each (docs/spec/rpmsg.md). To its
 * end a mirror is the channel's peer: the same rules, the same doorbells.
 *
 * Messages must arrive in order. What the peer sends and what the own end leaves in its rings is
 * hostile; who breaks a rule finds its channel shut. Not thread-safe.
 */
#ifndef SBE_MIRROR_MIRROR_H
#define SBE_MIRROR_MIRROR_H

#include "core/ring.h"

#define SBE_MIRROR_MAX      SBE_CONTROL_MAX /* bytes of a message */
#define SBE_MIRROR_HEADER   4u              /* the tail of the sender's receiving ring */
#define SBE_MIRROR_SLOT_MAX ((SBE_MIRROR_MAX - SBE_MIRROR_HEADER) / SBE_SLOT_ALIGN * SBE_SLOT_ALIGN)

struct sbe_mirror {
    struct sbe_ring out; /* what the own end produces */
    struct sbe_ring in;  /* what it consumes */
    uint32_t told;       /* the tail of `in` that the peer knows */
    uint32_t telling;    /* that of the message at hand */
    bool has_frame;      /* the message at hand */
};

/* Rings as the own end has them, cleared or all zero. SBE_EMSGSIZE: a slot is more than a message
 * holds. */
int sbe_mirror_open(struct sbe_mirror *mirror, void *out, void *in,
                    const struct sbe_ring_geometry *geometry);

/* Takes a message of the peer. True: ring the own end. */
bool sbe_mirror_receive(struct sbe_mirror *mirror, const void *message, uint32_t size);

/*
 * Writes the next message, of at most SBE_MIRROR_MAX bytes. Its size, 0 if there is none. Returned
 * slots are told with the next frame, or when they are a quarter of the ring, or when `all`.
 */
uint32_t sbe_mirror_next(struct sbe_mirror *mirror, void *message, bool all);
/* The message was sent: without this call, the same one is next. */
void sbe_mirror_sent(struct sbe_mirror *mirror);

/* Slots that the own end has taken or may yet take, of which the peer does not know. */
bool sbe_mirror_owes(const struct sbe_mirror *mirror);
/*
 * Asks the own end for a doorbell: for the next frame, and for returned slots, any if `all`, else
 * enough to be told. True: nothing to do now, the caller may sleep.
 */
bool sbe_mirror_sleep(struct sbe_mirror *mirror, bool all);

#endif
