/* SPDX-License-Identifier: Apache-2.0 */
/* The remote: all services, behind messages or the real port for a carve-out. */
#include <string.h>

#include "core/status.h"
#include "ends.h"
#include "ports/carveout/carveout.h"

#define PART 64u /* bytes of a piece of `parts` */

static enum binding binding;
static struct carveout link_;
static struct carveout_config carveout_config;

/* Of the binding by messages. */
static struct sbe_engine engine;
static struct sbe_engine_config config;
static struct sbe_port port;
static struct sbe_power power;
static struct sbe_area areas[CARVEOUT_AREAS];
static struct sbe_session_context contexts[CARVEOUT_CONTEXTS];
static struct sbe_session_channel session_channels[CARVEOUT_CHANNELS];
static struct sbe_session_pending pending[CARVEOUT_PENDING];
static struct sbe_engine_channel channels[CARVEOUT_CHANNELS];
static struct sbe_call calls[CARVEOUT_CHANNELS * CARVEOUT_CALLS];
static uint64_t scratch_in[CARVEOUT_SLOT_SIZE / 8], scratch_out[CARVEOUT_SLOT_SIZE / 8];
static uint64_t paused[CARVEOUT_CHANNELS][SBE_PAUSED_SIZE(CARVEOUT_SLOT_SIZE) / 8];

/* -- a service that may die in the middle of its output ---------------------------------------- */

/* Fills its OUT buffer with the payload's byte, a part in each piece. */
static int parts(struct sbe_request *request)
{
    const struct sbe_buffer *out = request->buffers;
    uint64_t left = out->size - request->progress, part = left < PART ? left : PART;
    uint8_t value = *(const uint8_t *)request->payload;
    if (request->buffer_count != 1 || request->payload_size != 1 || out->data == NULL)
        return SBE_EINVAL;
    SBE_STEP("before half of a part of a buffer");
    memset((uint8_t *)out->data + request->progress, value, part / 2);
    SBE_STEP("after half of a part of a buffer");
    memset((uint8_t *)out->data + request->progress + part / 2, value, part - part / 2);
    SBE_STEP("after a part of a buffer");
    request->progress += part;
    if (request->progress < out->size)
        return SBE_MORE;
    request->written[0] = out->size;
    return SBE_OK;
}

SBE_SERVICE(parts, 1, parts);

/* -- by messages ------------------------------------------------------------------------------- */

static int control_send(void *self, const void *message, uint32_t size)
{
    (void)self;
    world_send(HOST, message, size);
    return SBE_OK;
}

static int area_attach(void *self, struct sbe_area *area, const struct sbe_area_map *message)
{
    struct sbe_segment segment;
    (void)self;
    HOLDS(message->segment_count == 1 && area->base == NULL);
    memcpy(&segment, message + 1, sizeof segment);
    area->base = (void *)(uintptr_t)segment.address;
    return SBE_OK;
}

static void area_detach(void *self, struct sbe_area *area)
{
    (void)self;
    HOLDS(area->base != NULL && area->pins == 0);
}

static void doorbell(void *self, const struct sbe_channel *channel)
{
    (void)self;
    world_ring(HOST, channel->id);
}

static void take_event(void *self, uint32_t event, uint32_t value)
{
    (void)self;
    sbe_power_event(&power, event, value);
}

static void begin_by_mail(void)
{
    port = (struct sbe_port){
        .now_ns = world_now_ns,
        .control_send = control_send,
        .area_attach = area_attach,
        .area_detach = area_detach,
        .doorbell = doorbell,
    };
    config = sbe_engine_defaults(&port);
    config.channels = channels;
    config.calls = calls;
    config.calls_per_channel = CARVEOUT_CALLS;
    config.kept_per_context = CARVEOUT_KEPT;
    config.scratch_in = scratch_in;
    config.scratch_out = scratch_out;
    sbe_pieces_use(&config, paused);
    config.session.name = "remote";
    config.session.cache_line = LINE;
    config.session.limits =
        (struct sbe_limits){CARVEOUT_AREAS, CARVEOUT_CONTEXTS,  CARVEOUT_CHANNELS,
                            CARVEOUT_SLOTS, CARVEOUT_SLOT_SIZE, SBE_BUFFERS_MAX};
    config.session.areas = areas;
    config.session.contexts = contexts;
    config.session.channels = session_channels;
    config.session.pending = pending;
    config.session.pending_count = CARVEOUT_PENDING;
    HOLDS(sbe_engine_init(&engine, &config) == SBE_OK);
    sbe_power_init(&power, &engine, NULL);
    engine.hooks.event = take_event;
}

static void connected(void)
{
    HOLDS(sbe_session_start(&engine.session, world_epoch()) == SBE_OK);
}

static void lost(void)
{
    sbe_session_lost(&engine.session);
}

static void take_message(const void *message, uint32_t size)
{
    int status = sbe_session_receive(&engine.session, message, size, 0);
    HOLDS(status == SBE_OK || status == SBE_ENOTCONN);
}

static void take_bell(uint32_t channel)
{
    for (uint32_t i = 0; i < CARVEOUT_CHANNELS; i++)
        if (channels[i].used && channels[i].channel.id == channel)
            sbe_engine_doorbell(&engine, &channels[i].channel);
}

/* -- over a carve-out -------------------------------------------------------------------------- */

static void send_byte(void *self, uint8_t byte)
{
    (void)self;
    world_send_byte(HOST, byte);
}

static void begin_carved(void)
{
    carveout_config = (struct carveout_config){
        .window = world_window(),
        .window_size = WINDOW,
        .board = "none",
        .image = "remote",
        .seed = world_epoch(),
        .coherent = true,
        .send_byte = send_byte,
        .now_ns = world_now_ns,
    };
    HOLDS(carveout_start(&link_, &carveout_config) == SBE_OK);
}

static void take_byte(uint8_t byte)
{
    carveout_take_byte(&link_, byte);
}

/* -- both -------------------------------------------------------------------------------------- */

static void begin(enum binding how)
{
    binding = how;
    if (binding == CARVED)
        begin_carved();
    else
        begin_by_mail();
}

static bool run(void)
{
    if (binding == CARVED)
        return carveout_run(&link_) || carveout_rung(&link_);
    return sbe_power_run(&power);
}

static uint32_t holds(void)
{
    const struct sbe_engine *at = binding == CARVED ? &link_.engine : &engine;
    const struct sbe_session_config *session = &at->config->session;
    uint32_t count = 0;
    for (uint32_t i = 0; i < session->limits.areas; i++)
        count += session->areas[i].id != 0;
    for (uint32_t i = 0; i < session->limits.contexts; i++)
        count += session->contexts[i].id != 0;
    for (uint32_t i = 0; i < session->pending_count; i++)
        count += session->pending[i].id != 0;
    for (uint32_t i = 0; i < session->limits.channels; i++) {
        const struct sbe_engine_channel *entry = &at->config->channels[i];
        count += session->channels[i].id != 0;
        count += entry->used || entry->active || entry->paused || entry->kept != NULL;
    }
    return count;
}

const struct end end = {
    .begin = begin,
    .connected = connected,
    .lost = lost,
    .take_message = take_message,
    .take_bell = take_bell,
    .take_byte = take_byte,
    .run = run,
    .holds = holds,
};
