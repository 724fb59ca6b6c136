/* SPDX-License-Identifier: Apache-2.0 */
/* One ring between two threads, spinning and sleeping. */
#include <pthread.h>
#include <sched.h>
#include <string.h>

#include "bell.h"
#include "core/ring.h"
#include "core/status.h"

#define LINE 64u

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

int main(void)
{
    alarm(ALARM_S);
    run_ring(1000000, 64, 64, 1, 1, false);
    run_ring(2 * OFTEN, 2, 64, 1, 1, false);
    run_ring(1000000, 64, 64, 16, 32, true);
    run_ring(OFTEN, 2, 64, 1, 1, true);
    run_ring(OFTEN, 4, 64, 1, 3, true);
    run_ring(OFTEN, 16, 256, 3, 16, true);
    return 0;
}
