/* SPDX-License-Identifier: Apache-2.0 */
/* The server of 9P2000.L: content in pieces, what it holds, and clients that say anything. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "core/service.h"
#include "core/status.h"
#include "ninep/files.h"
#include "ninep/server.h"

#define ROOT  0u
#define PIECE 4096u

static struct ninep_session session;
static uint8_t built[65536];
static struct ninep_out out = {.at = built, .room = sizeof built};
static uint8_t reply[512];
static uint32_t reply_size, pieces;
static uint32_t seed = 1;

static uint32_t random_number(uint32_t below)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % below;
}

static void begin(uint8_t type)
{
    out.used = 4;
    ninep_put(&out, type, 1);
    ninep_put(&out, 1, 2);
}

static void put_text(const char *text)
{
    ninep_put_text(&out, text, (uint16_t)strlen(text));
}

/* Serves a message in memory of exactly its size, so that reading beyond it is seen; with data to
 * write, or room to read into. The errno of an Rlerror, 0, or a negative status. */
static int serve_bytes(const uint8_t *bytes, uint32_t size, const uint8_t *from, uint8_t *to,
                       uint64_t data_size)
{
    uint8_t *message = malloc(size == 0 ? 1 : size);
    CHECK(message != NULL);
    memcpy(message, bytes, size);
    struct ninep_call call = {
        .session = &session,
        .message = message,
        .message_size = size,
        .from = from,
        .to = to,
        .data_size = data_size,
        .reply = reply,
        .reply_room = sizeof reply,
        .piece = PIECE,
    };
    int status;
    for (pieces = 1; (status = ninep_serve(&call)) == SBE_MORE; pieces++)
        CHECK(pieces < 100000);
    free(message);
    reply_size = call.reply_size;
    if (status != SBE_OK)
        return status;
    struct ninep_in in = {.at = reply, .left = reply_size};
    CHECK_EQ(ninep_get_u32(&in), reply_size + call.written);
    uint8_t type = (uint8_t)ninep_get(&in, 1);
    CHECK(call.written <= data_size);
    (void)ninep_get(&in, 2);
    if (type == NINEP_RLERROR)
        return (int)ninep_get_u32(&in);
    CHECK_EQ(type, bytes[4] + 1);
    return 0;
}

static int serve(const uint8_t *from, uint8_t *to, uint64_t data_size)
{
    uint32_t size = out.used + (from == NULL ? 0 : (uint32_t)data_size), used = out.used;
    out.used = 0;
    ninep_put(&out, size, 4);
    return serve_bytes(built, used, from, to, data_size);
}

static int version(uint32_t msize, const char *name)
{
    begin(NINEP_TVERSION);
    ninep_put(&out, msize, 4);
    put_text(name);
    return serve(NULL, NULL, 0);
}

static int attach(uint32_t fid)
{
    begin(NINEP_TATTACH);
    ninep_put(&out, fid, 4);
    ninep_put(&out, NINEP_NOFID, 4);
    put_text("root");
    put_text("");
    ninep_put(&out, 0, 4);
    return serve(NULL, NULL, 0);
}

static int walk(uint32_t fid, uint32_t to, const char *one, const char *other)
{
    begin(NINEP_TWALK);
    ninep_put(&out, fid, 4);
    ninep_put(&out, to, 4);
    ninep_put(&out, (one != NULL) + (other != NULL ? 1u : 0u), 2);
    if (one != NULL)
        put_text(one);
    if (other != NULL)
        put_text(other);
    return serve(NULL, NULL, 0);
}

static int on_fid(uint8_t type, uint32_t fid)
{
    begin(type);
    ninep_put(&out, fid, 4);
    return serve(NULL, NULL, 0);
}

static int create(uint32_t fid, const char *name)
{
    begin(NINEP_TLCREATE);
    ninep_put(&out, fid, 4);
    put_text(name);
    ninep_put(&out, NINEP_RDWR, 4);
    ninep_put(&out, 0644, 4);
    ninep_put(&out, 0, 4);
    return serve(NULL, NULL, 0);
}

static int move_data(uint8_t type, uint32_t fid, uint64_t offset, const uint8_t *from, uint8_t *to,
                     uint32_t size)
{
    begin(type);
    ninep_put(&out, fid, 4);
    ninep_put(&out, offset, 8);
    ninep_put(&out, size, 4);
    return serve(from, to, size);
}

/* What the reply says at this place behind its header. */
static uint32_t said(uint32_t at)
{
    struct ninep_in in = {.at = reply + NINEP_HEADER + at, .left = 4};
    return ninep_get_u32(&in);
}

static void start(void)
{
    ninep_files_init();
    ninep_session_reset(&session);
    CHECK_EQ(version(NINEP_MSIZE, "9P2000.L"), 0);
    CHECK_EQ(said(0), NINEP_MSIZE);
    CHECK_EQ(attach(ROOT), 0);
}

static void test_content_in_pieces(void)
{
    enum {
        SIZE = 100000
    };
    uint8_t *data = malloc(SIZE), *back = malloc(SIZE);
    CHECK(data != NULL && back != NULL);
    for (uint32_t i = 0; i < SIZE; i++)
        data[i] = (uint8_t)random_number(256);
    start();
    struct ninep_usage before = ninep_tree_usage();
    CHECK_EQ(walk(ROOT, 1, "ram", NULL), 0);
    CHECK_EQ(create(1, "file"), 0);
    CHECK_EQ(move_data(NINEP_TWRITE, 1, 0, data, NULL, SIZE), 0);
    CHECK_EQ(said(0), SIZE);
    CHECK_EQ(pieces, (SIZE + PIECE - 1) / PIECE);
    CHECK_EQ(move_data(NINEP_TREAD, 1, 0, NULL, back, SIZE), 0);
    CHECK_EQ(said(0), SIZE);
    CHECK(memcmp(data, back, SIZE) == 0);
    CHECK_EQ(move_data(NINEP_TREAD, 1, SIZE - 5, NULL, back, SIZE), 0);
    CHECK_EQ(said(0), 5);
    CHECK(memcmp(data + SIZE - 5, back, 5) == 0);
    CHECK_EQ(move_data(NINEP_TWRITE, 1, 10 * SIZE, data, NULL, 1), 0); /* clears what is between */
    CHECK(pieces > 9 * SIZE / PIECE);
    CHECK_EQ(on_fid(NINEP_TREMOVE, 1), 0);
    struct ninep_usage after = ninep_tree_usage();
    CHECK_EQ(after.free_blocks, before.free_blocks);
    CHECK_EQ(after.free_nodes, before.free_nodes);
    free(data);
    free(back);
}

static void test_a_session_lets_go_of_all(void)
{
    start();
    struct ninep_usage before = ninep_tree_usage();
    uint8_t byte = 1;
    for (uint32_t i = 1; i < 50; i++) {
        CHECK_EQ(walk(ROOT, i, "ram", NULL), 0);
        CHECK_EQ(create(i, "file"), 0);
        CHECK_EQ(move_data(NINEP_TWRITE, i, 0, &byte, NULL, 1), 0);
        CHECK_EQ(walk(ROOT, 1000, "ram", NULL), 0);
        begin(NINEP_TUNLINKAT);
        ninep_put(&out, 1000, 4);
        put_text("file");
        ninep_put(&out, 0, 4);
        CHECK_EQ(serve(NULL, NULL, 0), 0);
        CHECK_EQ(on_fid(NINEP_TCLUNK, 1000), 0);
    }
    CHECK_EQ(session.used_fids, 50);
    CHECK_EQ(ninep_tree_usage().free_nodes, before.free_nodes - 49);
    ninep_session_reset(&session);
    CHECK_EQ(session.used_fids, 0);
    CHECK_EQ(ninep_tree_usage().free_nodes, before.free_nodes);
    CHECK_EQ(ninep_tree_usage().free_blocks, before.free_blocks);
    CHECK_EQ(on_fid(NINEP_TCLUNK, 1), -SBE_EPROTO);
}

/* As fid 1. */
static void open_file(const char *one, const char *other, uint32_t flags)
{
    CHECK_EQ(walk(ROOT, 1, one, other), 0);
    begin(NINEP_TLOPEN);
    ninep_put(&out, 1, 4);
    ninep_put(&out, flags, 4);
    CHECK_EQ(serve(NULL, NULL, 0), 0);
}

static int refuse_odd(struct ninep_setting *setting, int32_t value)
{
    (void)setting;
    return value % 2 == 0 ? SBE_OK : SBE_EBUSY;
}

static void test_a_setting_of_the_firmware(void)
{
    static struct ninep_setting setting = {
        .value = -3, .least = INT32_MIN, .most = 100, .changed = refuse_odd};
    uint8_t text[16];
    CHECK_EQ(ninep_add_setting(&setting, "gain"), SBE_OK);
    CHECK_EQ(ninep_add_setting(&setting, "gain"), SBE_EEXIST);
    CHECK_EQ(ninep_add_setting(&setting, "a/b"), SBE_EINVAL);
    CHECK_EQ(ninep_add_setting(&setting, ".."), SBE_EINVAL);
    start();
    open_file("config", "gain", NINEP_RDWR);
    CHECK_EQ(move_data(NINEP_TREAD, 1, 0, NULL, text, sizeof text), 0);
    CHECK_EQ(said(0), 3);
    CHECK(memcmp(text, "-3\n", 3) == 0);
    CHECK_EQ(move_data(NINEP_TWRITE, 1, 0, (const uint8_t *)"-2147483648\n", NULL, 12), 0);
    CHECK_EQ(setting.value, INT32_MIN);
    CHECK_EQ(move_data(NINEP_TREAD, 1, 0, NULL, text, sizeof text), 0);
    CHECK_EQ(said(0), 12);
    CHECK(memcmp(text, "-2147483648\n", 12) == 0);
    CHECK_EQ(move_data(NINEP_TWRITE, 1, 0, (const uint8_t *)"-2147483649", NULL, 11), -SBE_ERANGE);
    CHECK_EQ(move_data(NINEP_TWRITE, 1, 0, (const uint8_t *)"7", NULL, 1), -SBE_EBUSY);
    CHECK_EQ(setting.value, INT32_MIN);
}

static void test_the_log_keeps_the_newest(void)
{
    static uint8_t text[NINEP_LOG + 100];
    char line[32];
    for (uint32_t i = 0; i < NINEP_LOG / 8; i++) {
        (void)snprintf(line, sizeof line, "line %u of many", i);
        ninep_log(line);
    }
    start();
    open_file("log", NULL, 0);
    CHECK_EQ(move_data(NINEP_TREAD, 1, 0, NULL, text, sizeof text), 0);
    CHECK_EQ(said(0), NINEP_LOG);
    size_t size = strlen(line);
    CHECK(memcmp(text + NINEP_LOG - size - 1, line, size) == 0);
    CHECK_EQ(text[NINEP_LOG - 1], '\n');
}

static void test_the_crash_is_told(void)
{
    uint8_t text[32];
    ninep_set_crash("it fell\n");
    start();
    open_file("crash", NULL, 0);
    CHECK_EQ(move_data(NINEP_TREAD, 1, 0, NULL, text, sizeof text), 0);
    CHECK(memcmp(text, "it fell\n", said(0)) == 0);
    ninep_set_crash(NULL);
}

static void test_what_is_no_message(void)
{
    start();
    const uint8_t short_one[] = {6, 0, 0, 0, NINEP_TCLUNK, 1};
    for (uint32_t size = 0; size <= sizeof short_one; size++)
        CHECK_EQ(serve_bytes(short_one, size, NULL, NULL, 0), SBE_EBADMSG);
    const uint8_t lies[] = {12, 0, 0, 0, NINEP_TCLUNK, 1, 0, 1, 0, 0, 0};
    CHECK_EQ(serve_bytes(lies, sizeof lies, NULL, NULL, 0), SBE_EBADMSG);
    CHECK_EQ(version(512, "9P2000.L"), 0);
    CHECK_EQ(attach(ROOT), 0);
    static const uint8_t data[1000];
    CHECK_EQ(move_data(NINEP_TWRITE, ROOT, 0, data, NULL, 490), SBE_EBADMSG); /* 513 bytes */
}

/* Of all types, with fids that are there mostly, and names that may be. */
static void put_random_message(void)
{
    static const char *const NAMES[] = {"ram", "config", "log", "..", "a", "b", "c", "read_only"};
    static const uint8_t TYPES[] = {8,  12, 14,  20,  24,  26,  40,  50,  72,
                                    74, 76, 104, 108, 110, 116, 118, 120, 122};
    begin(TYPES[random_number(sizeof TYPES)]);
    uint32_t fields = random_number(6);
    ninep_put(&out, random_number(8), 4);
    for (uint32_t i = 0; i < fields; i++) {
        switch (random_number(5)) {
        case 0:
            put_text(NAMES[random_number(8)]);
            break;
        case 1:
            ninep_put(&out, random_number(8), 4);
            break;
        case 2:
            ninep_put(&out, random_number(3), 2);
            break;
        case 3:
            ninep_put(&out, random_number(100000), random_number(2) * 4 + 4);
            break;
        default:
            ninep_put(&out, (uint64_t)random_number(1u << 24) << random_number(40), 8);
        }
    }
}

static void test_messages_at_random(void)
{
    uint8_t data[5000] = {0};
    start();
    for (uint32_t i = 0; i < 300000; i++) {
        put_random_message();
        uint32_t how = random_number(3), size = random_number(sizeof data);
        (void)serve(how == 0 ? data : NULL, how == 1 ? data : NULL, how == 2 ? 0 : size);
        if (i % 5000 == 0)
            start();
    }
    ninep_session_reset(&session);
    CHECK_EQ(session.used_fids, 0);
}

int main(void)
{
    test_content_in_pieces();
    test_a_session_lets_go_of_all();
    test_a_setting_of_the_firmware();
    test_the_log_keeps_the_newest();
    test_the_crash_is_told();
    test_what_is_no_message();
    test_messages_at_random();
    return 0;
}
