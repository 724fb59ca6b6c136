/* SPDX-License-Identifier: Apache-2.0 */
#include "ports/carveout/carveout.h"

#include <string.h>

#if CARVEOUT_STREAMS
#include "streams/streams.h"
#else
#include "streams/none.h"
#endif

#define CONTROL_AT_ONCE 16u /* messages before the rings get their turn */
#define REPLIES         8u  /* that one control message may lead to: it is not taken without room */

_Static_assert((CARVEOUT_CHANNELS & (CARVEOUT_CHANNELS - 1)) == 0, "a power of two");
_Static_assert((CARVEOUT_FIFO & (CARVEOUT_FIFO - 1)) == 0, "a power of two");

static struct sbe_area areas[CARVEOUT_AREAS];
static struct sbe_session_context contexts[CARVEOUT_CONTEXTS];
static struct sbe_session_channel session_channels[CARVEOUT_CHANNELS];
static struct sbe_session_pending pending[CARVEOUT_PENDING];
static struct sbe_engine_channel channels[CARVEOUT_CHANNELS];
static struct sbe_call calls[CARVEOUT_CHANNELS * CARVEOUT_CALLS];
static uint64_t scratch_in[CARVEOUT_SLOT_SIZE / sizeof(uint64_t)];
static uint64_t scratch_out[CARVEOUT_SLOT_SIZE / sizeof(uint64_t)];
#if CARVEOUT_PIECES
static uint64_t paused[CARVEOUT_CHANNELS][SBE_PAUSED_SIZE(CARVEOUT_SLOT_SIZE) / sizeof(uint64_t)];
#endif

/* -- doorbells ----------------------------------------------------------------------------- */

void carveout_send_token(const struct carveout *link, uint32_t token)
{
    uint8_t bytes[SBE_TOKEN_MAX];
    uint32_t count = sbe_token_write(token, bytes);
    for (uint32_t i = 0; i < count; i++)
        link->config->send_byte(link->config->self, bytes[i]);
}

void carveout_take_byte(struct carveout *link, uint8_t byte)
{
    uint32_t head = link->fifo_head;
    if (head - link->fifo_tail == CARVEOUT_FIFO) {
        carveout_take_ring(link); /* whatever it said: look everywhere */
        return;
    }
    link->fifo[head & (CARVEOUT_FIFO - 1)] = byte;
    link->fifo_head = head + 1;
}

void carveout_take_ring(struct carveout *link)
{
    link->overrun = true;
}

/* A look at each open channel, CARVEOUT_CHANNELS at most: the doorbell did not say for which. */
static void ring_everything(struct carveout *link)
{
    link->look = true;
    for (uint32_t i = 0; i < CARVEOUT_CHANNELS; i++)
        if (channels[i].used)
            sbe_engine_doorbell(&link->engine, &channels[i].channel);
}

/* The host counts ids up, so channels collide only where one outlives CARVEOUT_CHANNELS others. */
static struct sbe_channel *find(const struct carveout *link, uint32_t id)
{
    struct sbe_channel *channel = link->by_id[id & (CARVEOUT_CHANNELS - 1)];
    if (channel != NULL && channel->id == id)
        return channel;
    for (uint32_t i = 0; i < CARVEOUT_CHANNELS; i++)
        if (channels[i].used && channels[i].channel.id == id)
            return &channels[i].channel;
    return NULL;
}

static void take_token(struct carveout *link, uint32_t token)
{
    if (SBE_TOKEN_IS_EVENT(token)) {
        link->look = true;
        return;
    }
    struct sbe_channel *channel = find(link, SBE_TOKEN_VALUE(token));
    if (channel != NULL)
        sbe_engine_doorbell(&link->engine, channel);
    else
        link->strange++; /* closed meanwhile, or noise */
}

static void take_tokens(struct carveout *link)
{
    uint32_t token;
    while (link->fifo_tail != link->fifo_head) {
        uint32_t tail = link->fifo_tail;
        uint8_t byte = link->fifo[tail & (CARVEOUT_FIFO - 1)];
        link->fifo_tail = tail + 1;
        if (sbe_token_read(&link->reader, byte, &token))
            take_token(link, token);
    }
    if (link->overrun) {
        link->overrun = false;
        ring_everything(link);
    }
}

static void doorbell(void *self, const struct sbe_channel *channel)
{
    carveout_send_token(self, SBE_TOKEN_CHANNEL(channel->id));
}

static int channel_opened(void *self, struct sbe_channel *channel,
                          const struct sbe_channel_open *message)
{
    struct carveout *link = self;
    if (message->handles != 0 || message->channel > SBE_TOKEN_CHANNEL_MAX)
        return SBE_EINVAL;
    link->by_id[message->channel & (CARVEOUT_CHANNELS - 1)] = channel;
    return SBE_OK;
}

static void channel_closed(void *self, struct sbe_channel *channel)
{
    struct carveout *link = self;
    struct sbe_channel **place = &link->by_id[channel->id & (CARVEOUT_CHANNELS - 1)];
    if (*place == channel)
        *place = NULL;
}

/* -- areas --------------------------------------------------------------------------------- */

static bool lies_within(const struct sbe_segment *segment, uint64_t begin, uint64_t end)
{
    return segment->address >= begin && segment->address <= end &&
           segment->size <= end - segment->address;
}

/*
 * An area is one run of the arena, so nothing that the host maps can reach our own memory; or one
 * of a region that we offer, as long as it is mapped to be read.
 */
static int area_attach(void *self, struct sbe_area *area, const struct sbe_area_map *message)
{
    const struct carveout_config *config = ((struct carveout *)self)->config;
    uint64_t window = (uintptr_t)config->window;
    bool reachable = false;
    if (message->handles != 0 || message->segment_count != 1)
        return SBE_ENOTSUP;
    struct sbe_segment segment;
    memcpy(&segment, message + 1, sizeof segment);
    reachable = lies_within(&segment, window + SBE_CARVEOUT_ARENA, window + config->window_size);
    for (uint32_t i = 0; i < SBE_CARVEOUT_OFFERS && (area->flags & SBE_AREA_READONLY) != 0; i++) {
        uint64_t begin = window + config->regions[i].offset;
        reachable = reachable || lies_within(&segment, begin, begin + config->regions[i].size);
    }
    if (!reachable)
        return SBE_ERANGE;
    area->base = (void *)(uintptr_t)segment.address;
    return SBE_OK;
}

static void area_detach(void *self, struct sbe_area *area)
{
    (void)self, (void)area;
}

/* -- control ------------------------------------------------------------------------------- */

static int control_send(void *self, const void *message, uint32_t size)
{
    struct carveout *link = self;
    int status = sbe_bootstrap_send(&link->bootstrap, message, size);
    if (status == 1)
        carveout_send_token(link, SBE_TOKEN_EVENT(SBE_TOKEN_CONTROL));
    if (status < 0)
        link->dropped++;
    return status < 0 ? status : SBE_OK;
}

/* Another host, or the same one in another life. */
static void begin_life(struct carveout *link)
{
    link->lives++;
    do
        link->epoch += 0x9e3779b1u; /* odd: every value comes once */
    while (link->epoch == 0);
    (void)sbe_session_start(&link->engine.session, link->epoch);
}

static void end_life(struct carveout *link)
{
    sbe_session_lost(&link->engine.session);
}

/* A control ring is broken: nothing can be said until the host begins another life. */
static bool shut(struct carveout *link)
{
    sbe_bootstrap_shut(&link->bootstrap);
    end_life(link);
    return false;
}

/* True: there may be more. */
static bool take_control(struct carveout *link)
{
    uint64_t message[SBE_CONTROL_MAX / sizeof(uint64_t)];
    bool ring_peer;
    if (sbe_bootstrap_room(&link->bootstrap, REPLIES) < REPLIES)
        return link->bootstrap.send.broken && shut(link); /* else the host rings when it has read */
    int size = sbe_bootstrap_receive(&link->bootstrap, message, &ring_peer);
    if (ring_peer)
        carveout_send_token(link, SBE_TOKEN_EVENT(SBE_TOKEN_CONTROL));
    if (size == SBE_EPROTO)
        return shut(link);
    if (size > 0 &&
        sbe_session_receive(&link->engine.session, message, (uint32_t)size, 0) == SBE_EBADMSG)
        link->bad++;
    if (size == SBE_EBADMSG)
        link->bad++;
    return size > 0 || size == SBE_EBADMSG;
}

static void look(struct carveout *link)
{
    int status = sbe_bootstrap_look(&link->bootstrap);
    if (status == SBE_ECONNRESET) {
        end_life(link);
        status = sbe_bootstrap_look(&link->bootstrap); /* the next life may be there already */
    }
    if (status == 1)
        begin_life(link);
    uint32_t left = CONTROL_AT_ONCE;
    while (left > 0 && take_control(link))
        left--;
    link->look = left == 0;
    if (link->bootstrap.changed) {
        link->bootstrap.changed = false;
        sbe_full_barrier(); /* our block is out before the host is told to look at it */
        carveout_send_token(link, SBE_TOKEN_EVENT(SBE_TOKEN_BLOCK));
    }
}

uint64_t carveout_due_ns(void)
{
    return sbe_streams_due_ns();
}

bool carveout_run(struct carveout *link)
{
    take_tokens(link);
    if (link->look)
        look(link);
    bool more = sbe_power_run(&link->power);
    (void)sbe_streams_round(&link->port); /* last: a request may have started one */
    return more || link->look;
}

/* -- start and end ------------------------------------------------------------------------- */

static void put_name(char *field, uint32_t size, const char *name)
{
    for (uint32_t i = 0; i + 1 < size && name[i] != '\0'; i++)
        field[i] = name[i];
}

static void publish_info(const struct carveout_config *config)
{
    struct sbe_carveout_info *info = (void *)((uint8_t *)config->window + SBE_CARVEOUT_INFO);
    SBE_STEP("before the facts of a window");
    memset(info, 0, sizeof *info);
    SBE_STEP("after the facts of a window were cleared");
    info->window_address = (uintptr_t)config->window;
    info->window_size = config->window_size;
    put_name(info->board, sizeof info->board, config->board);
    put_name(info->image, sizeof info->image, config->image);
    memcpy(info->regions, config->regions, sizeof info->regions);
    info->check = SBE_CARVEOUT_SUM(info);
    info->magic = SBE_CARVEOUT_MAGIC;
    SBE_STEP("after the facts of a window");
}

static void take_event(void *self, uint32_t event, uint32_t value)
{
    const struct sbe_engine *engine = self;
    sbe_power_event(&((struct carveout *)engine->port->self)->power, event, value);
}

/* The engine says so before and after each handler: for the crash record. */
static void context_enter(void *self, uint32_t context)
{
    ((struct carveout *)self)->context = context;
}

static void configure_engine(struct carveout *link)
{
    const struct carveout_config *config = link->config;
    link->port = (struct sbe_port){
        .self = link,
        .control_send = control_send,
        .area_attach = area_attach,
        .area_detach = area_detach,
        .doorbell = doorbell,
        .context_enter = context_enter,
        .cache_clean = config->cache_clean,
        .cache_invalidate = config->cache_invalidate,
    };
    link->port.now_ns = config->now_ns; /* boards keep their clock without self */
    struct sbe_engine_config *engine = &link->engine_config;
    struct sbe_session_config *session = &engine->session;
    *engine = sbe_engine_defaults(&link->port);
    engine->channels = channels;
    engine->calls = calls;
    engine->calls_per_channel = CARVEOUT_CALLS;
    engine->kept_per_context = CARVEOUT_KEPT;
    engine->scratch_in = scratch_in;
    engine->scratch_out = scratch_out;
#if CARVEOUT_PIECES
    sbe_pieces_use(engine, paused);
#endif
    engine->opened = channel_opened;
    engine->closed = channel_closed;
    session->name = config->image;
    session->coherent = config->coherent;
    session->cache_line = CARVEOUT_LINE;
    session->limits = (struct sbe_limits){CARVEOUT_AREAS, CARVEOUT_CONTEXTS,  CARVEOUT_CHANNELS,
                                          CARVEOUT_SLOTS, CARVEOUT_SLOT_SIZE, SBE_BUFFERS_MAX};
    session->areas = areas;
    session->contexts = contexts;
    session->channels = session_channels;
    session->pending = pending;
    session->pending_count = CARVEOUT_PENDING;
    if (config->version_max != 0) {
        session->version_min = config->version_min;
        session->version_max = config->version_max;
    }
}

int carveout_start(struct carveout *link, const struct carveout_config *config)
{
    *link = (struct carveout){.config = config, .look = true};
    if (config->window_size < SBE_CARVEOUT_WINDOW_MIN)
        return SBE_EINVAL;
    configure_engine(link);
    int status = sbe_engine_init(&link->engine, &link->engine_config);
    if (status < 0)
        return status;
    sbe_power_init(&link->power, &link->engine, config->power);
    link->engine.hooks.event = take_event;
    publish_info(config);
    status = sbe_bootstrap_start(&link->bootstrap, config->window, SBE_ROLE_REMOTE, config->seed);
    link->epoch = link->bootstrap.generation;
    return status;
}

/* Only a service of the image is believed: what has crashed may have written over the request. */
static void name_request(const struct carveout *link, struct sbe_crash_record *record)
{
    const struct sbe_request *request = &link->engine.request;
    if (link->context == SBE_CONTEXT_GLOBAL)
        return;
    record->context = link->context;
    record->transaction = request->transaction;
    const struct sbe_service *const *service = __start_sbe_services;
    for (; service < __stop_sbe_services; service++)
        if (*service == request->service)
            put_name(record->service, sizeof record->service, request->service->name);
}

void carveout_crash(struct carveout *link, struct sbe_crash_record *record)
{
    if (link->config == NULL)
        return; /* before the start: nobody listens */
    struct sbe_crash_record *place = (void *)((uint8_t *)link->config->window + SBE_CARVEOUT_CRASH);
    name_request(link, record);
    record->generation = link->bootstrap.generation;
    record->magic = SBE_CARVEOUT_MAGIC;
    record->check = SBE_CARVEOUT_SUM(record);
    memcpy(place, record, sizeof *record);
    if (link->bootstrap.own != NULL)
        sbe_store_release(&link->bootstrap.own->crashed, 1);
    sbe_full_barrier(); /* the record is out before the host is told to look at it */
    carveout_send_token(link, SBE_TOKEN_EVENT(SBE_TOKEN_CRASHED));
}
