/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One ring between two threads, spinning and sleeping. Sleepers have no time limit: a lost wake-up
 * hangs, and the alarm ends the test.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "check.h"
#include "core/channel.h"
#include "core/status.h"

/* The cases where both ends sleep often find a missing barrier; ThreadSanitizer makes them slow. */
#ifdef __has_feature
#if __has_feature(thread_sanitizer)
#define SLOW
#endif
#endif
#if defined(SLOW) || defined(__SANITIZE_THREAD__)
#define OFTEN 25000u
#else
#define OFTEN 100000u
#endif

#define ALARM_S 100
#define LINE    64u

struct run {
    struct sbe_ring_geometry geometry;
    uint32_t frames;
    uint32_t batch;  /* frames per publish and per return */
    uint32_t wanted; /* slots that the producer waits for */
    bool sleeping;
    uint32_t start;
    uint8_t *memory;
    int data_bell, space_bell;      /* eventfds */
    uint32_t rung_data, rung_space; /* each counted by its ringer */
};

static void ring_bell(int bell)
{
    CHECK_EQ(eventfd_write(bell, 1), 0);
}

static void wait_bell(int bell)
{
    eventfd_t value;
    while (eventfd_read(bell, &value) != 0)
        CHECK_EQ(errno, EINTR);
}

/* What the frame of this number holds: every word differs from its neighbours and over time. */
static uint64_t word_of(uint32_t number, uint32_t at)
{
    return ((uint64_t)number << 32 | at) * 0x9e3779b97f4a7c15u;
}

static void wait_for_space(struct run *run, struct sbe_ring *ring)
{
    if (!run->sleeping) {
        sched_yield();
        return;
    }
    while (sbe_ring_wait_space(ring, run->wanted))
        wait_bell(run->space_bell);
}

static void publish(struct run *run, struct sbe_ring *ring)
{
    if (sbe_ring_publish(ring)) {
        run->rung_data++;
        if (run->sleeping)
            ring_bell(run->data_bell);
    }
}

static void *produce(void *argument)
{
    struct run *run = argument;
    struct sbe_ring ring;
    CHECK_EQ(sbe_ring_attach(&ring, run->memory, &run->geometry), SBE_OK);
    for (uint32_t number = 0; number < run->frames;) {
        void *slot;
        int status = sbe_ring_reserve(&ring, &slot);
        if (status == SBE_EAGAIN) {
            publish(run, &ring);
            wait_for_space(run, &ring);
            continue;
        }
        CHECK_EQ(status, SBE_OK);
        for (uint32_t at = 0; at < run->geometry.slot_size / 8; at++)
            ((uint64_t *)slot)[at] = word_of(number, at);
        sbe_ring_commit(&ring);
        if (++number % run->batch == 0)
            publish(run, &ring);
    }
    publish(run, &ring);
    return NULL;
}

static void give_back(struct run *run, struct sbe_ring *ring)
{
    if (sbe_ring_return(ring)) {
        run->rung_space++;
        if (run->sleeping)
            ring_bell(run->space_bell);
    }
}

static void *consume(void *argument)
{
    struct run *run = argument;
    struct sbe_ring ring;
    CHECK_EQ(sbe_ring_attach(&ring, run->memory, &run->geometry), SBE_OK);
    for (uint32_t number = 0; number < run->frames;) {
        const void *slot;
        int status = sbe_ring_peek(&ring, &slot);
        CHECK(status >= 0);
        if (status == 0) {
            give_back(run, &ring);
            if (!run->sleeping)
                sched_yield();
            else if (sbe_ring_wait_data(&ring))
                wait_bell(run->data_bell);
            continue;
        }
        for (uint32_t at = 0; at < run->geometry.slot_size / 8; at++)
            CHECK(((const uint64_t *)slot)[at] == word_of(number, at));
        sbe_ring_release(&ring);
        if (++number % run->batch == 0)
            give_back(run, &ring);
    }
    give_back(run, &ring);
    return NULL;
}

static void run_ring(uint32_t frames, uint32_t slots, uint32_t slot_size, uint32_t batch,
                     uint32_t wanted, bool sleeping)
{
    struct run run = {
        .geometry = {slots, slot_size, LINE},
        .frames = frames,
        .batch = batch,
        .wanted = wanted,
        .sleeping = sleeping,
        .start = 0u - frames / 2, /* over the wrap in the middle */
        .data_bell = eventfd(0, 0),
        .space_bell = eventfd(0, 0),
    };
    pthread_t producer, consumer;
    CHECK(run.data_bell >= 0 && run.space_bell >= 0);
    run.memory = aligned_alloc(LINE, (size_t)sbe_ring_size(&run.geometry));
    CHECK(run.memory != NULL);
    memset(run.memory, 0xcc, (size_t)sbe_ring_size(&run.geometry));
    sbe_ring_clear(run.memory, &run.geometry, run.start);
    CHECK_EQ(pthread_create(&consumer, NULL, consume, &run), 0);
    CHECK_EQ(pthread_create(&producer, NULL, produce, &run), 0);
    CHECK_EQ(pthread_join(producer, NULL), 0);
    CHECK_EQ(pthread_join(consumer, NULL), 0);
    printf("%s, %u frames, %u slots of %u, batches of %u, waiting for %u: %u + %u doorbells\n",
           sleeping ? "sleeping" : "spinning", frames, slots, slot_size, batch, wanted,
           run.rung_data, run.rung_space);
    CHECK(run.rung_data <= frames && run.rung_space <= frames);
    if (sleeping)
        CHECK(run.rung_data > 0);
    free(run.memory);
    close(run.data_bell);
    close(run.space_bell);
}

/* -- two channels, doorbells through the port's hook ----------------------------------------- */

#define CALLS      16u
#define ROUNDS     OFTEN
#define SLOTS      8u
#define SLOT_SIZE  128u
#define RING_BYTES (2 * LINE + SLOTS * SLOT_SIZE)

struct side {
    struct sbe_channel channel;
    struct sbe_port port;
    struct sbe_call calls[CALLS];
    uint8_t scratch[SLOT_SIZE];
    int mine, theirs; /* eventfds */
};

static _Alignas(LINE) uint8_t rings[2][RING_BYTES];
static struct side sides[2];

static uint64_t no_time(void *self)
{
    (void)self;
    return 0;
}

static void ring_peer(void *self, const struct sbe_channel *channel)
{
    (void)channel;
    ring_bell(((struct side *)self)->theirs);
}

/* Asks ROUNDS times, as many at once as there are calls; responses come in order here. */
static void *ask(void *argument)
{
    struct side *side = argument;
    static struct sbe_frame frame;
    uint32_t asked = 0, answered = 0;
    while (answered < ROUNDS) {
        while (asked < ROUNDS) {
            struct sbe_frame request = {.type = SBE_FRAME_REQUEST,
                                        .service = 1,
                                        .payload = &asked,
                                        .payload_size = sizeof asked};
            int status = sbe_channel_request(&side->channel, &request, side);
            if (status == SBE_EAGAIN || status == SBE_ENOMEM)
                break;
            CHECK_EQ(status, SBE_OK);
            asked++;
        }
        int status = sbe_channel_receive(&side->channel, &frame, side->scratch);
        CHECK(status >= 0);
        if (status == 1) {
            CHECK_EQ(frame.payload_size, sizeof answered);
            CHECK(memcmp(frame.payload, &answered, sizeof answered) == 0);
            answered++;
        } else if (sbe_channel_idle(&side->channel)) {
            /* also when the ring is full: its space comes with the answers */
            wait_bell(side->mine);
        }
    }
    CHECK_EQ(side->channel.counters.bad + side->channel.counters.late, 0);
    return NULL;
}

static void *answer(void *argument)
{
    struct side *side = argument;
    static struct sbe_frame frame;
    for (uint32_t count = 0; count < ROUNDS;) {
        if (sbe_channel_room(&side->channel) == 0) {
            if (sbe_channel_wait_room(&side->channel))
                wait_bell(side->mine);
            continue;
        }
        int status = sbe_channel_receive(&side->channel, &frame, side->scratch);
        CHECK(status >= 0);
        if (status == 1) {
            frame.type = SBE_FRAME_RESPONSE;
            CHECK_EQ(sbe_channel_send(&side->channel, &frame), SBE_OK);
            count++;
        } else if (sbe_channel_idle(&side->channel)) {
            wait_bell(side->mine);
        }
    }
    sbe_channel_idle(&side->channel);
    CHECK_EQ(side->channel.counters.bad, 0);
    return NULL;
}

static void run_channels(void)
{
    const struct sbe_ring_geometry geometry = {SLOTS, SLOT_SIZE, LINE};
    int bells[2] = {eventfd(0, 0), eventfd(0, 0)};
    pthread_t threads[2];
    for (uint32_t i = 0; i < 2; i++)
        sbe_ring_clear(rings[i], &geometry, 0u - ROUNDS / 2);
    for (uint32_t i = 0; i < 2; i++) {
        struct side *side = &sides[i];
        side->mine = bells[i];
        side->theirs = bells[1 - i];
        side->port = (struct sbe_port){.self = side, .now_ns = no_time, .doorbell = ring_peer};
        struct sbe_channel_config config = {
            .id = 1,
            .geometry = geometry,
            .send = rings[i],
            .receive = rings[1 - i],
            .port = &side->port,
            .calls = side->calls,
            .call_count = CALLS,
        };
        CHECK_EQ(sbe_channel_open(&side->channel, &config), SBE_OK);
    }
    CHECK_EQ(pthread_create(&threads[0], NULL, ask, &sides[0]), 0);
    CHECK_EQ(pthread_create(&threads[1], NULL, answer, &sides[1]), 0);
    for (uint32_t i = 0; i < 2; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    printf("calls: %u, %u + %u doorbells\n", ROUNDS, sides[0].channel.counters.doorbells,
           sides[1].channel.counters.doorbells);
    for (uint32_t i = 0; i < 2; i++)
        close(bells[i]);
}

int main(void)
{
    alarm(ALARM_S);
    run_ring(1000000, 64, 64, 1, 1, false);
    run_ring(2 * OFTEN, 2, 64, 1, 1, false);
    run_ring(1000000, 64, 64, 16, 32, true);
    run_ring(OFTEN, 2, 64, 1, 1, true);
    run_ring(OFTEN, 4, 64, 1, 3, true);
    run_ring(OFTEN, 16, 256, 3, 16, true);
    run_channels();
    return 0;
}
