/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The far end of bare rpmsg, as anybody would write one without SBE: the core of a remote processor
 * of linux/kernel/sbe_userproc.c. A message of full size is a fragment of a block and is put in its
 * place; any shorter one ends a block, which starts anew, and is sent back.
 */
#include <errno.h>
#include <poll.h>
#include <sbe_userproc.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ports/userproc/core.h"
#include "ports/virtio/rpmsg.h"

#define ADDRESS  1024u
#define AT_ONCE  64u
#define FRAGMENT 496u
#define BLOCK    (1u << 20)

static struct core core;
static struct rpmsg rpmsg;
static uint8_t block[BLOCK];
static uint32_t filled;
static struct core_queue queues[2]; /* to the host, from it */
static bool up, sent;

static void received(void *self, uint32_t source, uint32_t destination, const void *data,
                     uint32_t size)
{
    (void)self;
    if (destination != ADDRESS)
        return;
    if (size <= BLOCK - filled) {
        memcpy(block + filled, data, size);
        filled += size;
    }
    if (size == FRAGMENT)
        return;
    filled = 0;
    sent = rpmsg_send(&rpmsg, ADDRESS, source, data, size) || sent;
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
    if (event.kicks != 0 && !up && core_bring_up(&core, queues)) {
        up = open_queue(&rpmsg.to_host, &queues[0]) && open_queue(&rpmsg.from_host, &queues[1]);
        sent = up && rpmsg_announce(&rpmsg, "sbe-bench", ADDRESS);
    }
    return true;
}

int main(int argc, char **argv)
{
    rpmsg.received = received;
    if (argc != 2 || !core_open(&core, argv[1])) {
        (void)fprintf(stderr, "Usage: rpmsg_end DEVICE\n");
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
