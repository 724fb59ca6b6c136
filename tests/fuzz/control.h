/* SPDX-License-Identifier: Apache-2.0 */
/* Control messages as a fuzzer makes them: mostly such as an honest peer sends, each field at will.
 */
#ifndef SBE_TESTS_FUZZ_CONTROL_H
#define SBE_TESTS_FUZZ_CONTROL_H

#include "core/session.h"
#include "input.h"

struct control_maker {
    const struct sbe_session *victim;
    uint8_t role;   /* of who sends */
    uint32_t epoch; /* of who sends */
    uint32_t areas; /* indices in use, as contexts and channels: 1 to this */
    uint32_t contexts;
    uint32_t channels;
    uint64_t addresses; /* where segments usually lie */
    uint64_t area_size; /* bytes of an area, usually */
    uint32_t handles;   /* that a channel and an area without segments usually bring */
    uint32_t slot_size;
};

union control_message {
    uint64_t words[SBE_CONTROL_MAX / sizeof(uint64_t)];
    struct sbe_control control;
    struct sbe_hello hello;
    struct sbe_hello_reply hello_reply;
    struct sbe_ping ping;
    struct sbe_context_message context;
    struct sbe_area_map map;
    struct sbe_area_unmap unmap;
    struct sbe_channel_open open;
    struct sbe_channel_close close;
    struct sbe_service_find find;
    struct sbe_service_list list;
    struct sbe_service_reply service;
    struct sbe_event_message event;
};

static inline uint32_t an_area(struct input *input, const struct control_maker *maker)
{
    uint32_t usual = 1u << 16 | pick(input, maker->areas);
    return number32(input, usual);
}

static inline uint32_t a_context(struct input *input, const struct control_maker *maker)
{
    return number32(input, pick(input, maker->contexts + 1));
}

static inline uint32_t a_channel(struct input *input, const struct control_maker *maker)
{
    return number32(input, 1 + pick(input, maker->channels));
}

static inline void a_name(struct input *input, char *name)
{
    static const char *const NAMES[] = {"echo", "relay", "mulaw", "", "nobody", "crc32"};
    uint32_t which = pick(input, 8);
    if (which < sizeof NAMES / sizeof NAMES[0])
        memcpy(name, NAMES[which], strlen(NAMES[which]));
    else
        take_bytes(input, name, SBE_NAME_SIZE);
}

/* The victim's area at a place, so that what follows can be about one that is there. */
static inline const struct sbe_area *area_at(const struct control_maker *maker, uint32_t place)
{
    return &maker->victim->areas.areas[place % maker->victim->areas.count];
}

/* Segments that cover so many bytes, or half of them: then more should follow. */
static inline void make_segments(struct input *input, const struct control_maker *maker,
                                 struct sbe_area_map *map, uint32_t count, uint64_t left)
{
    struct sbe_segment *segments = (void *)(map + 1);
    bool half = (take_u8(input) & 1u) != 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t part = i + 1 < count ? left / count : half ? left / 2 : left;
        segments[i].address = number(input, maker->addresses + (map->size - left));
        segments[i].size = number(input, part);
        left -= segments[i].size;
    }
}

static inline uint32_t make_map(struct input *input, const struct control_maker *maker,
                                union control_message *message)
{
    struct sbe_area_map *map = &message->map;
    const struct sbe_area *area = area_at(maker, take_u8(input));
    uint32_t count = pick(input, 4), room = (SBE_CONTROL_MAX - (uint32_t)sizeof *map) / 16u;
    if (count == 3)
        count = pick(input, room + 1);
    if (area->missing != 0 && (take_u8(input) & 1u) != 0) { /* its list goes on */
        map->area = number32(input, area->id);
        map->context = number32(input, area->context);
        map->flags = number32(input, area->flags);
        map->size = number(input, area->size);
        map->segment_first = number32(input, area->segments);
        make_segments(input, maker, map, count, area->missing);
    } else {
        map->area = an_area(input, maker);
        map->context = a_context(input, maker);
        map->flags = number32(input, pick(input, SBE_AREA_FLAGS + 1));
        map->handles = number32(input, count == 0 ? maker->handles / 2 : 0);
        map->size = number(input, maker->area_size * (1 + 7 * (take_u8(input) & 1u)));
        map->segment_first = number32(input, 0);
        make_segments(input, maker, map, count, map->size);
    }
    map->segment_count = number32(input, count);
    return (uint32_t)(sizeof *map + count * sizeof(struct sbe_segment));
}

static inline void make_open(struct input *input, const struct control_maker *maker,
                             struct sbe_channel_open *open)
{
    uint32_t place = take_u8(input);
    const struct sbe_area *area = area_at(maker, place);
    for (uint32_t i = 0; i < maker->areas && (area->flags & SBE_AREA_RING) == 0; i++)
        area = area_at(maker, ++place);
    open->channel = a_channel(input, maker);
    open->context = number32(input, area->context);
    open->ring_area = number32(input, area->id);
    open->slots = number32(input, 1u << (1 + pick(input, 3)));
    open->slot_size = number32(input, maker->slot_size);
    open->line = number32(input, 64);
    open->send_offset = number(input, 0);
    open->receive_offset =
        number(input, 2ull * open->line + (uint64_t)open->slots * open->slot_size);
    open->priority = number32(input, pick(input, 4));
    open->handles = number32(input, maker->handles);
}

static inline void make_hello(struct input *input, const struct control_maker *maker,
                              struct sbe_hello *hello)
{
    hello->magic = number32(input, SBE_MAGIC);
    hello->version_min = (uint16_t)number(input, SBE_VERSION_MIN);
    hello->version_max = (uint16_t)number(input, SBE_VERSION_MAX);
    hello->peer_epoch = number32(input, maker->victim->epoch);
    hello->role = (uint8_t)number(input, maker->role);
    hello->coherent = (uint8_t)number(input, 1);
    hello->address_bits = (uint8_t)number(input, 64);
    hello->reserved = (uint8_t)number(input, 0);
    hello->features = number32(input, 0);
    hello->cache_line = number32(input, 64);
    hello->limits.areas = number32(input, 64);
    hello->limits.contexts = number32(input, 8);
    hello->limits.channels = number32(input, 8);
    hello->limits.slots = number32(input, 1024);
    hello->limits.slot_size = number32(input, 4096);
    hello->limits.buffers = number32(input, 16);
    take_bytes(input, hello->name, pick(input, 8));
}

static inline uint32_t make_request(struct input *input, const struct control_maker *maker,
                                    union control_message *message, uint32_t type)
{
    switch (type) {
    case SBE_CONTROL_HELLO:
        make_hello(input, maker, &message->hello);
        return sizeof message->hello;
    case SBE_CONTROL_PING:
        message->ping.cookie = take_u64(input);
        return sizeof message->ping;
    case SBE_CONTROL_CONTEXT_CREATE:
    case SBE_CONTROL_CONTEXT_DESTROY:
        message->context.context = a_context(input, maker);
        return sizeof message->context;
    case SBE_CONTROL_AREA_MAP:
        return make_map(input, maker, message);
    case SBE_CONTROL_AREA_UNMAP:
        message->unmap.area = an_area(input, maker);
        return sizeof message->unmap;
    case SBE_CONTROL_CHANNEL_OPEN:
        make_open(input, maker, &message->open);
        return sizeof message->open;
    case SBE_CONTROL_CHANNEL_CLOSE:
        message->close.channel = a_channel(input, maker);
        return sizeof message->close;
    case SBE_CONTROL_SERVICE_FIND:
        message->find.context = a_context(input, maker);
        message->find.version = (uint16_t)number(input, 0);
        a_name(input, message->find.name);
        return sizeof message->find;
    case SBE_CONTROL_SERVICE_LIST:
        message->list.index = number32(input, take_u8(input));
        return sizeof message->list;
    case SBE_CONTROL_EVENT:
        message->event.event = number32(input, 1 + pick(input, 5));
        message->event.value = number32(input, 1 + pick(input, 3));
        return sizeof message->event;
    default:
        return sizeof message->control;
    }
}

static inline uint32_t make_reply(struct input *input, const struct control_maker *maker,
                                  union control_message *message, uint32_t type)
{
    message->control.id = number32(input, maker->victim->next_id - pick(input, 3));
    switch (type) {
    case SBE_CONTROL_HELLO:
        message->hello_reply.magic = number32(input, SBE_MAGIC);
        message->hello_reply.version = (uint16_t)number(input, SBE_VERSION_MAX);
        message->hello_reply.refusal = (uint16_t)number(input, 0);
        message->hello_reply.peer_epoch = number32(input, maker->victim->epoch);
        return sizeof message->hello_reply;
    case SBE_CONTROL_PING:
        return sizeof message->ping;
    case SBE_CONTROL_SERVICE_FIND:
    case SBE_CONTROL_SERVICE_LIST:
        message->service.service = (uint16_t)number(input, 1 + pick(input, 10));
        a_name(input, message->service.name);
        return sizeof message->service;
    default:
        return sizeof message->control;
    }
}

/* Its size; *handles is how many came beside it. */
static inline uint32_t make_control(struct input *input, const struct control_maker *maker,
                                    union control_message *message, uint32_t *handles)
{
    uint8_t choice = take_u8(input);
    uint32_t type = 1 + choice % 16u, size;
    bool reply = (choice & 0xc0u) == 0xc0u;
    memset(message, 0, sizeof *message);
    if (type > SBE_CONTROL_EVENT + 2) { /* no shape at all */
        size = take_u16(input) % (SBE_CONTROL_MAX + 1u);
        take_bytes(input, message, size);
        *handles = pick(input, 4);
        return size;
    }
    size =
        reply ? make_reply(input, maker, message, type) : make_request(input, maker, message, type);
    struct sbe_control *control = &message->control;
    control->type = (uint16_t)(type | (reply ? SBE_CONTROL_REPLY : 0u));
    control->epoch = number32(input, maker->epoch);
    if (!reply)
        control->id = take_u8(input);
    control->status = (int32_t)number(input, 0);
    *handles = type == SBE_CONTROL_AREA_MAP       ? message->map.handles
               : type == SBE_CONTROL_CHANNEL_OPEN ? message->open.handles
                                                  : 0;
    if (rarely(input)) { /* of another length, with other bytes, or with other handles */
        size = take_u16(input) % (SBE_CONTROL_MAX + 1u);
        *handles = pick(input, 4);
        ((uint8_t *)message)[take_u16(input) % SBE_CONTROL_MAX] = take_u8(input);
    }
    control->size = (uint16_t)number(input, size);
    return size;
}

/* -- what an honest host says, whose epoch is 2; the size of each -------------------------------
 */

static inline uint32_t honest_hello(union control_message *message, uint32_t peer_epoch)
{
    memset(message, 0, sizeof *message);
    message->hello = (struct sbe_hello){
        .control = {.type = SBE_CONTROL_HELLO, .size = sizeof message->hello, .epoch = 2},
        .magic = SBE_MAGIC,
        .version_min = SBE_VERSION_MIN,
        .version_max = SBE_VERSION_MAX,
        .peer_epoch = peer_epoch,
        .role = SBE_ROLE_HOST,
        .coherent = 1,
        .address_bits = 64,
        .cache_line = 64,
        .limits = {64, 8, 8, 1024, 4096, SBE_BUFFERS_MAX},
    };
    return sizeof message->hello;
}

static inline uint32_t honest_hello_reply(union control_message *message, uint32_t peer_epoch)
{
    memset(message, 0, sizeof *message);
    message->hello_reply = (struct sbe_hello_reply){
        .control = {.type = SBE_CONTROL_HELLO | SBE_CONTROL_REPLY,
                    .size = sizeof message->hello_reply,
                    .epoch = 2},
        .magic = SBE_MAGIC,
        .version = SBE_VERSION_MAX,
        .peer_epoch = peer_epoch,
    };
    return sizeof message->hello_reply;
}

static inline uint32_t honest_context(union control_message *message, uint32_t context)
{
    memset(message, 0, sizeof *message);
    message->context = (struct sbe_context_message){
        .control = {.type = SBE_CONTROL_CONTEXT_CREATE,
                    .size = sizeof message->context,
                    .epoch = 2},
        .context = context,
    };
    return sizeof message->context;
}

/* address 0: no segment, which is private memory or a handle. */
static inline uint32_t honest_map(union control_message *message, uint32_t index, uint32_t context,
                                  uint32_t flags, uint64_t size, uint64_t address, uint32_t handles)
{
    memset(message, 0, sizeof *message);
    uint32_t bytes = sizeof message->map;
    message->map = (struct sbe_area_map){
        .area = 1u << 16 | index,
        .context = context,
        .flags = flags,
        .handles = handles,
        .size = size,
        .segment_count = address != 0,
    };
    if (address != 0) {
        const struct sbe_segment segment = {address, size};
        memcpy(&message->map + 1, &segment, sizeof segment);
        bytes += (uint32_t)sizeof segment;
    }
    message->control =
        (struct sbe_control){.type = SBE_CONTROL_AREA_MAP, .size = (uint16_t)bytes, .epoch = 2};
    return bytes;
}

/* The rings lie at the area's begin and, the engine's own, at receive_offset. */
static inline uint32_t honest_open(union control_message *message, uint32_t channel,
                                   uint32_t context, uint32_t ring_area, uint32_t slots,
                                   uint32_t slot_size, uint32_t receive_offset, uint32_t priority)
{
    memset(message, 0, sizeof *message);
    message->open = (struct sbe_channel_open){
        .control = {.type = SBE_CONTROL_CHANNEL_OPEN, .size = sizeof message->open, .epoch = 2},
        .channel = channel,
        .context = context,
        .ring_area = 1u << 16 | ring_area,
        .slots = slots,
        .slot_size = slot_size,
        .line = 64,
        .receive_offset = receive_offset,
        .priority = priority,
    };
    return sizeof message->open;
}

#endif
