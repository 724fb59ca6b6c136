/* SPDX-License-Identifier: Apache-2.0 */
/* A remote with a stream that counts, its clock, which the test turns, and the requester. */
#ifndef SBE_TESTS_STREAM_HOST_H
#define SBE_TESTS_STREAM_HOST_H

#include "streams/streams.h"

#include <string.h>

#include "check.h"
#include "core/engine.h"
#include "core/status.h"
#include "streams/streams_base.h"

#define CONTEXTS  2u
#define CHANNELS  2u
#define AREAS     6u
#define AREA_SIZE 65536u
#define SLOTS     16u
#define SLOT_SIZE 256u
#define STRIDE    64u
#define BLOCK     (SBE_STREAM_BLOCK_RECORDS * STRIDE)
#define ID(index) (1u << 16 | (index))
#define MS        1000000u

static _Alignas(64) uint8_t memory[AREAS][AREA_SIZE];
static uint64_t now;

static struct {
    struct sbe_engine engine;
    struct sbe_engine_config config;
    struct sbe_port port;
    struct sbe_area areas[AREAS];
    struct sbe_session_context contexts[CONTEXTS];
    struct sbe_session_channel session_channels[CHANNELS];
    struct sbe_session_pending pending[1];
    struct sbe_engine_channel channels[CHANNELS];
    _Alignas(8) uint8_t scratch_in[SLOT_SIZE], scratch_out[SLOT_SIZE];
} remote;

static struct {
    struct sbe_channel channels[CHANNELS];
    struct sbe_call calls[CHANNELS][32];
    struct sbe_port port;
    struct sbe_area_table areas;
    struct sbe_area table[AREAS];
    uint8_t scratch[SLOT_SIZE];
    struct sbe_frame frame;
    uint32_t newest[8];   /* of our record, by stream id */
    int32_t status;       /* of the last response */
    uint64_t transaction; /* of the last request */
    struct sbe_stream_answer answer;
    struct sbe_stream_block_answer blocks[64];
    uint32_t block_count;
    struct sbe_stream_event events[1024];
    uint32_t event_count, opens_ended;
} host;

/* -- a stream that counts ---------------------------------------------------------------------- */

static struct {
    uint8_t next; /* byte that comes next, captured or expected */
    uint64_t moved, silent, wrong, skipped;
    uint32_t calls, longest, rests;
    uint32_t takes_ns;          /* for each move */
    uint64_t through[3], ahead; /* bytes each way, and the most that was played before */
} kind;

/* A suspend is not refused by what a kind says. */
static inline int trigger(struct sbe_stream *stream, enum sbe_stream_state next)
{
    (void)stream;
    kind.rests += next == SBE_STREAM_SUSPENDED;
    return next == SBE_STREAM_SUSPENDED ? SBE_EIO : SBE_OK;
}

/* What is overwritten was read, or is known to be gone. */
static inline void check_overwritten(struct sbe_stream *stream, uint32_t bytes)
{
    struct sbe_stream_status shown = {0};
    uint64_t read = 0;
    uint32_t count;
    CHECK(sbe_stream_see(&stream->shown, &shown, &count));
    CHECK(sbe_stream_see(&stream->seen, &read, &count));
    uint64_t gone = read > shown.application ? read : shown.application;
    CHECK(gone + stream->settings.buffer_bytes >= stream->status.position + bytes);
}

static inline void move(struct sbe_stream *stream, uint8_t *data, uint32_t bytes)
{
    if (stream->settings.direction == SBE_STREAM_CAPTURE &&
        stream->settings.mode == SBE_STREAM_CYCLIC)
        check_overwritten(stream, bytes);
    kind.calls++;
    now += kind.takes_ns;
    kind.moved += bytes;
    kind.through[stream->settings.direction] += bytes;
    uint64_t played = kind.through[SBE_STREAM_PLAYBACK];
    if (played > kind.through[SBE_STREAM_CAPTURE] + kind.ahead)
        kind.ahead = played - kind.through[SBE_STREAM_CAPTURE];
    if (bytes > kind.longest)
        kind.longest = bytes;
    for (uint32_t i = 0; i < bytes; i++, kind.next++)
        if (data == NULL)
            kind.silent++;
        else if (stream->settings.direction == SBE_STREAM_CAPTURE)
            data[i] = kind.next;
        else if (data[i] != kind.next)
            kind.wrong++;
}

static inline void skip(struct sbe_stream *stream, uint32_t bytes)
{
    (void)stream;
    kind.skipped += bytes;
    kind.next = (uint8_t)(kind.next + bytes);
}

static struct sbe_stream_kind counter = {
    .directions = SBE_STREAM_PLAYBACK | SBE_STREAM_CAPTURE,
    .trigger = trigger,
    .move = move,
    .skip = skip,
};

static inline int handle(struct sbe_request *request)
{
    return sbe_stream_handle(request, &counter);
}

static const struct sbe_service SERVICE = {"counter", 1, handle, sbe_stream_cancel,
                                           sbe_streams_rest};
static const struct sbe_service *const TABLE[] = {&SERVICE};

/* -- two ends ---------------------------------------------------------------------------------- */

static inline uint64_t now_ns(void *self)
{
    (void)self;
    return now;
}

static inline void ring(void *self, const struct sbe_channel *channel)
{
    (void)self, (void)channel;
}

static inline void begin(void)
{
    memset(&remote, 0, sizeof remote);
    memset(&host, 0, sizeof host);
    memset(&kind, 0, sizeof kind);
    counter.together = 0;
    memset(memory, 0, sizeof memory);
    memset(sbe_stream_pool, 0, sizeof(struct sbe_stream) * SBE_STREAMS);
    now = 1000 * MS;
    remote.port = (struct sbe_port){.now_ns = now_ns, .doorbell = ring};
    remote.config = (struct sbe_engine_config){
        .services = TABLE,
        .service_count = 1,
        .channels = remote.channels,
        .scratch_in = remote.scratch_in,
        .scratch_out = remote.scratch_out,
        .kept_per_context = 1,
        .port = &remote.port,
        .session =
            {
                .role = SBE_ROLE_REMOTE,
                .name = "remote",
                .coherent = 1,
                .address_bits = 64,
                .version_min = SBE_VERSION_MIN,
                .version_max = SBE_VERSION_MAX,
                .cache_line = 64,
                .limits = {AREAS, CONTEXTS, CHANNELS, SLOTS, SLOT_SIZE, SBE_BUFFERS_MAX},
                .areas = remote.areas,
                .contexts = remote.contexts,
                .channels = remote.session_channels,
                .pending = remote.pending,
                .pending_count = 1,
            },
    };
    CHECK_EQ(sbe_engine_init(&remote.engine, &remote.config), SBE_OK);
    remote.engine.session.areas.coherent = true;
    remote.engine.session.limits = remote.config.session.limits;
    host.port = (struct sbe_port){.now_ns = now_ns, .doorbell = ring};
    host.areas = (struct sbe_area_table){host.table, AREAS, true};
    for (uint32_t i = 0; i < CHANNELS; i++) {
        struct sbe_area *area;
        uint32_t context = i + 1;
        struct sbe_ring_geometry geometry = {SLOTS, SLOT_SIZE, 64};
        uint8_t *rings = memory[2 + i];
        remote.contexts[i].id = context;
        CHECK_EQ(sbe_area_add(&remote.engine.session.areas, ID(i), context, 0, AREA_SIZE, &area),
                 SBE_OK);
        area->base = memory[i];
        CHECK_EQ(sbe_area_add(&host.areas, ID(i), context, 0, AREA_SIZE, &area), SBE_OK);
        area->base = memory[i];
        sbe_ring_clear(rings, &geometry, 0);
        sbe_ring_clear(rings + AREA_SIZE / 2, &geometry, 0);
        struct sbe_channel_config config = {
            .id = i + 1,
            .context = context,
            .geometry = geometry,
            .send = rings,
            .receive = rings + AREA_SIZE / 2,
            .port = &host.port,
            .areas = &host.areas,
            .calls = host.calls[i],
            .call_count = 32,
        };
        CHECK_EQ(sbe_channel_open(&host.channels[i], &config), SBE_OK);
        struct sbe_channel_open message = {.channel = i + 1,
                                           .context = context,
                                           .slots = SLOTS,
                                           .slot_size = SLOT_SIZE,
                                           .line = 64};
        CHECK_EQ(remote.engine.hooks.channel_open(&remote.engine, &remote.session_channels[i],
                                                  &message, rings + AREA_SIZE / 2, rings),
                 SBE_OK);
    }
}

static inline void run(void)
{
    for (uint32_t i = 0; i < CHANNELS; i++)
        if (remote.channels[i].used)
            sbe_engine_doorbell(&remote.engine, &remote.channels[i].channel);
    while (sbe_engine_run(&remote.engine))
        ;
    sbe_streams_run(now);
}

/* Takes what came, and gives the slots back. */
static inline void take(uint32_t channel)
{
    struct sbe_frame *frame = &host.frame;
    while (sbe_channel_receive(&host.channels[channel], frame, host.scratch) == 1) {
        if (frame->type == SBE_FRAME_EVENT) {
            CHECK_EQ(frame->payload_size, sizeof host.events[0]);
            CHECK(host.event_count < 1024);
            memcpy(&host.events[host.event_count++], frame->payload, frame->payload_size);
            continue;
        }
        CHECK_EQ(frame->type, SBE_FRAME_RESPONSE);
        if (frame->payload_size == sizeof host.blocks[0]) {
            memcpy(&host.blocks[host.block_count++ % 64], frame->payload, frame->payload_size);
            continue;
        }
        host.opens_ended += frame->owner != &host;
        host.status = frame->status;
        if (frame->payload_size == sizeof host.answer)
            memcpy(&host.answer, frame->payload, frame->payload_size);
    }
    (void)sbe_channel_idle(&host.channels[channel]);
}

static inline int send(uint32_t channel, const void *payload, uint32_t size,
                       const struct sbe_buffer *buffers, uint32_t count, void *owner)
{
    struct sbe_frame frame = {.type = SBE_FRAME_REQUEST,
                              .service = 1,
                              .payload = payload,
                              .payload_size = size,
                              .buffer_count = (uint16_t)count};
    if (count != 0)
        memcpy(frame.buffers, buffers, count * sizeof *buffers);
    host.status = 1;
    CHECK_EQ(sbe_channel_request(&host.channels[channel], &frame, owner), SBE_OK);
    host.transaction = frame.transaction;
    sbe_channel_flush(&host.channels[channel]);
    run();
    take(channel);
    return host.status;
}

/* What a request came to: the response's status, else the result. */
static inline int ask(uint32_t channel, uint32_t op, uint32_t stream, uint32_t generation)
{
    struct sbe_stream_request request = {op, stream, generation, 0};
    int status = send(channel, &request, sizeof request, NULL, 0, &host);
    return status < 0 ? status : host.answer.result;
}

static inline struct sbe_stream_settings settings_of(uint8_t direction, uint32_t buffer,
                                                     uint32_t period)
{
    return (struct sbe_stream_settings){
        .frame_bytes = 4,
        .rate_hz = 1000,
        .buffer_bytes = buffer,
        .period_bytes = period,
        .direction = direction,
        .mode = SBE_STREAM_CYCLIC,
        .on_xrun = SBE_STREAM_XRUN_STOPS,
    };
}

/* What the remote would make of settings. */
static inline struct sbe_stream_proposal proposal_for(const struct sbe_stream_settings *settings)
{
    struct {
        struct sbe_stream_request request;
        struct sbe_stream_settings settings;
    } message = {{SBE_STREAM_NEGOTIATE, 0, 0, 0}, *settings};
    uint8_t reply[SLOT_SIZE];
    struct sbe_request request = {.engine = &remote.engine,
                                  .channel = &remote.channels[0].channel,
                                  .payload = &message,
                                  .payload_size = sizeof message,
                                  .reply = reply,
                                  .reply_room = sizeof reply};
    CHECK_EQ(sbe_stream_handle(&request, &counter), SBE_OK);
    struct sbe_stream_proposal proposal;
    memcpy(&proposal, reply, sizeof proposal);
    return proposal;
}

static inline uint8_t *block_of(uint32_t channel, uint32_t stream)
{
    return memory[channel] + (stream - 1) * 4096;
}

/* 1: it is kept. */
static inline int open_with(uint32_t channel, uint32_t stream,
                            const struct sbe_stream_settings *settings)
{
    struct {
        struct sbe_stream_request request;
        struct sbe_stream_settings settings;
    } message = {{SBE_STREAM_OPEN, stream, 0, 0}, *settings};
    bool playback = settings->direction == SBE_STREAM_PLAYBACK;
    uint64_t at = (uint64_t)(block_of(channel, stream) - memory[channel]);
    struct sbe_buffer buffers[2] = {
        {.area = ID(channel), .direction = SBE_DIR_INOUT, .offset = at, .size = BLOCK},
        {.area = ID(channel),
         .direction = playback ? SBE_DIR_IN : SBE_DIR_OUT,
         .offset = at + BLOCK,
         .size = settings->buffer_bytes},
    };
    memset(block_of(channel, stream), 0, 4096);
    host.newest[stream] = 0;
    return send(channel, &message, sizeof message, buffers,
                settings->mode == SBE_STREAM_QUEUE ? 1 : 2, &message);
}

/* Opened with these settings, and prepared. */
static inline void prepare_with(uint32_t stream, const struct sbe_stream_settings *settings)
{
    CHECK_EQ(open_with(0, stream, settings), 1);
    CHECK_EQ(ask(0, SBE_STREAM_PREPARE, stream, 7), SBE_OK);
}

static inline void open_stream(uint32_t stream, uint8_t direction, uint32_t buffer, uint32_t period)
{
    struct sbe_stream_settings settings = settings_of(direction, buffer, period);
    prepare_with(stream, &settings);
}

/* An xrun is told and goes on. */
static inline void prepare_going_on(uint8_t direction)
{
    struct sbe_stream_settings settings = settings_of(direction, 400, 40);
    settings.on_xrun = SBE_STREAM_XRUN_GOES_ON;
    prepare_with(1, &settings);
}

static inline void show(uint32_t stream, uint64_t position)
{
    struct sbe_stream_place place = sbe_stream_host_place(block_of(0, stream), NULL);
    sbe_stream_show(&place, &host.newest[stream], &position);
}

static inline struct sbe_stream_status status_of(uint32_t channel, uint32_t stream)
{
    struct sbe_stream_status status;
    uint32_t newest;
    struct sbe_stream_place place =
        sbe_stream_remote_place(block_of(channel, stream), STRIDE, NULL);
    CHECK(sbe_stream_see(&place, &status, &newest));
    return status;
}

static inline void pass(uint64_t ns)
{
    now += ns;
    run();
    take(0);
}

/* Bytes from `first` on, as the counter has them. */
static inline void play(uint32_t stream, uint64_t first, uint32_t bytes, uint32_t buffer)
{
    for (uint64_t i = first; i < first + bytes; i++)
        block_of(0, stream)[BLOCK + i % buffer] = (uint8_t)i;
    show(stream, first + bytes);
}

#endif
