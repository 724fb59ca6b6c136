/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What growth.py counts under callgrind: COUNT rounds of work for one of MANY. Both ends are in one
 * thread and what the link does is in functions of its own, so nothing depends on time, and the
 * difference of two counts is that of their rounds. Usage: growth WORK MANY COUNT.
 *
 *     doorbell, private   an empty call on the last of MANY open channels, their rings shared or
 * not oldest, newest, any a request is kept and another one answered, where MANY are kept cancel a
 * request is kept and any one is cancelled bind                a channel is opened, bound and
 * closed beside MANY context             a context comes with an area and a channel, and goes,
 * where MANY have ten
 */
#include <stdlib.h>
#include <string.h>

#include "../core/rpmsg_host.h"

#define KEPT_MAX   1024u
#define AREAS_EACH 10u

static struct sbe_kept pool[KEPT_MAX + 1];
static struct sbe_kept *unused[KEPT_MAX + 1], *kept[KEPT_MAX + 1]; /* in order of age */
static uint64_t transactions[KEPT_MAX + 1];                        /* of those that are kept */
static uint32_t unused_count, kept_count;

static int later(struct sbe_request *request)
{
    CHECK(unused_count > 0);
    struct sbe_kept *entry = unused[unused_count - 1];
    int status = sbe_request_keep(request, entry, NULL, 0);
    if (status < 0)
        return status;
    unused_count--;
    kept[kept_count++] = entry;
    return SBE_KEPT;
}

static void later_cancel(struct sbe_kept *entry)
{
    CHECK(sbe_kept_answer(entry, SBE_ECANCELED, NULL, 0) == SBE_OK);
}

SBE_SERVICE_WITH_CANCEL(later, 1, later, later_cancel);

static uint32_t random_below(uint32_t limit)
{
    static uint32_t state = 1;
    state = state * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)limit * state >> 32);
}

static void drain(uint32_t id)
{
    int status;
    while (rpmsg_host_take(id, &status) != 0)
        ;
}

static void open_bound(uint32_t id, uint32_t context, uint32_t slots, bool private)
{
    rpmsg_host_open(id, context, slots, private);
    rpmsg_host_bind(id, HOST_ENDPOINT(id));
    rpmsg_host_run(4);
    drain(id);
}

static void ask(uint32_t id, uint16_t service)
{
    transactions[kept_count] = rpmsg_host_ask(id, service);
    rpmsg_host_flush(id);
    rpmsg_host_run(4);
}

static void call_one(uint32_t many, uint32_t count, bool private)
{
    uint16_t echo = rpmsg_host_find("echo");
    for (uint32_t id = 1; id <= many; id++)
        open_bound(id, 0, 2, private);
    rpmsg_host_run(4);
    for (uint32_t i = 0; i < count; i++) {
        ask(many, echo);
        drain(many);
    }
}

/* Ends the one at this place; the order of the others stays. */
static void forget(uint32_t place)
{
    unused[unused_count++] = kept[place];
    kept_count--;
    memmove(&kept[place], &kept[place + 1], (kept_count - place) * sizeof *kept);
    memmove(&transactions[place], &transactions[place + 1],
            (kept_count - place) * sizeof *transactions);
}

static void keep_many(uint32_t many, uint32_t count, const char *work)
{
    uint16_t service = rpmsg_host_find("later");
    CHECK(many <= KEPT_MAX);
    for (; unused_count < many + 1; unused_count++)
        unused[unused_count] = &pool[unused_count];
    open_bound(1, 0, RPMSG_LINK_SLOTS, false);
    while (kept_count < many)
        ask(1, service);
    for (uint32_t i = 0; i < count; i++) {
        ask(1, service);
        uint32_t place = random_below(kept_count);
        if (strcmp(work, "oldest") == 0)
            place = 0;
        if (strcmp(work, "newest") == 0)
            place = kept_count - 1;
        if (strcmp(work, "cancel") == 0) {
            rpmsg_host_cancel(1, transactions[place]);
            rpmsg_host_flush(1);
            rpmsg_host_run(4);
        } else {
            CHECK(sbe_kept_answer(kept[place], SBE_OK, NULL, 0) == SBE_OK);
        }
        CHECK(kept[place]->channel == NULL);
        forget(place);
        drain(1);
    }
}

static void bind_beside(uint32_t many, uint32_t count)
{
    for (uint32_t id = 1; id < many; id++)
        open_bound(id, 0, 2, false);
    for (uint32_t i = 0; i < count; i++) {
        open_bound(many, 0, 2, false);
        rpmsg_host_close(many);
    }
}

static void come_and_go(uint32_t many, uint32_t count)
{
    uint32_t areas = RPMSG_LINK_CHANNELS; /* beyond those of rings */
    for (uint32_t id = 1; id < many; id++) {
        rpmsg_host_context(id, true);
        open_bound(id, id, 2, false);
        for (uint32_t i = 0; i < AREAS_EACH; i++)
            rpmsg_host_map(1u << 16 | areas++, id, SBE_AREA_COHERENT, 64);
    }
    for (uint32_t i = 0; i < count; i++) {
        rpmsg_host_context(many, true);
        open_bound(many, many, 2, false);
        rpmsg_host_map(1u << 16 | areas, many, SBE_AREA_COHERENT, 64);
        rpmsg_host_context(many, false);
    }
}

int main(int argc, char **argv)
{
    CHECK(argc == 4);
    const char *work = argv[1];
    uint32_t many = (uint32_t)atoi(argv[2]), count = (uint32_t)atoi(argv[3]);
    CHECK(many >= 1 && many <= RPMSG_LINK_CHANNELS);
    rpmsg_host_begin();
    if (strcmp(work, "doorbell") == 0 || strcmp(work, "private") == 0)
        call_one(many, count, strcmp(work, "private") == 0);
    else if (strcmp(work, "bind") == 0)
        bind_beside(many, count);
    else if (strcmp(work, "context") == 0)
        come_and_go(many, count);
    else
        keep_many(many, count, work);
    return 0;
}
