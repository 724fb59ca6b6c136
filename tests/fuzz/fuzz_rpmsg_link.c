/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The remote's end of a link over rpmsg: control messages, binds, doorbells and frames from any
 * endpoint, a bus without buffers, hosts that come and go. Memory of private rings is freed with
 * its area, so that who still looks at it is seen.
 */
#include "control.h"
#include "core/status.h"
#include "frames.h"
#include "ports/rpmsg/link.h"
#include "race.h"

#define BUS       0x10000u /* the pool's device address */
#define POOL      16384u
#define SLOT_SIZE 192u

static const struct frame_maker FRAMES = {
    .areas = RPMSG_LINK_AREAS,
    .services = 9,
    .size = 64,
    .transaction = 1,
    .room = SLOT_SIZE,
};

static struct input input;
static struct rpmsg_link link;
static uint8_t *pool;
static uint32_t attached, endpoint;

static uint64_t now_ns(void *self)
{
    (void)self;
    return 1000;
}

static int attach(void *self, struct sbe_area *area, const struct sbe_area_map *message)
{
    struct sbe_segment segment;
    (void)self;
    if (message->segment_count == 0) {
        if (message->flags != RPMSG_LINK_PRIVATE || area->size > POOL)
            return SBE_ENOTSUP;
        area->base = aligned_alloc(64, (area->size + 63) & ~63ull);
        memset(area->base, 0, area->size);
    } else {
        memcpy(&segment, message + 1, sizeof segment);
        if (message->segment_count != 1 || segment.address < BUS || segment.address % 64 != 0 ||
            segment.address - BUS > POOL || segment.size > POOL - (segment.address - BUS))
            return SBE_ERANGE;
        area->base = pool + (segment.address - BUS);
    }
    attached++;
    return SBE_OK;
}

static void detach(void *self, struct sbe_area *area)
{
    (void)self;
    attached--;
    if (area->segments == 0)
        free(area->base);
}

static bool bus_send(void *self, uint32_t source, uint32_t destination, const void *data,
                     uint32_t size)
{
    uint8_t copy[SBE_CONTROL_MAX];
    (void)self;
    HOLDS(source == RPMSG_LINK_CONTROL || source == RPMSG_LINK_DOORBELL);
    HOLDS(size <= sizeof copy && destination != 0);
    memcpy(copy, data, size); /* all of it is there */
    return take_u8(&input) < 200;
}

static const struct rpmsg_link_config CONFIG = {
    .name = "link",
    .coherent = true,
    .port = {.now_ns = now_ns, .area_attach = attach, .area_detach = detach},
    .send = bus_send,
};

static void control(void)
{
    const struct control_maker maker = {
        .victim = &link.engine.session,
        .role = SBE_ROLE_HOST,
        .epoch = 2,
        .areas = RPMSG_LINK_AREAS,
        .contexts = RPMSG_LINK_CONTEXTS,
        .channels = RPMSG_LINK_CHANNELS,
        .addresses = BUS,
        .area_size = 4096,
        .handles = 0,
        .slot_size = SLOT_SIZE,
    };
    union control_message message;
    uint32_t handles, size = make_control(&input, &maker, &message, &handles);
    rpmsg_link_receive(&link, endpoint, RPMSG_LINK_CONTROL, &message, size);
}

/* From one of the host's doorbell endpoints, 0 and those of others included. */
static void doorbell(void)
{
    uint8_t bytes[SBE_CONTROL_MAX + 8] = {0};
    uint32_t bind[2] = {RPMSG_LINK_BIND, 1 + pick(&input, RPMSG_LINK_CHANNELS)};
    uint32_t source = pick(&input, 6), tail = take_u8(&input), size = sizeof bind;
    switch (pick(&input, 4)) {
    case 0:
        bind[1] = number32(&input, bind[1]);
        memcpy(bytes, bind, sizeof bind);
        break;
    case 1:
        take_bytes(&input, bytes, size);
        break;
    default:
        size = make_frame(&input, &FRAMES, bytes + SBE_MIRROR_HEADER) + SBE_MIRROR_HEADER;
        memcpy(bytes, &tail, sizeof tail);
    }
    if (rarely(&input))
        size = take_u16(&input) % (sizeof bytes + 1u);
    rpmsg_link_receive(&link, source, RPMSG_LINK_DOORBELL, bytes, size);
}

/* What lies in shared memory: a frame in the slot of an index, or any word. */
static void shared(void)
{
    uint8_t bytes[SLOT_SIZE];
    race_pause(true);
    uint32_t at = pick(&input, POOL / 4096) * 4096u, word = number32(&input, 1);
    if ((take_u8(&input) & 1u) != 0) {
        (void)make_frame(&input, &FRAMES, bytes);
        memcpy(pool + at + 128, bytes, sizeof bytes);
    } else {
        at += 4u * pick(&input, 40);
    }
    memcpy(pool + at, &word, sizeof word);
    race_pause(false);
}

static void say(const union control_message *message, uint32_t size)
{
    rpmsg_link_receive(&link, endpoint, RPMSG_LINK_CONTROL, message, size);
}

static void greet(void)
{
    union control_message message;
    endpoint = 9;
    say(&message, honest_hello(&message, link.engine.session.epoch));
    say(&message, honest_hello_reply(&message, link.engine.session.epoch));
}

/* A channel as honest hosts open it, with its doorbell; its rings are private, or in the pool. */
static void open_channel(uint32_t id, bool private)
{
    union control_message message;
    uint32_t bind[2] = {RPMSG_LINK_BIND, id};
    say(&message, honest_map(&message, id, 0, RPMSG_LINK_PRIVATE, 4096,
                             private ? 0 : BUS + (id - 1) * 4096u, 0));
    say(&message, honest_open(&message, id, 0, id, 4, SLOT_SIZE, 1024, id));
    rpmsg_link_receive(&link, id, RPMSG_LINK_DOORBELL, bind, sizeof bind);
}

static void answered(void *self, int status)
{
    HOLDS(self == &link && status <= 0);
}

static void step(void)
{
    uint8_t choice = take_u8(&input);
    if (choice < 70)
        control();
    else if (choice < 160)
        doorbell();
    else if (choice < 200)
        shared();
    else if (choice < 210)
        open_channel(1 + (choice & 1u), (choice & 2u) != 0);
    else if (choice < 214)
        rpmsg_link_down(&link);
    else if (choice < 218)
        rpmsg_link_up(&link, pick(&input, 4));
    else if (choice < 222)
        endpoint = pick(&input, 12);
    else if (choice < 226)
        greet();
    else if (choice < 232)
        (void)sbe_power_ask(&link.power, (enum sbe_event)(1 + pick(&input, 4)), 5, answered, &link);
    for (uint32_t rounds = choice & 3u; rounds > 0 && rpmsg_link_run(&link); rounds--)
        ;
    (void)rpmsg_link_waits(&link);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    input = (struct input){bytes, size};
    uint32_t seed = take_u16(&input), rate = 1 + pick(&input, 64);
    pool = aligned_alloc(1024, POOL);
    memset(pool, 0, POOL);
    attached = 0;
    HOLDS(rpmsg_link_init(&link, &CONFIG) == SBE_OK);
    rpmsg_link_up(&link, 1);
    greet();
    HOLDS(link.engine.session.state == SBE_SESSION_CONNECTED);
    for (uint32_t id = 1; id <= 2; id++)
        open_channel(id, (rate >> id & 1u) != 0);
    race_begin(pool, POOL, seed, rate);
    for (uint32_t steps = 0; input.left > 0 && steps < 100; steps++)
        step();
    race_end();
    rpmsg_link_down(&link);
    for (uint32_t rounds = 64; rounds > 0 && sbe_engine_run(&link.engine); rounds--)
        ;
    HOLDS(attached == 0 && link.engine.tasks == NULL);
    for (uint32_t i = 0; i < RPMSG_LINK_CHANNELS; i++)
        HOLDS(link.channels[i].host == 0 && !link.channels[i].owed);
    free(pool);
    return 0;
}
