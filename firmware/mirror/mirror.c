/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/mirror.h"

#include <string.h>

#include "core/status.h"

/* For good, and so that the own end sees it: an index that only a broken peer would publish. */
static void shut(struct sbe_mirror *mirror)
{
    mirror->in.broken = mirror->out.broken = true;
    sbe_store_release(&mirror->in.producer->head, mirror->in.theirs - 1);
}

int sbe_mirror_open(struct sbe_mirror *mirror, void *out, void *in,
                    const struct sbe_ring_geometry *geometry)
{
    if (geometry->slot_size > SBE_MIRROR_SLOT_MAX)
        return SBE_EMSGSIZE;
    *mirror = (struct sbe_mirror){.told = 0};
    int status = sbe_ring_attach(&mirror->out, out, geometry);
    if (status == SBE_OK)
        status = sbe_ring_attach(&mirror->in, in, geometry);
    mirror->told = mirror->in.mine;
    return status;
}

/* Returns the slots that the peer has taken, which are some of those that were sent. */
static bool give_back(struct sbe_mirror *mirror, uint32_t tail)
{
    struct sbe_ring *out = &mirror->out;
    uint32_t sent = out->mine;
    out->mine = tail;
    bool ring = sbe_ring_return(out);
    out->mine = sent;
    return ring;
}

static bool put(struct sbe_mirror *mirror, const uint8_t *frame, uint32_t size)
{
    uint32_t length;
    void *slot;
    if (size < sizeof(struct sbe_wire_frame) || size > mirror->in.slot_size)
        return false;
    memcpy(&length, frame, sizeof length);
    /* Else the end would read what a former frame has left in the slot. */
    if (length != size || sbe_ring_reserve(&mirror->in, &slot) != SBE_OK)
        return false;
    SBE_STEP("before a frame");
    memcpy(slot, frame, size);
    SBE_STEP("after a frame");
    sbe_ring_commit(&mirror->in);
    return true;
}

bool sbe_mirror_receive(struct sbe_mirror *mirror, const void *message, uint32_t size)
{
    struct sbe_ring *out = &mirror->out;
    uint32_t tail;
    if (out->broken)
        return false;
    if (size >= sizeof tail) {
        memcpy(&tail, message, sizeof tail);
        if (tail - out->published <= out->mine - out->published) {
            bool ring = give_back(mirror, tail);
            if (size == sizeof tail)
                return ring;
            if (put(mirror, (const uint8_t *)message + sizeof tail, size - (uint32_t)sizeof tail))
                return sbe_ring_publish(&mirror->in) || ring;
        }
    }
    shut(mirror);
    return true;
}

/* The tail of `in` as its consumer has published it. */
static uint32_t taken(struct sbe_mirror *mirror)
{
    (void)sbe_ring_free(&mirror->in, mirror->in.mask + 1);
    return mirror->in.theirs;
}

static uint32_t enough(const struct sbe_mirror *mirror, bool all)
{
    return all || mirror->in.mask < 4 ? 1 : (mirror->in.mask + 1) / 4;
}

uint32_t sbe_mirror_next(struct sbe_mirror *mirror, void *message, bool all)
{
    uint8_t *bytes = message;
    const void *slot;
    uint32_t size = 0;
    if (mirror->out.broken)
        return 0;
    uint32_t tail = taken(mirror);
    int found = sbe_ring_peek(&mirror->out, &slot);
    if (found == 1) {
        memcpy(&size, slot, sizeof size); /* once: the own end may be a process that we fear */
        if (size < sizeof(struct sbe_wire_frame) || size > mirror->out.slot_size)
            found = SBE_EPROTO;
    }
    if (found < 0 || mirror->in.broken) {
        shut(mirror);
        return 0;
    }
    if (found == 0 && tail - mirror->told < enough(mirror, all))
        return 0;
    memcpy(bytes, &tail, sizeof tail);
    if (found == 1) {
        bytes += SBE_MIRROR_HEADER;
        memcpy(bytes, &size, sizeof size);
        memcpy(bytes + sizeof size, (const uint8_t *)slot + sizeof size, size - sizeof size);
    }
    mirror->telling = tail;
    mirror->has_frame = found == 1;
    return SBE_MIRROR_HEADER + size;
}

void sbe_mirror_sent(struct sbe_mirror *mirror)
{
    mirror->told = mirror->telling;
    if (mirror->has_frame)
        sbe_ring_release(&mirror->out);
}

bool sbe_mirror_owes(const struct sbe_mirror *mirror)
{
    return mirror->told != mirror->in.mine && !mirror->out.broken;
}

bool sbe_mirror_sleep(struct sbe_mirror *mirror, bool all)
{
    struct sbe_ring *in = &mirror->in;
    if (mirror->out.broken)
        return true;
    /* As many free slots as there are once enough have been taken beyond those told. */
    uint32_t wanted = in->mask + 1 - (in->mine - mirror->told) + enough(mirror, all);
    bool idle = sbe_ring_wait_space(in, wanted);
    return sbe_ring_wait_data(&mirror->out) && (idle || mirror->out.broken);
}
