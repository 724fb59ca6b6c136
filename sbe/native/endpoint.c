/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A channel's endpoint of the kernel's rpmsg_char. With rings in shared memory each message is a
 * doorbell, whatever it holds; else each carries a frame. A full endpoint answers EAGAIN, and never
 * says that it has room again.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/status.h"
#include "doorbells.h"
#include "native.h"

#define AT_ONCE 64       /* messages before other channels get their turn */
#define FULL_NS 1000000u /* an endpoint never says that it takes something again */
#define TELL_NS 1000000u /* the next frame tells of free slots, unless it takes longer */

static void wake(const struct doorbell *doorbell)
{
    const uint64_t one = 1;
    ssize_t written = write(doorbell->wake_fd, &one, sizeof one); /* EAGAIN: rung anyway */
    (void)written;
}

static bool write_now(const struct doorbell *doorbell, const void *message, size_t size)
{
    return write(doorbell->endpoint_fd, message, size) >= 0 ||
           (errno != EAGAIN && errno != ENOMEM && errno != EINTR);
}

static uint64_t send_frames(const struct doorbell *doorbell)
{
    struct frames *frames = doorbell->frames;
    uint64_t message[SBE_MIRROR_MAX / sizeof(uint64_t)];
    int count = 0;
    do {
        bool late = frames->tell_ns != 0 && native_now_ns(NULL) >= frames->tell_ns;
        frames->tell = frames->tell || late;
        uint32_t size;
        while ((size = sbe_mirror_next(&frames->mirror, message, frames->tell)) != 0) {
            if (!write_now(doorbell, message, size))
                return FULL_NS;
            sbe_mirror_sent(&frames->mirror);
            if (++count == AT_ONCE)
                return 1;
        }
        if (!sbe_mirror_owes(&frames->mirror))
            frames->tell = false;
        if (frames->tell || !sbe_mirror_owes(&frames->mirror))
            frames->tell_ns = 0; /* its doorbell will say, no timer */
    } while (!sbe_mirror_sleep(&frames->mirror, frames->tell) && ++count < AT_ONCE);
    return count < AT_ONCE ? 0 : 1;
}

uint64_t native_endpoint_send(const struct doorbell *doorbell)
{
    const uint64_t one = 1; /* as an eventfd takes it: the same on both ways to ring */
    return doorbell->frames != NULL ? send_frames(doorbell) : write_now(doorbell, &one, sizeof one);
}

bool native_endpoint_read(const struct doorbell *doorbell)
{
    struct frames *frames = doorbell->frames;
    uint64_t message[SBE_MIRROR_MAX / sizeof(uint64_t)];
    ssize_t size = 0;
    bool ring = false;
    for (int count = 0; count < AT_ONCE; count++) {
        size = read(doorbell->endpoint_fd, message, sizeof message);
        if (size < 0)
            break;
        ring = (frames == NULL || sbe_mirror_receive(&frames->mirror, message, (uint32_t)size)) ||
               ring;
    }
    if (ring)
        wake(doorbell);
    if (frames != NULL && sbe_mirror_owes(&frames->mirror)) {
        frames->tell = false;
        frames->tell_ns = native_now_ns(NULL) + TELL_NS;
    }
    return size >= 0 || errno == EAGAIN || errno == EINTR;
}

struct frames *native_frames_new(int memory_fd, uint64_t size, uint64_t send_offset,
                                 uint64_t receive_offset, const struct sbe_ring_geometry *geometry)
{
    int64_t ring = sbe_ring_size(geometry);
    if (ring < 0 || (uint64_t)ring > size || send_offset > size - (uint64_t)ring ||
        receive_offset > size - (uint64_t)ring) {
        errno = EINVAL;
        return NULL;
    }
    struct frames *frames = calloc(1, sizeof *frames);
    if (frames == NULL)
        return NULL;
    frames->size = (size_t)size;
    frames->memory = mmap(NULL, frames->size, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
    if (frames->memory == MAP_FAILED) {
        free(frames);
        return NULL;
    }
    uint8_t *base = frames->memory;
    int status =
        sbe_mirror_open(&frames->mirror, base + send_offset, base + receive_offset, geometry);
    if (status == SBE_OK)
        return frames;
    native_frames_free(frames);
    errno = -status;
    return NULL;
}

void native_frames_free(struct frames *frames)
{
    if (frames == NULL)
        return;
    (void)munmap(frames->memory, frames->size);
    free(frames);
}
