/* SPDX-License-Identifier: Apache-2.0 */
#include "ports/userproc/bus.h"
#include "ports/virtio/rpmsg.h"

#define AT_ONCE 64u /* messages before the rings get their turn */

static struct {
    struct core *core;
    struct rpmsg rpmsg;
    uint32_t notify[2]; /* ids: to the host, from it */
    bool sent, taken;
} bus;

static void *reach(void *self, uint64_t address, uint32_t size)
{
    return core_reach(self, address, size);
}

static void received(void *self, uint32_t source, uint32_t destination, const void *data,
                     uint32_t size)
{
    rpmsg_link_receive(self, source, destination, data, size);
}

static bool open_queue(struct vring *vring, const struct core_queue *queue)
{
    vring->reach = reach;
    vring->self = bus.core;
    return vring_open(vring, queue->memory, queue->count, queue->align);
}

bool bus_open(struct core *core, const struct core_queue queues[2], struct rpmsg_link *link,
              bool quiet)
{
    bus.core = core;
    bus.rpmsg.self = link;
    bus.rpmsg.received = received;
    bus.notify[0] = queues[0].notify;
    bus.notify[1] = queues[1].notify;
    if (!open_queue(&bus.rpmsg.to_host, &queues[0]) ||
        !open_queue(&bus.rpmsg.from_host, &queues[1]))
        return false;
    bus.sent = !quiet;
    return quiet || (rpmsg_announce(&bus.rpmsg, RPMSG_LINK_CONTROL_NAME, RPMSG_LINK_CONTROL) &&
                     rpmsg_announce(&bus.rpmsg, RPMSG_LINK_DOORBELL_NAME, RPMSG_LINK_DOORBELL));
}

void bus_close(void)
{
    bus.rpmsg.to_host = bus.rpmsg.from_host = (struct vring){0};
}

bool bus_send(void *self, uint32_t source, uint32_t destination, const void *data, uint32_t size)
{
    (void)self;
    bool sent = rpmsg_send(&bus.rpmsg, source, destination, data, size);
    bus.sent = bus.sent || sent;
    return sent;
}

bool bus_receive(void)
{
    uint32_t count = rpmsg_receive(&bus.rpmsg, AT_ONCE);
    bus.taken = bus.taken || count > 0;
    return count > 0;
}

void bus_notify(void)
{
    if (bus.sent && vring_wants_interrupt(&bus.rpmsg.to_host))
        core_notify(bus.core, bus.notify[0]);
    if (bus.taken && vring_wants_interrupt(&bus.rpmsg.from_host))
        core_notify(bus.core, bus.notify[1]);
    bus.sent = bus.taken = false;
}
