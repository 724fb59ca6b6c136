/* SPDX-License-Identifier: Apache-2.0 */
#include "core/engine.h"

#include <string.h>

#include "core/cache.h"
#include "core/status.h"

#define DEFAULT_BUDGET 32u

static uint64_t now(const struct sbe_engine *engine)
{
    return engine->port->now_ns(engine->port->self);
}

/* Nanoseconds, at most what a response can say. */
static uint32_t between(uint64_t from_ns, uint64_t to_ns)
{
    uint64_t duration_ns = to_ns - from_ns;
    return duration_ns >> 32 != 0 ? UINT32_MAX : (uint32_t)duration_ns;
}

/* -- channels with work: lists, because one of thousands may be active ----------------------- */

void sbe_engine_doorbell(struct sbe_engine *engine, struct sbe_channel *channel)
{
    struct sbe_engine_channel *entry = (struct sbe_engine_channel *)(void *)channel;
    if (entry->active || !entry->used)
        return;
    struct sbe_engine_channel **last = &engine->last[entry->priority];
    entry->active = true;
    entry->next = entry;
    if (*last != NULL) {
        entry->next = (*last)->next;
        (*last)->next = entry;
    }
    *last = entry;
}

static void forget_work(struct sbe_engine *engine, struct sbe_engine_channel *entry)
{
    struct sbe_engine_channel **last = &engine->last[entry->priority], *before = *last;
    if (!entry->active)
        return;
    while (before->next != entry)
        before = before->next;
    before->next = entry->next;
    if (*last == entry)
        *last = before != entry ? before : NULL;
    entry->active = false;
}

/* -- answering ----------------------------------------------------------------------------- */

/* Moves buffers to this end or back; back also after a failure, and before memory is let go. */
static void hand_over(struct sbe_channel *channel, enum sbe_handover step,
                      const struct sbe_buffer *buffer, uint32_t count)
{
    const struct sbe_area_table *areas = channel->areas;
    if (areas->coherent)
        return;
    for (; count > 0; count--, buffer++) {
        const struct sbe_area *area = sbe_area_find(areas, buffer->area);
        if (area != NULL && (area->flags & SBE_AREA_COHERENT) == 0) /* NULL: it rides inline */
            channel->counters.synced += sbe_cache_handover(channel->port, step, buffer);
    }
}

static bool is_output(const struct sbe_buffer *buffer)
{
    return (buffer->direction & (SBE_DIR_OUT | SBE_DIR_SHARED)) != 0;
}

/* From `engine` on a kept request is as the request was. */
#define TAKEN_OVER (offsetof(struct sbe_kept, place) - offsetof(struct sbe_kept, engine))
#define SAME_PLACE(field)                                                                  \
    _Static_assert(offsetof(struct sbe_kept, field) - offsetof(struct sbe_kept, engine) == \
                       offsetof(struct sbe_request, field),                                \
                   #field)
SAME_PLACE(engine);
SAME_PLACE(channel);
SAME_PLACE(service);
SAME_PLACE(payload);
SAME_PLACE(payload_size);
SAME_PLACE(buffer_count);
SAME_PLACE(transaction);
SAME_PLACE(begun_ns);
SAME_PLACE(waited_ns);

/*
 * Answers a request, or what a kept one has of it; there is room, it was promised. The response is
 * a frame of its own because a handler may answer a kept request while it looks at another.
 */
static int respond(const struct sbe_request *request, int result, const void *payload,
                   uint32_t payload_size, const struct sbe_buffer *buffers, const uint64_t *written)
{
    struct sbe_engine *engine = request->engine;
    struct sbe_channel *channel = request->channel;
    struct sbe_frame *frame = &engine->response;
    struct sbe_buffer *next = frame->buffers;
    frame->status = result;
    frame->payload = payload;
    frame->payload_size = payload_size;
    frame->transaction = request->transaction;
    frame->waited_ns = request->waited_ns;
    for (uint32_t left = request->buffer_count; left > 0; left--, buffers++, written++) {
        if (!is_output(buffers))
            continue;
        hand_over(channel, SBE_GIVE_BACK, buffers, 1);
        *next = *buffers;
        if (*written < next->size)
            next->size = *written;
        next++;
    }
    frame->type = SBE_FRAME_RESPONSE;
    frame->buffer_count = (uint16_t)(next - frame->buffers);
    frame->handled_ns = between(request->begun_ns, now(engine));
    int status = sbe_channel_send(channel, frame);
    if (status == SBE_EMSGSIZE) {
        frame->status = SBE_ENOSPC; /* the answer does not fit: say so rather than nothing */
        frame->buffer_count = 0;
        frame->payload_size = 0;
        status = sbe_channel_send(channel, frame);
    }
    return status;
}

/* -- kept requests ------------------------------------------------------------------------- */

/*
 * Those of a channel are a trie by the bits of their transactions, the lowest first, in which
 * requesters count. So the cost of each is that of the bits which tell it from the others, at most
 * 64 whatever a requester makes of them, and not of how many are kept or in which order they end.
 */
SBE_OUT_OF_LINE static struct sbe_kept **place_of(struct sbe_channel *channel, uint64_t transaction)
{
    struct sbe_kept **place = &((struct sbe_engine_channel *)(void *)channel)->kept;
    for (uint64_t bits = transaction; *place != NULL; bits >>= 1) {
        if ((*place)->transaction == transaction)
            break;
        place = &(*place)->below[bits & 1];
    }
    return place;
}

static void pin(struct sbe_engine *engine, const struct sbe_kept *kept, bool hold)
{
    const struct sbe_buffer *buffer = kept->buffers;
    for (uint32_t left = kept->buffer_count; left > 0; left--, buffer++) {
        struct sbe_area *area = sbe_area_find(&engine->session.areas, buffer->area);
        if (area == NULL)
            continue; /* inline */
        if (hold)
            area->pins++;
        else
            sbe_session_unpin(&engine->session, area);
    }
}

static int stash(struct sbe_kept *kept, uint8_t *scratch, uint32_t room)
{
    uint32_t used = (kept->payload_size + 7u) & ~7u; /* came in a slot, so it can't wrap */
    if (used > room)
        return SBE_ENOSPC;
    if (kept->payload_size != 0)
        memcpy(scratch, kept->payload, kept->payload_size);
    kept->payload = scratch;
    struct sbe_buffer *buffer = kept->buffers;
    for (uint32_t left = kept->buffer_count; left > 0; left--, buffer++) {
        if ((buffer->flags & SBE_BUFFER_INLINE) == 0)
            continue;
        uint32_t size = (uint32_t)buffer->size; /* fits a slot: it came in one or was checked */
        if (size > room - used)
            return SBE_ENOSPC;
        if ((buffer->direction & SBE_DIR_IN) != 0 && size != 0)
            memcpy(scratch + used, buffer->data, size);
        buffer->data = scratch + used;
        used += size;
    }
    return SBE_OK;
}

int sbe_request_keep(struct sbe_request *request, struct sbe_kept *kept, void *scratch,
                     uint32_t scratch_size)
{
    struct sbe_engine *engine = request->engine;
    struct sbe_channel *channel = request->channel;
    uint32_t count = request->buffer_count;
    /* One slot is never promised to what is kept, or a CANCEL could not come in. */
    if (channel->promised > channel->tx.mask)
        return SBE_EAGAIN;
    struct sbe_kept **place = place_of(channel, request->transaction);
    if (request->transaction == 0 || *place != NULL || count > SBE_KEPT_BUFFERS ||
        request->service->cancel == NULL)
        return SBE_ENOTSUP;
    kept->below[0] = kept->below[1] = NULL;
    kept->place = place;
    memcpy(&kept->engine, request, TAKEN_OVER);
    memcpy(kept->buffers, request->buffers, count * sizeof *kept->buffers);
    memcpy(kept->written, request->written, count * sizeof *kept->written);
    int status = stash(kept, scratch, scratch_size);
    if (status < 0)
        return status;
    pin(engine, kept, true);
    channel->promised++;
    *place = kept;
    return SBE_OK;
}

/* The last one below takes its place: the bits that lead there are its own, too. */
static void take_out(struct sbe_kept *kept)
{
    struct sbe_kept *last = kept, *next = kept;
    do {
        last = next;
        next = last->below[last->below[0] == NULL];
    } while (next != NULL);
    *last->place = NULL;
    if (last != kept) {
        last->place = kept->place;
        *last->place = last;
        for (uint32_t i = 0; i < 2; i++) {
            last->below[i] = kept->below[i];
            if (last->below[i] != NULL)
                last->below[i]->place = &last->below[i];
        }
    }
    kept->channel->promised--;
}

int sbe_kept_answer(struct sbe_kept *kept, int status, const void *payload, uint32_t payload_size)
{
    struct sbe_channel *channel = kept->channel;
    if (channel == NULL)
        return SBE_OK;
    take_out(kept);
    int sent = respond((const void *)&kept->engine, status, payload, payload_size, kept->buffers,
                       kept->written);
    sbe_channel_flush(channel);
    pin(kept->engine, kept, false);
    kept->channel = NULL;
    return sent;
}

static void cancel_kept(const struct sbe_engine *engine, struct sbe_channel *channel)
{
    struct sbe_kept *kept = *place_of(channel, engine->frame.transaction);
    if (kept != NULL)
        kept->service->cancel(kept);
}

/* The requester is gone: its kept requests end without an answer. */
static void drop_kept(struct sbe_engine *engine, struct sbe_engine_channel *entry)
{
    struct sbe_kept *kept;
    while ((kept = entry->kept) != NULL) { /* the service may answer others as well */
        take_out(kept);
        kept->channel = NULL;
        kept->service->cancel(kept);
        hand_over(&entry->channel, SBE_GIVE_BACK, kept->buffers, kept->buffer_count);
        pin(engine, kept, false);
    }
}

/* -- requests ------------------------------------------------------------------------------ */

/* Gives inline OUT buffers and the reply's payload their places in scratch_out. */
static int lay_out(struct sbe_engine *engine, struct sbe_request *request)
{
    uint8_t *out = engine->config->scratch_out;
    uint32_t size = request->channel->tx.slot_size, carried = 0, used = 0, outputs = 0;
    struct sbe_buffer *buffer = request->buffers;
    uint64_t *written = request->written;
    for (uint32_t left = engine->frame.buffer_count; left > 0; left--, buffer++, written++) {
        *written = 0;
        if (!is_output(buffer))
            continue;
        outputs++;
        if (buffer->direction == SBE_DIR_INOUT)
            *written = buffer->size;
        if ((buffer->flags & SBE_BUFFER_INLINE) == 0)
            continue;
        if (buffer->size > size - used)
            return SBE_EMSGSIZE;
        carried += (uint32_t)buffer->size;
        if (buffer->direction == SBE_DIR_OUT) { /* INOUT is worked on where it arrived */
            buffer->data = out + used;
            used += ((uint32_t)buffer->size + 7u) & ~7u; /* a slot is a multiple of 8 */
        }
    }
    request->reply = out + used;
    request->reply_room = sbe_channel_payload_room(request->channel, outputs, carried);
    if (request->reply_room > size - used)
        request->reply_room = size - used;
    return SBE_OK;
}

static void enter_context(const struct sbe_engine *engine, uint32_t context)
{
    if (engine->port->context_enter != NULL)
        engine->port->context_enter(engine->port->self, context);
}

SBE_OUT_OF_LINE static int call_service(struct sbe_engine *engine, struct sbe_request *request)
{
    const struct sbe_frame *frame = &engine->frame;
    if (frame->status < 0)
        return frame->status; /* its buffers did not resolve */
    if (frame->deadline_us != 0 &&
        request->begun_ns - frame->seen_ns > (uint64_t)frame->deadline_us * 1000u)
        return SBE_ETIMEDOUT;
    int status = lay_out(engine, request);
    if (status < 0)
        return status;
    request->buffer_count = frame->buffer_count; /* from here on they are handed over */
    hand_over(request->channel, SBE_TAKE, frame->buffers, frame->buffer_count);
    if (frame->type == SBE_FRAME_SYNC)
        return SBE_OK;
    if (frame->service == 0 || frame->service > engine->config->service_count)
        return SBE_ENOENT;
    request->service = engine->config->services[frame->service - 1];
    enter_context(engine, request->channel->context);
    status = request->service->handle(request);
    enter_context(engine, SBE_CONTEXT_GLOBAL);
    return status;
}

static void serve(struct sbe_engine *engine, struct sbe_channel *channel)
{
    struct sbe_request *request = &engine->request;
    struct sbe_frame *frame = &engine->frame;
    request->begun_ns = now(engine);
    request->waited_ns = between(frame->seen_ns, request->begun_ns);
    request->engine = engine;
    request->channel = channel;
    request->transaction = frame->transaction;
    request->payload = frame->payload;
    request->payload_size = frame->payload_size;
    request->buffer_count = 0;
    request->buffers = frame->buffers;
    request->reply_size = 0;
    channel->promised++; /* nothing that the handler sends takes the answer's place */
    int status = call_service(engine, request);
    channel->promised--;
    if (status == SBE_KEPT || request->transaction == 0)
        return;
    if (status == SBE_OK && request->reply_size > request->reply_room)
        status = SBE_ENOSPC;
    /* a broken ring is told by the next receive */
    (void)respond(request, status, request->reply, status == SBE_OK ? request->reply_size : 0,
                  request->buffers, request->written);
}

static void meet_response(struct sbe_engine *engine, struct sbe_channel *channel)
{
    struct sbe_frame *frame = &engine->frame;
    struct sbe_outcall *call = frame->owner;
    hand_over(channel, SBE_TAKE_BACK, frame->buffers, frame->buffer_count);
    call->done(call, frame->status, frame);
}

/* One frame of this channel: 1 taken, 0 none there, -1 it can't go on before it is rung or closed.
 */
static int serve_one(struct sbe_engine *engine, struct sbe_engine_channel *entry)
{
    struct sbe_channel *channel = &entry->channel;
    /* step: room-first. Not before its answer has a place: the requester waits for it, not we. */
    if (sbe_channel_room(channel) == 0 && sbe_channel_wait_room(channel))
        return -1;
    int status = SBE_EPROTO; /* nothing is executed that can't be answered */
    if (!channel->tx.broken)
        status = sbe_channel_receive(channel, &engine->frame, engine->config->scratch_in);
    if (status == SBE_EPROTO) {
        entry->used = false; /* shut: no doorbell brings it back, its peer must close it */
        (void)sbe_session_event(&engine->session, SBE_EVENT_CHANNEL_BROKEN, channel->id);
        return -1;
    }
    if (status == 0)
        return 0;
    engine->served++;
    if (status == SBE_EBADMSG)
        return 1;
    if (engine->frame.type == SBE_FRAME_RESPONSE)
        meet_response(engine, channel);
    else if (engine->frame.type == SBE_FRAME_CANCEL)
        cancel_kept(engine, channel);
    else if (engine->frame.type != SBE_FRAME_EVENT) /* for requesters; nobody here listens */
        serve(engine, channel);
    return 1;
}

static void take_turn(struct sbe_engine *engine, struct sbe_engine_channel *entry)
{
    uint32_t left = entry->budget;
    int taken = 1;
    while (left > 0 && (taken = serve_one(engine, entry)) == 1)
        left--;
    bool more = taken == 1 || (taken == 0 && (engine->busy || !sbe_channel_idle(&entry->channel)));
    sbe_channel_flush(&entry->channel);
    if (more) /* step: turn-again */
        sbe_engine_doorbell(engine, &entry->channel);
}

void sbe_engine_later(struct sbe_engine *engine, struct sbe_task *task)
{
    if (task->queued)
        return;
    task->queued = true;
    task->next = engine->tasks;
    engine->tasks = task;
}

static void run_tasks(struct sbe_engine *engine)
{
    struct sbe_task *task = engine->tasks;
    engine->tasks = NULL; /* what is queued in this round waits for the next */
    while (task != NULL) {
        struct sbe_task *next = task->next;
        task->queued = false;
        if (task->run(task))
            sbe_engine_later(engine, task);
        task = next;
    }
}

bool sbe_engine_run(struct sbe_engine *engine)
{
    run_tasks(engine);
    for (uint32_t p = SBE_PRIORITIES; p-- > 0;) {
        struct sbe_engine_channel **last = &engine->last[p], *entry = *last;
        uint32_t turns = 0; /* those that come back in this round wait for the next */
        if (entry != NULL)
            do
                turns++;
            while ((entry = entry->next) != *last);
        /* The list is whole during each turn: what runs there may ring or close any channel. */
        for (; turns > 0 && *last != NULL; turns--) {
            entry = (*last)->next;
            forget_work(engine, entry);
            take_turn(engine, entry);
        }
    }
    for (uint32_t p = 0; p < SBE_PRIORITIES; p++)
        if (engine->last[p] != NULL)
            return true;
    return engine->tasks != NULL;
}

/* -- this end as requester ----------------------------------------------------------------- */

int sbe_engine_find(struct sbe_engine *engine, const struct sbe_channel *channel, const char *name,
                    struct sbe_find *find)
{
    struct sbe_service_find message = {.context = channel->context};
    if (!sbe_name_set(message.name, name))
        return SBE_EINVAL;
    return sbe_session_request(&engine->session, SBE_CONTROL_SERVICE_FIND, &message.control,
                               sizeof message, find);
}

static void found(void *self, void *token, int status, const struct sbe_control *message)
{
    struct sbe_find *find = token;
    (void)self;
    if (find == NULL)
        return; /* our BYE */
    uint16_t service = 0;
    if (message != NULL && status == SBE_OK)
        service = ((const struct sbe_service_reply *)(const void *)message)->service;
    find->done(find, status, service);
}

int sbe_engine_call(struct sbe_engine *engine, struct sbe_channel *channel, struct sbe_frame *frame,
                    struct sbe_outcall *call)
{
    (void)engine;
    if (!((const struct sbe_engine_channel *)(const void *)channel)->used)
        return SBE_ESHUTDOWN; /* broken, closed, or closing and telling us so */
    if (frame->buffer_count > channel->buffers)
        return SBE_EMSGSIZE;
    if (sbe_channel_room(channel) == 0)
        return SBE_EAGAIN; /* the rest is promised to responses */
    frame->type = SBE_FRAME_REQUEST;
    hand_over(channel, SBE_GIVE, frame->buffers, frame->buffer_count);
    int status = sbe_channel_request(channel, frame, call);
    if (status == SBE_OK)
        sbe_channel_flush(channel);
    return status;
}

/* -- what the session asks ----------------------------------------------------------------- */

static int find_service(void *self, uint32_t context, const char *name, uint32_t index,
                        struct sbe_service_reply *reply)
{
    const struct sbe_engine_config *config = ((struct sbe_engine *)self)->config;
    (void)context; /* firmware services are everyone's */
    for (uint32_t i = 0; i < config->service_count; i++) {
        const struct sbe_service *service = config->services[i];
        if (name != NULL ? strcmp(name, service->name) != 0 : index != i)
            continue;
        reply->service = (uint16_t)(i + 1);
        reply->version = service->version;
        (void)sbe_name_set(reply->name, service->name);
        return SBE_OK;
    }
    return SBE_ENOENT;
}

static int open_channel(void *self, const struct sbe_session_channel *known,
                        const struct sbe_channel_open *message, void *send, void *receive)
{
    struct sbe_engine *engine = self;
    const struct sbe_engine_config *config = engine->config;
    size_t place = (size_t)(known - config->session.channels);
    struct sbe_engine_channel *entry = &config->channels[place];
    uint32_t calls = config->calls == NULL ? 0 : config->calls_per_channel;
    struct sbe_channel_config channel = {
        .id = message->channel,
        .context = message->context,
        .geometry = {message->slots, message->slot_size, message->line},
        .send = send,
        .receive = receive,
        .port = engine->port,
        .areas = &engine->session.areas,
        .calls = calls == 0 ? NULL : config->calls + place * calls,
        /* Two engines that call each other never fill both rings with requests alone. */
        .call_count = calls < message->slots / 2 ? calls : message->slots / 2,
    };
    int status = sbe_channel_open(&entry->channel, &channel);
    entry->channel.buffers = engine->session.limits.buffers; /* agreed, may be none */
    entry->priority = (uint8_t)message->priority;
    entry->budget = DEFAULT_BUDGET;
    entry->used = true;
    if (status == SBE_OK && config->opened != NULL)
        status = config->opened(config->port->self, &entry->channel, message);
    if (status < 0)
        *entry = (struct sbe_engine_channel){0};
    else
        sbe_engine_doorbell(engine,
                            &entry->channel); /* frames may be there before the first doorbell */
    return status;
}

static void fail_call(void *self, void *owner)
{
    struct sbe_outcall *call = owner;
    (void)self;
    call->done(call, SBE_ESHUTDOWN, NULL);
}

static void close_channel(void *self, const struct sbe_session_channel *known)
{
    struct sbe_engine *engine = self;
    const struct sbe_engine_config *config = engine->config;
    struct sbe_engine_channel *entry = &config->channels[known - config->session.channels];
    entry->used = false;
    forget_work(engine, entry);
    drop_kept(engine, entry);
    sbe_channel_abort(&entry->channel, fail_call, NULL);
    if (config->closed != NULL)
        config->closed(config->port->self, &entry->channel);
    *entry = (struct sbe_engine_channel){0};
}

int sbe_engine_init(struct sbe_engine *engine, struct sbe_engine_config *config)
{
    memset(engine, 0, sizeof *engine);
    engine->config = config;
    engine->port = config->port;
    engine->hooks.self = engine;
    engine->hooks.channel_open = open_channel;
    engine->hooks.channel_close = close_channel;
    engine->hooks.service = find_service;
    engine->hooks.replied = found;
    memset(config->channels, 0, sizeof *config->channels * config->session.limits.channels);
    config->session.port = config->port;
    config->session.hooks = &engine->hooks;
    return sbe_session_init(&engine->session, &config->session);
}
