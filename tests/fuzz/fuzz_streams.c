/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams: requests that are nearly right in any order, positions and statuses scribbled over by
 * the host, events that it takes or leaves, and a clock that leaps. Whatever comes, a stream stays
 * within its memory, its position only grows, and a closed one touches nothing.
 */
#include "core/status.h"
#include "engine_end.h"
#include "streams/streams_base.h"

#define ACTIONS 40u
#define STRIDE  64u
#define BLOCK   (SBE_STREAM_BLOCK_RECORDS * STRIDE)
#define IDS     3u

enum {
    MEMORY,
    RINGS = 2
};

static struct input input;
static struct end_ring ring;
static uint32_t size;
static uint64_t transaction;

struct message {
    struct sbe_wire_frame header;
    uint8_t rest[2 * sizeof(struct sbe_wire_buffer) + sizeof(struct sbe_stream_request) +
                 sizeof(struct sbe_stream_settings)];
};

static uint32_t put(uint8_t *to, uint32_t at, const void *part, uint32_t bytes)
{
    memcpy(to + at, part, bytes);
    return at + bytes;
}

static struct sbe_stream_settings some_settings(void)
{
    uint32_t frame = 2u << pick(&input, 3), frames = 1 + pick(&input, 64);
    uint32_t periods = 1 + pick(&input, 6);
    struct sbe_stream_settings settings = {
        .frame_bytes = number32(&input, frame),
        .rate_hz = number32(&input, 8000),
        .period_bytes = number32(&input, pick(&input, 4) == 0 ? 0 : frame * frames),
        .buffer_bytes = number(&input, (uint64_t)frame * frames * periods),
        .direction = (uint8_t)number(&input, 1 + pick(&input, 2)),
        .mode = (uint8_t)number(&input, 1 + pick(&input, 3)),
        .on_xrun = (uint8_t)number(&input, 1 + pick(&input, 2)),
        .on_suspend = (uint8_t)number(&input, pick(&input, 2)),
        .format = "S16_LE",
    };
    if (rarely(&input))
        settings.format[0] = 'X';
    return settings;
}

/* Memory for a stream of blocks, as its settings have it, wherever that is. */
static struct sbe_wire_buffer a_block(uint32_t id)
{
    uint8_t direction = SBE_DIR_OUT;
    uint32_t frame = 4;
    for (uint32_t i = 0; i < SBE_STREAMS; i++)
        if (sbe_stream_pool[i].id == id) {
            frame = sbe_stream_pool[i].settings.frame_bytes;
            if (sbe_stream_pool[i].settings.direction == SBE_STREAM_PLAYBACK)
                direction = SBE_DIR_IN;
        }
    return (struct sbe_wire_buffer){
        .area = 1u << 16 | MEMORY,
        .direction = (uint8_t)number(&input, direction),
        .offset = number(&input, pick(&input, 8) * 512u),
        .size = number(&input, (uint64_t)frame * (1 + pick(&input, 16))),
    };
}

/* A request, usually of a kind that its stream's state allows, as the fuzzer finds out. */
static void ask(void)
{
    static const char *const NAMES[] = {"tone", "meter", "loop"};
    struct message message = {.header = {.type = SBE_FRAME_REQUEST}};
    struct sbe_stream_request request = {
        .op = number32(&input, 1 + pick(&input, SBE_STREAM_QUEUE_BLOCK)),
        .stream = number32(&input, 1 + pick(&input, IDS)),
    };
    uint32_t at = 0, other = 1 + pick(&input, IDS);
    bool opens = request.op == SBE_STREAM_OPEN;
    request.generation = request.op == SBE_STREAM_PREPARE ? number32(&input, 1) : 0;
    request.count = request.op == SBE_STREAM_START ? pick(&input, 2) : 0;
    struct sbe_stream_settings settings = some_settings();
    if (opens) {
        uint32_t place = pick(&input, 4) * 1024u;
        struct sbe_wire_buffer buffers[2] = {
            {.area = 1u << 16 | MEMORY,
             .direction = (uint8_t)number(&input, SBE_DIR_INOUT),
             .offset = number(&input, place),
             .size = number(&input, BLOCK)},
            {.area = 1u << 16 | MEMORY,
             .direction = (uint8_t)number(
                 &input, settings.direction == SBE_STREAM_PLAYBACK ? SBE_DIR_IN : SBE_DIR_OUT),
             .offset = number(&input, place + BLOCK),
             .size = number(&input, settings.buffer_bytes)},
        };
        uint32_t count = settings.mode == SBE_STREAM_QUEUE ? 1 : 2;
        message.header.buffer_count = (uint16_t)count;
        at = put(message.rest, at, buffers, count * (uint32_t)sizeof buffers[0]);
    } else if (request.op == SBE_STREAM_QUEUE_BLOCK) {
        struct sbe_wire_buffer buffer = a_block(request.stream);
        message.header.buffer_count = 1;
        at = put(message.rest, at, &buffer, sizeof buffer);
    }
    uint32_t begin = at;
    at = put(message.rest, at, &request, sizeof request);
    if (opens || request.op == SBE_STREAM_NEGOTIATE)
        at = put(message.rest, at, &settings, sizeof settings);
    else if (request.count == 1)
        at = put(message.rest, at, &other, sizeof other);
    message.header.transaction = ++transaction;
    message.header.service = end_service(NAMES[pick(&input, 3)]);
    message.header.payload_size = at - begin;
    message.header.size = (uint32_t)sizeof message.header + at;
    end_put(&ring, &message, message.header.size);
    end_bell(1);
}

static void give_up(void)
{
    struct sbe_wire_frame cancel = {.size = sizeof cancel,
                                    .type = SBE_FRAME_CANCEL,
                                    .transaction = number(&input, 1 + pick(&input, 8))};
    end_put(&ring, &cancel, sizeof cancel);
    end_bell(1);
}

static void show(void)
{
    struct sbe_stream *stream = &sbe_stream_pool[SBE_STREAMS - 1 - pick(&input, IDS)];
    if (stream->id == 0)
        return;
    uint64_t position = number(&input, stream->status.position + stream->settings.buffer_bytes / 2);
    uint32_t newest = sbe_load_relaxed(stream->seen.newest);
    sbe_stream_show(&stream->seen, &newest, &position);
}

/* Of all streams that are open: what was before, for what may only grow. */
static struct {
    uint32_t generation;
    uint64_t position;
} before[IDS];

static void check(void)
{
    for (uint32_t i = 0; i < SBE_STREAMS; i++) {
        const struct sbe_stream *stream = &sbe_stream_pool[i];
        const struct sbe_stream_status *status = &stream->status;
        if (stream->id == 0)
            continue;
        HOLDS(status->state >= SBE_STREAM_SETUP && status->state <= SBE_STREAM_SUSPENDED);
        HOLDS(stream->place < stream->settings.buffer_bytes);
        HOLDS(stream->place % stream->settings.frame_bytes == 0);
        HOLDS(stream->to_period <= stream->settings.period_bytes);
        HOLDS(status->position % stream->settings.frame_bytes == 0);
        HOLDS(stream->waiting_count <= SBE_STREAM_WAITING);
        HOLDS(stream->queue == NULL || stream->settings.mode == SBE_STREAM_QUEUE);
        if (stream->queue != NULL) {
            uint32_t step = sbe_stream_blocks_step(stream);
            HOLDS(step > 0 && step <= stream->settings.period_bytes);
            HOLDS(status->state != SBE_STREAM_SETUP && status->state != SBE_STREAM_XRUN);
        }
        if (stream->settings.direction == SBE_STREAM_PLAYBACK)
            HOLDS(status->application <= status->position ||
                  status->application - status->position <= stream->settings.buffer_bytes);
        else if (stream->settings.mode == SBE_STREAM_CYCLIC)
            HOLDS(status->position - status->application <= stream->settings.buffer_bytes);
        uint32_t known = SBE_STREAMS - 1 - i;
        if (known >= IDS)
            continue;
        HOLDS(before[known].generation != status->generation ||
              before[known].position <= status->position || status->generation == 0);
        before[known].generation = status->generation;
        before[known].position = status->position;
    }
}

static void forget_closed(void)
{
    for (uint32_t i = 0; i < IDS; i++)
        if (sbe_stream_pool[SBE_STREAMS - 1 - i].id == 0)
            before[i].generation = 0, before[i].position = 0;
}

static void act(void)
{
    switch (pick(&input, 8)) {
    case 0:
        /* Months at most: no port's clock comes near the end of its 64 bits. */
        end_pass(number(&input, (uint64_t)take_u16(&input) << 18) >> 8);
        break;
    case 1:
        scribble(&input, end_areas[MEMORY].base, size, take_u16(&input), take_u32(&input));
        break;
    case 2:
        show();
        break;
    case 3:
        while (end_take(&ring) != NULL)
            ;
        break;
    case 4:
        give_up();
        break;
    case 5:
        (void)sbe_streams_rest(&end_engine, pick(&input, 2) != 0);
        break;
    default:
        ask();
    }
    end_run(10);
    uint64_t now_ns = end_engine.port->now_ns(end_engine.port->self);
    sbe_streams_run(now_ns);
    HOLDS(sbe_streams_due_ns() > now_ns);
    forget_closed();
    check();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    input = (struct input){bytes, count};
    memset(before, 0, sizeof before);
    transaction = 0;
    end_incoherent = (take_u8(&input) & 1u) != 0;
    size = 64u * (1 + number32(&input, 96) % 128u);
    end_begin();
    end_context(1);
    end_map(MEMORY, 1, 0, size);
    end_open(1, 1, RINGS, 1, &ring);
    for (uint32_t i = 0; i < ACTIONS && input.left > 0; i++)
        act();
    end_finish();
    for (uint32_t i = 0; i < SBE_STREAMS; i++)
        HOLDS(sbe_stream_pool[i].id == 0);
    HOLDS(sbe_streams_due_ns() == SBE_STREAM_NEVER);
    return 0;
}
