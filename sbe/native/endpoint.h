/* SPDX-License-Identifier: Apache-2.0 */
/* The endpoint of one channel, of the kernel's rpmsg_char. */
#ifndef SBE_NATIVE_ENDPOINT_H
#define SBE_NATIVE_ENDPOINT_H

#include <Python.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "doorbell_table.h"
#include "mirror/mirror.h"

#define FRAMES_TELL_NS 1000000u /* the next frame tells of free slots, unless it takes longer */

struct frames {
    struct sbe_mirror mirror;
    void *memory;
    size_t size;
    uint64_t tell_ns; /* when to tell of slots that no frame has told of, 0 not yet */
    bool tell;        /* as soon as there are any */
};

/*
 * Sends what there is, some at most; `late`: its time to tell has come. Nanoseconds after which to
 * go on; 0: all was sent. An endpoint that is gone takes everything.
 */
uint64_t native_endpoint_send(const struct doorbell *doorbell, bool late);
/* Takes what came and rings for it. False: the endpoint is gone, look no more. */
bool native_endpoint_read(struct doorbell *doorbell);

/*
 * The channel's rings in memory that the remote does not see: None, or a tuple of the descriptor of
 * a file that can't shrink, its size, offsets and the geometry. False: an exception is set.
 */
bool native_frames_parse(PyObject *rings, struct frames **frames);
void native_frames_free(struct frames *frames);

#define TAG_MESSAGE ((uintptr_t)1) /* in an event's data: the doorbell's endpoint, not ring_fd */

bool native_doorbell_watch(int epoll_fd, int fd, uint32_t events, void *tag);
/* Keeps duplicates. False: errno says why; what was watched already ends with its descriptor. */
bool native_doorbell_adopt(struct doorbell *doorbell, int epoll_fd, int ring_fd, int wake_fd,
                           int endpoint_fd);
/* Lets go of all that it holds. */
void native_doorbell_release(struct doorbell *doorbell);

#endif
