/* SPDX-License-Identifier: Apache-2.0 */
#include "rpmsg_host.h"

#include <stdlib.h>
#include <string.h>

#include "no_offer.h"

#define CONTROL_ENDPOINT 4095u
#define POOL_SIZE        (64u << 20)
#define QUEUE            16u
#define CHANNELS         RPMSG_LINK_CHANNELS
#define GONE             0xa5

struct rpmsg_host rpmsg_host;

static struct sbe_session_config config;
static struct sbe_session_hooks hooks;
static struct sbe_port port;
static struct sbe_area areas[1]; /* what a remote maps: nothing */
static struct sbe_session_context contexts[1];
static struct sbe_session_channel session_channels[1];
static struct sbe_session_pending pending[8];
static struct sbe_call *calls; /* HOST_CALLS for each channel */
static uint8_t *pool;          /* device address 0 */
static size_t used;

static struct {
    uint64_t bytes[SBE_CONTROL_MAX / 8];
    uint32_t size;
} queue[QUEUE]; /* control messages to the host */
static uint32_t queued;

static uint8_t *take_memory(size_t size)
{
    size_t begin = used;
    used += (size + 1023u) & ~(size_t)1023;
    CHECK(used <= POOL_SIZE);
    return memset(pool + begin, 0, size);
}

/* -- the link's platform ------------------------------------------------------------------- */

static uint64_t now_ns(void *self)
{
    (void)self;
    return rpmsg_host.now_ns += 100;
}

static int attach(void *self, struct sbe_area *area, const struct sbe_area_map *message)
{
    struct sbe_segment segment;
    (void)self;
    if (message->segment_count == 0) {
        CHECK_EQ(message->flags, RPMSG_LINK_PRIVATE);
        area->base = take_memory(area->size);
        return SBE_OK;
    }
    memcpy(&segment, message + 1, sizeof segment);
    CHECK(segment.address + segment.size <= POOL_SIZE);
    area->base = pool + segment.address;
    return SBE_OK;
}

/* Nobody may touch private memory from now on: rpmsg_host_untouched(). */
static void detach(void *self, struct sbe_area *area)
{
    (void)self;
    if (area->segments != 0)
        return;
    rpmsg_host.gone = memset(area->base, GONE, area->size);
    rpmsg_host.gone_size = area->size;
}

static bool bus_send(void *self, uint32_t source, uint32_t destination, const void *data,
                     uint32_t size)
{
    (void)self;
    if (rpmsg_host.free == 0) {
        rpmsg_host.refused++;
        return false;
    }
    rpmsg_host.free--;
    if (source == RPMSG_LINK_CONTROL) {
        CHECK(destination == CONTROL_ENDPOINT && queued < QUEUE);
        memcpy(queue[queued].bytes, data, size);
        queue[queued++].size = size;
        return true;
    }
    uint32_t id = destination - HOST_ENDPOINT(0);
    CHECK(source == RPMSG_LINK_DOORBELL && id <= CHANNELS);
    struct rpmsg_host_channel *channel = &rpmsg_host.channels[id];
    channel->rung++;
    if (channel->private)
        (void)sbe_mirror_receive(&channel->mirror, data, size);
    return true;
}

static const struct rpmsg_link_config link_config = {
    .name = "link",
    .coherent = true,
    .port = {.now_ns = now_ns, .area_attach = attach, .area_detach = detach},
    .send = bus_send,
};

/* -- the host's session -------------------------------------------------------------------- */

/* Not inlined: callgrind knows by this name, and by rpmsg_host_run(), what is the link's work. */
__attribute__((noinline)) void rpmsg_host_to_link(uint32_t source, uint32_t destination,
                                                  const void *message, uint32_t size)
{
    rpmsg_link_receive(&rpmsg_host.link, source, destination, message, size);
}

static int control_send(void *self, const void *message, uint32_t size)
{
    (void)self;
    rpmsg_host_to_link(CONTROL_ENDPOINT, RPMSG_LINK_CONTROL, message, size);
    return SBE_OK;
}

static void send_frames(uint32_t id)
{
    uint64_t message[SBE_MIRROR_MAX / sizeof(uint64_t)];
    struct sbe_mirror *mirror = &rpmsg_host.channels[id].mirror;
    uint32_t size;
    while ((size = sbe_mirror_next(mirror, message, true)) != 0) {
        rpmsg_host_to_link(HOST_ENDPOINT(id), RPMSG_LINK_DOORBELL, message, size);
        sbe_mirror_sent(mirror);
    }
}

static void ring_link(void *self, const struct sbe_channel *channel)
{
    const uint64_t one = 1;
    (void)self;
    if (!rpmsg_host.channels[channel->id].private) /* else flush() sends what there is */
        rpmsg_host_to_link(HOST_ENDPOINT(channel->id), RPMSG_LINK_DOORBELL, &one, sizeof one);
}

static void replied(void *self, void *token, int status, const struct sbe_control *message)
{
    (void)self, (void)token;
    rpmsg_host.status = (uint32_t)-status;
    if (message != NULL && message->type == (SBE_CONTROL_SERVICE_FIND | SBE_CONTROL_REPLY))
        rpmsg_host.found = ((const struct sbe_service_reply *)(const void *)message)->service;
}

static void pump(void)
{
    for (uint32_t i = 0; i < queued; i++) /* more may come meanwhile */
        CHECK_EQ(sbe_session_receive(&rpmsg_host.session, queue[i].bytes, queue[i].size, 0),
                 SBE_OK);
    queued = 0;
}

static void request(enum sbe_control_type type, void *message, uint32_t size)
{
    rpmsg_host.status = UINT32_MAX;
    CHECK_EQ(sbe_session_request(&rpmsg_host.session, type, message, size, NULL), SBE_OK);
    pump();
    CHECK_EQ(rpmsg_host.status, 0);
}

/* -- for tests ------------------------------------------------------------------------------ */

static void allocate(void)
{
    if (pool != NULL)
        return;
    pool = aligned_alloc(64, POOL_SIZE);
    calls = calloc((CHANNELS + 1u) * (size_t)HOST_CALLS, sizeof *calls);
    rpmsg_host.channels = calloc(CHANNELS + 1u, sizeof *rpmsg_host.channels);
    CHECK(pool != NULL && calls != NULL && rpmsg_host.channels != NULL);
}

void rpmsg_host_begin(void)
{
    allocate();
    struct rpmsg_host_channel *channels = rpmsg_host.channels;
    rpmsg_host = (struct rpmsg_host){.channels = channels, .free = UINT32_MAX};
    memset(channels, 0, (CHANNELS + 1u) * sizeof *channels);
    used = queued = 0;
    port = (struct sbe_port){.now_ns = now_ns,
                             .control_send = control_send,
                             .area_attach = attach,
                             .area_detach = detach,
                             .doorbell = ring_link};
    hooks = (struct sbe_session_hooks){.channel_open = no_channel,
                                       .channel_close = no_close,
                                       .service = no_service,
                                       .replied = replied};
    config = (struct sbe_session_config){
        .port = &port,
        .hooks = &hooks,
        .name = "host",
        .version_min = SBE_VERSION_MIN,
        .version_max = SBE_VERSION_MAX,
        .role = SBE_ROLE_HOST,
        .coherent = 1,
        .address_bits = 64,
        .cache_line = RPMSG_LINK_LINE,
        .limits = {1, 1, 1, RPMSG_LINK_SLOTS, HOST_SLOT_SIZE, SBE_BUFFERS_MAX},
        .areas = areas,
        .contexts = contexts,
        .channels = session_channels,
        .pending = pending,
        .pending_count = 8,
    };
    CHECK_EQ(rpmsg_link_init(&rpmsg_host.link, &link_config), SBE_OK);
    rpmsg_link_up(&rpmsg_host.link, 1);
    CHECK_EQ(sbe_session_init(&rpmsg_host.session, &config), SBE_OK);
    CHECK_EQ(sbe_session_start(&rpmsg_host.session, 2), SBE_OK);
    pump();
    CHECK_EQ(rpmsg_host.session.state, SBE_SESSION_CONNECTED);
}

void rpmsg_host_context(uint32_t id, bool create)
{
    struct sbe_context_message message = {.context = id};
    request(create ? SBE_CONTROL_CONTEXT_CREATE : SBE_CONTROL_CONTEXT_DESTROY, &message.control,
            sizeof message);
}

/* Of the pool; private memory has no segments. */
static void map(uint32_t area, uint32_t context, uint32_t flags, uint32_t size,
                const uint8_t *memory)
{
    struct {
        struct sbe_area_map map;
        struct sbe_segment segment;
    } message = {
        .map = {.area = area,
                .context = context,
                .flags = flags,
                .size = size,
                .segment_count = memory != NULL},
        .segment = {.address = memory != NULL ? (uint64_t)(memory - pool) : 0, .size = size},
    };
    uint32_t length = (uint32_t)(memory != NULL ? sizeof message : sizeof message.map);
    request(SBE_CONTROL_AREA_MAP, &message.map.control, length);
}

void rpmsg_host_map(uint32_t area, uint32_t context, uint32_t flags, uint32_t size)
{
    map(area, context, flags, size, take_memory(size));
}

void rpmsg_host_unmap(uint32_t area)
{
    struct sbe_area_unmap message = {.area = area};
    request(SBE_CONTROL_AREA_UNMAP, &message.control, sizeof message);
}

uint16_t rpmsg_host_find(const char *name)
{
    struct sbe_service_find message = {.context = 0};
    CHECK(sbe_name_set(message.name, name));
    request(SBE_CONTROL_SERVICE_FIND, &message.control, sizeof message);
    return rpmsg_host.found;
}

void rpmsg_host_open(uint32_t id, uint32_t context, uint32_t slots, bool private)
{
    const struct sbe_ring_geometry geometry = {slots, HOST_SLOT_SIZE, RPMSG_LINK_LINE};
    uint32_t ring = (uint32_t)((sbe_ring_size(&geometry) + 63) & ~63);
    uint8_t *memory = take_memory(2 * ring);
    struct rpmsg_host_channel *channel = &rpmsg_host.channels[id];
    map(HOST_RING_AREA(id), context, RPMSG_LINK_PRIVATE, 2 * ring, private ? NULL : memory);
    *channel = (struct rpmsg_host_channel){.private = private};
    sbe_ring_clear(memory, &geometry, 0);
    sbe_ring_clear(memory + ring, &geometry, 0);
    const struct sbe_channel_config end = {
        .id = id,
        .context = context,
        .geometry = geometry,
        .send = memory,
        .receive = memory + ring,
        .port = &port,
        .areas = &rpmsg_host.link.engine.session.areas,
        .calls = calls + (size_t)id * HOST_CALLS,
        .call_count = HOST_CALLS,
    };
    CHECK_EQ(sbe_channel_open(&channel->channel, &end), SBE_OK);
    if (private)
        CHECK_EQ(sbe_mirror_open(&channel->mirror, memory, memory + ring, &geometry), SBE_OK);
    struct sbe_channel_open message = {
        .channel = id,
        .context = context,
        .ring_area = HOST_RING_AREA(id),
        .slots = slots,
        .slot_size = HOST_SLOT_SIZE,
        .line = RPMSG_LINK_LINE,
        .receive_offset = ring,
        .priority = 1,
    };
    request(SBE_CONTROL_CHANNEL_OPEN, &message.control, sizeof message);
}

void rpmsg_host_close(uint32_t id)
{
    struct sbe_channel_close message = {.channel = id};
    request(SBE_CONTROL_CHANNEL_CLOSE, &message.control, sizeof message);
    rpmsg_host_unmap(HOST_RING_AREA(id));
}

bool rpmsg_host_untouched(void)
{
    size_t same = 0;
    while (same < rpmsg_host.gone_size && rpmsg_host.gone[same] == GONE)
        same++;
    return same == rpmsg_host.gone_size;
}

void rpmsg_host_bind(uint32_t id, uint32_t endpoint)
{
    const uint32_t bind[2] = {RPMSG_LINK_BIND, id};
    rpmsg_host_to_link(endpoint, RPMSG_LINK_DOORBELL, bind, sizeof bind);
}

void rpmsg_host_flush(uint32_t id)
{
    (void)sbe_channel_flush(&rpmsg_host.channels[id].channel);
    if (rpmsg_host.channels[id].private)
        send_frames(id);
}

uint64_t rpmsg_host_ask(uint32_t id, uint16_t service)
{
    static struct sbe_frame frame;
    static int owner;
    frame.type = SBE_FRAME_REQUEST;
    frame.service = service;
    CHECK_EQ(sbe_channel_request(&rpmsg_host.channels[id].channel, &frame, &owner), SBE_OK);
    return frame.transaction;
}

void rpmsg_host_cancel(uint32_t id, uint64_t transaction)
{
    static struct sbe_frame frame;
    frame.type = SBE_FRAME_CANCEL;
    frame.transaction = transaction;
    CHECK_EQ(sbe_channel_send(&rpmsg_host.channels[id].channel, &frame), SBE_OK);
}

uint64_t rpmsg_host_take(uint32_t id, int *status)
{
    static struct sbe_frame frame;
    struct rpmsg_host_channel *channel = &rpmsg_host.channels[id];
    int found = sbe_channel_receive(&channel->channel, &frame, rpmsg_host.scratch);
    CHECK(found == 0 || found == 1);
    if (found == 0) {
        (void)sbe_channel_idle(&channel->channel);
        if (channel->private)
            send_frames(id); /* what was taken is told */
        return 0;
    }
    *status = frame.status;
    return frame.transaction;
}

__attribute__((noinline)) void rpmsg_host_run(uint32_t rounds)
{
    while (rpmsg_link_run(&rpmsg_host.link))
        CHECK(rounds-- > 0);
}
