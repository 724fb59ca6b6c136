/* SPDX-License-Identifier: Apache-2.0 */
#include "ports/virtio/rpmsg.h"

#include <string.h>

#define MESSAGE_MAX 512u

struct header { /* struct rpmsg_hdr */
    uint32_t source;
    uint32_t destination;
    uint32_t reserved;
    uint16_t size;
    uint16_t flags;
};

struct announcement { /* struct rpmsg_ns_msg */
    char name[32];
    uint32_t address;
    uint32_t flags; /* 0: create */
};

bool rpmsg_send(struct rpmsg *rpmsg, uint32_t source, uint32_t destination, const void *data,
                uint32_t size)
{
    struct header header = {source, destination, 0, (uint16_t)size, 0};
    struct vring_buffer buffer;
    if (!vring_take(&rpmsg->to_host, &buffer))
        return false;
    bool fits = buffer.size >= sizeof header && size <= buffer.size - sizeof header;
    if (fits) {
        memcpy(buffer.data, &header, sizeof header);
        memcpy((uint8_t *)buffer.data + sizeof header, data, size);
    }
    vring_give(&rpmsg->to_host, &buffer, fits ? (uint32_t)sizeof header + size : 0);
    return fits;
}

bool rpmsg_announce(struct rpmsg *rpmsg, const char *name, uint32_t address)
{
    struct announcement announcement = {.address = address};
    strncpy(announcement.name, name, sizeof announcement.name - 1);
    return rpmsg_send(rpmsg, address, RPMSG_NAME_SERVICE, &announcement, sizeof announcement);
}

uint32_t rpmsg_receive(struct rpmsg *rpmsg, uint32_t limit)
{
    uint64_t copy[MESSAGE_MAX / sizeof(uint64_t)]; /* private, aligned */
    struct vring_buffer buffer;
    uint32_t count = 0;
    while (count < limit && vring_take(&rpmsg->from_host, &buffer)) {
        struct header header = {0};
        uint32_t size = 0;
        if (buffer.size >= sizeof header && buffer.size - sizeof header <= sizeof copy) {
            memcpy(&header, buffer.data, sizeof header);
            size = (uint32_t)(buffer.size - sizeof header);
            size = header.size < size ? header.size : size;
            memcpy(copy, (uint8_t *)buffer.data + sizeof header, size);
        }
        /* Given back first: what is received may send a lot. */
        vring_give(&rpmsg->from_host, &buffer, 0);
        rpmsg->received(rpmsg->self, header.source, header.destination, copy, size);
        count++;
    }
    return count;
}
