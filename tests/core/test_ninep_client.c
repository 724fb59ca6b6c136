/* SPDX-License-Identifier: Apache-2.0 */
/* The client of exported files: against the firmware's own server, and against one that lies. */
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

static uint64_t now_ns(void *self)
{
    (void)self;
    return 1000;
}

static void ring(void *self, const struct sbe_channel *channel)
{
    (void)self, (void)channel;
}

static int control_send(void *self, const void *message, uint32_t size)
{
    (void)self, (void)message, (void)size;
    return SBE_OK;
}

static void begin_remote(void)
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

static void begin_channel(void)
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

static void ready(struct sbe_9p *which, int status)
{
    CHECK(which == &files);
    got.readies++;
    got.ready = status;
}

static void ended(struct sbe_9p *which)
{
    CHECK(which == &files);
    got.ends++;
}

static void done(struct sbe_9p_file *which, int status, const void *data, uint32_t size)
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

static void begin(void)
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

static void respond(uint64_t transaction, int status, const uint8_t *payload, uint32_t size,
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

static void answer_message(void)
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
static void export_(void)
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
static void run(void)
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

static void found(int status)
{
    struct sbe_service_reply reply = {.service = SERVICE};
    CHECK(remote.pending[0].id != 0);
    remote.pending[0].id = 0;
    remote.engine.hooks.replied(&remote.engine, &files.find, status, &reply.control);
}

static void start(void)
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
static int result(int begun)
{
    uint32_t dones = got.dones;
    CHECK_EQ(begun, SBE_OK);
    run();
    CHECK_EQ(got.dones, dones + 1);
    return got.done;
}

static int open_file(const char *path, uint32_t flags)
{
    return result(sbe_9p_open(&files, &file, path, (uint32_t)strlen(path), flags));
}

static void end(void)
{
    sbe_9p_end(&files);
    run();
    CHECK_EQ(got.ends, 1);
    CHECK_EQ(host.cancels, 1);
}

/* -- what it does ------------------------------------------------------------------------------ */

static void make_file(uint32_t size)
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

static bool is_content(const uint8_t *data, uint32_t offset, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++)
        if (data[i] != (uint8_t)((offset + i) * 7u + ((offset + i) >> 8)))
            return false;
    return true;
}

static void test_reading(void)
{
    struct sbe_buffer buffer = {
        .area = AREA, .direction = SBE_DIR_OUT, .size = 30000, .data = memory};
    start();
    make_file(40000);
    CHECK_EQ(open_file("/ram//./file", SBE_9P_READ), SBE_OK);
    CHECK_EQ(sbe_9p_inline(&files), SLOT_SIZE - sizeof(struct sbe_wire_frame) - 11);
    for (uint32_t at = 0; at < 40000; at += got.size) {
        CHECK_EQ(result(sbe_9p_read(&file, at, UINT32_MAX, NULL)), SBE_OK);
        CHECK(!got.by_reference && got.size > 0);
        CHECK(is_content(got.data, at, got.size));
    }
    CHECK_EQ(result(sbe_9p_read(&file, 40000, 100, NULL)), SBE_OK);
    CHECK_EQ(got.size, 0);
    memset(memory, 0, sizeof memory);
    CHECK_EQ(result(sbe_9p_read(&file, 5000, UINT32_MAX, &buffer)), SBE_OK);
    CHECK(got.by_reference);
    CHECK_EQ(got.size, 30000);
    CHECK(is_content(memory, 5000, 30000));
    CHECK_EQ(memory[30000], 0);
    CHECK_EQ(result(sbe_9p_read(&file, 39990, 100, &buffer)), SBE_OK);
    CHECK_EQ(got.size, 10);
    CHECK_EQ(result(sbe_9p_stat(&file)), SBE_OK);
    CHECK_EQ(got.stat.size, 40000);
    CHECK_EQ(got.stat.mode & 0170000u, 0100000u);
    CHECK_EQ(result(sbe_9p_close(&file)), SBE_OK);
    CHECK_EQ(host.session.used_fids, 1);
    CHECK_EQ(sbe_9p_close(&file), SBE_EBUSY);
    end();
}

static void test_writing(void)
{
    struct sbe_buffer buffer = {
        .area = AREA, .direction = SBE_DIR_IN, .size = 20000, .data = memory};
    start();
    make_file(10);
    CHECK_EQ(open_file("ram/file", SBE_9P_READ_WRITE | SBE_9P_TRUNCATE), SBE_OK);
    CHECK_EQ(result(sbe_9p_write(&file, 0, "some bytes", 10, NULL)), SBE_OK);
    CHECK_EQ(got.size, 10);
    CHECK_EQ(result(sbe_9p_read(&file, 5, 100, NULL)), SBE_OK);
    CHECK_EQ(got.size, 5);
    CHECK(memcmp(got.data, "bytes", 5) == 0);
    memset(memory, 0x5a, 20000);
    CHECK_EQ(result(sbe_9p_write(&file, 10, NULL, UINT32_MAX, &buffer)), SBE_OK);
    CHECK_EQ(got.size, 20000);
    CHECK_EQ(result(sbe_9p_write(&file, 0, memory, 20000, NULL)), SBE_OK);
    CHECK(got.size > 500 && got.size < SLOT_SIZE); /* what a frame holds */
    CHECK_EQ(result(sbe_9p_stat(&file)), SBE_OK);
    CHECK_EQ(got.stat.size, 20010);
    CHECK_EQ(result(sbe_9p_close(&file)), SBE_OK);
    end();
}

static void test_listing(void)
{
    struct sbe_9p_entry entry;
    uint32_t count = 0;
    uint64_t place = 0;
    start();
    CHECK_EQ(open_file("", SBE_9P_READ), SBE_OK);
    for (;;) {
        CHECK_EQ(result(sbe_9p_readdir(&file, place, 60)), SBE_OK); /* one or two at a time */
        const void *data = got.data;
        uint32_t size = got.size;
        if (size == 0)
            break;
        uint64_t before = place;
        while (sbe_9p_next(&data, &size, &entry)) {
            place = entry.next;
            CHECK(entry.name_size >= 3 && entry.name_size <= 8);
            count++;
        }
        if (place == before) /* "." and ".." alone */
            place = 2;
    }
    CHECK_EQ(count, 5);
    const void *data = "\0\1\2";
    uint32_t size = 3;
    CHECK(!sbe_9p_next(&data, &size, &entry));
    CHECK_EQ(result(sbe_9p_close(&file)), SBE_OK);
    end();
}

static void test_refusals(void)
{
    static const char *const long_one = "a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a";
    start();
    make_file(10);
    CHECK_EQ(open_file("nothing", SBE_9P_READ), SBE_ENOENT);
    CHECK(file.refused);
    CHECK_EQ(open_file("ram/nothing", SBE_9P_READ), SBE_ENOENT);
    CHECK(file.refused);
    CHECK_EQ(open_file("log", SBE_9P_WRITE), SBE_EACCES);
    CHECK(file.refused);
    CHECK_EQ(host.session.used_fids, 1); /* what was walked to is clunked */
    CHECK_EQ(sbe_9p_open(&files, &file, long_one, (uint32_t)strlen(long_one), 0), SBE_EINVAL);
    CHECK_EQ(sbe_9p_open(&files, &file, long_one, 256, 0), SBE_EINVAL);
    CHECK_EQ(sbe_9p_read(&file, 0, 1, NULL), SBE_EBUSY);
    CHECK_EQ(sbe_9p_stat(&file), SBE_EBUSY);
    CHECK_EQ(open_file("ram/file", SBE_9P_READ), SBE_OK);
    CHECK_EQ(sbe_9p_open(&files, &file, "log", 3, 0), SBE_EBUSY);
    CHECK_EQ(sbe_9p_read(&file, 0, 1, NULL), SBE_OK);
    CHECK_EQ(sbe_9p_read(&file, 0, 1, NULL), SBE_EBUSY);
    CHECK_EQ(sbe_9p_close(&file), SBE_EBUSY);
    run();
    CHECK_EQ(got.size, 1);
    end(); /* with the file open */
    CHECK_EQ(sbe_9p_read(&file, 0, 1, NULL), SBE_ESHUTDOWN);
    CHECK_EQ(sbe_9p_close(&file), SBE_ESHUTDOWN);
    CHECK_EQ(sbe_9p_open(&files, &file, "log", 3, 0), SBE_ESHUTDOWN);
}

static void test_a_file_waits_for_its_session(void)
{
    begin();
    make_file(10);
    CHECK_EQ(sbe_9p_begin(&files, &remote.engine, channel(), "files"), SBE_OK);
    CHECK_EQ(sbe_9p_open(&files, &file, "ram/file", 8, SBE_9P_READ), SBE_OK);
    found(SBE_OK);
    run();
    CHECK_EQ(got.dones, 1);
    CHECK_EQ(got.done, SBE_OK);
    end();
    begin();
    CHECK_EQ(sbe_9p_begin(&files, &remote.engine, channel(), "files"), SBE_OK);
    CHECK_EQ(sbe_9p_open(&files, &file, "ram/file", 8, SBE_9P_READ), SBE_OK);
    found(SBE_ENOENT);
    CHECK_EQ(got.dones, 1);
    CHECK_EQ(got.done, SBE_ENOENT);
    CHECK(!file.refused);
    CHECK_EQ(got.ready, SBE_ENOENT);
    CHECK_EQ(got.ends, 1);
    begin();
    CHECK_EQ(sbe_9p_begin(&files, &remote.engine, channel(), "files"), SBE_OK);
    CHECK_EQ(sbe_9p_open(&files, &file, "ram/file", 8, SBE_9P_READ), SBE_OK);
    sbe_9p_end(&files);
    CHECK_EQ(got.ends, 0); /* the question is still out */
    found(SBE_OK);
    CHECK_EQ(got.done, SBE_ESHUTDOWN);
    CHECK_EQ(got.readies, 0);
    CHECK_EQ(got.ends, 1);
    CHECK_EQ(host.messages, 0);
}

/* -- an exporter that goes, or has no time ------------------------------------------------------
 */

static void test_the_channel_closes(void)
{
    for (uint32_t step = 0; step < 6; step++) {
        begin();
        make_file(10);
        host.silent = step == 0;
        CHECK_EQ(sbe_9p_begin(&files, &remote.engine, channel(), "files"), SBE_OK);
        CHECK_EQ(sbe_9p_open(&files, &file, "ram/file", 8, SBE_9P_READ), SBE_OK);
        found(SBE_OK);
        if (step > 1)
            run();
        host.silent = true;
        if (step > 2)
            CHECK_EQ(sbe_9p_read(&file, 0, 10, NULL), SBE_OK);
        if (step > 3)
            sbe_9p_end(&files);
        remote.engine.hooks.channel_close(&remote.engine, &remote.session_channels[0]);
        CHECK_EQ(got.dones, step > 2 ? 2 : 1);
        CHECK_EQ(got.done, step == 2 ? SBE_OK : SBE_ESHUTDOWN);
        if (step > 1 && step < 4) {
            CHECK_EQ(sbe_9p_read(&file, 0, 10, NULL), SBE_ESHUTDOWN);
            CHECK_EQ(got.ends, 0);
            sbe_9p_end(&files);
        }
        CHECK_EQ(got.ends, 1);
    }
}

static void test_the_exporter_ends_the_session(void)
{
    start();
    make_file(10);
    CHECK_EQ(open_file("ram/file", SBE_9P_READ), SBE_OK);
    host.frame.buffer_count = 0;
    respond(host.open, SBE_ESHUTDOWN, NULL, 0, 0);
    sbe_channel_flush(&host.channel);
    run();
    CHECK(!sbe_9p_is_usable(&files));
    CHECK_EQ(sbe_9p_read(&file, 0, 10, NULL), SBE_ESHUTDOWN);
    CHECK_EQ(got.ends, 0);
    sbe_9p_end(&files);
    CHECK_EQ(got.ends, 1);
    CHECK_EQ(host.cancels, 0);
}

static void fill(void)
{
    struct sbe_frame frame = {.type = SBE_FRAME_EVENT};
    while (sbe_channel_room(channel()) > 0)
        CHECK_EQ(sbe_channel_send(channel(), &frame), SBE_OK);
}

/* Slots that were filled are let go of. */
static void drain(void)
{
    sbe_channel_flush(channel());
    while (sbe_channel_receive(&host.channel, &host.frame, host.scratch) == 1)
        CHECK_EQ(host.frame.type, SBE_FRAME_EVENT);
    (void)sbe_channel_idle(&host.channel);
}

static void test_a_full_ring(void)
{
    static struct sbe_9p_file other;
    start();
    make_file(10);
    memset(&other, 0, sizeof other);
    CHECK_EQ(open_file("ram/file", SBE_9P_READ), SBE_OK);
    fill();
    CHECK_EQ(sbe_9p_read(&file, 0, 10, NULL), SBE_EAGAIN);
    CHECK_EQ(sbe_9p_close(&file), SBE_EAGAIN); /* it is closed, and that is said later */
    CHECK_EQ(sbe_9p_close(&file), SBE_EBUSY);
    CHECK_EQ(sbe_9p_open(&files, &other, "log", 3, 0), SBE_EAGAIN);
    drain();
    CHECK_EQ(host.session.used_fids, 2);
    CHECK_EQ(open_file("log", SBE_9P_READ), SBE_OK);
    run();
    CHECK_EQ(host.session.used_fids, 2); /* the root and this one */
    fill();
    sbe_9p_end(&files);
    CHECK_EQ(got.ends, 0);
    drain();
    static struct sbe_9p another; /* whatever is done next says it */
    memset(&another, 0, sizeof another);
    another.ended = ended;
    CHECK_EQ(sbe_9p_begin(&another, &remote.engine, channel(), "files"), SBE_OK);
    run();
    CHECK_EQ(host.cancels, 1);
    CHECK_EQ(got.ends, 1);
}

/* -- an exporter that lies ----------------------------------------------------------------------
 */

static uint32_t seed;

static uint32_t random_number(uint32_t below)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % below;
}

static void lie(uint8_t *answer, uint32_t *size, int *status)
{
    if (random_number(4) != 0)
        return;
    switch (random_number(4)) {
    case 0:
        *status = random_number(2) == 0 ? SBE_EIO : SBE_OK;
        *size = random_number(*size + 1u);
        break;
    case 1:
        *size = *size < 900u ? *size + random_number(64) : *size;
        break;
    default:
        for (uint32_t i = random_number(3) + 1u; i > 0 && *size > 0; i--)
            answer[random_number(*size < 30u ? *size : 30u)] = (uint8_t)random_number(256);
    }
}

static int any_operation(void)
{
    static const char *const paths[] = {"ram/file", "", "log", "nothing"};
    struct sbe_buffer buffer = {.area = AREA, .size = 500, .data = memory};
    const char *path = paths[random_number(4)];
    switch (random_number(7)) {
    case 0:
        return sbe_9p_read(&file, random_number(12), 5000, NULL);
    case 1:
        return sbe_9p_read(&file, random_number(12), 400, &buffer);
    case 2:
        return sbe_9p_write(&file, 0, "0123456789", 10, NULL);
    case 3:
        return sbe_9p_stat(&file);
    case 4:
        return sbe_9p_readdir(&file, 0, 300);
    case 5:
        return sbe_9p_close(&file);
    default:
        return sbe_9p_open(&files, &file, path, (uint32_t)strlen(path), SBE_9P_READ);
    }
}

/* Whatever it says, each operation ends once, with what was asked for at most; and so does all. */
static void test_lies(void)
{
    for (seed = 1; seed < 300; seed++) {
        uint32_t first = seed;
        begin();
        make_file(10);
        host.mangle = lie;
        CHECK_EQ(sbe_9p_begin(&files, &remote.engine, channel(), "files"), SBE_OK);
        found(SBE_OK);
        run();
        CHECK_EQ(got.readies, 1);
        for (uint32_t i = 0; i < 60 && got.ready == SBE_OK; i++) {
            uint32_t dones = got.dones;
            int begun = any_operation();
            run();
            CHECK_EQ(got.dones, dones + (begun == SBE_OK));
            CHECK(got.size <= 5000);
        }
        if (got.ready == SBE_OK) {
            CHECK_EQ(got.ends, 0);
            sbe_9p_end(&files);
            run();
        }
        CHECK_EQ(got.ends, 1);
        seed = first;
    }
}

int main(void)
{
    test_reading();
    test_writing();
    test_listing();
    test_refusals();
    test_a_file_waits_for_its_session();
    test_the_channel_closes();
    test_the_exporter_ends_the_session();
    test_a_full_ring();
    test_lies();
    return 0;
}
