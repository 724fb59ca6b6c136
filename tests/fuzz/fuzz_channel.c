/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames: a channel whose peer writes its rings as it likes, also between any two looks at them.
 * No byte of a frame is read twice; what comes out lies in the copy or in an area of the channel's
 * own context; each transaction ends once.
 */
#include "core/channel.h"
#include "core/status.h"
#include "frames.h"
#include "input.h"
#include "race.h"

#define SLOTS     4u
#define SLOT_SIZE 192u
#define LINE      64u
#define RING      (2 * LINE + SLOTS * SLOT_SIZE)
#define AREAS     4u
#define CALLS     3u
#define CONTEXT   5u

static struct input input;
static struct sbe_area areas[AREAS];
static struct sbe_area_table table = {areas, AREAS, true};
static struct sbe_channel channel;
static struct sbe_call calls[CALLS];
static struct sbe_frame frame, sent;
static uint8_t *memory, *data[AREAS];
static uint32_t open_calls;
static bool owners[256];
static uint32_t next_owner;

static uint64_t now_ns(void *self)
{
    (void)self;
    return 1000;
}

static void doorbell(void *self, const struct sbe_channel *of)
{
    (void)self;
    HOLDS(of == &channel);
}

static const struct sbe_port PORT = {.now_ns = now_ns, .doorbell = doorbell};

/* Area 0: its own. 1: nobody's. 2: another context's. 3: read-only. Sizes so that ASan sees more.
 */
static void set_up(void)
{
    static const uint32_t OWNER[AREAS] = {CONTEXT, SBE_CONTEXT_GLOBAL, CONTEXT + 1, CONTEXT};
    static const size_t SIZE[AREAS] = {100, 32, 64, 48};
    memset(areas, 0, sizeof areas);
    for (uint32_t i = 0; i < AREAS; i++) {
        struct sbe_area *area;
        uint32_t flags = i == 3 ? SBE_AREA_READONLY : i == 0 ? SBE_AREA_COHERENT : 0;
        HOLDS(sbe_area_add(&table, 1u << 16 | i, OWNER[i], flags, SIZE[i], &area) == SBE_OK);
        area->base = data[i] = calloc(1, SIZE[i]);
    }
    memory = aligned_alloc(LINE, (size_t)2 * RING);
    memset(memory, 0, (size_t)2 * RING);
    const struct sbe_channel_config config = {
        .geometry = {SLOTS, SLOT_SIZE, LINE},
        .send = memory,
        .receive = memory + RING,
        .id = 9,
        .context = CONTEXT,
        .port = &PORT,
        .areas = &table,
        .calls = calls,
        .call_count = CALLS,
        .flush_interval = take_u8(&input) & 3u,
        .buffers = take_u8(&input) & 31u,
    };
    sbe_ring_clear(memory, &config.geometry, 0xfffffffeu);
    sbe_ring_clear(memory + RING, &config.geometry, 0xfffffffeu);
    HOLDS(sbe_channel_open(&channel, &config) == SBE_OK);
    open_calls = next_owner = 0;
    memset(owners, 0, sizeof owners);
}

/* The peer writes the frame that it publishes next, or another one. */
static void write_frame(void)
{
    uint8_t bytes[SLOT_SIZE];
    uint32_t call = pick(&input, CALLS);
    const struct frame_maker maker = {
        .areas = AREAS,
        .services = 3,
        .size = 40,
        .transaction = (uint64_t)calls[call].generation << 32 | call,
        .room = SLOT_SIZE,
    };
    (void)make_frame(&input, &maker, bytes);
    uint32_t slot = (channel.rx.theirs + (rarely(&input) ? 1u : 0u)) % SLOTS;
    memcpy(memory + RING + 2 * LINE + slot * SLOT_SIZE, bytes, sizeof bytes);
    uint32_t head = number32(&input, channel.rx.theirs + 1);
    memcpy(memory + RING, &head, sizeof head);
}

static void check_buffer(const struct sbe_buffer *buffer, const uint8_t *scratch)
{
    if (buffer->data == NULL || buffer->size == 0)
        return;
    if ((buffer->flags & SBE_BUFFER_INLINE) != 0) {
        HOLDS((const uint8_t *)buffer->data >= scratch &&
              (const uint8_t *)buffer->data + buffer->size <= scratch + SLOT_SIZE);
        return;
    }
    uint32_t index = SBE_AREA_INDEX(buffer->area);
    HOLDS(index < AREAS && index != 2);
    size_t at = (size_t)((uint8_t *)buffer->data - data[index]);
    HOLDS(at <= areas[index].size && buffer->size <= areas[index].size - at);
    HOLDS(index != 3 || buffer->direction == SBE_DIR_IN);
}

static void end_owner(void *self, void *owner)
{
    bool *place = owner;
    (void)self;
    HOLDS(place >= owners && place < owners + 256 && *place);
    *place = false;
    HOLDS(open_calls-- > 0);
}

static void receive(void)
{
    uint8_t *scratch = malloc(SLOT_SIZE);
    memset(&frame, 0xee, sizeof frame);
    race_once(channel.rx.slots, (size_t)SLOTS * SLOT_SIZE);
    int status = sbe_channel_receive(&channel, &frame, scratch);
    race_once(NULL, 0);
    HOLDS(status == 0 || status == 1 || status == SBE_EBADMSG || status == SBE_EPROTO);
    race_pause(true);
    if (status == 1) {
        HOLDS(frame.type >= SBE_FRAME_REQUEST && frame.type <= SBE_FRAME_CANCEL);
        HOLDS(frame.buffer_count <= SBE_BUFFERS_MAX && frame.payload_size <= SLOT_SIZE);
        if (frame.payload_size != 0)
            HOLDS((const uint8_t *)frame.payload >= scratch &&
                  (const uint8_t *)frame.payload + frame.payload_size <= scratch + SLOT_SIZE);
        if (frame.type == SBE_FRAME_RESPONSE) {
            end_owner(NULL, frame.owner);
            int fits = sbe_frame_check_response(&frame, sent.buffers, sent.buffer_count);
            HOLDS(fits == SBE_OK || fits == SBE_EBADMSG);
        }
        for (uint32_t i = 0; i < frame.buffer_count && frame.status == SBE_OK; i++)
            check_buffer(&frame.buffers[i], scratch);
    }
    race_pause(false);
    free(scratch);
}

/* This end's own frames are honest; where they go is not. */
static void send_one(bool request)
{
    static uint8_t payload[SLOT_SIZE];
    memset(&sent, 0, sizeof sent);
    sent.type = request ? SBE_FRAME_REQUEST : SBE_FRAME_MESSAGE;
    sent.payload = payload;
    sent.payload_size = take_u8(&input) % SLOT_SIZE;
    sent.buffer_count = (uint16_t)pick(&input, 5);
    for (uint32_t i = 0; i < sent.buffer_count; i++)
        sent.buffers[i] = (struct sbe_buffer){
            .area = 1u << 16,
            .direction = (uint8_t)(1 + pick(&input, 3)),
            .flags = take_u8(&input) & SBE_BUFFER_INLINE,
            .size = take_u8(&input) & 31u,
            .data = data[0],
        };
    if (!request) {
        (void)sbe_channel_send(&channel, &sent);
        return;
    }
    bool *owner = &owners[next_owner++ & 255u];
    if (*owner)
        return;
    if (sbe_channel_request(&channel, &sent, owner) == SBE_OK) {
        *owner = true;
        open_calls++;
    }
}

static void step(void)
{
    switch (pick(&input, 10)) {
    case 0:
        send_one(true);
        break;
    case 1:
        send_one(false);
        break;
    case 2:
        (void)sbe_channel_flush(&channel);
        break;
    case 3:
        (void)sbe_channel_idle(&channel);
        break;
    case 4:
        (void)sbe_channel_wait_room(&channel);
        break;
    case 5: { /* any word of both rings, the peer's own ones most often */
        static const uint32_t WORDS[] = {0, RING, LINE, RING + LINE, 4, LINE + 4};
        scribble(&input, memory, 2 * RING, WORDS[pick(&input, 6)], channel.tx.theirs + 1);
        break;
    }
    case 6:
        if (rarely(&input))
            sbe_channel_abort(&channel, end_owner, NULL);
        HOLDS(sbe_channel_room(&channel) <= SLOTS);
        HOLDS(sbe_channel_payload_room(&channel, pick(&input, 8), number(&input, 8)) < SLOT_SIZE);
        break;
    default:
        race_pause(true);
        write_frame();
        race_pause(false);
        receive();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    input = (struct input){bytes, size};
    uint32_t seed = take_u16(&input), rate = 1 + pick(&input, 32);
    set_up();
    race_begin(memory, (size_t)2 * RING, seed, rate);
    for (uint32_t steps = 0; input.left > 0 && steps < 100; steps++)
        step();
    race_end();
    sbe_channel_abort(&channel, end_owner, NULL);
    HOLDS(open_calls == 0);
    for (uint32_t i = 0; i < AREAS; i++)
        free(data[i]);
    free(memory);
    return 0;
}
