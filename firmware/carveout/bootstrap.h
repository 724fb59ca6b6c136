/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control messages through two rings at fixed places of the window, between ends that start, die
 * and start again in any order over memory that keeps what was in it.
 *
 * Each end draws a generation at each start and publishes it in its block. Who sees a new one of
 * the peer resets its own words of both rings, then says so in peer_seen. An end uses the rings
 * when each has seen the other; from then on a changed generation or peer_seen means that the peer
 * began another life. No end ever writes the other's words. tests/core/test_bootstrap.c tries all
 * orders.
 */
#ifndef SBE_CARVEOUT_BOOTSTRAP_H
#define SBE_CARVEOUT_BOOTSTRAP_H

#include "carveout/layout.h"
#include "core/status.h"

enum sbe_bootstrap_state {
    SBE_BOOTSTRAP_WAITING, /* for the peer */
    SBE_BOOTSTRAP_READY,
};

struct sbe_bootstrap { /* private to one end */
    struct sbe_carveout_block *own;
    const struct sbe_carveout_block *peer;
    uint8_t *send_memory;
    uint8_t *receive_memory;
    struct sbe_ring send;
    struct sbe_ring receive;
    uint32_t generation;
    uint32_t peer_generation; /* that our words were reset for, 0 none */
    uint32_t shut;            /* the peer's generation that we want no more of, 0 none */
    enum sbe_bootstrap_state state;
    bool changed; /* our block says something new: ring SBE_TOKEN_BLOCK, then clear this */
};

/*
 * Begins a life of this end. `seed` makes the generation: something that differs from start to
 * start, if there is such a thing; never the same as the one before as long as RAM keeps it.
 * SBE_EINVAL: the window is not aligned to SBE_CARVEOUT_LINE.
 */
int sbe_bootstrap_start(struct sbe_bootstrap *bootstrap, void *window, enum sbe_role role,
                        uint32_t seed);

/*
 * Looks at the peer's block. SBE_OK nothing new, 1 the rings may now be used (again), or
 * SBE_ECONNRESET: the peer's former life has ended, and this end waits.
 */
int sbe_bootstrap_look(struct sbe_bootstrap *bootstrap);

/* The peer's layout version when it has a valid block of another one than ours, else 0. */
uint32_t sbe_bootstrap_other_version(const struct sbe_bootstrap *bootstrap);

/* 1: sent, and the peer wants SBE_TOKEN_CONTROL; 0: sent; SBE_EAGAIN full; else not usable. */
int sbe_bootstrap_send(struct sbe_bootstrap *bootstrap, const void *message, uint32_t size);

/*
 * Copies the next message to SBE_CONTROL_MAX bytes; its size, 0 none, SBE_EBADMSG one of impossible
 * size was dropped, SBE_EPROTO the peer published nonsense. After a 0 the peer rings for the next.
 */
int sbe_bootstrap_receive(struct sbe_bootstrap *bootstrap, void *message, bool *ring_peer);

/*
 * Ends this life of the peer because a ring is broken, and lets it know: it must begin another.
 * Without that, a peer whose own view of the rings is sound would wait for ever.
 */
void sbe_bootstrap_shut(struct sbe_bootstrap *bootstrap);

/* Messages that can be sent now; fewer than wanted: the peer rings when they can. */
uint32_t sbe_bootstrap_room(struct sbe_bootstrap *bootstrap, uint32_t wanted);

#endif
