/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <sbe_userproc.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#include "dumb.h"
#include "ports/userproc/core.h"
#include "ports/virtio/rpmsg.h"

#define AT_ONCE 64u

static struct core core;
static struct rpmsg rpmsg;
static struct core_queue queues[2]; /* to the host, from it */
static bool up, sent;

void dumb_send(const struct dumb_endpoint *self, uint32_t destination, const void *data,
               uint32_t size)
{
    sent = rpmsg_send(&rpmsg, self->address, destination, data, size) || sent;
}

uint8_t *dumb_reach(uint64_t address, uint64_t size)
{
    return core_reach(&core, address, size);
}

static void received(void *self, uint32_t source, uint32_t destination, const void *data,
                     uint32_t size)
{
    (void)self;
    for (uint32_t i = 0; dumb_endpoints[i] != NULL; i++)
        if (dumb_endpoints[i]->address == destination)
            dumb_endpoints[i]->received(dumb_endpoints[i], source, data, size);
}

static bool work(void)
{
    uint32_t count = up ? rpmsg_receive(&rpmsg, AT_ONCE) : 0;
    if (sent && vring_wants_interrupt(&rpmsg.to_host))
        core_notify(&core, queues[0].notify);
    if (count > 0 && vring_wants_interrupt(&rpmsg.from_host))
        core_notify(&core, queues[1].notify);
    sent = false;
    return count > 0;
}

static void *reach(void *self, uint64_t address, uint32_t size)
{
    return core_reach(self, address, size);
}

static bool open_queue(struct vring *vring, const struct core_queue *queue)
{
    vring->reach = reach;
    vring->self = &core;
    return vring_open(vring, queue->memory, queue->count, queue->align);
}

static void bring_up(void)
{
    up = open_queue(&rpmsg.to_host, &queues[0]) && open_queue(&rpmsg.from_host, &queues[1]);
    for (uint32_t i = 0; up && dumb_endpoints[i] != NULL; i++)
        sent = rpmsg_announce(&rpmsg, dumb_endpoints[i]->name, dumb_endpoints[i]->address) || sent;
}

static bool take_events(void)
{
    struct sbe_userproc_event event;
    if (read(core.fd, &event, sizeof event) < 0)
        return errno == EAGAIN || errno == EINTR;
    if ((event.events & SBE_USERPROC_STOP) != 0) {
        core_let_go(&core);
        up = false;
        core_stopped(&core);
    }
    if (event.kicks != 0 && !up && core_bring_up(&core, queues))
        bring_up();
    return true;
}

int main(int argc, char **argv)
{
    rpmsg.received = received;
    if (argc != 2 || !core_open(&core, argv[1])) {
        (void)fprintf(stderr, "Usage: %s DEVICE\n", argv[0]);
        return 2;
    }
    for (;;) {
        bool more = work();
        struct pollfd fd = {.fd = core.fd, .events = POLLIN};
        if (poll(&fd, 1, more ? 0 : -1) < 0 && errno != EINTR)
            return 1;
        if ((fd.revents & POLLIN) != 0 && !take_events())
            return 1;
    }
}
