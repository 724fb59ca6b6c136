/* SPDX-License-Identifier: Apache-2.0 */
/* The device's end of virtio-rpmsg (Linux drivers/rpmsg/virtio_rpmsg_bus.c): two virtqueues. */
#ifndef SBE_PORTS_VIRTIO_RPMSG_H
#define SBE_PORTS_VIRTIO_RPMSG_H

#include "ports/virtio/vring.h"

#define RPMSG_NAME_SERVICE 53u

struct rpmsg {
    struct vring to_host;   /* the host's receive queue: its empty buffers */
    struct vring from_host; /* the host's send queue */
    void *self;
    void (*received)(void *self, uint32_t source, uint32_t destination, const void *data,
                     uint32_t size);
};

/* False: the host has no buffer free. Longer ones than a buffer holds are not sent either. */
bool rpmsg_send(struct rpmsg *rpmsg, uint32_t source, uint32_t destination, const void *data,
                uint32_t size);
/* Tells the host's name service of an endpoint here. */
bool rpmsg_announce(struct rpmsg *rpmsg, const char *name, uint32_t address);
/* Hands at most so many messages to received(). How many there were. */
uint32_t rpmsg_receive(struct rpmsg *rpmsg, uint32_t limit);

#endif
