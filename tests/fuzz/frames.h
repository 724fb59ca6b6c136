/* SPDX-License-Identifier: Apache-2.0 */
/* Frames as a fuzzer makes them: mostly such as an honest requester sends, each field at will. */
#ifndef SBE_TESTS_FUZZ_FRAMES_H
#define SBE_TESTS_FUZZ_FRAMES_H

#include "core/channel.h"
#include "input.h"

struct frame_maker {
    uint32_t areas;       /* indices in use */
    uint32_t services;    /* ids in use, 1 to this */
    uint32_t size;        /* bytes of an area's part, at most */
    uint64_t transaction; /* of who answers, or asks */
    uint32_t room;        /* bytes of the slot */
};

static inline void make_buffer(struct input *input, const struct frame_maker *maker,
                               struct sbe_wire_buffer *buffer)
{
    uint8_t choice = take_u8(input);
    *buffer = (struct sbe_wire_buffer){
        .direction = (uint8_t)number(input, choice >> 2 == 63 ? SBE_DIR_SHARED : 1 + choice % 3u)};
    if ((choice & 64u) != 0) {
        buffer->flags = SBE_BUFFER_INLINE;
        buffer->size = number(input, pick(input, 24));
    } else {
        buffer->area = number32(input, 1u << 16 | pick(input, maker->areas));
        buffer->offset = number(input, pick(input, 16));
        buffer->size = number(input, take_u8(input) % maker->size);
    }
    buffer->reserved = rarely(input) ? take_u8(input) : 0;
}

/* An IN and an OUT part of an area, or the same inline. */
static inline uint32_t put_in_out(uint8_t *at, uint32_t size, bool carried)
{
    struct sbe_wire_buffer buffers[2] = {
        {.direction = SBE_DIR_IN, .size = size},
        {.direction = SBE_DIR_OUT, .size = size},
    };
    for (uint32_t i = 0; i < 2; i++) {
        buffers[i].flags = carried ? SBE_BUFFER_INLINE : 0;
        buffers[i].area = carried ? 0 : 1u << 16;
        buffers[i].offset = carried ? 0 : (uint64_t)i * size;
    }
    memcpy(at, buffers, sizeof buffers);
    return (uint32_t)sizeof buffers + (carried ? size : 0);
}

/* What a service takes, a wish to cancel it, or an empty answer. */
static inline uint32_t make_usual(struct input *input, const struct frame_maker *maker,
                                  uint8_t *bytes)
{
    uint32_t kind = pick(input, 5), size = (take_u8(input) % maker->size & 63u) & ~1u;
    struct sbe_wire_frame header = {
        .size = sizeof header,
        .type = kind == 3   ? SBE_FRAME_RESPONSE
                : kind == 4 ? SBE_FRAME_CANCEL
                            : SBE_FRAME_REQUEST,
        .service = (uint16_t)(1 + pick(input, maker->services)),
        .transaction = maker->transaction,
    };
    memset(bytes, 0, maker->room);
    if (kind < 2) {
        header.buffer_count = 2;
        header.size += put_in_out(bytes + sizeof header, size, kind == 1);
    } else if (kind == 2) {
        header.payload_size = 5 + pick(input, 64);
        header.size += header.payload_size;
        memcpy(bytes + sizeof header, "echo", 4);
    }
    memcpy(bytes, &header, sizeof header);
    return header.size;
}

/* Writes at most maker->room bytes; how many. What a field says may be another number. */
static inline uint32_t make_frame(struct input *input, const struct frame_maker *maker,
                                  uint8_t *bytes)
{
    if ((take_u8(input) & 3u) == 3u)
        return make_usual(input, maker, bytes);
    struct sbe_wire_frame header = {.type = (uint8_t)number(input, 1)};
    uint32_t at = sizeof header, count = pick(input, 4), carried = 0;
    if (header.type == 0 || rarely(input))
        header.type = (uint8_t)(1 + pick(input, 6));
    memset(bytes, 0, maker->room);
    uint8_t wanted = header.type == SBE_FRAME_RESPONSE ? SBE_DIR_OUT : SBE_DIR_IN;
    for (uint32_t i = 0; i < count && at + sizeof(struct sbe_wire_buffer) <= maker->room; i++) {
        struct sbe_wire_buffer buffer;
        make_buffer(input, maker, &buffer);
        if ((buffer.flags & SBE_BUFFER_INLINE) != 0 && (buffer.direction & wanted) != 0)
            carried += (uint32_t)buffer.size;
        memcpy(bytes + at, &buffer, sizeof buffer);
        at += (uint32_t)sizeof buffer;
    }
    uint32_t payload = take_u8(input) & 31u, room = maker->room - at;
    payload = payload < room ? payload : room;
    take_bytes(input, bytes + at, payload);
    at += payload;
    carried = carried < maker->room - at ? carried : maker->room - at;
    take_bytes(input, bytes + at, carried);
    header.size = number32(input, at + carried);
    header.flags = (uint8_t)number(input, 0);
    header.service = (uint16_t)number(input, 1 + pick(input, maker->services));
    bool transacts = header.type != SBE_FRAME_MESSAGE && header.type != SBE_FRAME_EVENT;
    header.transaction = number(input, transacts ? maker->transaction : 0);
    header.status = (int32_t)number(input, 0);
    header.buffer_count = (uint16_t)number(input, count);
    header.reserved = (uint16_t)number(input, 0);
    header.payload_size = number32(input, payload);
    header.deadline_us = (uint32_t)number(input, 0);
    memcpy(bytes, &header, sizeof header);
    return at + carried;
}

#endif
