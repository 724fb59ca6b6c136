/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine end to end, against one of two: an application that owns only its own areas and rings,
 * beside a bystander who keeps its results and its memory; or a whole host, which also says what it
 * likes by control messages.
 */
#include "core/status.h"
#include "engine_end.h"
#include "frames.h"
#include "race.h"

#define ATTACKER 1u
#define VICTIM   2u
#define SECRET   0x5c
#define DATA     200u /* bytes of an area */
#define VICTIMS  7u   /* index of the victim's area */

static struct input input;
static struct end_ring ring, victim_ring;
static struct control_maker maker;
static bool host_is_hostile;

static void set_up(void)
{
    uint8_t choice = take_u8(&input);
    host_is_hostile = (choice & 1u) != 0;
    end_incoherent = (choice & 2u) != 0;
    end_begin();
    end_context(ATTACKER);
    end_context(VICTIM);
    end_map(0, ATTACKER, 0, DATA);
    end_map(1, ATTACKER, SBE_AREA_COHERENT | SBE_AREA_READONLY, DATA);
    end_map(2, ATTACKER, 0, 1u << 20); /* which this end does not map */
    end_open(1, ATTACKER, 3, 3, &ring);
    end_open(2, VICTIM, 4, 0, &victim_ring);
    end_map(VICTIMS, VICTIM, 0, DATA);
    memset(end_areas[VICTIMS].base, SECRET, DATA);
    maker = (struct control_maker){
        .victim = &end_engine.session,
        .role = SBE_ROLE_HOST,
        .epoch = 2,
        .areas = END_AREAS,
        .contexts = END_CONTEXTS,
        .channels = END_CHANNELS,
        .addresses = 0x10000,
        .area_size = (uint64_t)2 * END_RING,
        .handles = 0,
        .slot_size = END_SLOT_SIZE,
    };
}

static void control(void)
{
    union control_message message;
    uint32_t handles, size = make_control(&input, &maker, &message, &handles);
    (void)sbe_session_receive(&end_engine.session, &message, size, handles);
}

static void frame(void)
{
    uint8_t bytes[END_SLOT_SIZE];
    const struct frame_maker frames = {
        .areas = END_AREAS,
        .services = END_SERVICES,
        .size = DATA / 2,
        .transaction = 1ull << 32 | pick(&input, 6),
        .room = END_SLOT_SIZE,
    };
    (void)make_frame(&input, &frames, bytes);
    end_put(&ring, bytes, sizeof bytes);
}

/* Any word of the rings, most often an index. */
static void spoil_rings(void)
{
    static const uint32_t WORDS[] = {0, END_RING, END_LINE, END_RING + END_LINE, 4, END_LINE + 4};
    scribble(&input, ring.to_engine, 2 * END_RING, WORDS[pick(&input, 6)], ring.head);
}

static bool is_there(const struct end_ring *which)
{
    return end_areas[3].base == which->to_engine || end_areas[4].base == which->to_engine;
}

static void step(void)
{
    uint8_t choice = take_u8(&input);
    race_pause(true);
    if (host_is_hostile && choice < 90)
        control();
    else if (is_there(&ring) && choice < 180)
        frame();
    else if (is_there(&ring) && choice < 200)
        spoil_rings();
    else if (is_there(&ring) && choice < 220)
        (void)end_take(&ring);
    race_pause(false);
    end_bell(1 + (choice & 1u));
    end_run(choice & 7u); /* none: what is kept meets what comes next */
}

/* Whatever the others did: one call, its answer, its bytes. */
static void check_bystander(void)
{
    const struct sbe_wire_frame request = {
        .size = sizeof request,
        .type = SBE_FRAME_REQUEST,
        .service = end_service("echo"),
        .transaction = 42,
    };
    struct sbe_wire_frame response;
    end_put(&victim_ring, &request, sizeof request);
    end_bell(2);
    end_run(100);
    const uint8_t *slot = end_take(&victim_ring);
    HOLDS(slot != NULL);
    memcpy(&response, slot, sizeof response);
    HOLDS(response.transaction == 42 && response.status == SBE_OK);
    HOLDS(end_take(&victim_ring) == NULL);
    const uint8_t *secret = end_areas[VICTIMS].base;
    for (uint32_t i = 0; i < DATA; i++)
        HOLDS(secret[i] == SECRET);
    HOLDS(end_areas[VICTIMS].pins == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    input = (struct input){bytes, size};
    uint32_t seed = take_u16(&input), rate = 1 + pick(&input, 64);
    bool buffers = (take_u8(&input) & 1u) != 0;
    set_up();
    if (host_is_hostile)
        seed = 0; /* areas come and go */
    race_begin(buffers ? end_areas[0].base : ring.to_engine, buffers ? DATA : 2 * END_RING, seed,
               rate);
    for (uint32_t steps = 0; input.left > 0 && steps < 60; steps++)
        step();
    race_end();
    if (!host_is_hostile)
        check_bystander();
    end_finish();
    return 0;
}
