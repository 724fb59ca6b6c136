/* SPDX-License-Identifier: Apache-2.0 */
#include "ports/virtio/vring.h"

#include <string.h>

#include "core/atomic.h"

#define NO_INTERRUPT 1u /* VRING_AVAIL_F_NO_INTERRUPT */
#define COUNT_MAX    32768u

struct descriptor {
    uint64_t address;
    uint32_t size;
    uint16_t flags;
    uint16_t next;
};

static uint32_t used_offset(uint32_t count, uint32_t align)
{
    uint32_t before = count * (uint32_t)sizeof(struct descriptor) + 2u * (3u + count);
    return (before + align - 1u) & ~(align - 1u);
}

uint32_t vring_size(uint32_t count, uint32_t align)
{
    return used_offset(count, align) + 6u + 8u * count;
}

bool vring_open(struct vring *ring, uint8_t *memory, uint32_t count, uint32_t align)
{
    if (memory == NULL || count == 0 || count > COUNT_MAX || (count & (count - 1u)) != 0)
        return false;
    ring->count = count;
    ring->taken = ring->given = 0;
    ring->descriptors = memory;
    ring->available = memory + count * sizeof(struct descriptor);
    ring->used = memory + used_offset(count, align);
    return true;
}

static uint16_t load(const uint8_t *at)
{
    return __atomic_load_n((const uint16_t *)(const void *)at, __ATOMIC_RELAXED);
}

bool vring_take(struct vring *ring, struct vring_buffer *buffer)
{
    struct descriptor descriptor;
    if (ring->count == 0 || load(ring->available + 2) == ring->taken)
        return false;
    sbe_acquire_barrier(); /* the index, then the entry, the descriptor and the buffer's bytes */
    uint16_t head = load(ring->available + 4 + 2u * (ring->taken & (ring->count - 1u)));
    ring->taken++;
    buffer->id = head & (ring->count - 1u);
    memcpy(&descriptor, ring->descriptors + buffer->id * sizeof descriptor, sizeof descriptor);
    buffer->size = descriptor.size;
    buffer->data = ring->reach(ring->self, descriptor.address, descriptor.size);
    if (buffer->data != NULL)
        return true;
    vring_give(ring, buffer, 0);
    return false;
}

void vring_give(struct vring *ring, const struct vring_buffer *buffer, uint32_t written)
{
    uint32_t element[2] = {buffer->id, written};
    SBE_STEP("before an element of a virtqueue");
    memcpy(ring->used + 4 + 8u * (ring->given & (ring->count - 1u)), element, sizeof element);
    ring->given++;
    SBE_STEP("before the index of a virtqueue");
    sbe_release_barrier(); /* the element and the buffer's bytes, then the index that shows them */
    __atomic_store_n((uint16_t *)(void *)(ring->used + 2), ring->given, __ATOMIC_RELAXED);
    SBE_STEP("after the index of a virtqueue");
}

bool vring_wants_interrupt(const struct vring *ring)
{
    sbe_full_barrier(); /* the index above, then the driver's flag: else both could miss a change */
    return ring->count != 0 && (load(ring->available) & NO_INTERRUPT) == 0;
}
