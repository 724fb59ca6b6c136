/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the host does: all kinds of control messages, frames and ends, then a new epoch of its own,
 * then calls that must succeed. After a death the last part begins anew.
 */
#include <string.h>

#include "host.h"

enum {
    CONNECTED = 1,
    REPLIES = 2,
    ANSWERS = 4
}; /* what a step waits for */

struct step {
    bool (*run)(uint32_t a, uint32_t b); /* false: not now */
    uint32_t a;
    uint32_t b;
    uint32_t waits;
};

static const char *const NAMES[SERVICES] = {"echo",  "crc32", "fill", "copy",
                                            "mulaw", "relay", "parts"};

/* Areas: 0 and 3 have the rings of channels 0 and 1; 1, 2 and 4 have data. */
static const struct {
    uint32_t context;
    bool rings;
} AREA[AREAS] = {{1, true}, {1, false}, {1, false}, {2, true}, {2, false}};
#define RINGS_OF(channel) ((channel)*3u)

/* -- memory ------------------------------------------------------------------------------------ */

static uint64_t sum_of(const struct host_area *area)
{
    uint64_t sum = 0xcbf29ce484222325u;
    for (uint32_t i = 0; i < BLOCK; i += sizeof(uint64_t)) {
        uint64_t word;
        memcpy(&word, area->block + i, sizeof word);
        sum = (sum ^ word) * 0x100000001b3u;
    }
    return sum;
}

static void new_block(uint32_t index)
{
    struct host_area *area = &host.areas[index];
    *area = (struct host_area){.context = AREA[index].context, .rings = AREA[index].rings};
    area->block = world_take_block(area->rings);
    if (area->rings)
        return;
    for (uint32_t i = 0; i < PATTERN_SIZE; i++)
        area->block[PATTERN + i] = (uint8_t)(i * 7 + index);
    host.sums[index] = sum_of(area);
}

/* The remote has let go of it, or nobody knows. */
static void let_go(struct host_area *area)
{
    if (area->block == NULL)
        return;
    if (host.resetting)
        host.quarantine[host.quarantined++] = area->block;
    else
        world_give_block(area->block);
    *area = (struct host_area){.block = NULL};
}

/* -- control ----------------------------------------------------------------------------------- */

static bool context_create(uint32_t context, uint32_t b)
{
    struct sbe_context_message message = {.context = context};
    (void)b;
    return host_ask(SBE_CONTROL_CONTEXT_CREATE, &message.control, sizeof message, 0);
}

static bool context_destroy(uint32_t context, uint32_t b)
{
    struct sbe_context_message message = {.context = context};
    (void)b;
    host_end_calls(context - 1, SBE_ESHUTDOWN);
    return host_ask(SBE_CONTROL_CONTEXT_DESTROY, &message.control, sizeof message,
                    (uint8_t)context);
}

static bool map(uint32_t index, uint32_t b)
{
    struct {
        struct sbe_area_map map;
        struct sbe_segment segment;
    } message = {.map = {.size = BLOCK, .segment_count = 1}};
    struct host_area *area = &host.areas[index];
    (void)b;
    if (area->block == NULL)
        new_block(index);
    host.generation = host.generation % 0xffffu + 1;
    area->id = host.generation << 16 | index;
    message.map.area = area->id;
    message.map.context = area->context;
    message.map.flags = area->rings ? SBE_AREA_RING | SBE_AREA_COHERENT : SBE_AREA_COHERENT;
    message.segment = (struct sbe_segment){(uintptr_t)area->block, BLOCK};
    return host_ask(SBE_CONTROL_AREA_MAP, &message.map.control, sizeof message, (uint8_t)index);
}

static bool unmap(uint32_t index, uint32_t b)
{
    struct sbe_area_unmap message = {.area = host.areas[index].id};
    (void)b;
    host.areas[index].ending = true;
    for (uint32_t i = 0; i < 2 * CALLS; i++)
        if (host.calls[i].open && !host.calls[i].control && host.calls[i].area == index)
            world_expects(host.calls[i].record, ROBBED);
    return host_ask(SBE_CONTROL_AREA_UNMAP, &message.control, sizeof message, (uint8_t)index);
}

static bool find(uint32_t which, uint32_t b)
{
    struct sbe_service_find message = {.context = 1};
    (void)b;
    (void)sbe_name_set(message.name, NAMES[which]);
    return host_ask(SBE_CONTROL_SERVICE_FIND, &message.control, sizeof message, (uint8_t)which);
}

static bool list(uint32_t index, uint32_t b)
{
    struct sbe_service_list message = {.index = index};
    (void)b;
    return host_ask(SBE_CONTROL_SERVICE_LIST, &message.control, sizeof message, 0);
}

static bool ping(uint32_t a, uint32_t b)
{
    struct sbe_ping message = {.cookie = a};
    (void)b;
    return host_ask(SBE_CONTROL_PING, &message.control, sizeof message, 0);
}

static bool open_channel(uint32_t channel, uint32_t priority)
{
    const struct host_area *rings = &host.areas[RINGS_OF(channel)];
    host.channel_ids[channel] = ++host.next_channel;
    struct sbe_channel_open message = {
        .channel = host.channel_ids[channel],
        .context = rings->context,
        .ring_area = rings->id,
        .slots = SLOTS,
        .slot_size = SLOT_SIZE,
        .line = LINE,
        .receive_offset = RING,
        .priority = priority,
    };
    host_open(channel, rings);
    return host_ask(SBE_CONTROL_CHANNEL_OPEN, &message.control, sizeof message, (uint8_t)channel);
}

static bool close_channel(uint32_t channel, uint32_t b)
{
    struct sbe_channel_close message = {.channel = host.channel_ids[channel]};
    (void)b;
    host_end_calls(channel, SBE_ESHUTDOWN);
    return host_ask(SBE_CONTROL_CHANNEL_CLOSE, &message.control, sizeof message, (uint8_t)channel);
}

static bool power(uint32_t event, uint32_t b)
{
    (void)b;
    if (host.power_answers > 0)
        return false;
    HOLDS(sbe_session_event(&host.session, event, 0) == SBE_OK);
    host.power_answers++;
    return true;
}

/* Everything that was answered for is here: the remote has written nothing of a dead epoch. */
static bool settled(uint32_t a, uint32_t b)
{
    (void)a, (void)b;
    for (uint32_t i = 0; i < AREAS; i++)
        if (host.areas[i].block != NULL && !host.areas[i].rings)
            HOLDS(sum_of(&host.areas[i]) == host.sums[i]);
    return true;
}

/* Some turns, of which the seed says how many: so the steps around it meet the remote anywhere. */
static bool rest(uint32_t most, uint32_t b)
{
    (void)b;
    if (host.rests == 0)
        host.rests = 1 + world_draw(most);
    return --host.rests == 0;
}

static bool reset(uint32_t a, uint32_t b)
{
    (void)a, (void)b;
    world_reset();
    host.resetting = true;
    int status = sbe_session_start(&host.session, world_epoch());
    HOLDS(status == SBE_OK);
    return true;
}

static bool bye(uint32_t a, uint32_t b)
{
    (void)a, (void)b;
    struct host_call *call = host_new_call(CONTROL);
    call->control = true;
    call->service = SBE_CONTROL_BYE;
    HOLDS(sbe_session_bye(&host.session, call) == SBE_OK);
    return true;
}

void host_replied(struct host_call *call, int status, const struct sbe_control *message)
{
    struct host_area *area = &host.areas[call->area % AREAS];
    if (status < 0)
        return; /* the session has ended; the world knows whether it may have */
    switch (call->service) {
    case SBE_CONTROL_AREA_MAP:
        area->mapped = true;
        break;
    case SBE_CONTROL_AREA_UNMAP:
        let_go(area);
        break;
    case SBE_CONTROL_CONTEXT_DESTROY:
        for (uint32_t i = 0; i < AREAS; i++)
            if (AREA[i].context == call->area)
                let_go(&host.areas[i]);
        break;
    case SBE_CONTROL_SERVICE_FIND:
        host.services[call->area] =
            ((const struct sbe_service_reply *)(const void *)message)->service;
        break;
    default:
        break;
    }
}

/* -- calls ------------------------------------------------------------------------------------- */

static struct sbe_buffer buffer_at(uint32_t index, uint8_t direction, uint32_t offset,
                                   uint32_t size)
{
    return (struct sbe_buffer){
        .area = host.areas[index].id, .direction = direction, .offset = offset, .size = size};
}

/* Each call has a value of its own, which its answer shows. */
static bool call(uint32_t channel, uint32_t service, uint32_t area, uint32_t frames)
{
    uint8_t payload[32], bytes[16];
    for (; frames > 0; frames--) {
        uint8_t value = ++host.value;
        struct sbe_frame frame = {
            .type = SBE_FRAME_REQUEST, .service = host.services[service], .payload = payload};
        memset(payload, value, sizeof payload);
        memset(bytes, value, sizeof bytes);
        switch (service) {
        case ECHO:
            frame.payload_size = 24;
            break;
        case RELAY:
            memcpy(payload, "double", sizeof "double");
            frame.payload_size = 20;
            break;
        case CRC32:
            frame.buffers[frame.buffer_count++] =
                buffer_at(area, SBE_DIR_IN, PATTERN, PATTERN_SIZE);
            break;
        case FILL:
            frame.payload_size = 1;
            frame.buffers[frame.buffer_count++] = buffer_at(area, SBE_DIR_OUT, FILLED, FILLED_SIZE);
            break;
        case PARTS:
            frame.payload_size = 1;
            frame.buffers[frame.buffer_count++] = buffer_at(area, SBE_DIR_OUT, PARTED, PARTED_SIZE);
            break;
        case MULAW:
            frame.buffers[frame.buffer_count++] =
                buffer_at(area, SBE_DIR_IN, SAMPLES, SAMPLES_SIZE);
            frame.buffers[frame.buffer_count++] =
                buffer_at(area, SBE_DIR_OUT, ENCODED, SAMPLES_SIZE / 2);
            break;
        default: /* COPY */
            for (uint32_t i = 0; i < 2; i++)
                frame.buffers[frame.buffer_count++] =
                    (struct sbe_buffer){.direction = i == 0 ? SBE_DIR_IN : SBE_DIR_OUT,
                                        .flags = SBE_BUFFER_INLINE,
                                        .size = sizeof bytes,
                                        .data = bytes};
            break;
        }
        struct host_call *record = host_new_call(CALL);
        record->service = (uint8_t)service;
        record->area = (uint8_t)area;
        record->area_id = host.areas[area].id;
        record->value = value;
        HOLDS(host_send(channel, &frame, record)); /* the script has few under way */
    }
    return true;
}

#define CALLER(name, service)                         \
    static bool name(uint32_t channel, uint32_t area) \
    {                                                 \
        return call(channel, service, area, 1);       \
    }
CALLER(echo, ECHO)
CALLER(crc32, CRC32)
CALLER(fill, FILL)
CALLER(copy, COPY)
CALLER(mulaw, MULAW)
CALLER(relay, RELAY)
CALLER(parts, PARTS)

static bool batch(uint32_t channel, uint32_t frames)
{
    return call(channel, ECHO, 0, frames);
}

static bool sync(uint32_t channel, uint32_t area)
{
    struct sbe_frame frame = {.type = SBE_FRAME_SYNC};
    struct host_call *record = host_new_call(CALL);
    frame.buffers[frame.buffer_count++] = buffer_at(area, SBE_DIR_IN, PATTERN, PATTERN_SIZE);
    record->service = SERVICES;
    HOLDS(host_send(channel, &frame, record));
    return true;
}

static bool message(uint32_t channel, uint32_t area)
{
    struct sbe_frame frame = {.type = SBE_FRAME_MESSAGE, .service = host.services[CRC32]};
    frame.buffers[frame.buffer_count++] = buffer_at(area, SBE_DIR_IN, PATTERN, PATTERN_SIZE);
    return sbe_channel_room(&host.channels[channel]) > 0 &&
           sbe_channel_send(&host.channels[channel], &frame) == SBE_OK;
}

/* Of what mulaw has kept, or may have answered meanwhile. */
static bool cancel(uint32_t channel, uint32_t b)
{
    (void)b;
    for (uint32_t i = 0; i < 2 * CALLS; i++) {
        struct host_call *each = &host.calls[i];
        struct sbe_frame frame = {.type = SBE_FRAME_CANCEL, .transaction = each->transaction};
        if (!each->open || each->control || each->service != MULAW || each->channel != channel)
            continue;
        if (sbe_channel_room(&host.channels[channel]) == 0)
            return false;
        world_expects(each->record, CANCELLED);
        HOLDS(sbe_channel_send(&host.channels[channel], &frame) == SBE_OK);
    }
    return true;
}

/* What is under way on a channel may end with it. */
static bool abandon(uint32_t channel, uint32_t b)
{
    (void)b;
    for (uint32_t i = 0; i < 2 * CALLS; i++)
        if (host.calls[i].open && !host.calls[i].control && host.calls[i].channel == channel)
            world_expects(host.calls[i].record, ABANDONED);
    return true;
}

static bool all_are(const uint8_t *bytes, uint8_t value, uint32_t size)
{
    while (size > 0 && bytes[size - 1] == value)
        size--;
    return size == 0;
}

static uint32_t crc_of(const uint8_t *bytes, uint32_t size)
{
    uint32_t crc = ~0u;
    for (uint32_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (uint32_t bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ ((crc & 1u) != 0 ? 0xedb88320u : 0u);
    }
    return ~crc;
}

static bool is_right(const struct host_call *asked, const struct sbe_frame *response)
{
    const uint8_t *payload = response->payload, *block = host.areas[asked->area].block;
    uint32_t crc;
    if (asked->area != 0 && host.areas[asked->area].id != asked->area_id)
        return true; /* the area was let go before this was read: there is nothing to look at */
    switch (asked->service) {
    case ECHO:
        return response->payload_size == 24 && all_are(payload, asked->value, 24);
    case RELAY:
        return response->payload_size == 13 && all_are(payload, (uint8_t)(asked->value + 1), 13);
    case CRC32:
        memcpy(&crc, payload, sizeof crc);
        return response->payload_size == sizeof crc && crc == crc_of(block + PATTERN, PATTERN_SIZE);
    case FILL: /* a later one may have written it as well */
        return response->buffer_count == 1 && response->buffers[0].size == FILLED_SIZE &&
               all_are(block + FILLED, asked->value, FILLED_SIZE);
    case PARTS:
        return response->buffer_count == 1 && response->buffers[0].size == PARTED_SIZE &&
               all_are(block + PARTED, asked->value, PARTED_SIZE);
    case MULAW:
        return response->buffer_count == 1 && all_are(block + ENCODED, 0xff, SAMPLES_SIZE / 2);
    case COPY:
        return response->buffer_count == 1 && all_are(response->buffers[0].data, asked->value, 16);
    default:
        return response->buffer_count == 0;
    }
}

void host_answered(struct host_call *asked, int status, const struct sbe_frame *response)
{
    world_answered(asked->record, status, status == SBE_OK && is_right(asked, response));
}

/* -- the script -------------------------------------------------------------------------------- */

#define ESTABLISH                                                                              \
    {context_create, 1, 0, CONNECTED}, {context_create, 2, 0, 0}, {map, 0, 0, 0},              \
        {map, 1, 0, REPLIES}, {map, 2, 0, 0}, {map, 3, 0, 0}, {map, 4, 0, 0},                  \
        {find, ECHO, 0, REPLIES}, {find, CRC32, 0, 0}, {find, FILL, 0, 0}, {find, COPY, 0, 0}, \
        {find, MULAW, 0, 0}, {find, RELAY, 0, 0}, {find, PARTS, 0, 0},                         \
        {open_channel, 0, 1, REPLIES}, {open_channel, 1, 3, 0},                                \
    {                                                                                          \
        settled, 0, 0, REPLIES                                                                 \
    }

static const struct step SCRIPT[] = {
    ESTABLISH,
    {echo, 0, 0, 0},
    {batch, 1, 4, ANSWERS},
    {crc32, 0, 1, 0},
    {fill, 0, 2, 0},
    {parts, 0, 2, 0},
    {copy, 1, 0, ANSWERS},
    {mulaw, 0, 1, 0},
    {relay, 1, 0, 0},
    {sync, 0, 1, 0},
    {message, 0, 1, 0},
    {mulaw, 0, 2, ANSWERS},
    {rest, 3, 0, 0},
    {cancel, 0, 0, 0},
    {mulaw, 0, 2, ANSWERS},
    {parts, 0, 2, 0},
    {rest, 4, 0, 0},
    {unmap, 2, 0, 0},
    {map, 2, 0, REPLIES | ANSWERS},
    {fill, 0, 2, REPLIES},
    {ping, 5, 0, 0},
    {list, 0, 0, 0},
    {power, SBE_EVENT_SUSPEND, 0, REPLIES | ANSWERS},
    {echo, 0, 0, 0},
    {power, SBE_EVENT_RESUME, 0, 0},
    {relay, 1, 0, ANSWERS},
    {relay, 1, 0, 0},
    {mulaw, 1, 4, 0},
    {mulaw, 1, 4, 0},
    {rest, 4, 0, 0},
    {abandon, 1, 0, 0},
    {close_channel, 1, 0, 0},
    {unmap, 3, 0, REPLIES},
    {map, 3, 0, REPLIES},
    {open_channel, 1, 2, REPLIES},
    {echo, 1, 0, REPLIES},
    {parts, 1, 4, ANSWERS},
    {mulaw, 1, 4, 0},
    {rest, 4, 0, 0},
    {abandon, 1, 0, 0},
    {context_destroy, 2, 0, 0},
    {context_create, 2, 0, REPLIES},
    {map, 3, 0, REPLIES},
    {map, 4, 0, 0},
    {open_channel, 1, 0, REPLIES},
    {mulaw, 1, 4, REPLIES},
    {relay, 1, 0, ANSWERS},
    {mulaw, 0, 1, 0},
    {parts, 0, 2, 0},
    {unmap, 1, 0, 0},
    {rest, 4, 0, 0},
    {reset, 0, 0, 0},
};

/* What must succeed, with all that a pool has room for at once: nothing of it is lost. */
static const struct step LAST[] = {
    ESTABLISH,        {echo, 0, 0, 0},       {relay, 1, 0, 0},     {relay, 1, 0, 0},
    {mulaw, 1, 4, 0}, {mulaw, 0, 1, 0},      {crc32, 0, 1, 0},     {fill, 0, 2, 0},
    {parts, 0, 2, 0}, {copy, 1, 0, ANSWERS}, {bye, 0, 0, ANSWERS},
};

#define COUNT(table) ((uint32_t)(sizeof(table) / sizeof *(table)))
#define END          (COUNT(SCRIPT) + COUNT(LAST))

static bool may_run(const struct step *step)
{
    if (host.session.state != SBE_SESSION_CONNECTED)
        return false;
    if ((step->waits & REPLIES) != 0 && host_open_calls(true) > 0)
        return false;
    return (step->waits & ANSWERS) == 0 || host_open_calls(false) == 0;
}

bool host_go_on(void)
{
    bool any = false;
    while (host.at < END) {
        uint32_t at = host.at;
        const struct step *step = at < COUNT(SCRIPT) ? &SCRIPT[at] : &LAST[at - COUNT(SCRIPT)];
        if (!may_run(step) || !step->run(step->a, step->b))
            return any || host.rests > 0;
        any = true;
        if (host.at == at) /* else it has led elsewhere */
            host.at++;
        if (step->run == reset)
            break;
    }
    return any;
}

bool host_at_end(void)
{
    return host.done;
}

void host_peer_met(void)
{
    host.resetting = false;
    while (host.quarantined > 0)
        world_give_block(host.quarantine[--host.quarantined]);
    for (uint32_t i = 0; i < AREAS; i++)
        if (host.areas[i].block != NULL && !host.areas[i].rings)
            host.sums[i] = sum_of(&host.areas[i]);
}

void host_peer_lost(void)
{
    bool orderly = host.session.state == SBE_SESSION_CLOSED;
    HOLDS(!orderly || host.at == END);
    for (uint32_t i = 0; i < CHANNELS; i++)
        host_end_calls(i, SBE_ECONNRESET);
    for (uint32_t i = 0; i < AREAS; i++) {
        struct host_area *area = &host.areas[i];
        if (area->rings || area->ending || orderly)
            let_go(area);
        area->mapped = false;
    }
    host.power_answers = host.rests = 0;
    host.done = orderly; /* and stays so, whoever dies after that */
    if (!orderly)
        host.at = COUNT(SCRIPT);
}
