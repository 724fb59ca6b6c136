/* SPDX-License-Identifier: Apache-2.0 */
#include "core/channel.h"

#include <string.h>

#include "core/status.h"

/* The private forms of a frame and of a buffer begin with their wire forms. */
#define SAME_PLACE(type, field)                                                                   \
    _Static_assert(offsetof(struct sbe_##type, field) == offsetof(struct sbe_wire_##type, field), \
                   #type "." #field)
SAME_PLACE(frame, size);
SAME_PLACE(frame, type);
SAME_PLACE(frame, flags);
SAME_PLACE(frame, service);
SAME_PLACE(frame, transaction);
SAME_PLACE(frame, status);
SAME_PLACE(frame, buffer_count);
SAME_PLACE(frame, reserved);
SAME_PLACE(frame, payload_size);
SAME_PLACE(frame, deadline_us);
SAME_PLACE(frame, waited_ns);
SAME_PLACE(frame, handled_ns);
SAME_PLACE(buffer, area);
SAME_PLACE(buffer, direction);
SAME_PLACE(buffer, flags);
SAME_PLACE(buffer, reserved);
SAME_PLACE(buffer, offset);
SAME_PLACE(buffer, size);

/* A channel takes over the end of its configuration, from `id` on, as it is. */
#define SETTING(field)                                                                       \
    _Static_assert(offsetof(struct sbe_channel, field) - offsetof(struct sbe_channel, id) == \
                       offsetof(struct sbe_channel_config, field) -                          \
                           offsetof(struct sbe_channel_config, id),                          \
                   #field)
SETTING(context);
SETTING(port);
SETTING(areas);
SETTING(calls);
SETTING(call_count);
SETTING(flush_interval);
SETTING(buffers);
SETTING(handle);

int sbe_channel_open(struct sbe_channel *channel, const struct sbe_channel_config *config)
{
    if (config->call_count > UINT16_MAX + 1u)
        return SBE_EINVAL;
    memset(channel, 0, sizeof *channel);
    memcpy((uint8_t *)channel + offsetof(struct sbe_channel, id),
           (const uint8_t *)config + offsetof(struct sbe_channel_config, id),
           sizeof *config - offsetof(struct sbe_channel_config, id));
    if (channel->flush_interval == 0)
        channel->flush_interval = config->geometry.slots / 2;
    if (channel->buffers - 1 >= SBE_BUFFERS_MAX) /* also when it is 0 */
        channel->buffers = SBE_BUFFERS_MAX;
    for (uint32_t i = 0; i < config->call_count; i++)
        config->calls[i] = (struct sbe_call){.generation = 1, .next_free = i + 1};
    int status = sbe_ring_attach(&channel->tx, config->send, &config->geometry);
    if (status < 0)
        return status;
    return sbe_ring_attach(&channel->rx, config->receive, &config->geometry);
}

/* Which inline buffers carry bytes: towards the responder the inputs, back the outputs. */
static bool carries_bytes(uint8_t type, const struct sbe_buffer *buffer)
{
    uint8_t wanted = type == SBE_FRAME_RESPONSE ? SBE_DIR_OUT : SBE_DIR_IN;
    return (buffer->flags & SBE_BUFFER_INLINE) != 0 && (buffer->direction & wanted) != 0;
}

uint32_t sbe_channel_payload_room(const struct sbe_channel *channel, uint32_t buffer_count,
                                  uint64_t inline_bytes)
{
    uint32_t size = channel->tx.slot_size;
    if (buffer_count > channel->buffers) /* a small number: what follows does not wrap */
        return 0;
    uint32_t used =
        (uint32_t)(sizeof(struct sbe_wire_frame) + buffer_count * sizeof(struct sbe_wire_buffer));
    if (used > size || inline_bytes > size - used)
        return 0;
    return size - used - (uint32_t)inline_bytes;
}

struct cursor { /* in a slot that is being written */
    uint8_t *at;
    uint32_t left; /* bytes */
};

/* False: it does not fit. */
static bool put(struct cursor *to, const void *bytes, uint64_t size)
{
    if (size > to->left)
        return false;
    SBE_STEP("before a part of a frame");
    if (size != 0)
        memcpy(to->at, bytes, (size_t)size);
    SBE_STEP("after a part of a frame");
    to->at += size;
    to->left -= (uint32_t)size;
    return true;
}

/* Whole records, reserved fields included: nothing of our memory goes out by accident. */
static bool write_frame(const struct sbe_channel *channel, struct sbe_wire_frame *header,
                        const struct sbe_frame *frame)
{
    struct cursor to = {(uint8_t *)(header + 1), channel->tx.slot_size - (uint32_t)sizeof *header};
    SBE_STEP("before a frame");
    sbe_copy_record(header, frame, sizeof *header);
    header->flags = 0;
    header->reserved = 0;
    SBE_STEP("after the header of a frame");
    const struct sbe_buffer *buffers = frame->buffers, *end = buffers + frame->buffer_count;
    for (const struct sbe_buffer *buffer = buffers; buffer != end; buffer++) {
        struct sbe_wire_buffer *wire = (struct sbe_wire_buffer *)(void *)to.at;
        if (!put(&to, buffer, sizeof *wire))
            return false;
        wire->reserved = 0;
    }
    if (!put(&to, frame->payload, frame->payload_size))
        return false;
    for (const struct sbe_buffer *buffer = buffers; buffer != end; buffer++)
        if (carries_bytes(frame->type, buffer) && !put(&to, buffer->data, buffer->size))
            return false;
    header->size = channel->tx.slot_size - to.left;
    SBE_STEP("after a frame");
    return true;
}

uint32_t sbe_channel_room(struct sbe_channel *channel)
{
    uint32_t room = sbe_ring_free(&channel->tx, channel->promised + 1);
    return room > channel->promised ? room - channel->promised : 0;
}

int sbe_channel_send(struct sbe_channel *channel, const struct sbe_frame *frame)
{
    void *slot;
    if (frame->buffer_count > channel->buffers)
        return SBE_EMSGSIZE;
    int status = sbe_ring_reserve(&channel->tx, &slot);
    if (status == SBE_EAGAIN)
        channel->counters.full++;
    if (status < 0)
        return status;
    if (!write_frame(channel, slot, frame)) /* step: write-frame */
        return SBE_EMSGSIZE;
    sbe_ring_commit(&channel->tx);
    channel->counters.sent++;
    if (channel->tx.mine - channel->tx.published >= channel->flush_interval)
        sbe_channel_flush(channel);
    return SBE_OK;
}

int sbe_channel_request(struct sbe_channel *channel, struct sbe_frame *frame, void *owner)
{
    if (channel->call_free >= channel->call_count)
        return SBE_ENOMEM;
    struct sbe_call *call = &channel->calls[channel->call_free];
    frame->transaction = (uint64_t)call->generation << 32 | channel->call_free;
    int status = sbe_channel_send(channel, frame);
    if (status < 0)
        return status;
    channel->call_free = call->next_free;
    call->owner = owner;
    return SBE_OK;
}

/* Closes a transaction. The next one in this place has another generation, never 0. */
static void *end_call(struct sbe_channel *channel, uint32_t index)
{
    struct sbe_call *call = &channel->calls[index];
    void *owner = call->owner;
    call->owner = NULL;
    if (++call->generation == 0)
        call->generation = 1;
    call->next_free = channel->call_free;
    channel->call_free = index;
    return owner;
}

void sbe_channel_abort(struct sbe_channel *channel, void (*each)(void *self, void *owner),
                       void *self)
{
    for (uint32_t i = 0; i < channel->call_count; i++)
        if (channel->calls[i].owner != NULL)
            each(self, end_call(channel, i));
}

static void ring_peer(struct sbe_channel *channel)
{
    channel->counters.doorbells++;
    SBE_STEP("before a doorbell");
    channel->port->doorbell(channel->port->self, channel); /* step: ring */
    SBE_STEP("after a doorbell");
}

bool sbe_channel_flush(struct sbe_channel *channel)
{
    bool ring = sbe_ring_publish(&channel->tx);
    if (ring)
        ring_peer(channel);
    return ring;
}

static void return_slots(struct sbe_channel *channel)
{
    if (sbe_ring_return(&channel->rx))
        ring_peer(channel);
}

/* What a frame of each type has; what it has not is zero. */
enum {
    TRANSACTS = 1,
    CARRIES_STATUS = 2,
    CARRIES_PAYLOAD = 4,
    CARRIES_BUFFERS = 8,
};
static const uint8_t SHAPES[] = {
    [SBE_FRAME_REQUEST] = TRANSACTS | CARRIES_PAYLOAD | CARRIES_BUFFERS,
    [SBE_FRAME_RESPONSE] = TRANSACTS | CARRIES_STATUS | CARRIES_PAYLOAD | CARRIES_BUFFERS,
    [SBE_FRAME_MESSAGE] = CARRIES_PAYLOAD | CARRIES_BUFFERS,
    [SBE_FRAME_SYNC] = TRANSACTS | CARRIES_BUFFERS,
    [SBE_FRAME_EVENT] = CARRIES_PAYLOAD | CARRIES_BUFFERS,
    [SBE_FRAME_CANCEL] = TRANSACTS,
};

static bool header_is_legal(const struct sbe_frame *frame, uint32_t slot_size)
{
    if (frame->type < SBE_FRAME_REQUEST || frame->type > SBE_FRAME_CANCEL)
        return false;
    uint32_t shape = SHAPES[frame->type];
    return frame->size >= sizeof(struct sbe_wire_frame) && frame->size <= slot_size &&
           frame->flags == 0 && frame->reserved == 0 && frame->status <= 0 &&
           (frame->transaction != 0) == ((shape & TRANSACTS) != 0) &&
           (frame->status == 0 || (shape & CARRIES_STATUS) != 0) &&
           (frame->payload_size == 0 || (shape & CARRIES_PAYLOAD) != 0) &&
           (frame->buffer_count == 0 || (shape & CARRIES_BUFFERS) != 0) &&
           frame->buffer_count <= SBE_BUFFERS_MAX;
}

static bool buffer_is_legal(const struct sbe_buffer *buffer)
{
    if ((buffer->flags & ~SBE_BUFFER_INLINE) != 0 || buffer->reserved != 0 ||
        buffer->direction < SBE_DIR_IN || buffer->direction > SBE_DIR_SHARED)
        return false;
    return (buffer->flags & SBE_BUFFER_INLINE) == 0 ||
           (buffer->area == 0 && buffer->offset == 0 && buffer->direction != SBE_DIR_SHARED);
}

/*
 * Copies what follows a legal header, each byte once, and checks the copy. False: malformed. What a
 * requester names is resolved; the first failure is the frame's status.
 */
static bool parse(const struct sbe_channel *channel, struct sbe_frame *frame, const uint8_t *shared,
                  uint8_t *copy)
{
    uint32_t left = frame->size - (uint32_t)sizeof(struct sbe_wire_frame);
    struct sbe_buffer *buffers = frame->buffers, *end = buffers + frame->buffer_count;
    for (struct sbe_buffer *buffer = buffers; buffer != end; buffer++) {
        if (left < sizeof(struct sbe_wire_buffer))
            return false;
        sbe_snapshot(buffer, shared, sizeof(struct sbe_wire_buffer));
        buffer->data = NULL;
        if (!buffer_is_legal(buffer))
            return false;
        if ((buffer->flags & SBE_BUFFER_INLINE) == 0) {
            int status = sbe_area_resolve(channel->areas, channel->context, buffer);
            if (frame->type != SBE_FRAME_RESPONSE && frame->status == SBE_OK)
                frame->status = status;
        }
        shared += sizeof(struct sbe_wire_buffer);
        left -= (uint32_t)sizeof(struct sbe_wire_buffer);
    }
    if (frame->payload_size > left)
        return false;
    if (left != 0)
        sbe_snapshot(copy, shared, left);
    frame->payload = copy;
    copy += frame->payload_size;
    left -= frame->payload_size;
    for (struct sbe_buffer *buffer = buffers; buffer != end; buffer++) {
        if (!carries_bytes(frame->type, buffer))
            continue;
        if (buffer->size > left)
            return false;
        buffer->data = copy;
        copy += buffer->size;
        left -= (uint32_t)buffer->size;
    }
    return left == 0;
}

static int meet_call(struct sbe_channel *channel, struct sbe_frame *frame)
{
    uint32_t index = (uint32_t)frame->transaction;
    if (index >= channel->call_count || channel->calls[index].owner == NULL ||
        channel->calls[index].generation != (uint32_t)(frame->transaction >> 32)) {
        channel->counters.late++;
        return SBE_EBADMSG;
    }
    frame->owner = end_call(channel, index);
    return 1;
}

static int take(struct sbe_channel *channel, const uint8_t *slot, struct sbe_frame *frame,
                uint8_t *copy)
{
    const uint32_t header_size = sizeof(struct sbe_wire_frame);
    sbe_copy_record(frame, slot, header_size);
    sbe_copied();
    frame->owner = NULL;
    bool legal = header_is_legal(frame, channel->rx.slot_size) &&
                 parse(channel, frame, slot + header_size, copy);
    if (!legal) {
        channel->counters.bad++;
        frame->status = SBE_EBADMSG;
        frame->buffer_count = 0;
        frame->payload_size = 0;
    }
    if (frame->type == SBE_FRAME_RESPONSE)
        return meet_call(channel, frame);
    if (channel->seen_ns == 0) /* once for all that came together; some clocks cost a system call */
        channel->seen_ns = channel->port->now_ns(channel->port->self);
    frame->seen_ns = channel->seen_ns;
    bool answerable = frame->type == SBE_FRAME_REQUEST || frame->type == SBE_FRAME_SYNC;
    return legal || (answerable && frame->transaction != 0) ? 1 : SBE_EBADMSG;
}

int sbe_channel_receive(struct sbe_channel *channel, struct sbe_frame *frame, void *scratch)
{
    const void *slot;
    bool was_empty = sbe_ring_in_flight(&channel->rx) == 0;
    int status = sbe_ring_peek(&channel->rx, &slot);
    if (status <= 0) {
        if (status == 0)
            return_slots(channel);
        return status;
    }
    if (was_empty)
        channel->seen_ns = 0;
    SBE_STEP("before a frame is read");
    status = take(channel, slot, frame, scratch); /* step: read-frame */
    SBE_STEP("after a frame is read");
    channel->counters.received++;
    sbe_ring_release(&channel->rx);
    /* A quarter of the ring at a time: the producer gets space early, the fence is shared. */
    if (channel->rx.mine - channel->rx.published > channel->rx.mask / 4)
        return_slots(channel);
    return status;
}

int sbe_frame_check_response(const struct sbe_frame *response, const struct sbe_buffer *asked,
                             uint32_t asked_count)
{
    uint32_t next = 0;
    for (const struct sbe_buffer *want = asked, *end = asked + asked_count; want != end; want++) {
        if (want->direction == SBE_DIR_IN)
            continue;
        if (next == response->buffer_count)
            return response->status == SBE_OK ? SBE_EBADMSG : SBE_OK;
        const struct sbe_buffer *got = &response->buffers[next++];
        if (got->area != want->area || got->offset != want->offset || got->flags != want->flags ||
            got->direction != want->direction || got->size > want->size)
            return SBE_EBADMSG;
    }
    return next == response->buffer_count ? SBE_OK : SBE_EBADMSG;
}

bool sbe_channel_idle(struct sbe_channel *channel)
{
    sbe_channel_flush(channel); /* step: idle-publish */
    return_slots(channel);      /* step: idle-return */
    bool was_empty = sbe_ring_in_flight(&channel->rx) == 0;
    bool sleep = sbe_ring_wait_data(&channel->rx);
    if (was_empty && !sleep) /* it came between the last look and this one */
        channel->seen_ns = channel->port->now_ns(channel->port->self);
    return sleep;
}

bool sbe_channel_wait_room(struct sbe_channel *channel)
{
    sbe_channel_flush(channel); /* step: room-publish */
    return_slots(channel);      /* step: room-return. The peer may be waiting for room itself. */
    return sbe_ring_wait_space(&channel->tx, channel->promised + 1);
}
