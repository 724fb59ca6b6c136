/* SPDX-License-Identifier: Apache-2.0 */
#include "core_link.h"
#include "../core/check.h"
#include "../core/no_offer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define AREAS     4u
#define RING_AREA 0x10001u
#define RING_SIZE (1u << 20)
#define CALLS     4096u
#define QUEUE     16u

struct mail {
    uint64_t bytes[SBE_CONTROL_MAX / 8];
    uint32_t size;
};

struct queue {
    struct mail mails[QUEUE];
    uint32_t count;
};

static struct {
    struct sbe_engine engine;
    struct sbe_engine_config config;
    struct sbe_port port;
    struct sbe_area areas[AREAS];
    struct sbe_session_context contexts[1];
    struct sbe_session_channel session_channels[1];
    struct sbe_session_pending pending[4];
    struct sbe_engine_channel channels[1];
    uint64_t scratch_in[LINK_SLOT_SIZE / 8];
    uint64_t scratch_out[LINK_SLOT_SIZE / 8];
} remote;

static struct {
    struct sbe_session session;
    struct sbe_session_config config;
    struct sbe_session_hooks hooks;
    struct sbe_port port;
    struct sbe_area areas[AREAS];
    struct sbe_session_context contexts[1];
    struct sbe_session_channel session_channels[1];
    struct sbe_session_pending pending[4];
    struct sbe_channel channel;
    struct sbe_call calls[CALLS];
    uint64_t scratch[LINK_SLOT_SIZE / 8];
    uint16_t found; /* by the last SERVICE_FIND */
} host;

static struct queue to_remote, to_host;
static uint8_t *memory[AREAS]; /* by area index */

/* -- hooks --------------------------------------------------------------------------------- */

static int post(void *self, const void *message, uint32_t size)
{
    struct queue *queue = self;
    CHECK(queue->count < QUEUE && size <= SBE_CONTROL_MAX);
    struct mail *mail = &queue->mails[queue->count++];
    memcpy(mail->bytes, message, size);
    mail->size = size;
    return SBE_OK;
}

static int post_to_remote(void *self, const void *message, uint32_t size)
{
    (void)self;
    return post(&to_remote, message, size);
}

static int post_to_host(void *self, const void *message, uint32_t size)
{
    (void)self;
    return post(&to_host, message, size);
}

static int attach(void *self, struct sbe_area *area, const struct sbe_area_map *message)
{
    (void)self;
    area->base = memory[SBE_AREA_INDEX(message->area)];
    return SBE_OK;
}

static void detach(void *self, struct sbe_area *area)
{
    (void)self;
    (void)area;
}

static void replied(void *self, void *token, int status, const struct sbe_control *message)
{
    (void)self;
    (void)token;
    CHECK(status == SBE_OK);
    if (message != NULL && message->type == (SBE_CONTROL_SERVICE_FIND | SBE_CONTROL_REPLY))
        host.found = ((const struct sbe_service_reply *)(const void *)message)->service;
}

/* -- making the link ----------------------------------------------------------------------- */

static void deliver(struct queue *queue, struct sbe_session *session)
{
    for (uint32_t i = 0; i < queue->count; i++)
        CHECK(sbe_session_receive(session, queue->mails[i].bytes, queue->mails[i].size, 0) ==
              SBE_OK);
    queue->count = 0;
}

static void request(enum sbe_control_type type, void *message, uint32_t size)
{
    CHECK(sbe_session_request(&host.session, type, message, size, &host) == SBE_OK);
    deliver(&to_remote, &remote.engine.session);
    deliver(&to_host, &host.session);
}

static void start_remote(const struct core_link_hooks *hooks)
{
    remote.port = (struct sbe_port){
        .now_ns = hooks->now_ns,
        .control_send = post_to_host,
        .area_attach = attach,
        .area_detach = detach,
        .doorbell = hooks->ring_host,
    };
    struct sbe_session_config *session = &remote.config.session;
    remote.config = sbe_engine_defaults(&remote.port);
    remote.config.channels = remote.channels;
    remote.config.scratch_in = remote.scratch_in;
    remote.config.scratch_out = remote.scratch_out;
    session->name = "remote";
    session->cache_line = 64;
    session->limits = (struct sbe_limits){AREAS, 1, 1, LINK_SLOTS, LINK_SLOT_SIZE, SBE_BUFFERS_MAX};
    session->areas = remote.areas;
    session->contexts = remote.contexts;
    session->channels = remote.session_channels;
    session->pending = remote.pending;
    session->pending_count = 4;
    CHECK(sbe_engine_init(&remote.engine, &remote.config) == SBE_OK);
    CHECK(sbe_session_start(&remote.engine.session, 1) == SBE_OK);
}

static void start_host(const struct core_link_hooks *hooks)
{
    host.port = remote.port;
    host.port.control_send = post_to_remote;
    host.port.doorbell = hooks->ring_remote;
    host.hooks = (struct sbe_session_hooks){.channel_open = no_channel,
                                            .channel_close = no_close,
                                            .service = no_service,
                                            .replied = replied};
    host.config = remote.config.session;
    host.config.name = "host";
    host.config.port = &host.port;
    host.config.hooks = &host.hooks;
    host.config.role = SBE_ROLE_HOST;
    host.config.areas = host.areas;
    host.config.contexts = host.contexts;
    host.config.channels = host.session_channels;
    host.config.pending = host.pending;
    CHECK(sbe_session_init(&host.session, &host.config) == SBE_OK);
    CHECK(sbe_session_start(&host.session, 2) == SBE_OK);
}

static void map(uint32_t id, uint32_t flags, uint32_t size)
{
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(base != MAP_FAILED);
    memory[SBE_AREA_INDEX(id)] = base;
    struct sbe_area_map message = {.area = id, .flags = flags, .size = size};
    request(SBE_CONTROL_AREA_MAP, &message, sizeof message);
}

static void open_channel(void)
{
    const struct sbe_ring_geometry geometry = {LINK_SLOTS, LINK_SLOT_SIZE, 64};
    uint64_t ring_size = (uint64_t)sbe_ring_size(&geometry);
    uint8_t *rings = memory[SBE_AREA_INDEX(RING_AREA)];
    CHECK(2 * ring_size <= RING_SIZE);
    const struct sbe_channel_config config = {
        .id = 1,
        .geometry = geometry,
        .send = rings,
        .receive = rings + ring_size,
        .port = &host.port,
        .areas = &remote.engine.session.areas, /* the same areas as the remote's, by id */
        .calls = host.calls,
        .call_count = CALLS,
    };
    CHECK(sbe_channel_open(&host.channel, &config) == SBE_OK);
    struct sbe_channel_open open = {.channel = 1,
                                    .ring_area = RING_AREA,
                                    .slots = LINK_SLOTS,
                                    .slot_size = LINK_SLOT_SIZE,
                                    .line = 64,
                                    .receive_offset = ring_size};
    request(SBE_CONTROL_CHANNEL_OPEN, &open, sizeof open);
}

void core_link_open(struct core_link *link, const struct core_link_hooks *hooks)
{
    start_remote(hooks);
    start_host(hooks);
    while (to_remote.count + to_host.count > 0) {
        deliver(&to_remote, &remote.engine.session);
        deliver(&to_host, &host.session);
    }
    CHECK(host.session.state == SBE_SESSION_CONNECTED);
    map(RING_AREA, SBE_AREA_RING, RING_SIZE);
    map(LINK_AREA, 0, LINK_AREA_SIZE);
    open_channel();
    struct sbe_service_find find = {.context = 0};
    CHECK(sbe_name_set(find.name, "echo"));
    request(SBE_CONTROL_SERVICE_FIND, &find, sizeof find);
    CHECK(host.found != 0);
    *link = (struct core_link){
        .channel = &host.channel,
        .engine = &remote.engine,
        .remote_channel = &remote.channels[0].channel,
        .scratch = (uint8_t *)host.scratch,
        .echo = host.found,
    };
}

struct sbe_frame core_link_request(const struct core_link *link, uint16_t buffers)
{
    struct sbe_frame frame = {
        .type = SBE_FRAME_REQUEST, .service = link->echo, .buffer_count = buffers};
    for (uint32_t i = 0; i < buffers; i++)
        frame.buffers[i] = (struct sbe_buffer){
            .area = LINK_AREA,
            .direction = i % 2 == 0 ? SBE_DIR_IN : SBE_DIR_OUT,
            .offset = 64u * i,
            .size = 64,
        };
    return frame;
}
