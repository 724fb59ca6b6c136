/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The remote's end of a carve-out link, end to end: bytes of the stream, a window that the other
 * end writes as it likes, control messages and frames through the rings in it. Nothing outside of
 * the window is reached, and no part of it but what was mapped.
 */
#include "control.h"
#include "core/status.h"
#include "frames.h"
#include "ports/carveout/carveout.h"
#include "race.h"

#define WINDOW    SBE_CARVEOUT_WINDOW_MIN
#define ARENA     (SBE_CARVEOUT_ARENA)
#define SLOT_SIZE 192u
#define CONTROL   0x81 /* SBE_TOKEN_CONTROL as a byte of the stream */

static struct input input;
static struct carveout link;
static struct carveout_config config;
static struct sbe_bootstrap host;
static _Alignas(4096) uint8_t window[WINDOW];

static void send_byte(void *self, uint8_t byte)
{
    (void)self, (void)byte;
}

static uint64_t now_ns(void *self)
{
    (void)self;
    return 1000;
}

static void cache(const void *start, uint64_t size)
{
    const uint8_t *at = start;
    HOLDS(at >= window && at <= window + WINDOW && size <= (uint64_t)(window + WINDOW - at));
}

static void cache_clean(void *self, const void *start, uint64_t size)
{
    (void)self;
    cache(start, size);
}

static void cache_invalidate(void *self, void *start, uint64_t size)
{
    (void)self;
    cache(start, size);
}

static void run(uint32_t rounds)
{
    while (rounds > 0 && carveout_run(&link))
        rounds--;
}

static void send_control(void)
{
    const struct control_maker maker = {
        .victim = &link.engine.session,
        .role = SBE_ROLE_HOST,
        .epoch = 2,
        .areas = 8,
        .contexts = 3,
        .channels = 3,
        .addresses = (uintptr_t)window + ARENA + pick(&input, 4) * 4096u,
        .area_size = 4096,
        .handles = 0,
        .slot_size = SLOT_SIZE,
    };
    union control_message message;
    uint32_t handles, size = make_control(&input, &maker, &message, &handles);
    (void)sbe_bootstrap_look(&host);
    (void)sbe_bootstrap_send(&host, &message, size);
    carveout_take_byte(&link, CONTROL);
}

static void take_control(void)
{
    uint64_t message[SBE_CONTROL_MAX / 8];
    bool ring;
    while (sbe_bootstrap_receive(&host, message, &ring) > 0)
        ;
}

static void frame(void)
{
    const struct frame_maker frames = {
        .areas = 8,
        .services = 9,
        .size = 64,
        .transaction = 1,
        .room = SLOT_SIZE,
    };
    uint8_t bytes[SLOT_SIZE];
    uint8_t *ring = window + ARENA + pick(&input, 4) * 4096u;
    uint32_t head = number32(&input, 1);
    (void)make_frame(&input, &frames, bytes);
    memcpy(ring + 128 + ((head - 1) & 1u) * SLOT_SIZE, bytes, sizeof bytes);
    memcpy(ring, &head, sizeof head);
    carveout_take_byte(&link, (uint8_t)(0x80u | 2u * (1 + pick(&input, 3))));
}

static void spoil_window(void)
{
    static const uint32_t PLACES[] = {
        SBE_CARVEOUT_HOST, SBE_CARVEOUT_REMOTE, SBE_CARVEOUT_TO_REMOTE, SBE_CARVEOUT_TO_HOST, ARENA,
        ARENA + 4096,      ARENA + 8192,        SBE_CARVEOUT_INFO};
    uint32_t at = PLACES[pick(&input, 8)] + 4u * pick(&input, 48);
    scribble(&input, window, WINDOW, at, link.bootstrap.generation);
}

static void step(void)
{
    uint8_t choice = take_u8(&input);
    race_pause(true);
    if (choice < 100)
        send_control();
    else if (choice < 150)
        frame();
    else if (choice < 180)
        spoil_window();
    else if (choice < 195)
        take_control();
    else if (choice < 225)
        for (uint32_t bytes = 1 + (choice & 7u); bytes > 0; bytes--)
            carveout_take_byte(&link, take_u8(&input));
    else if (choice < 230)
        carveout_take_ring(&link);
    else if (choice < 234)
        (void)sbe_bootstrap_start(&host, window, SBE_ROLE_HOST, choice);
    else if (choice < 240)
        (void)sbe_bootstrap_look(&host);
    race_pause(false);
    run(choice & 3u);
}

static void say(const union control_message *message, uint32_t size)
{
    HOLDS(sbe_bootstrap_send(&host, message, size) >= 0);
    carveout_take_byte(&link, CONTROL);
    run(4);
    take_control();
}

/* As honest ends meet: a context, some of the arena, a channel. */
static void meet(void)
{
    union control_message message;
    uint64_t arena = (uintptr_t)window + ARENA;
    HOLDS(sbe_bootstrap_start(&host, window, SBE_ROLE_HOST, 3) == SBE_OK);
    for (uint32_t i = 0; i < 4; i++) {
        carveout_take_ring(&link);
        run(4);
        (void)sbe_bootstrap_look(&host);
    }
    HOLDS(host.state == SBE_BOOTSTRAP_READY && link.bootstrap.state == SBE_BOOTSTRAP_READY);
    say(&message, honest_hello(&message, link.engine.session.epoch));
    say(&message, honest_hello_reply(&message, link.engine.session.epoch));
    HOLDS(link.engine.session.state == SBE_SESSION_CONNECTED);
    say(&message, honest_context(&message, 1));
    say(&message, honest_map(&message, 0, 1, 0, 4096, arena + 4096, 0));
    say(&message, honest_map(&message, 1, 1, SBE_AREA_RING, 4096, arena, 0));
    say(&message, honest_open(&message, 1, 1, 1, 2, SLOT_SIZE, 2048, 1));
    HOLDS(link.by_id[1] != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    input = (struct input){bytes, size};
    uint32_t seed = take_u16(&input), rate = 1 + pick(&input, 64);
    memset(window, 0, WINDOW);
    config = (struct carveout_config){
        .window = window,
        .window_size = WINDOW,
        .board = "board",
        .image = "image",
        .regions = {{.name = "offer", .offset = SBE_CARVEOUT_REGIONS, .size = 4096}},
        .seed = take_u8(&input),
        .send_byte = send_byte,
        .now_ns = now_ns,
        .cache_clean = cache_clean,
        .cache_invalidate = cache_invalidate,
    };
    HOLDS(carveout_start(&link, &config) == SBE_OK);
    meet();
    race_begin(window, WINDOW, seed, rate);
    for (uint32_t steps = 0; input.left > 0 && steps < 100; steps++)
        step();
    race_end();
    sbe_session_lost(&link.engine.session);
    for (uint32_t rounds = 64; rounds > 0 && sbe_engine_run(&link.engine); rounds--)
        ;
    HOLDS(link.engine.tasks == NULL);
    return 0;
}
