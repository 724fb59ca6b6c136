/* SPDX-License-Identifier: Apache-2.0 */
#include "engine_end.h"

#include "core/status.h"

#define CALLS 4u
#define OWED  8u

struct sbe_engine end_engine;
struct sbe_area end_areas[END_AREAS];
uint32_t end_attached;
bool end_incoherent;

static struct sbe_engine_config config;
static struct sbe_port port;
static struct sbe_session_context contexts[END_CONTEXTS];
static struct sbe_session_channel session_channels[END_CHANNELS];
static struct sbe_session_pending pending[4];
static struct sbe_engine_channel channels[END_CHANNELS];
static struct sbe_call calls[END_CHANNELS * CALLS];
static uint64_t scratch_in[END_SLOT_SIZE / 8], scratch_out[END_SLOT_SIZE / 8];
static uint64_t clock_ns;
static struct sbe_service_reply owed[OWED]; /* answers to FIND, of the honest host */
static uint32_t owes;

static uint64_t now_ns(void *self)
{
    (void)self;
    return clock_ns += 1000;
}

void end_pass(uint64_t ns)
{
    clock_ns += ns;
}

static int control_send(void *self, const void *message, uint32_t size)
{
    const struct sbe_control *control = message;
    (void)self;
    HOLDS(size == control->size && size <= SBE_CONTROL_MAX);
    if (control->type == SBE_CONTROL_SERVICE_FIND && owes < OWED)
        owed[owes++] = (struct sbe_service_reply){
            .control = {.type = SBE_CONTROL_SERVICE_FIND | SBE_CONTROL_REPLY,
                        .size = sizeof *owed,
                        .epoch = 2,
                        .id = control->id},
            .service = 1,
        };
    return SBE_OK;
}

static int area_attach(void *self, struct sbe_area *area, const struct sbe_area_map *message)
{
    (void)self, (void)message;
    if (area->size <= 1u << 16) { /* larger ones are not mapped here */
        bool ring = (area->flags & SBE_AREA_RING) != 0;
        size_t size = ring ? (area->size + 1023) & ~(size_t)1023 : area->size;
        area->base = ring ? aligned_alloc(1024, size) : malloc(size);
        memset(area->base, 0, area->size);
    }
    end_attached++;
    return SBE_OK;
}

static void area_detach(void *self, struct sbe_area *area)
{
    (void)self;
    free(area->base);
    end_attached--;
}

static void doorbell(void *self, const struct sbe_channel *channel)
{
    (void)self, (void)channel;
}

/* What would be maintained lies within what is mapped. */
static void touch(const void *start, uint64_t size)
{
    volatile uint8_t first = *(const uint8_t *)start;
    volatile uint8_t last = ((const uint8_t *)start)[size - 1];
    (void)first, (void)last;
}

static void cache_clean(void *self, const void *start, uint64_t size)
{
    (void)self;
    touch(start, size);
}

static void cache_invalidate(void *self, void *start, uint64_t size)
{
    (void)self;
    touch(start, size);
}

static void receive(const union control_message *message, uint32_t size, uint32_t handles)
{
    HOLDS(sbe_session_receive(&end_engine.session, message, size, handles) == SBE_OK);
}

/* Answers what the engine has asked; true: there was something. */
static bool pay(void)
{
    bool any = owes > 0;
    while (owes > 0) {
        union control_message reply = {.service = owed[--owes]};
        (void)sbe_session_receive(&end_engine.session, &reply, sizeof reply.service, 0);
    }
    return any;
}

void end_begin(void)
{
    owes = 0;
    clock_ns = 0;
    port = (struct sbe_port){
        .now_ns = now_ns,
        .control_send = control_send,
        .area_attach = area_attach,
        .area_detach = area_detach,
        .doorbell = doorbell,
        .cache_clean = end_incoherent ? cache_clean : NULL,
        .cache_invalidate = end_incoherent ? cache_invalidate : NULL,
    };
    config = sbe_engine_defaults(&port);
    config.channels = channels;
    config.calls = calls;
    config.calls_per_channel = CALLS;
    config.scratch_in = scratch_in;
    config.scratch_out = scratch_out;
    config.session.name = "engine";
    config.session.coherent = !end_incoherent;
    config.session.cache_line = END_LINE;
    config.session.limits = (struct sbe_limits){END_AREAS, END_CONTEXTS,  END_CHANNELS,
                                                1024,      END_SLOT_SIZE, SBE_BUFFERS_MAX};
    config.session.areas = end_areas;
    config.session.contexts = contexts;
    config.session.channels = session_channels;
    config.session.pending = pending;
    config.session.pending_count = 4;
    HOLDS(config.service_count == END_SERVICES);
    HOLDS(sbe_engine_init(&end_engine, &config) == SBE_OK);
    HOLDS(sbe_session_start(&end_engine.session, 1) == SBE_OK);
    union control_message message;
    receive(&message, honest_hello(&message, 1), 0);
    receive(&message, honest_hello_reply(&message, 1), 0);
    HOLDS(end_engine.session.state == SBE_SESSION_CONNECTED);
}

void end_finish(void)
{
    sbe_session_lost(&end_engine.session);
    owes = 0;
    end_run(64); /* tasks of services see that they are cancelled */
    HOLDS(end_engine.tasks == NULL && end_attached == 0);
    for (uint32_t i = 0; i < END_AREAS; i++)
        HOLDS(end_areas[i].id == 0);
    for (uint32_t i = 0; i < END_CHANNELS; i++)
        HOLDS(!channels[i].used && channels[i].kept == NULL && !channels[i].active);
}

void end_context(uint32_t id)
{
    union control_message message;
    receive(&message, honest_context(&message, id), 0);
}

void end_map(uint32_t index, uint32_t context, uint32_t flags, uint32_t size)
{
    union control_message message;
    receive(&message, honest_map(&message, index, context, flags, size, 0, 1), 1);
    HOLDS(end_areas[index].id != 0);
}

void end_open(uint32_t channel, uint32_t context, uint32_t ring_area, uint32_t priority,
              struct end_ring *ring)
{
    const struct sbe_ring_geometry geometry = {END_SLOTS, END_SLOT_SIZE, END_LINE};
    union control_message message;
    end_map(ring_area, context, SBE_AREA_RING | SBE_AREA_COHERENT, 2 * END_RING);
    uint8_t *memory = end_areas[ring_area].base;
    *ring = (struct end_ring){.to_engine = memory, .to_host = memory + END_RING};
    sbe_ring_clear(ring->to_engine, &geometry, 0);
    sbe_ring_clear(ring->to_host, &geometry, 0);
    receive(&message,
            honest_open(&message, channel, context, ring_area, END_SLOTS, END_SLOT_SIZE, END_RING,
                        priority),
            0);
    HOLDS(session_channels[channel - 1].id == channel);
}

void end_run(uint32_t rounds)
{
    while ((pay() || sbe_engine_run(&end_engine)) && rounds > 0)
        rounds--;
}

void end_bell(uint32_t channel)
{
    for (uint32_t i = 0; i < END_CHANNELS; i++)
        if (channels[i].used && channels[i].channel.id == channel)
            sbe_engine_doorbell(&end_engine, &channels[i].channel);
}

uint16_t end_service(const char *name)
{
    uint32_t i = 0;
    while (i < config.service_count && strcmp(config.services[i]->name, name) != 0)
        i++;
    HOLDS(i < config.service_count);
    return (uint16_t)(i + 1);
}

void end_put(struct end_ring *ring, const void *frame, uint32_t size)
{
    memcpy(ring->to_engine + 2 * END_LINE + ring->head % END_SLOTS * END_SLOT_SIZE, frame, size);
    ring->head++;
    memcpy(ring->to_engine, &ring->head, sizeof ring->head);
}

const uint8_t *end_take(struct end_ring *ring)
{
    uint32_t head;
    memcpy(&head, ring->to_host, sizeof head);
    if (head == ring->tail)
        return NULL;
    const uint8_t *slot = ring->to_host + 2 * END_LINE + ring->tail % END_SLOTS * END_SLOT_SIZE;
    ring->tail++;
    memcpy(ring->to_host + END_LINE, &ring->tail, sizeof ring->tail);
    return slot;
}
