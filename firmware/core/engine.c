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

static uint32_t saturate(uint64_t duration_ns)
{
    return duration_ns > UINT32_MAX ? UINT32_MAX : (uint32_t)duration_ns;
}

/* -- the list of channels with work -------------------------------------------------------- */

static void enlist(struct sbe_engine *engine, struct sbe_engine_channel *entry)
{
    uint8_t priority = entry->priority;
    if (entry->active || !entry->used)
        return;
    entry->active = true;
    entry->next = NULL;
    if (engine->first[priority] == NULL)
        engine->first[priority] = entry;
    else
        engine->last[priority]->next = entry;
    engine->last[priority] = entry;
}

static void delist(struct sbe_engine *engine, struct sbe_engine_channel *entry)
{
    struct sbe_engine_channel **link = &engine->first[entry->priority], *previous = NULL;
    if (!entry->active)
        return;
    while (*link != entry) {
        previous = *link;
        link = &previous->next;
    }
    *link = entry->next;
    if (engine->last[entry->priority] == entry)
        engine->last[entry->priority] = previous;
    entry->active = false;
}

void sbe_engine_doorbell(struct sbe_engine *engine, struct sbe_channel *channel)
{
    enlist(engine, (struct sbe_engine_channel *)(void *)channel);
}

/* -- answering ----------------------------------------------------------------------------- */

struct answer {
    struct sbe_channel *channel;
    uint64_t transaction;
    uint64_t begun_ns;
    uint32_t waited_ns;
    int status;
    const void *payload;
    uint32_t payload_size;
    const struct sbe_buffer *buffers;
    const uint64_t *written;
    uint32_t buffer_count;
};

static bool is_coherent(const struct sbe_engine *engine, const struct sbe_buffer *buffer)
{
    struct sbe_area *area = sbe_area_find(&engine->session.areas, buffer->area);
    return engine->session.coherent || (buffer->flags & SBE_BUFFER_INLINE) != 0 ||
           (area != NULL && (area->flags & SBE_AREA_COHERENT) != 0);
}

/* Before the requester, or the next owner of the memory, looks: also after a failure. */
static void give_back(struct sbe_engine *engine, struct sbe_channel *channel,
                      const struct sbe_buffer *buffer)
{
    channel->counters.synced +=
        sbe_cache_handover(engine->port, SBE_GIVE_BACK, buffer, is_coherent(engine, buffer));
}

/*
 * Sends a response; there is room, it was promised. It has a frame of its own because a handler may
 * answer a kept request while it looks at another.
 */
static int respond(struct sbe_engine *engine, const struct answer *answer)
{
    struct sbe_frame *frame = &engine->response;
    uint16_t count = 0;
    for (uint32_t i = 0; i < answer->buffer_count; i++) {
        struct sbe_buffer buffer = answer->buffers[i];
        if ((buffer.direction & SBE_DIR_OUT) == 0 && buffer.direction != SBE_DIR_SHARED)
            continue;
        give_back(engine, answer->channel, &buffer);
        buffer.size = answer->written[i] < buffer.size ? answer->written[i] : buffer.size;
        frame->buffers[count++] = buffer;
    }
    frame->type = SBE_FRAME_RESPONSE;
    frame->service = 0;
    frame->transaction = answer->transaction;
    frame->status = answer->status;
    frame->deadline_us = 0;
    frame->waited_ns = answer->waited_ns;
    frame->handled_ns = saturate(now(engine) - answer->begun_ns);
    frame->buffer_count = count;
    frame->payload = answer->payload;
    frame->payload_size = answer->payload_size;
    int status = sbe_channel_send(answer->channel, frame);
    if (status == SBE_EMSGSIZE) {
        frame->status = SBE_ENOSPC; /* the answer does not fit: say so rather than nothing */
        frame->buffer_count = 0;
        frame->payload_size = 0;
        status = sbe_channel_send(answer->channel, frame);
    }
    return status;
}

/* -- kept requests ------------------------------------------------------------------------- */

static void pin(struct sbe_engine *engine, const struct sbe_kept *kept, bool hold)
{
    for (uint32_t i = 0; i < kept->buffer_count; i++) {
        struct sbe_area *area = sbe_area_find(&engine->session.areas, kept->buffers[i].area);
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
    uint32_t used = (kept->payload_size + 7u) & ~7u;
    if (kept->payload_size > room || used > room)
        return SBE_ENOSPC;
    if (kept->payload_size != 0)
        memcpy(scratch, kept->payload, kept->payload_size);
    kept->payload = scratch;
    for (uint32_t i = 0; i < kept->buffer_count; i++) {
        struct sbe_buffer *buffer = &kept->buffers[i];
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
    /* One slot is never promised to what is kept, or a CANCEL could not come in. */
    if (channel->promised > channel->tx.mask)
        return SBE_EAGAIN;
    if (request->transaction == 0 || request->buffer_count > SBE_KEPT_BUFFERS ||
        request->service->cancel == NULL)
        return SBE_ENOTSUP;
    *kept = (struct sbe_kept){
        .next = engine->kept,
        .engine = engine,
        .channel = channel,
        .service = request->service,
        .transaction = request->transaction,
        .begun_ns = engine->begun_ns,
        .waited_ns = saturate(engine->begun_ns - engine->frame.seen_ns),
        .payload = request->payload,
        .payload_size = request->payload_size,
        .buffer_count = request->buffer_count,
    };
    for (uint32_t i = 0; i < request->buffer_count; i++) {
        kept->buffers[i] = request->buffers[i];
        kept->written[i] = request->written[i];
    }
    int status = stash(kept, scratch, scratch_size);
    if (status < 0)
        return status;
    pin(engine, kept, true);
    channel->promised++;
    engine->kept = kept;
    return SBE_OK;
}

static void unlink_kept(struct sbe_kept *kept)
{
    struct sbe_kept **link = &kept->engine->kept;
    while (*link != NULL && *link != kept)
        link = &(*link)->next;
    if (*link != NULL)
        *link = kept->next;
}

int sbe_kept_answer(struct sbe_kept *kept, int status, const void *payload, uint32_t payload_size)
{
    if (kept->channel == NULL)
        return SBE_OK;
    struct answer answer = {
        .channel = kept->channel,
        .transaction = kept->transaction,
        .begun_ns = kept->begun_ns,
        .waited_ns = kept->waited_ns,
        .status = status,
        .payload = payload,
        .payload_size = payload_size,
        .buffers = kept->buffers,
        .written = kept->written,
        .buffer_count = kept->buffer_count,
    };
    unlink_kept(kept);
    kept->channel->promised--;
    int sent = respond(kept->engine, &answer);
    sbe_channel_flush(kept->channel);
    pin(kept->engine, kept, false);
    kept->channel = NULL;
    return sent;
}

static void cancel_kept(struct sbe_engine *engine, const struct sbe_channel *channel)
{
    for (struct sbe_kept *kept = engine->kept; kept != NULL; kept = kept->next) {
        if (kept->channel == channel && kept->transaction == engine->frame.transaction) {
            kept->service->cancel(kept);
            return;
        }
    }
}

/* The requester is gone: its kept requests end without an answer. */
static void drop_kept(struct sbe_engine *engine, struct sbe_channel *channel)
{
    for (struct sbe_kept *kept = engine->kept, *next; kept != NULL; kept = next) {
        next = kept->next;
        if (kept->channel != channel)
            continue;
        unlink_kept(kept);
        kept->channel = NULL;
        kept->service->cancel(kept);
        for (uint32_t i = 0; i < kept->buffer_count; i++)
            give_back(engine, channel, &kept->buffers[i]);
        pin(engine, kept, false);
        next = engine->kept; /* from the start: the service may have answered others as well */
    }
}

/* -- requests ------------------------------------------------------------------------------ */

/* Gives inline OUT buffers and the reply's payload their places in scratch_out. */
static int lay_out(struct sbe_engine *engine, struct sbe_request *request)
{
    uint8_t *out = engine->config->scratch_out;
    uint64_t carried = 0, used = 0;
    uint32_t outputs = 0;
    for (uint32_t i = 0; i < engine->frame.buffer_count; i++) {
        struct sbe_buffer *buffer = &request->buffers[i];
        request->written[i] = buffer->direction == SBE_DIR_INOUT ? buffer->size : 0;
        if ((buffer->direction & SBE_DIR_OUT) != 0 || buffer->direction == SBE_DIR_SHARED)
            outputs++;
        if ((buffer->flags & SBE_BUFFER_INLINE) == 0 || (buffer->direction & SBE_DIR_OUT) == 0)
            continue;
        if (buffer->size > request->channel->tx.slot_size)
            return SBE_EMSGSIZE;
        carried += buffer->size;
        if (buffer->direction != SBE_DIR_OUT)
            continue; /* INOUT is worked on where it arrived */
        buffer->data = out + used;
        used += (buffer->size + 7u) & ~(uint64_t)7u;
        if (used > request->channel->tx.slot_size)
            return SBE_EMSGSIZE;
    }
    request->reply = out + used;
    request->reply_room = sbe_channel_payload_room(request->channel, outputs, carried);
    uint64_t left = request->channel->tx.slot_size - used;
    if (request->reply_room > left)
        request->reply_room = (uint32_t)left;
    return SBE_OK;
}

static int call_service(struct sbe_engine *engine, struct sbe_request *request)
{
    uint32_t index = engine->frame.service;
    if (engine->frame.status < 0)
        return engine->frame.status; /* its buffers did not resolve */
    if (engine->frame.deadline_us != 0 &&
        engine->begun_ns - engine->frame.seen_ns > (uint64_t)engine->frame.deadline_us * 1000u)
        return SBE_ETIMEDOUT;
    int status = lay_out(engine, request);
    if (status < 0)
        return status;
    request->buffer_count = engine->frame.buffer_count; /* from here on they are handed over */
    for (uint32_t i = 0; i < request->buffer_count; i++)
        request->channel->counters.synced +=
            sbe_cache_handover(engine->port, SBE_TAKE, &request->buffers[i],
                               is_coherent(engine, &request->buffers[i]));
    if (engine->frame.type == SBE_FRAME_SYNC)
        return SBE_OK;
    if (index == 0 || index > engine->config->service_count)
        return SBE_ENOENT;
    request->service = engine->config->services[index - 1];
    if (engine->port->context_enter != NULL)
        engine->port->context_enter(engine->port->self, request->channel->context);
    status = request->service->handle(request);
    if (engine->port->context_enter != NULL)
        engine->port->context_enter(engine->port->self, SBE_CONTEXT_GLOBAL);
    return status;
}

static void serve(struct sbe_engine *engine, struct sbe_channel *channel)
{
    struct sbe_request *request = &engine->request;
    struct sbe_frame *frame = &engine->frame;
    engine->begun_ns = now(engine);
    request->engine = engine;
    request->channel = channel;
    request->transaction = frame->transaction;
    request->payload = frame->payload;
    request->payload_size = frame->payload_size;
    request->buffer_count = 0;
    request->buffers = frame->buffers;
    request->reply_size = 0;
    uint64_t seen_ns = frame->seen_ns;
    channel->promised++; /* nothing that the handler sends takes the answer's place */
    int status = call_service(engine, request);
    channel->promised--;
    if (status == SBE_KEPT || request->transaction == 0)
        return;
    struct answer answer = {
        .channel = channel,
        .transaction = request->transaction,
        .begun_ns = engine->begun_ns,
        .waited_ns = saturate(engine->begun_ns - seen_ns),
        .status = status,
        .payload = request->reply,
        .payload_size = request->reply_size,
        .buffers = request->buffers,
        .written = request->written,
        .buffer_count = request->buffer_count,
    };
    if (answer.payload_size > request->reply_room)
        answer.payload_size = 0, answer.status = SBE_ENOSPC;
    if (status < 0)
        answer.payload_size = 0;
    (void)respond(engine, &answer); /* a broken ring is told by the next receive */
}

static void meet_response(struct sbe_engine *engine)
{
    struct sbe_outcall *call = engine->frame.owner;
    call->done(call, engine->frame.status, &engine->frame);
}

/* One frame of this channel. False: nothing more for now. */
static bool serve_one(struct sbe_engine *engine, struct sbe_engine_channel *entry)
{
    struct sbe_channel *channel = &entry->channel;
    /* Not before its answer has a place: the requester waits for space, not we. */
    if (sbe_channel_room(channel) == 0 && sbe_channel_wait_room(channel)) {
        delist(engine, entry);
        return false;
    }
    int status = SBE_EPROTO; /* nothing is executed that can't be answered */
    if (!channel->tx.broken)
        status = sbe_channel_receive(channel, &engine->frame, engine->config->scratch_in);
    if (status == 1) {
        engine->served++;
        if (engine->frame.type == SBE_FRAME_RESPONSE)
            meet_response(engine);
        else if (engine->frame.type == SBE_FRAME_CANCEL)
            cancel_kept(engine, channel);
        else if (engine->frame.type != SBE_FRAME_EVENT) /* for requesters; nobody here listens */
            serve(engine, channel);
        return true;
    }
    if (status == SBE_EBADMSG)
        return true;
    if (status == 0)
        return false;
    delist(engine, entry);
    entry->used = false; /* shut: no doorbell brings it back, its peer must close it */
    (void)sbe_session_event(&engine->session, SBE_EVENT_CHANNEL_BROKEN, channel->id);
    return false;
}

bool sbe_engine_run(struct sbe_engine *engine)
{
    bool more = false;
    for (uint32_t p = SBE_PRIORITIES; p-- > 0;) {
        struct sbe_engine_channel *last = engine->last[p], *entry;
        for (bool end = engine->first[p] == NULL; !end;) {
            entry = engine->first[p];
            end = entry == last; /* those that come back in this round wait for the next */
            uint32_t left = entry->budget;
            while (left > 0 && serve_one(engine, entry))
                left--;
            bool rest =
                entry->active && (left == 0 || engine->busy || !sbe_channel_idle(&entry->channel));
            sbe_channel_flush(&entry->channel);
            delist(engine, entry);
            if (rest)
                enlist(engine, entry);
            if (engine->first[p] == NULL)
                end = true;
        }
        more = more || engine->first[p] != NULL;
    }
    return more;
}

/* -- this end as requester ----------------------------------------------------------------- */

int sbe_engine_find(struct sbe_engine *engine, const struct sbe_channel *channel, const char *name,
                    struct sbe_find *find)
{
    struct sbe_service_find message = {.context = channel->context};
    size_t length = strlen(name);
    if (length >= SBE_NAME_SIZE)
        return SBE_EINVAL;
    memcpy(message.name, name, length);
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
    if (sbe_channel_room(channel) == 0)
        return SBE_EAGAIN; /* the rest is promised to responses */
    frame->type = SBE_FRAME_REQUEST;
    int status = sbe_channel_request(channel, frame, call);
    if (status == SBE_OK)
        sbe_channel_flush(channel);
    return status;
}

/* -- what the session asks ----------------------------------------------------------------- */

static int find_service(void *self, uint32_t context, const char *name, int64_t index,
                        struct sbe_service_reply *reply)
{
    const struct sbe_engine_config *config = ((struct sbe_engine *)self)->config;
    (void)context; /* firmware services are everyone's */
    for (uint32_t i = 0; i < config->service_count; i++) {
        const struct sbe_service *service = config->services[i];
        if (name != NULL ? strcmp(name, service->name) != 0 : index != (int64_t)i)
            continue;
        reply->service = (uint16_t)(i + 1);
        reply->version = service->version;
        memcpy(reply->name, service->name, strlen(service->name));
        return SBE_OK;
    }
    return SBE_ENOENT;
}

static struct sbe_engine_channel *find_entry(struct sbe_engine *engine, uint32_t id)
{
    for (uint32_t i = 0; i < engine->config->session.limits.channels; i++)
        if (engine->config->channels[i].channel.id == id)
            return &engine->config->channels[i];
    return NULL;
}

static int open_channel(void *self, const struct sbe_channel_open *message, void *send,
                        void *receive)
{
    struct sbe_engine *engine = self;
    const struct sbe_engine_config *config = engine->config;
    struct sbe_engine_channel *entry = find_entry(engine, 0);
    if (entry == NULL)
        return SBE_ENOMEM;
    size_t index = (size_t)(entry - config->channels);
    struct sbe_channel_config channel = {
        .id = message->channel,
        .context = message->context,
        .geometry = {message->slots, message->slot_size, message->line},
        .send = send,
        .receive = receive,
        .port = engine->port,
        .areas = &engine->session.areas,
        .calls = config->calls == NULL ? NULL : config->calls + index * config->calls_per_channel,
        .call_count = config->calls == NULL ? 0 : config->calls_per_channel,
    };
    /* Two engines that call each other never fill both rings with requests alone. */
    if (channel.call_count > message->slots / 2)
        channel.call_count = message->slots / 2;
    int status = sbe_channel_open(&entry->channel, &channel);
    entry->priority = (uint8_t)message->priority;
    entry->budget = DEFAULT_BUDGET;
    entry->used = true;
    entry->active = false;
    if (status == SBE_OK && config->opened != NULL)
        status = config->opened(config->port->self, &entry->channel, message);
    if (status < 0)
        *entry = (struct sbe_engine_channel){0};
    else
        enlist(engine, entry); /* frames may be there before the first doorbell */
    return status;
}

static void fail_call(void *self, void *owner)
{
    struct sbe_outcall *call = owner;
    (void)self;
    call->done(call, SBE_ESHUTDOWN, NULL);
}

static int close_channel(void *self, uint32_t id)
{
    struct sbe_engine *engine = self;
    struct sbe_engine_channel *entry = find_entry(engine, id);
    if (entry == NULL)
        return SBE_ENOENT;
    delist(engine, entry);
    entry->used = false;
    drop_kept(engine, &entry->channel);
    sbe_channel_abort(&entry->channel, fail_call, NULL);
    if (engine->config->closed != NULL)
        engine->config->closed(engine->config->port->self, &entry->channel);
    *entry = (struct sbe_engine_channel){0};
    return SBE_OK;
}

static void refused(void *self, enum sbe_refusal why, bool theirs, uint16_t peer_min,
                    uint16_t peer_max)
{
    const struct sbe_engine_config *config = ((struct sbe_engine *)self)->config;
    if (config->refused != NULL)
        config->refused(config->port->self, why, theirs, peer_min, peer_max);
}

int sbe_engine_init(struct sbe_engine *engine, struct sbe_engine_config *config)
{
    *engine = (struct sbe_engine){.config = config, .port = config->port};
    engine->hooks = (struct sbe_session_hooks){
        .self = engine,
        .channel_open = open_channel,
        .channel_close = close_channel,
        .service = find_service,
        .replied = found,
        .refused = refused,
    };
    memset(config->channels, 0, sizeof *config->channels * config->session.limits.channels);
    config->session.port = config->port;
    config->session.hooks = &engine->hooks;
    return sbe_session_init(&engine->session, &config->session);
}
