/* SPDX-License-Identifier: Apache-2.0 */
/* The channel: frames in and out, malformed ones one rule at a time, transactions, doorbells. */
#include "core/channel.h"

#include <string.h>

#include "check.h"
#include "core/status.h"

#define SLOTS     8u
#define SLOT_SIZE 512u
#define LINE      64u
#define CALLS     4u
#define CONTEXT   7u
#define AREA      (3u << 16 | 1u)

static const struct sbe_ring_geometry GEOMETRY = {SLOTS, SLOT_SIZE, LINE};

static uint8_t area_bytes[4096];
static int owner_a, owner_b;

/* Two ends of one channel; end 0 asks, end 1 answers. */
struct pair {
    _Alignas(LINE) uint8_t memory[2][2 * LINE + SLOTS * SLOT_SIZE];
    uint8_t scratch[2][SLOT_SIZE];
    struct sbe_channel ends[2];
    struct sbe_call calls[CALLS];
    struct sbe_area areas[4];
    struct sbe_area_table table;
    struct sbe_port port;
    uint64_t now_ns;
    uint32_t rung[2];
    struct sbe_frame frame;
};

static struct pair pair;

static uint64_t now_ns(void *self)
{
    return ((struct pair *)self)->now_ns;
}

static void doorbell(void *self, const struct sbe_channel *channel)
{
    struct pair *of = self;
    of->rung[channel == &of->ends[0] ? 0 : 1]++;
}

static void open_pair(uint32_t start)
{
    memset(&pair, 0, sizeof pair);
    pair.port = (struct sbe_port){.self = &pair, .now_ns = now_ns, .doorbell = doorbell};
    pair.table = (struct sbe_area_table){.areas = pair.areas, .count = 4};
    struct sbe_area *area;
    CHECK_EQ(sbe_area_add(&pair.table, AREA, CONTEXT, 0, sizeof area_bytes, &area), SBE_OK);
    area->base = area_bytes;
    for (uint32_t i = 0; i < 2; i++)
        sbe_ring_clear(pair.memory[i], &GEOMETRY, start);
    for (uint32_t i = 0; i < 2; i++) {
        struct sbe_channel_config config = {
            .id = 1,
            .context = CONTEXT,
            .geometry = GEOMETRY,
            .send = pair.memory[i],
            .receive = pair.memory[1 - i],
            .port = &pair.port,
            .areas = &pair.table,
            .calls = i == 0 ? pair.calls : NULL,
            .call_count = i == 0 ? CALLS : 0,
            .flush_interval = SLOTS,
        };
        CHECK_EQ(sbe_channel_open(&pair.ends[i], &config), SBE_OK);
    }
}

static int receive(uint32_t end)
{
    return sbe_channel_receive(&pair.ends[end], &pair.frame, pair.scratch[end]);
}

/* Exactly one frame comes out at this end. */
static void receive_one(uint32_t end)
{
    CHECK_EQ(receive(end), 1);
}

static struct sbe_frame request_frame(const void *payload, uint32_t size)
{
    return (struct sbe_frame){
        .type = SBE_FRAME_REQUEST,
        .service = 5,
        .payload = payload,
        .payload_size = size,
    };
}

static uint64_t ask(void *owner)
{
    struct sbe_frame frame = request_frame("hello", 5);
    CHECK_EQ(sbe_channel_request(&pair.ends[0], &frame, owner), SBE_OK);
    sbe_channel_flush(&pair.ends[0]);
    return frame.transaction;
}

static void answer(uint64_t transaction)
{
    struct sbe_frame frame = {.type = SBE_FRAME_RESPONSE, .transaction = transaction};
    CHECK_EQ(sbe_channel_send(&pair.ends[1], &frame), SBE_OK);
    sbe_channel_flush(&pair.ends[1]);
}

/* -- sending ------------------------------------------------------------------------------- */

static void test_round_trip(void)
{
    open_pair(0xfffffffdu);
    for (uint32_t round = 0; round < 20; round++) {
        uint64_t transaction = ask(&owner_a);
        receive_one(1);
        CHECK_EQ(pair.frame.type, SBE_FRAME_REQUEST);
        CHECK_EQ(pair.frame.service, 5);
        CHECK_EQ(pair.frame.transaction, transaction);
        CHECK_EQ(pair.frame.payload_size, 5);
        CHECK(memcmp(pair.frame.payload, "hello", 5) == 0);
        CHECK_EQ(receive(1), 0);
        answer(transaction);
        receive_one(0);
        CHECK(pair.frame.owner == &owner_a);
        CHECK_EQ(receive(0), 0);
    }
}

static void test_bad_config(void)
{
    open_pair(0);
    struct sbe_channel channel;
    struct sbe_channel_config config = {
        .geometry = {SLOTS, 100, LINE},
        .send = pair.memory[0],
        .receive = pair.memory[1],
    };
    CHECK_EQ(sbe_channel_open(&channel, &config), SBE_EINVAL);
    config.geometry = GEOMETRY;
    config.call_count = UINT16_MAX + 2u;
    CHECK_EQ(sbe_channel_open(&channel, &config), SBE_EINVAL);
}

/* Fits to the byte, one more is refused, and nothing lands beside the slot. */
static void test_too_large(void)
{
    static uint8_t bytes[SLOT_SIZE];
    for (uint32_t buffers = 0; buffers <= SBE_BUFFERS_MAX; buffers++) {
        uint32_t used = 40 + 24 * buffers;
        open_pair(0);
        uint8_t *slots = pair.memory[0] + 2 * LINE;
        memset(slots, 0x5c, SLOTS * SLOT_SIZE);
        struct sbe_frame frame = request_frame(bytes, 0);
        frame.transaction = 1;
        frame.buffer_count = (uint16_t)buffers;
        for (uint32_t i = 0; i < buffers; i++)
            frame.buffers[i] = (struct sbe_buffer){.area = AREA, .direction = SBE_DIR_IN};
        CHECK_EQ(sbe_channel_payload_room(&pair.ends[0], buffers, 0), SLOT_SIZE - used);
        frame.payload_size = SLOT_SIZE - used + 1;
        CHECK_EQ(sbe_channel_send(&pair.ends[0], &frame), SBE_EMSGSIZE);
        frame.payload_size = SLOT_SIZE - used;
        CHECK_EQ(sbe_channel_send(&pair.ends[0], &frame), SBE_OK);
        sbe_channel_flush(&pair.ends[0]);
        for (uint32_t i = SLOT_SIZE; i < SLOTS * SLOT_SIZE; i++)
            CHECK_EQ(slots[i], 0x5c);
        receive_one(1);
        CHECK_EQ(pair.frame.status, SBE_OK);
        CHECK_EQ(pair.frame.buffer_count, buffers);
    }
}

/* Buffers alone may be too many for a slot, although no payload follows them. */
static void test_buffers_too_large(void)
{
    static const struct sbe_ring_geometry SMALL = {2, 64, LINE};
    static _Alignas(LINE) uint8_t memory[2][2 * LINE + 2 * 64];
    struct sbe_channel channel;
    open_pair(0);
    struct sbe_channel_config config = {
        .geometry = SMALL, .send = memory[0], .receive = memory[1], .port = &pair.port};
    sbe_ring_clear(memory[0], &SMALL, 0);
    sbe_ring_clear(memory[1], &SMALL, 0);
    CHECK_EQ(sbe_channel_open(&channel, &config), SBE_OK);
    struct sbe_frame frame = {.type = SBE_FRAME_MESSAGE, .buffer_count = 2};
    CHECK_EQ(sbe_channel_send(&channel, &frame), SBE_EMSGSIZE);
    frame.buffer_count = 1;
    CHECK_EQ(sbe_channel_send(&channel, &frame), SBE_OK);
    /* exactly one fits, and with it no inline byte */
    CHECK_EQ(sbe_channel_payload_room(&channel, 1, 0), 0);
    frame.buffers[0] =
        (struct sbe_buffer){.direction = SBE_DIR_IN, .flags = SBE_BUFFER_INLINE, .size = 1};
    frame.buffers[0].data = area_bytes;
    CHECK_EQ(sbe_channel_send(&channel, &frame), SBE_EMSGSIZE);
    for (uint64_t size = 1; size != 0; size <<= 1) {
        frame.buffers[0].size = size - 1 + SLOT_SIZE;
        CHECK_EQ(sbe_channel_send(&channel, &frame), SBE_EMSGSIZE);
    }
}

/* A count beyond the array is refused before the array is looked at. */
static void test_count_beyond_array(void)
{
    open_pair(0);
    struct sbe_frame *frame = malloc(sizeof *frame); /* so that reading past it is seen */
    CHECK(frame != NULL);
    *frame = request_frame(NULL, 0);
    for (uint32_t i = 0; i < SBE_BUFFERS_MAX; i++)
        frame->buffers[i] = (struct sbe_buffer){.direction = SBE_DIR_IN, .flags = 1};
    frame->buffer_count = SBE_BUFFERS_MAX + 1;
    CHECK_EQ(sbe_channel_send(&pair.ends[0], frame), SBE_EMSGSIZE);
    frame->buffer_count = UINT16_MAX;
    CHECK_EQ(sbe_channel_request(&pair.ends[0], frame, &owner_a), SBE_EMSGSIZE);
    CHECK_EQ(sbe_channel_payload_room(&pair.ends[0], SBE_BUFFERS_MAX + 1, 0), 0);
    CHECK_EQ(sbe_channel_payload_room(&pair.ends[0], UINT32_MAX, 0), 0);
    CHECK_EQ(sbe_channel_payload_room(&pair.ends[0], 0, UINT64_MAX), 0);
    free(frame);
}

/* What the peer takes may be less than what this end could send: more is never sent. */
static void test_agreed_buffers(void)
{
    static const uint32_t GIVEN[] = {0, 1, 2, SBE_BUFFERS_MAX, SBE_BUFFERS_MAX + 1, UINT32_MAX};
    for (uint32_t i = 0; i < sizeof GIVEN / sizeof GIVEN[0]; i++) {
        uint32_t most = GIVEN[i] == 0 || GIVEN[i] > SBE_BUFFERS_MAX ? SBE_BUFFERS_MAX : GIVEN[i];
        struct sbe_channel channel;
        open_pair(0);
        struct sbe_channel_config config = {
            .geometry = GEOMETRY,
            .send = pair.memory[0],
            .receive = pair.memory[1],
            .port = &pair.port,
            .buffers = GIVEN[i],
        };
        CHECK_EQ(sbe_channel_open(&channel, &config), SBE_OK);
        struct sbe_frame frame = {.type = SBE_FRAME_MESSAGE, .buffer_count = (uint16_t)(most + 1)};
        for (uint32_t b = 0; b < SBE_BUFFERS_MAX; b++)
            frame.buffers[b] = (struct sbe_buffer){.area = AREA, .direction = SBE_DIR_IN};
        CHECK_EQ(sbe_channel_send(&channel, &frame), SBE_EMSGSIZE);
        CHECK_EQ(sbe_channel_payload_room(&channel, most + 1, 0), 0);
        CHECK_EQ(channel.counters.sent, 0);
        frame.buffer_count = (uint16_t)most;
        CHECK_EQ(sbe_channel_send(&channel, &frame), SBE_OK);
        CHECK(sbe_channel_payload_room(&channel, most, 0) > 0);
    }
}

static void test_full(void)
{
    open_pair(0);
    struct sbe_frame frame = {.type = SBE_FRAME_MESSAGE};
    for (uint32_t i = 0; i < SLOTS; i++)
        CHECK_EQ(sbe_channel_send(&pair.ends[0], &frame), SBE_OK);
    CHECK_EQ(sbe_channel_send(&pair.ends[0], &frame), SBE_EAGAIN);
    CHECK_EQ(pair.ends[0].counters.full, 1);
    CHECK_EQ(sbe_channel_room(&pair.ends[0]), 0);
    for (uint32_t i = 0; i < SLOTS; i++)
        receive_one(1);
    CHECK_EQ(receive(1), 0);
    CHECK_EQ(sbe_channel_room(&pair.ends[0]), SLOTS);
    pair.ends[0].promised = 3;
    CHECK_EQ(sbe_channel_room(&pair.ends[0]), SLOTS - 3);
    pair.ends[0].promised = SLOTS + 1;
    CHECK_EQ(sbe_channel_room(&pair.ends[0]), 0);
}

/* -- inline buffers ------------------------------------------------------------------------ */

static struct sbe_buffer inline_buffer(uint8_t direction, void *data, uint64_t size)
{
    return (struct sbe_buffer){
        .direction = direction, .flags = SBE_BUFFER_INLINE, .data = data, .size = size};
}

static void test_inline(void)
{
    open_pair(0);
    uint8_t in[] = "input", inout[] = "both", out[8] = "written";
    struct sbe_frame frame = request_frame("P", 1);
    frame.buffer_count = 3;
    frame.buffers[0] = inline_buffer(SBE_DIR_IN, in, 5);
    frame.buffers[1] = inline_buffer(SBE_DIR_OUT, NULL, 7);
    frame.buffers[2] = inline_buffer(SBE_DIR_INOUT, inout, 4);
    CHECK_EQ(sbe_channel_request(&pair.ends[0], &frame, &owner_a), SBE_OK);
    uint64_t transaction = frame.transaction;
    sbe_channel_flush(&pair.ends[0]);
    receive_one(1);
    CHECK_EQ(pair.frame.status, SBE_OK);
    CHECK_EQ(pair.frame.buffer_count, 3);
    CHECK(memcmp(pair.frame.payload, "P", 1) == 0);
    CHECK(memcmp(pair.frame.buffers[0].data, "input", 5) == 0);
    CHECK(pair.frame.buffers[1].data == NULL); /* carries no bytes on this way */
    CHECK_EQ(pair.frame.buffers[1].size, 7);
    CHECK(memcmp(pair.frame.buffers[2].data, "both", 4) == 0);

    frame = (struct sbe_frame){
        .type = SBE_FRAME_RESPONSE, .transaction = transaction, .buffer_count = 2};
    frame.buffers[0] = inline_buffer(SBE_DIR_OUT, out, 6);
    frame.buffers[1] = inline_buffer(SBE_DIR_INOUT, inout, 0);
    CHECK_EQ(sbe_channel_send(&pair.ends[1], &frame), SBE_OK);
    sbe_channel_flush(&pair.ends[1]);
    receive_one(0);
    CHECK(memcmp(pair.frame.buffers[0].data, "writte", 6) == 0);
    CHECK_EQ(pair.frame.buffers[1].size, 0);
}

/* What the caller or an earlier frame has left in fields that mean nothing is not sent. */
static void test_reserved_fields_are_zero(void)
{
    open_pair(0);
    memset(pair.memory[0] + 2 * LINE, 0xaa, SLOTS * SLOT_SIZE);
    struct sbe_frame frame = request_frame("P", 1);
    frame.flags = 0x5a;
    frame.reserved = 0x5a5a;
    frame.buffer_count = 1;
    frame.buffers[0] = (struct sbe_buffer){
        .area = AREA, .direction = SBE_DIR_IN, .reserved = 0x5a5a, .size = 1, .data = area_bytes};
    CHECK_EQ(sbe_channel_send(&pair.ends[0], &frame), SBE_OK);
    struct sbe_wire_frame header;
    struct sbe_wire_buffer buffer;
    memcpy(&header, pair.memory[0] + 2 * LINE, sizeof header);
    memcpy(&buffer, pair.memory[0] + 2 * LINE + sizeof header, sizeof buffer);
    CHECK_EQ(header.flags, 0);
    CHECK_EQ(header.reserved, 0);
    CHECK_EQ(buffer.reserved, 0);
}

/* -- malformed frames ---------------------------------------------------------------------- */

/* Writes raw bytes as end 0 would, past all its checks. */
static void send_raw(const struct sbe_wire_frame *header, const void *rest, uint32_t size)
{
    void *slot;
    CHECK_EQ(sbe_ring_reserve(&pair.ends[0].tx, &slot), SBE_OK);
    memset(slot, 0xee, SLOT_SIZE);
    memcpy(slot, header, sizeof *header);
    if (size != 0)
        memcpy((uint8_t *)slot + sizeof *header, rest, size);
    sbe_ring_commit(&pair.ends[0].tx);
    sbe_ring_publish(&pair.ends[0].tx);
}

struct raw {
    struct sbe_wire_frame header;
    struct sbe_wire_buffer buffers[2];
    uint8_t payload[16];
};

/* A legal request: an IN buffer in the area, an inline INOUT one of 4 bytes, 8 bytes of payload. */
static struct raw legal(void)
{
    return (struct raw){
        .header = {.size = 40 + 48 + 8 + 4,
                   .type = SBE_FRAME_REQUEST,
                   .service = 1,
                   .transaction = 0x100000002u,
                   .buffer_count = 2,
                   .payload_size = 8},
        .buffers = {{.area = AREA, .direction = SBE_DIR_IN, .offset = 16, .size = 32},
                    {.direction = SBE_DIR_INOUT, .flags = SBE_BUFFER_INLINE, .size = 4}},
        .payload = "payload:INLN",
    };
}

#define RULE(name, change)            \
    static void name(struct raw *raw) \
    {                                 \
        change;                       \
    }                                 \
    _Static_assert(1, "")

RULE(short_header, raw->header.size = 39);
RULE(no_size, raw->header.size = 0);
RULE(beyond_slot, raw->header.size = SLOT_SIZE + 1);
RULE(huge_size, raw->header.size = UINT32_MAX);
RULE(trailing_byte, raw->header.size++);
RULE(one_byte_short, raw->header.size--);
RULE(flags, raw->header.flags = 1);
RULE(reserved, raw->header.reserved = 1);
RULE(status_in_request, raw->header.status = -1);
RULE(positive_status, raw->header.status = 1);
RULE(payload_overrun, raw->header.payload_size = SLOT_SIZE);
RULE(payload_wrap, raw->header.payload_size = UINT32_MAX);
RULE(payload_less, raw->header.payload_size--);
RULE(count_beyond_array, raw->header.buffer_count = SBE_BUFFERS_MAX + 1);
RULE(count_huge, raw->header.buffer_count = UINT16_MAX);
RULE(count_beyond_frame, raw->header.buffer_count = 3);
RULE(half_a_record, (raw->header.size = 40 + 24 + 12, raw->header.payload_size = 0));
RULE(count_less, raw->header.buffer_count = 1);
RULE(direction_none, raw->buffers[0].direction = 0);
RULE(direction_unknown, raw->buffers[0].direction = 5);
RULE(direction_high, raw->buffers[0].direction = 0x81);
RULE(buffer_flags, raw->buffers[0].flags = 2);
RULE(buffer_reserved, raw->buffers[1].reserved = 1);
RULE(inline_area, raw->buffers[1].area = AREA);
RULE(inline_offset, raw->buffers[1].offset = 1);
RULE(inline_shared, raw->buffers[1].direction = SBE_DIR_SHARED);
RULE(inline_overrun, raw->buffers[1].size = 5);
RULE(inline_huge, raw->buffers[1].size = UINT64_MAX);
RULE(inline_wrap, raw->buffers[1].size = 0x100000004u);
RULE(inline_out_with_bytes, raw->buffers[1].direction = SBE_DIR_OUT);
RULE(sync_with_payload, raw->header.type = SBE_FRAME_SYNC);

/* Requests: answered with the reason, and their contents are not looked at. */
static void (*const REFUSED[])(struct raw *) = {
    short_header,       no_size,        beyond_slot,     huge_size,          trailing_byte,
    one_byte_short,     flags,          reserved,        status_in_request,  positive_status,
    payload_overrun,    payload_wrap,   payload_less,    count_beyond_array, count_huge,
    count_beyond_frame, half_a_record,  count_less,      direction_none,     direction_unknown,
    direction_high,     buffer_flags,   buffer_reserved, inline_area,        inline_offset,
    inline_shared,      inline_overrun, inline_huge,     inline_wrap,        inline_out_with_bytes,
    sync_with_payload,
};

RULE(type_none, raw->header.type = 0);
RULE(type_unknown, raw->header.type = 7);
RULE(type_high, raw->header.type = 0xff);
RULE(no_transaction, raw->header.transaction = 0);
RULE(sync_no_transaction, (raw->header.type = SBE_FRAME_SYNC, raw->header.transaction = 0));
RULE(message_with_transaction, raw->header.type = SBE_FRAME_MESSAGE);
RULE(event_with_transaction, raw->header.type = SBE_FRAME_EVENT);
RULE(cancel_with_body, raw->header.type = SBE_FRAME_CANCEL);

/* Nobody to answer: dropped and counted. */
static void (*const DROPPED[])(struct raw *) = {
    type_none,
    type_unknown,
    type_high,
    no_transaction,
    sync_no_transaction,
    message_with_transaction,
    event_with_transaction,
    cancel_with_body,
};

static void send_rest(const struct raw *raw)
{
    send_raw(&raw->header, raw->buffers, sizeof *raw - sizeof raw->header);
}

static void test_malformed(void)
{
    struct raw raw = legal();
    open_pair(0);
    send_rest(&raw);
    receive_one(1);
    CHECK_EQ(pair.frame.status, SBE_OK);
    CHECK(memcmp(pair.frame.buffers[1].data, "INLN", 4) == 0);
    CHECK(pair.frame.buffers[0].data == area_bytes + 16);
    CHECK_EQ(pair.ends[1].counters.bad, 0);
    for (uint32_t i = 0; i < sizeof REFUSED / sizeof REFUSED[0]; i++) {
        raw = legal();
        REFUSED[i](&raw);
        send_rest(&raw);
        if (receive(1) != 1 || pair.frame.status != SBE_EBADMSG)
            fprintf(stderr, "rule %u of REFUSED\n", i);
        CHECK_EQ(pair.frame.status, SBE_EBADMSG);
        CHECK_EQ(pair.frame.transaction, raw.header.transaction);
        CHECK_EQ(pair.frame.buffer_count, 0);
        CHECK_EQ(pair.frame.payload_size, 0);
        CHECK_EQ(pair.ends[1].counters.bad, i + 1);
        /* the ring goes on behind it */
        raw = legal();
        send_rest(&raw);
        receive_one(1);
        CHECK_EQ(pair.frame.status, SBE_OK);
        CHECK_EQ(receive(1), 0);
    }
    open_pair(0);
    for (uint32_t i = 0; i < sizeof DROPPED / sizeof DROPPED[0]; i++) {
        raw = legal();
        DROPPED[i](&raw);
        send_rest(&raw);
        int status = receive(1);
        if (status != SBE_EBADMSG)
            fprintf(stderr, "rule %u of DROPPED\n", i);
        CHECK_EQ(status, SBE_EBADMSG);
        CHECK_EQ(pair.ends[1].counters.bad, i + 1);
        CHECK_EQ(receive(1), 0);
    }
}

/* More records than a frame has places, all of them there and legal. */
static void test_more_buffers_than_places(void)
{
    static const uint32_t COUNT = SBE_BUFFERS_MAX + 1;
    struct sbe_wire_buffer buffers[SBE_BUFFERS_MAX + 1];
    struct sbe_wire_frame header = {.size = sizeof header + sizeof buffers,
                                    .type = SBE_FRAME_MESSAGE,
                                    .buffer_count = (uint16_t)COUNT};
    struct sbe_frame *frame = malloc(sizeof *frame); /* so that writing past it is seen */
    CHECK(frame != NULL);
    open_pair(0);
    for (uint32_t i = 0; i < COUNT; i++)
        buffers[i] = (struct sbe_wire_buffer){.area = AREA, .direction = SBE_DIR_IN};
    send_raw(&header, buffers, sizeof buffers);
    CHECK_EQ(sbe_channel_receive(&pair.ends[1], frame, pair.scratch[1]), SBE_EBADMSG);
    CHECK_EQ(pair.ends[1].counters.bad, 1);
    free(frame);
}

/* A malformed response ends the call it names, with the reason; one that names none is late. */
static void test_malformed_response(void)
{
    open_pair(0);
    uint64_t transaction = ask(&owner_a);
    for (uint32_t i = 0; i < 2; i++) {
        struct sbe_wire_frame header = {
            .size = 39, .type = SBE_FRAME_RESPONSE, .transaction = transaction, .buffer_count = 9};
        void *slot;
        CHECK_EQ(sbe_ring_reserve(&pair.ends[1].tx, &slot), SBE_OK);
        memcpy(slot, &header, sizeof header);
        sbe_ring_commit(&pair.ends[1].tx);
        sbe_ring_publish(&pair.ends[1].tx);
        CHECK_EQ(receive(0), i == 0 ? 1 : SBE_EBADMSG);
        CHECK_EQ(pair.frame.status, SBE_EBADMSG);
        CHECK_EQ(pair.frame.buffer_count, 0);
        CHECK(pair.frame.owner == (i == 0 ? &owner_a : NULL));
        CHECK_EQ(pair.ends[0].counters.bad, i + 1);
        CHECK_EQ(pair.ends[0].counters.late, i);
    }
}

/* What is no request but legal. */
static void test_other_types(void)
{
    open_pair(0);
    struct sbe_wire_frame header = {.size = 40, .type = SBE_FRAME_MESSAGE, .service = 1};
    send_raw(&header, NULL, 0);
    receive_one(1);
    CHECK_EQ(pair.frame.type, SBE_FRAME_MESSAGE);
    header.type = SBE_FRAME_EVENT;
    send_raw(&header, NULL, 0);
    receive_one(1);
    CHECK_EQ(pair.frame.type, SBE_FRAME_EVENT);
    header.type = SBE_FRAME_CANCEL;
    header.transaction = 9;
    send_raw(&header, NULL, 0);
    receive_one(1);
    CHECK_EQ(pair.frame.type, SBE_FRAME_CANCEL);
    CHECK_EQ(pair.frame.transaction, 9);
}

/* Buffers that are well formed but not the sender's to name: the reason comes with the frame. */
static void test_unresolved(void)
{
    open_pair(0);
    struct raw raw = legal();
    raw.buffers[0].size = sizeof area_bytes;
    send_rest(&raw);
    receive_one(1);
    CHECK_EQ(pair.frame.status, SBE_ERANGE);
    raw = legal();
    raw.buffers[0].area = AREA + 0x10000u;
    send_rest(&raw);
    receive_one(1);
    CHECK_EQ(pair.frame.status, SBE_EFAULT);
    pair.areas[1].context = CONTEXT + 1;
    raw = legal();
    send_rest(&raw);
    receive_one(1);
    CHECK_EQ(pair.frame.status, SBE_EACCES);
}

/* A frame changed after it was published is taken as it was when it was copied. */
static void test_snapshot(void)
{
    open_pair(0);
    struct raw raw = legal();
    send_rest(&raw);
    receive_one(1);
    memset(pair.memory[0] + 2 * LINE, 0xff, SLOT_SIZE);
    CHECK_EQ(pair.frame.buffer_count, 2);
    CHECK_EQ(pair.frame.buffers[0].size, 32);
    CHECK(memcmp(pair.frame.payload, "payload", 7) == 0);
    CHECK(memcmp(pair.frame.buffers[1].data, "INLN", 4) == 0);
}

static void test_broken_ring(void)
{
    open_pair(0);
    sbe_store_relaxed(&pair.ends[1].rx.producer->head, SLOTS + 1);
    CHECK_EQ(receive(1), SBE_EPROTO);
    CHECK(!sbe_channel_idle(&pair.ends[1])); /* so that its owner looks again and learns it */
    CHECK_EQ(receive(1), SBE_EPROTO);
    struct sbe_frame frame = {.type = SBE_FRAME_MESSAGE};
    for (uint32_t i = 0; i < SLOTS; i++)
        CHECK_EQ(sbe_channel_send(&pair.ends[1], &frame), SBE_OK); /* the other way still works */
    sbe_channel_flush(&pair.ends[1]);
    sbe_store_relaxed(&pair.ends[1].tx.consumer->tail, SLOTS + 1);
    CHECK_EQ(sbe_channel_send(&pair.ends[1], &frame), SBE_EPROTO);
    CHECK_EQ(sbe_channel_room(&pair.ends[1]), 0);
}

/* -- transactions -------------------------------------------------------------------------- */

static void test_transactions(void)
{
    open_pair(0);
    uint64_t ids[CALLS];
    for (uint32_t i = 0; i < CALLS; i++) {
        ids[i] = ask(&owner_a);
        for (uint32_t k = 0; k < i; k++)
            CHECK(ids[i] != ids[k]);
        CHECK(ids[i] >> 32 != 0);
    }
    struct sbe_frame frame = request_frame(NULL, 0);
    CHECK_EQ(sbe_channel_request(&pair.ends[0], &frame, &owner_a), SBE_ENOMEM);
    for (uint32_t i = CALLS; i-- > 0;) { /* out of order */
        answer(ids[i]);
        receive_one(0);
        CHECK_EQ(pair.frame.transaction, ids[i]);
    }
    CHECK_EQ(pair.ends[0].counters.late, 0);
}

/* The place of an ended call is used again under another id: the late answer meets nothing. */
static void test_late_response(void)
{
    open_pair(0);
    uint64_t first = ask(&owner_a);
    answer(first);
    receive_one(0);
    uint64_t second = ask(&owner_b);
    CHECK_EQ((uint32_t)second, (uint32_t)first);
    CHECK(second != first);
    answer(first);
    CHECK_EQ(receive(0), SBE_EBADMSG);
    CHECK_EQ(pair.ends[0].counters.late, 1);
    static const uint64_t FORGED[] = {CALLS | 1ull << 32, UINT64_MAX, 0xffffffffu, 1};
    for (uint32_t i = 0; i < sizeof FORGED / sizeof FORGED[0]; i++) {
        answer(FORGED[i]);
        CHECK_EQ(receive(0), SBE_EBADMSG);
        CHECK_EQ(pair.ends[0].counters.late, 2 + i);
    }
    answer(second);
    receive_one(0);
    CHECK(pair.frame.owner == &owner_b);
}

/* After 2^32 - 1 uses of a place its generation skips 0, which would make a transaction of none. */
static void test_generation_wrap(void)
{
    open_pair(0);
    pair.calls[0].generation = UINT32_MAX;
    uint64_t last = ask(&owner_a);
    CHECK_EQ(last, 0xffffffff00000000u);
    answer(last);
    receive_one(0);
    CHECK_EQ(ask(&owner_a), 1ull << 32);
}

static uint32_t ended;

static void count_end(void *self, void *owner)
{
    CHECK(self == &pair && owner == &owner_a);
    ended++;
}

static void test_abort(void)
{
    open_pair(0);
    uint64_t transaction = ask(&owner_a);
    ask(&owner_a);
    ended = 0;
    sbe_channel_abort(&pair.ends[0], count_end, &pair);
    CHECK_EQ(ended, 2);
    sbe_channel_abort(&pair.ends[0], count_end, &pair);
    CHECK_EQ(ended, 2);
    answer(transaction);
    CHECK_EQ(receive(0), SBE_EBADMSG);
    for (uint32_t i = 0; i < CALLS; i++)
        ask(&owner_a);
}

/* A request that can't be sent opens nothing. */
static void test_failed_request(void)
{
    open_pair(0);
    struct sbe_frame frame = request_frame(area_bytes, SLOT_SIZE);
    for (uint32_t i = 0; i < 2 * CALLS; i++)
        CHECK_EQ(sbe_channel_request(&pair.ends[0], &frame, &owner_a), SBE_EMSGSIZE);
    for (uint32_t i = 0; i < CALLS; i++)
        ask(&owner_a);
}

static void test_check_response(void)
{
    const struct sbe_buffer asked[] = {
        {.area = 1, .direction = SBE_DIR_IN, .size = 8},
        {.area = 2, .direction = SBE_DIR_OUT, .offset = 4, .size = 8},
        {.area = 3, .direction = SBE_DIR_SHARED, .size = 8},
        {.direction = SBE_DIR_INOUT, .flags = SBE_BUFFER_INLINE, .size = 8},
    };
    struct sbe_frame good = {.type = SBE_FRAME_RESPONSE, .buffer_count = 3};
    memcpy(good.buffers, asked + 1, sizeof asked - sizeof asked[0]);
    good.buffers[0].size = 3;
    CHECK_EQ(sbe_frame_check_response(&good, asked, 4), SBE_OK);
    for (uint32_t i = 0; i < 7; i++) {
        struct sbe_frame bad = good;
        if (i == 0)
            bad.buffers[0].size = 9; /* more than was asked for */
        else if (i == 1)
            bad.buffers[0].area = 1;
        else if (i == 2)
            bad.buffers[0].offset = 5;
        else if (i == 3)
            bad.buffers[1].direction = SBE_DIR_OUT;
        else if (i == 4)
            bad.buffers[2].flags = 0;
        else if (i == 5)
            bad.buffers[bad.buffer_count++] = asked[1]; /* one too many */
        else
            bad.buffers[0] = asked[0]; /* an input comes back */
        CHECK_EQ(sbe_frame_check_response(&bad, asked, 4), SBE_EBADMSG);
    }
    CHECK_EQ(sbe_frame_check_response(&good, asked, 0), SBE_EBADMSG);
    CHECK_EQ(sbe_frame_check_response(&good, asked, 1), SBE_EBADMSG);
    good.buffer_count = 2;
    CHECK_EQ(sbe_frame_check_response(&good, asked, 4),
             SBE_EBADMSG); /* a success leaves none out */
    good.status = SBE_EINVAL;
    CHECK_EQ(sbe_frame_check_response(&good, asked, 4), SBE_OK);
    good.buffer_count = 0; /* a refusal describes nothing */
    CHECK_EQ(sbe_frame_check_response(&good, asked, 4), SBE_OK);
}

/* -- doorbells ----------------------------------------------------------------------------- */

static void test_doorbells(void)
{
    open_pair(0);
    ask(&owner_a);
    CHECK_EQ(pair.rung[0], 0); /* the peer has not asked for one */
    receive_one(1);
    CHECK(sbe_channel_idle(&pair.ends[1]));
    ask(&owner_a);
    ask(&owner_a);
    CHECK_EQ(pair.rung[0], 1);
    CHECK_EQ(pair.ends[0].counters.doorbells, 1);
    CHECK(!sbe_channel_idle(&pair.ends[1]));
    receive_one(1);
    receive_one(1);
    CHECK(sbe_channel_idle(&pair.ends[1]));
    /* what was written and not flushed goes out when its writer would sleep */
    struct sbe_frame frame = {.type = SBE_FRAME_MESSAGE};
    CHECK_EQ(sbe_channel_send(&pair.ends[0], &frame), SBE_OK);
    CHECK_EQ(receive(1), 0);
    CHECK(sbe_channel_idle(&pair.ends[0]));
    CHECK_EQ(pair.rung[0], 2);
    receive_one(1);
}

static void test_flush_interval(void)
{
    open_pair(0);
    pair.ends[0].flush_interval = 3;
    struct sbe_frame frame = {.type = SBE_FRAME_MESSAGE};
    for (uint32_t i = 1; i <= 7; i++) {
        CHECK_EQ(sbe_channel_send(&pair.ends[0], &frame), SBE_OK);
        CHECK_EQ(pair.ends[0].tx.published, i - i % 3);
    }
}

/* A producer that waits for space is rung when slots come back, before the consumer sleeps. */
static void test_space(void)
{
    open_pair(0);
    struct sbe_frame frame = {.type = SBE_FRAME_MESSAGE};
    for (uint32_t i = 0; i < SLOTS; i++)
        CHECK_EQ(sbe_channel_send(&pair.ends[0], &frame), SBE_OK);
    sbe_channel_flush(&pair.ends[0]);
    CHECK(sbe_ring_wait_space(&pair.ends[0].tx, 1));
    receive_one(1);
    sbe_channel_idle(&pair.ends[1]);
    CHECK_EQ(pair.rung[1], 1);
    CHECK_EQ(sbe_channel_send(&pair.ends[0], &frame), SBE_OK);
}

/*
 * When a frame was seen, by whichever look found it: the wait and the deadline of a request that
 * arrives just before the owner would sleep must not count from the batch before.
 */
static void test_seen(void)
{
    open_pair(0);
    pair.now_ns = 100;
    ask(&owner_a);
    receive_one(1);
    CHECK_EQ(pair.frame.seen_ns, 100);
    pair.now_ns = 200;
    CHECK_EQ(receive(1), 0);
    ask(&owner_a);
    ask(&owner_a);
    CHECK(!sbe_channel_idle(&pair.ends[1]));
    pair.now_ns = 300;
    ask(&owner_a); /* found by a later look */
    receive_one(1);
    CHECK_EQ(pair.frame.seen_ns, 200);
    CHECK(!sbe_channel_idle(&pair.ends[1]));
    receive_one(1);
    CHECK_EQ(pair.frame.seen_ns, 200);
}

int main(void)
{
    test_round_trip();
    test_bad_config();
    test_too_large();
    test_buffers_too_large();
    test_count_beyond_array();
    test_agreed_buffers();
    test_full();
    test_inline();
    test_reserved_fields_are_zero();
    test_malformed();
    test_more_buffers_than_places();
    test_malformed_response();
    test_other_types();
    test_unresolved();
    test_snapshot();
    test_broken_ring();
    test_transactions();
    test_late_response();
    test_generation_wrap();
    test_abort();
    test_failed_request();
    test_check_response();
    test_doorbells();
    test_flush_interval();
    test_space();
    test_seen();
    return 0;
}
