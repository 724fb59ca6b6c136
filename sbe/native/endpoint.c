/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A channel's endpoint of the kernel's rpmsg_char. With rings in shared memory each message is a
 * doorbell, whatever it holds; else each carries a frame. A full endpoint answers EAGAIN, and never
 * says that it has room again.
 */
#include "endpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "convert.h"
#include "core/status.h"
#include "doorbell_table.h"
#include "native.h"

#define AT_ONCE 64       /* messages before other channels get their turn */
#define FULL_NS 1000000u /* an endpoint never says that it takes something again */

static bool write_now(const struct doorbell *doorbell, const void *message, size_t size)
{
    return write(doorbell->endpoint_fd, message, size) >= 0 ||
           (errno != EAGAIN && errno != ENOMEM && errno != EINTR);
}

static uint64_t send_frames(const struct doorbell *doorbell, bool late)
{
    struct frames *frames = doorbell->frames;
    uint64_t message[SBE_MIRROR_MAX / sizeof(uint64_t)];
    int count = 0;
    frames->tell = frames->tell || late;
    do {
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

uint64_t native_endpoint_send(const struct doorbell *doorbell, bool late)
{
    const uint64_t one = 1; /* as an eventfd takes it: the same on both ways to ring */
    if (doorbell->frames != NULL)
        return send_frames(doorbell, late);
    return write_now(doorbell, &one, sizeof one) ? 0 : FULL_NS;
}

bool native_endpoint_read(struct doorbell *doorbell)
{
    struct frames *frames = doorbell->frames;
    uint64_t message[SBE_MIRROR_MAX / sizeof(uint64_t)];
    ssize_t size = 0;
    for (int count = 0; count < AT_ONCE; count++) {
        size = read(doorbell->endpoint_fd, message, sizeof message);
        if (size < 0)
            break;
        if (frames == NULL || sbe_mirror_receive(&frames->mirror, message, (uint32_t)size))
            doorbell->wake_owed = true;
    }
    return size >= 0 || errno == EAGAIN || errno == EINTR;
}

static struct frames *frames_new(int memory_fd, uint64_t size, uint64_t send_offset,
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

bool native_frames_parse(PyObject *rings, struct frames **frames)
{
    int fd;
    uint64_t size, send, receive;
    struct sbe_ring_geometry geometry;
    *frames = NULL;
    if (rings == Py_None)
        return true;
    if (!PyArg_ParseTuple(rings, "iO&O&O&O&O&O&", &fd, native_as_u64, &size, native_as_u64, &send,
                          native_as_u64, &receive, native_as_u32, &geometry.slots, native_as_u32,
                          &geometry.slot_size, native_as_u32, &geometry.line))
        return false;
    *frames = frames_new(fd, size, send, receive, &geometry);
    if (*frames == NULL)
        PyErr_SetFromErrno(PyExc_OSError);
    return *frames != NULL;
}

void native_frames_free(struct frames *frames)
{
    if (frames == NULL)
        return;
    (void)munmap(frames->memory, frames->size);
    free(frames);
}

bool native_doorbell_watch(int epoll_fd, int fd, uint32_t events, void *tag)
{
    struct epoll_event event = {.events = events, .data.ptr = tag};
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

bool native_doorbell_adopt(struct doorbell *doorbell, int epoll_fd, int ring_fd, int wake_fd,
                           int endpoint_fd)
{
    void *message = (void *)((uintptr_t)doorbell | TAG_MESSAGE);
    doorbell->ring_fd = fcntl(ring_fd, F_DUPFD_CLOEXEC, 3);
    doorbell->wake_fd = fcntl(wake_fd, F_DUPFD_CLOEXEC, 3);
    doorbell->endpoint_fd = endpoint_fd < 0 ? -1 : fcntl(endpoint_fd, F_DUPFD_CLOEXEC, 3);
    if (doorbell->ring_fd < 0 || doorbell->wake_fd < 0 ||
        (endpoint_fd >= 0 && doorbell->endpoint_fd < 0))
        return false;
    /* Edge-triggered and never read: each write is an event of its own. */
    if (!native_doorbell_watch(epoll_fd, doorbell->ring_fd, EPOLLIN | EPOLLET, doorbell))
        return false;
    if (endpoint_fd < 0 || native_doorbell_watch(epoll_fd, doorbell->endpoint_fd, EPOLLIN, message))
        return true;
    (void)epoll_ctl(epoll_fd, EPOLL_CTL_DEL, doorbell->ring_fd, NULL);
    return false;
}

void native_doorbell_release(struct doorbell *doorbell)
{
    native_close_fd(&doorbell->ring_fd);
    native_close_fd(&doorbell->wake_fd);
    native_close_fd(&doorbell->endpoint_fd);
    native_frames_free(doorbell->frames);
    doorbell->frames = NULL;
    doorbell->wake_owed = false;
}
