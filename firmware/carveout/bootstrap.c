/* SPDX-License-Identifier: Apache-2.0 */
#include "carveout/bootstrap.h"

#include <string.h>

static const struct sbe_ring_geometry GEOMETRY = {SBE_CARVEOUT_SLOTS, SBE_CARVEOUT_SLOT_SIZE,
                                                  SBE_CARVEOUT_LINE};

_Static_assert(SBE_CARVEOUT_TO_REMOTE + 2 * SBE_CARVEOUT_LINE +
                       SBE_CARVEOUT_SLOTS * SBE_CARVEOUT_SLOT_SIZE <=
                   SBE_CARVEOUT_TO_HOST,
               "the control rings do not overlap");
_Static_assert(sizeof(uint32_t) + SBE_CONTROL_MAX <= SBE_CARVEOUT_SLOT_SIZE, "a message fits");

/* The peer's generation, 0 when there is no valid block of our layout. */
static uint32_t generation_of(const struct sbe_carveout_block *block)
{
    uint32_t generation = sbe_load_acquire(&block->generation);
    if (generation == 0 || sbe_load_relaxed(&block->check) != ~generation ||
        sbe_load_relaxed(&block->magic) != SBE_CARVEOUT_MAGIC ||
        sbe_load_relaxed(&block->version) != SBE_CARVEOUT_VERSION)
        return 0;
    return generation;
}

uint32_t sbe_bootstrap_other_version(const struct sbe_bootstrap *bootstrap)
{
    const struct sbe_carveout_block *peer = bootstrap->peer;
    uint32_t generation = sbe_load_acquire(&peer->generation);
    uint32_t version = sbe_load_relaxed(&peer->version);
    if (generation == 0 || sbe_load_relaxed(&peer->check) != ~generation ||
        sbe_load_relaxed(&peer->magic) != SBE_CARVEOUT_MAGIC)
        return 0;
    return version == SBE_CARVEOUT_VERSION ? 0 : version;
}

/* Our words of both rings, as they are before the first message. Wake indices behind ask nothing.
 */
static void reset_words(const struct sbe_bootstrap *bootstrap)
{
    struct sbe_ring_producer *send = (void *)bootstrap->send_memory;
    struct sbe_ring_consumer *receive = (void *)(bootstrap->receive_memory + SBE_CARVEOUT_LINE);
    sbe_store_relaxed(&send->space_wake, (uint32_t)-1);
    sbe_store_relaxed(&send->doorbells, 0);
    sbe_store_relaxed(&send->head, 0);
    sbe_store_relaxed(&receive->data_wake, (uint32_t)-1);
    sbe_store_relaxed(&receive->doorbells, 0);
    sbe_store_relaxed(&receive->tail, 0);
}

static void write_block(const struct sbe_bootstrap *bootstrap)
{
    struct sbe_carveout_block *own = bootstrap->own;
    sbe_store_relaxed(&own->magic, SBE_CARVEOUT_MAGIC);
    sbe_store_relaxed(&own->version, SBE_CARVEOUT_VERSION);
    sbe_store_relaxed(&own->check, ~bootstrap->generation);
    sbe_store_release(&own->generation, bootstrap->generation);
}

int sbe_bootstrap_start(struct sbe_bootstrap *bootstrap, void *window, enum sbe_role role,
                        uint32_t seed)
{
    uint8_t *base = window;
    bool host = role == SBE_ROLE_HOST;
    if ((uintptr_t)window % SBE_CARVEOUT_LINE != 0)
        return SBE_EINVAL;
    *bootstrap = (struct sbe_bootstrap){
        .own = (void *)(base + (host ? SBE_CARVEOUT_HOST : SBE_CARVEOUT_REMOTE)),
        .peer = (void *)(base + (host ? SBE_CARVEOUT_REMOTE : SBE_CARVEOUT_HOST)),
        .send_memory = base + (host ? SBE_CARVEOUT_TO_REMOTE : SBE_CARVEOUT_TO_HOST),
        .receive_memory = base + (host ? SBE_CARVEOUT_TO_HOST : SBE_CARVEOUT_TO_REMOTE),
        .state = SBE_BOOTSTRAP_WAITING,
        .changed = true,
    };
    uint32_t former = sbe_load_relaxed(&bootstrap->own->generation);
    uint32_t seen = sbe_load_relaxed(&bootstrap->peer->peer_seen);
    uint32_t generation = (former + 1) ^ seed << 8;
    while (generation == 0 || generation == former || generation == seen)
        generation++;
    /* No valid block while the words change: a peer that finds them odd finds us gone as well. */
    sbe_store_relaxed(&bootstrap->own->generation, 0);
    sbe_store_relaxed(&bootstrap->own->peer_seen, 0);
    sbe_store_relaxed(&bootstrap->own->crashed, 0);
    sbe_full_barrier();
    reset_words(bootstrap);
    bootstrap->generation = generation;
    write_block(bootstrap);
    return SBE_OK;
}

/* Something was scribbled over our block: it says again what it said. */
static void heal(struct sbe_bootstrap *bootstrap)
{
    struct sbe_carveout_block *own = bootstrap->own;
    if (generation_of(own) != bootstrap->generation ||
        sbe_load_relaxed(&own->peer_seen) != bootstrap->peer_generation) {
        sbe_store_relaxed(&own->peer_seen, bootstrap->peer_generation);
        write_block(bootstrap);
        bootstrap->changed = true;
    }
}

static int attach(struct sbe_bootstrap *bootstrap)
{
    int status = sbe_ring_attach(&bootstrap->send, bootstrap->send_memory, &GEOMETRY);
    if (status == SBE_OK)
        status = sbe_ring_attach(&bootstrap->receive, bootstrap->receive_memory, &GEOMETRY);
    /* The peer has reset its words, and took nothing before we sent. */
    if (status == SBE_OK && (bootstrap->send.mine != 0 || bootstrap->receive.mine != 0))
        bootstrap->send.broken = bootstrap->receive.broken = true;
    return status;
}

void sbe_bootstrap_shut(struct sbe_bootstrap *bootstrap)
{
    bootstrap->shut = bootstrap->peer_generation;
    bootstrap->peer_generation = 0;
    bootstrap->state = SBE_BOOTSTRAP_WAITING;
    bootstrap->send.broken = bootstrap->receive.broken = false;
    reset_words(bootstrap);
    sbe_store_release(&bootstrap->own->peer_seen, 0); /* release: our words come first */
    bootstrap->changed = true;
}

int sbe_bootstrap_look(struct sbe_bootstrap *bootstrap)
{
    uint32_t peer = generation_of(bootstrap->peer);
    if (peer == bootstrap->shut)
        peer = 0;
    bool was_ready = bootstrap->state == SBE_BOOTSTRAP_READY;
    bool seen = peer != 0 && sbe_load_acquire(&bootstrap->peer->peer_seen) == bootstrap->generation;
    heal(bootstrap);
    if (was_ready && peer == bootstrap->peer_generation && seen)
        return SBE_OK;
    bootstrap->state = SBE_BOOTSTRAP_WAITING;
    if (peer != bootstrap->peer_generation || was_ready) {
        /* Another life of the peer. One that only no longer sees us must show that it sees our 0.
         */
        if (was_ready && peer == bootstrap->peer_generation)
            peer = 0;
        reset_words(bootstrap);
        bootstrap->peer_generation = peer;
        sbe_store_release(&bootstrap->own->peer_seen, peer); /* release: our words come first */
        bootstrap->changed = true;
        if (was_ready)
            return SBE_ECONNRESET;
        seen = peer != 0 && sbe_load_acquire(&bootstrap->peer->peer_seen) == bootstrap->generation;
    }
    if (bootstrap->peer_generation == 0 || !seen)
        return SBE_OK;
    bootstrap->state = SBE_BOOTSTRAP_READY;
    return attach(bootstrap) == SBE_OK ? 1 : SBE_ECONNRESET;
}

uint32_t sbe_bootstrap_room(struct sbe_bootstrap *bootstrap, uint32_t wanted)
{
    if (bootstrap->state != SBE_BOOTSTRAP_READY || bootstrap->send.broken)
        return 0;
    uint32_t room = sbe_ring_free(&bootstrap->send, wanted);
    if (room < wanted && !sbe_ring_wait_space(&bootstrap->send, wanted))
        room = sbe_ring_free(&bootstrap->send, wanted);
    return room;
}

int sbe_bootstrap_send(struct sbe_bootstrap *bootstrap, const void *message, uint32_t size)
{
    void *slot;
    if (bootstrap->state != SBE_BOOTSTRAP_READY)
        return SBE_ENOTCONN;
    if (size == 0 || size > SBE_CONTROL_MAX)
        return SBE_EMSGSIZE;
    int status = sbe_ring_reserve(&bootstrap->send, &slot);
    if (status < 0)
        return status;
    SBE_STEP("before the size of a control message");
    memcpy(slot, &size, sizeof size);
    SBE_STEP("before the bytes of a control message");
    memcpy((uint8_t *)slot + sizeof size, message, size);
    SBE_STEP("after the bytes of a control message");
    sbe_ring_commit(&bootstrap->send);
    return sbe_ring_publish(&bootstrap->send) ? 1 : 0;
}

int sbe_bootstrap_receive(struct sbe_bootstrap *bootstrap, void *message, bool *ring_peer)
{
    const void *slot;
    uint32_t size;
    *ring_peer = false;
    if (bootstrap->state != SBE_BOOTSTRAP_READY)
        return 0;
    int status;
    do
        status = sbe_ring_peek(&bootstrap->receive, &slot);
    while (status == 0 && !sbe_ring_wait_data(&bootstrap->receive) && !bootstrap->receive.broken);
    if (status <= 0)
        return bootstrap->receive.broken ? SBE_EPROTO : status;
    sbe_snapshot(&size, slot, sizeof size);
    bool legal = size > 0 && size <= SBE_CONTROL_MAX;
    if (legal)
        sbe_snapshot(message, (const uint8_t *)slot + sizeof size, size);
    sbe_ring_release(&bootstrap->receive);
    *ring_peer = sbe_ring_return(&bootstrap->receive);
    return legal ? (int)size : SBE_EBADMSG;
}
