/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What instructions.py counts under callgrind: an empty call of the echo service with both ends in
 * one thread, so that nothing depends on time. Usage: instructions COUNT SIZE makes COUNT times
 * SIZE calls that are in flight together; the host's part and the remote's are functions of their
 * own.
 */
#include <stdio.h>
#include <stdlib.h>

#include "../core/check.h"
#include "core_link.h"

static uint64_t now_ns(void *unused)
{
    static uint64_t time_ns;
    (void)unused;
    return time_ns += 100; /* a clock would be the kernel's instructions, or vary */
}

static uint32_t rung; /* a doorbell is asked for and counted, ringing it costs nothing here */

static void ring(void *self, const struct sbe_channel *channel)
{
    (void)self;
    (void)channel;
    rung++;
}

/* Not inlined, and not made special for one caller: callgrind knows them by these names. */
#define PART __attribute__((noinline))

PART static uint32_t host_part_send(const struct core_link *link, struct sbe_frame *frame,
                                    uint32_t left)
{
    uint32_t sent = 0;
    while (sent < left && sbe_channel_room(link->channel) > 0) {
        CHECK(sbe_channel_request(link->channel, frame, frame) == SBE_OK);
        sent++;
    }
    (void)sbe_channel_flush(link->channel);
    return sent;
}

PART static uint32_t host_part_take(const struct core_link *link)
{
    struct sbe_frame response;
    uint32_t count = 0;
    while (sbe_channel_receive(link->channel, &response, link->scratch) == 1)
        count++;
    CHECK(sbe_channel_idle(link->channel));
    return count;
}

PART static void remote_part(const struct core_link *link)
{
    sbe_engine_doorbell(link->engine, link->remote_channel);
    while (sbe_engine_run(link->engine))
        ;
}

int main(int argc, char **argv)
{
    struct core_link link;
    CHECK(argc == 3);
    uint32_t count = (uint32_t)atoi(argv[1]), size = (uint32_t)atoi(argv[2]);
    core_link_open(&link, &(struct core_link_hooks){now_ns, ring, ring});
    struct sbe_frame frame = core_link_request(&link, 0);
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t sent = 0, done = 0; done < size;) {
            sent += host_part_send(&link, &frame, size - sent);
            remote_part(&link);
            done += host_part_take(&link);
        }
    }
    (void)printf("%u calls, %u doorbells\n", count * size, rung);
    return 0;
}
