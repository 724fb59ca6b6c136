/* SPDX-License-Identifier: Apache-2.0 */
/* A remote that reads exported files, and the exporter: the firmware's own server, which may be
 * made to lie. */
#ifndef SBE_TESTS_NINEP_EXPORTER_H
#define SBE_TESTS_NINEP_EXPORTER_H

#include "ninep/client.h"

#include <string.h>

#include "check.h"
#include "core/engine.h"
#include "core/status.h"
#include "ninep/files.h"
#include "ninep/server.h"

#define SLOTS     16u
#define SLOT_SIZE 1024u
#define RING      65536u
#define AREA      (1u << 16 | 1u)
#define AREA_SIZE 65536u
#define CONTEXT   1u
#define SERVICE   7u

static _Alignas(64) uint8_t rings[2][RING], memory[AREA_SIZE];

static struct {
    struct sbe_engine engine;
    struct sbe_engine_config config;
    struct sbe_port port;
    struct sbe_area areas[2];
    struct sbe_session_context contexts[1];
    struct sbe_session_channel session_channels[1];
    struct sbe_session_pending pending[2];
    struct sbe_engine_channel channels[1];
    struct sbe_call calls[8];
    _Alignas(8) uint8_t scratch_in[SLOT_SIZE], scratch_out[SLOT_SIZE];
} remote;

static struct { /* exports */
    struct sbe_channel channel;
    struct sbe_port port;
    struct sbe_area_table areas;
    struct sbe_area table[2];
    _Alignas(8) uint8_t scratch[SLOT_SIZE];
    struct sbe_frame frame;
    struct ninep_session session;
    uint64_t open; /* transaction of the call that the session lasts as long as */
    uint32_t messages, cancels;
    bool silent;
    void (*mangle)(uint8_t *answer, uint32_t *size, int *status);
} host;

static struct sbe_9p files;
static struct sbe_9p_file file;
static struct {
    uint32_t readies, ends, dones;
    int ready, done;
    uint32_t size;
    bool by_reference;
    uint8_t data[SLOT_SIZE];
    struct sbe_9p_stat stat;
} got;

/* -- two ends ---------------------------------------------------------------------------------- */

static inline uint64_t now_ns(void *self)
{
    (void)self;
    return 1000;
}

static inline void ring(void *self, const struct sbe_channel *channel)
{
    (void)self, (void)channel;
}

static inline int control_send(void *self, const void *message, uint32_t size)
{
    (void)self, (void)message, (void)size;
    return SBE_OK;
}

static inline void begin_remote(void)
{
    remote.port =
        (struct sbe_port){.now_ns = now_ns, .doorbell = ring, .control_send = control_send};
    remote.config = sbe_engine_defaults(&remote.port);
    remote.config.channels = remote.channels;
    remote.config.calls = remote.calls;
    remote.config.calls_per_channel = 8;
    remote.config.scratch_in = remote.scratch_in;
    remote.config.scratch_out = remote.scratch_out;
    remote.config.session.name = "remote";
    remote.config.session.cache_line = 64;
    remote.config.session.limits = (struct sbe_limits){2, 1, 1, SLOTS, SLOT_SIZE, SBE_BUFFERS_MAX};
    remote.config.session.areas = remote.areas;
    remote.config.session.contexts = remote.contexts;
    remote.config.session.channels = remote.session_channels;
    remote.config.session.pending = remote.pending;
    remote.config.session.pending_count = 2;
    CHECK_EQ(sbe_engine_init(&remote.engine, &remote.config), SBE_OK);
    remote.engine.session.areas.coherent = true;
    remote.engine.session.limits = remote.config.session.limits;
    remote.engine.session.state = SBE_SESSION_CONNECTED;
    remote.engine.session.peer_epoch = remote.engine.session.confirmed_epoch = 1;
    remote.contexts[0].id = CONTEXT;
}

static inline void begin_channel(void)
{
    struct sbe_ring_geometry geometry = {SLOTS, SLOT_SIZE, 64};
    struct sbe_channel_config config = {
        .id = 1,
        .context = CONTEXT,
        .geometry = geometry,
        .send = rings[0],
        .receive = rings[1],
        .port = &host.port,
        .areas = &host.areas,
    };
    struct sbe_channel_open message = {
        .channel = 1, .context = CONTEXT, .slots = SLOTS, .slot_size = SLOT_SIZE, .line = 64};
    sbe_ring_clear(rings[0], &geometry, 0);
    sbe_ring_clear(rings[1], &geometry, 0);
    CHECK_EQ(sbe_channel_open(&host.channel, &config), SBE_OK);
    CHECK_EQ(remote.engine.hooks.channel_open(&remote.engine, &remote.session_channels[0], &message,
                                              rings[1], rings[0]),
             SBE_OK);
}

static inline void ready(struct sbe_9p *which, int status)
{
    CHECK(which == &files);
    got.readies++;
    got.ready = status;
}

static inline void ended(struct sbe_9p *which)
{
    CHECK(which == &files);
    got.ends++;
}

static inline void done(struct sbe_9p_file *which, int status, const void *data, uint32_t size)
{
    CHECK(which == &file);
    CHECK(status <= 0);
    CHECK(status == 0 || (data == NULL && size == 0));
    got.dones++;
    got.done = status;
    got.size = size;
    got.by_reference = data == NULL;
    if (data != NULL) {
        CHECK(size <= sizeof got.data);
        memcpy(got.data, data, size);
        if (size == sizeof got.stat)
            memcpy(&got.stat, data, size);
    }
}

static inline void begin(void)
{
    struct sbe_area *area;
    ninep_session_reset(&host.session);
    memset(&remote, 0, sizeof remote);
    memset(&host, 0, sizeof host);
    memset(&files, 0, sizeof files);
    memset(&file, 0, sizeof file);
    memset(&got, 0, sizeof got);
    begin_remote();
    host.port = (struct sbe_port){.now_ns = now_ns, .doorbell = ring};
    host.areas = (struct sbe_area_table){host.table, 2, true};
    struct sbe_area_table *tables[] = {&host.areas, &remote.engine.session.areas};
    for (uint32_t i = 0; i < 2; i++) {
        CHECK_EQ(sbe_area_add(tables[i], AREA, CONTEXT, 0, AREA_SIZE, &area), SBE_OK);
        area->base = memory;
    }
    begin_channel();
    files.ready = ready;
    files.ended = ended;
    file.done = done;
    ninep_files_init();
}

/* -- the exporter ------------------------------------------------------------------------------ */

static inline void respond(uint64_t transaction, int status, const uint8_t *payload, uint32_t size,
                           uint32_t written)
{
    struct sbe_frame frame = {
        .type = SBE_FRAME_RESPONSE,
        .transaction = transaction,
        .status = status,
        .payload = payload,
        .payload_size = size,
    };
    if (host.frame.buffer_count == 1 && host.frame.buffers[0].direction == SBE_DIR_OUT) {
        frame.buffer_count = 1;
        frame.buffers[0] = host.frame.buffers[0];
        frame.buffers[0].size = written;
    }
    CHECK_EQ(sbe_channel_send(&host.channel, &frame), SBE_OK);
}

static inline void answer_message(void)
{
    static uint8_t reply[SLOT_SIZE];
    struct sbe_buffer *buffer = &host.frame.buffers[0];
    struct ninep_call call = {
        .session = &host.session,
        .message = (const uint8_t *)host.frame.payload + sizeof(struct ninep_request),
        .message_size = host.frame.payload_size - (uint32_t)sizeof(struct ninep_request),
        .reply = reply,
        .reply_room = SLOT_SIZE - (uint32_t)sizeof(struct sbe_wire_frame),
        .piece = 4096,
    };
    if (host.frame.buffer_count == 1) {
        call.data_size = buffer->size;
        if (buffer->direction == SBE_DIR_IN)
            call.from = buffer->data;
        else
            call.to = buffer->data;
    }
    int status;
    while ((status = ninep_serve(&call)) == SBE_MORE)
        ;
    host.messages++;
    if (host.mangle != NULL)
        host.mangle(reply, &call.reply_size, &status);
    respond(host.frame.transaction, status, reply, call.reply_size, call.written);
}

/* All that came, in order. */
static inline void export_(void)
{
    struct ninep_request head;
    while (!host.silent && sbe_channel_receive(&host.channel, &host.frame, host.scratch) == 1) {
        if (host.frame.type == SBE_FRAME_CANCEL) {
            CHECK_EQ(host.frame.transaction, host.open);
            host.cancels++;
            respond(host.open, SBE_ECANCELED, NULL, 0, 0);
            continue;
        }
        CHECK_EQ(host.frame.type, SBE_FRAME_REQUEST);
        CHECK_EQ(host.frame.service, SERVICE);
        memcpy(&head, host.frame.payload, sizeof head);
        if (head.op == NINEP_OPEN)
            host.open = host.frame.transaction;
        else
            answer_message();
    }
    (void)sbe_channel_idle(&host.channel);
    sbe_channel_flush(&host.channel);
}

/* Until nobody has anything to say. */
static inline void run(void)
{
    for (uint32_t i = 0; i < 40; i++) {
        export_();
        if (remote.channels[0].used)
            sbe_engine_doorbell(&remote.engine, &remote.channels[0].channel);
        while (sbe_engine_run(&remote.engine))
            ;
    }
}

static struct sbe_channel *channel(void)
{
    return &remote.channels[0].channel;
}

static inline void found(int status)
{
    struct sbe_service_reply reply = {.service = SERVICE};
    CHECK(remote.pending[0].id != 0);
    remote.pending[0].id = 0;
    remote.engine.hooks.replied(&remote.engine, &files.find, status, &reply.control);
}

static inline void start(void)
{
    begin();
    CHECK_EQ(sbe_9p_begin(&files, &remote.engine, channel(), "files"), SBE_OK);
    CHECK_EQ(sbe_9p_begin(&files, &remote.engine, channel(), "files"), SBE_EBUSY);
    found(SBE_OK);
    run();
    CHECK_EQ(got.readies, 1);
    CHECK_EQ(got.ready, SBE_OK);
}

/* What an operation that has begun comes to. */
static inline int result(int begun)
{
    uint32_t dones = got.dones;
    CHECK_EQ(begun, SBE_OK);
    run();
    CHECK_EQ(got.dones, dones + 1);
    return got.done;
}

static inline int open_file(const char *path, uint32_t flags)
{
    return result(sbe_9p_open(&files, &file, path, (uint32_t)strlen(path), flags));
}

static inline void end(void)
{
    sbe_9p_end(&files);
    run();
    CHECK_EQ(got.ends, 1);
    CHECK_EQ(host.cancels, 1);
}

static inline void make_file(uint32_t size)
{
    struct ninep_text name = {.bytes = "file", .size = 4}, ram = {.bytes = "ram", .size = 3};
    struct ninep_node *dir = ninep_find(ninep_node(NINEP_ROOT), ram), *node = NULL;
    static uint8_t content[40000];
    CHECK(dir != NULL && size <= sizeof content);
    if (ninep_find(dir, name) != NULL)
        CHECK_EQ(ninep_remove(ninep_find(dir, name)), SBE_OK);
    CHECK_EQ(ninep_create(dir, name, NINEP_RAM_FILE, &node), SBE_OK);
    for (uint32_t i = 0; i < size; i++)
        content[i] = (uint8_t)(i * 7u + (i >> 8));
    CHECK_EQ(ninep_ram_grow(node, size, UINT32_MAX), SBE_OK);
    ninep_ram_write(node, 0, content, size);
}

static inline bool is_content(const uint8_t *data, uint32_t offset, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++)
        if (data[i] != (uint8_t)((offset + i) * 7u + ((offset + i) >> 8)))
            return false;
    return true;
}

#endif
