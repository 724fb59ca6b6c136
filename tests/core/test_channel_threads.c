/* SPDX-License-Identifier: Apache-2.0 */
/* A channel between two threads: calls one way and both ways, doorbells through the port's hook. */
#include <pthread.h>
#include <string.h>

#include "bell.h"
#include "core/channel.h"
#include "core/status.h"

#define LINE      64u
#define SLOTS_MAX 16u
#define CALLS_MAX 16u
#define SLOT_SIZE 128u
#define PAYLOAD   64u /* at most, and at least four bytes */

struct call { /* one that is open */
    bool open;
    uint32_t number;
};

struct side {
    struct sbe_channel channel;
    struct sbe_port port;
    struct sbe_call calls[CALLS_MAX];
    struct call open[CALLS_MAX];
    uint8_t scratch[SLOT_SIZE];
    uint32_t asks, serves; /* calls of this end and of the other */
    int mine, theirs;      /* eventfds */
    uint32_t sleeps;
};

static _Alignas(LINE) uint8_t rings[2][2 * LINE + SLOTS_MAX * SLOT_SIZE];
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

static void sleep_until_rung(struct side *side)
{
    side->sleeps++;
    wait_bell(side->mine);
}

/* What call `number` says and, with all bits turned, gets back. Returns its size. */
static uint32_t fill(uint8_t payload[PAYLOAD], uint32_t number, uint8_t turned)
{
    uint32_t size = 4 + number % (PAYLOAD - 3);
    for (uint32_t i = 0; i < size; i++)
        payload[i] = (uint8_t)(number >> (i % 4 * 8)) ^ (uint8_t)i ^ turned;
    return size;
}

static bool ask(struct side *side, uint32_t number)
{
    uint8_t payload[PAYLOAD];
    struct sbe_frame request = {.type = SBE_FRAME_REQUEST,
                                .service = 1,
                                .payload = payload,
                                .payload_size = fill(payload, number, 0)};
    struct call *call = side->open;
    while (call->open && call != &side->open[CALLS_MAX - 1])
        call++;
    if (call->open)
        return false;
    int status = sbe_channel_request(&side->channel, &request, call);
    if (status == SBE_EAGAIN || status == SBE_ENOMEM)
        return false;
    CHECK_EQ(status, SBE_OK);
    *call = (struct call){true, number};
    return true;
}

/* The answer to this very call, once. */
static void meet(const struct sbe_frame *response)
{
    uint8_t expected[PAYLOAD];
    struct call *call = response->owner;
    CHECK(call->open);
    call->open = false;
    CHECK_EQ(response->status, SBE_OK);
    CHECK_EQ(response->payload_size, fill(expected, call->number, 0xff));
    CHECK(memcmp(response->payload, expected, response->payload_size) == 0);
}

/* Requests come in order; their answer goes out in a room that was there before they were taken. */
static void serve(struct side *side, struct sbe_frame *frame, uint32_t number)
{
    uint8_t expected[PAYLOAD], answer[PAYLOAD];
    CHECK_EQ(frame->type, SBE_FRAME_REQUEST);
    CHECK_EQ(frame->payload_size, fill(expected, number, 0));
    CHECK(memcmp(frame->payload, expected, frame->payload_size) == 0);
    frame->type = SBE_FRAME_RESPONSE;
    frame->payload_size = fill(answer, number, 0xff);
    frame->payload = answer;
    CHECK_EQ(sbe_channel_send(&side->channel, frame), SBE_OK);
}

static void *work(void *argument)
{
    struct side *side = argument;
    struct sbe_channel *channel = &side->channel;
    struct sbe_frame frame;
    uint32_t asked = 0, answered = 0, served = 0;
    while (answered < side->asks || served < side->serves) {
        while (asked < side->asks && ask(side, asked))
            asked++;
        if (side->serves != 0 && sbe_channel_room(channel) == 0) {
            if (sbe_channel_wait_room(channel))
                sleep_until_rung(side);
            continue;
        }
        int status = sbe_channel_receive(channel, &frame, side->scratch);
        CHECK(status >= 0);
        if (status == 1 && frame.type == SBE_FRAME_RESPONSE) {
            meet(&frame);
            answered++;
        } else if (status == 1) {
            serve(side, &frame, served++);
        } else if (sbe_channel_idle(channel)) {
            sleep_until_rung(
                side); /* when the ring is full, too: its space comes with the answers */
        }
    }
    sbe_channel_idle(channel);
    CHECK_EQ(channel->counters.bad + channel->counters.late, 0);
    return NULL;
}

/* Two ends that both serve have calls for half of a ring at most, or both may wait for room. */
static void run(uint32_t slots, uint32_t calls, uint32_t there, uint32_t back)
{
    const struct sbe_ring_geometry geometry = {slots, SLOT_SIZE, LINE};
    int bells[2] = {eventfd(0, 0), eventfd(0, 0)};
    pthread_t threads[2];
    memset(sides, 0, sizeof sides);
    for (uint32_t i = 0; i < 2; i++)
        sbe_ring_clear(rings[i], &geometry, 0u - (there + back) / 2); /* wraps on the way */
    for (uint32_t i = 0; i < 2; i++) {
        struct side *side = &sides[i];
        CHECK(bells[i] >= 0);
        side->mine = bells[i];
        side->theirs = bells[1 - i];
        side->asks = i == 0 ? there : back;
        side->serves = i == 0 ? back : there;
        side->port = (struct sbe_port){.self = side, .now_ns = no_time, .doorbell = ring_peer};
        struct sbe_channel_config config = {
            .id = 1,
            .geometry = geometry,
            .send = rings[i],
            .receive = rings[1 - i],
            .port = &side->port,
            .calls = side->calls,
            .call_count = calls,
        };
        CHECK_EQ(sbe_channel_open(&side->channel, &config), SBE_OK);
    }
    for (uint32_t i = 0; i < 2; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, work, &sides[i]), 0);
    for (uint32_t i = 0; i < 2; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    printf("%u slots, %u calls at once, %u there and %u back: %u + %u sleeps, %u + %u doorbells\n",
           slots, calls, there, back, sides[0].sleeps, sides[1].sleeps,
           sides[0].channel.counters.doorbells, sides[1].channel.counters.doorbells);
    CHECK_EQ(sides[0].channel.counters.received, there + back);
    CHECK_EQ(sides[1].channel.counters.received, there + back);
    CHECK(sides[0].sleeps + sides[1].sleeps > 0); /* or it has shown nothing of doorbells */
    for (uint32_t i = 0; i < 2; i++)
        close(bells[i]);
}

int main(void)
{
    alarm(ALARM_S);
    run(8, CALLS_MAX, OFTEN, 0); /* more calls than slots */
    run(2, 1, OFTEN / 4, 0);
    run(8, 4, OFTEN / 2, OFTEN / 2);
    run(2, 1, OFTEN / 8, OFTEN / 8);
    run(16, 3, OFTEN / 2, OFTEN / 4);
    return 0;
}
