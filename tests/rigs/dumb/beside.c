/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The endpoints of firmware.c beside the project's own, in one program: sbe-remote-rpmsg as it is,
 * linked with --wrap of what it hands messages to and announces with.
 */
#include "dumb.h"
#include "ports/userproc/bus.h"
#include "ports/virtio/rpmsg.h"

bool __real_bus_open(struct core *core, const struct core_queue queues[2], struct rpmsg_link *link,
                     bool quiet);
bool __wrap_bus_open(struct core *core, const struct core_queue queues[2], struct rpmsg_link *link,
                     bool quiet);
bool __real_rpmsg_announce(struct rpmsg *rpmsg, const char *name, uint32_t address);
bool __wrap_rpmsg_announce(struct rpmsg *rpmsg, const char *name, uint32_t address);
void __real_rpmsg_link_receive(struct rpmsg_link *link, uint32_t source, uint32_t destination,
                               const void *data, uint32_t size);
void __wrap_rpmsg_link_receive(struct rpmsg_link *link, uint32_t source, uint32_t destination,
                               const void *data, uint32_t size);

static struct core *bus;

void dumb_send(const struct dumb_endpoint *self, uint32_t destination, const void *data,
               uint32_t size)
{
    (void)bus_send(NULL, self->address, destination, data, size);
}

uint8_t *dumb_reach(uint64_t address, uint64_t size)
{
    return core_reach(bus, address, size);
}

bool __wrap_bus_open(struct core *core, const struct core_queue queues[2], struct rpmsg_link *link,
                     bool quiet)
{
    bus = core;
    return __real_bus_open(core, queues, link, quiet);
}

/* The doorbell's is the last: whoever has waited for it finds all. */
bool __wrap_rpmsg_announce(struct rpmsg *rpmsg, const char *name, uint32_t address)
{
    bool there = true;
    for (uint32_t i = 0; address == RPMSG_LINK_DOORBELL && dumb_endpoints[i] != NULL; i++)
        there = there &&
                __real_rpmsg_announce(rpmsg, dumb_endpoints[i]->name, dumb_endpoints[i]->address);
    return there && __real_rpmsg_announce(rpmsg, name, address);
}

void __wrap_rpmsg_link_receive(struct rpmsg_link *link, uint32_t source, uint32_t destination,
                               const void *data, uint32_t size)
{
    for (uint32_t i = 0; dumb_endpoints[i] != NULL; i++)
        if (dumb_endpoints[i]->address == destination) {
            dumb_endpoints[i]->received(dumb_endpoints[i], source, data, size);
            return;
        }
    __real_rpmsg_link_receive(link, source, destination, data, size);
}
