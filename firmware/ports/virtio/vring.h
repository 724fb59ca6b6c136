/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device's end of a split virtqueue (Virtual I/O Device 1.1, 2.6), as remoteproc sets one up:
 * no indirect descriptors, no event indices, buffers of one descriptor.
 */
#ifndef SBE_PORTS_VIRTIO_VRING_H
#define SBE_PORTS_VIRTIO_VRING_H

#include <stdbool.h>
#include <stdint.h>

/* Makes size bytes at a bus address reachable, NULL if they are not. */
typedef void *(*vring_reach)(void *self, uint64_t address, uint32_t size);

struct vring {
    uint32_t count; /* entries, a power of two; 0: not there */
    uint16_t taken; /* free-running: next available entry to look at */
    uint16_t given; /* free-running: next used entry to fill */
    const uint8_t *descriptors;
    const uint8_t *available;
    uint8_t *used;
    vring_reach reach;
    void *self;
};

struct vring_buffer {
    void *data;
    uint32_t size;
    uint32_t id;
};

uint32_t vring_size(uint32_t count, uint32_t align);
/* memory: vring_size() bytes that the driver has cleared. False: count is not legal. */
bool vring_open(struct vring *ring, uint8_t *memory, uint32_t count, uint32_t align);

/* The next buffer of the driver. False: none, or one that can't be reached was given back. */
bool vring_take(struct vring *ring, struct vring_buffer *buffer);
/* Gives it back with so many bytes written. */
void vring_give(struct vring *ring, const struct vring_buffer *buffer, uint32_t written);
/* Whether the driver wants to hear that buffers came back. */
bool vring_wants_interrupt(const struct vring *ring);

#endif
