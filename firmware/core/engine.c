/* SPDX-License-Identifier: Apache-2.0 */
#include "core/engine.h"

#include <string.h>

#include "core/engine_base.h"
#include "core/status.h"

#define DEFAULT_BUDGET 32u
#define FRAME_NS       1000u /* what a frame costs at least, so that many small ones count as well */

/* -- channels with work: lists, because one of thousands may be active ----------------------- */

void sbe_engine_doorbell(struct sbe_engine *engine, struct sbe_channel *channel)
{
    struct sbe_engine_channel *entry = sbe_entry_of(channel);
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
        if (!sbe_is_output(buffer))
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

int sbe_engine_handle(struct sbe_engine *engine, uint64_t turn_ns)
{
    struct sbe_request *request = &engine->request;
    const struct sbe_engine_channel *entry = sbe_entry_of(request->channel);
    int status;
    sbe_request_alive(request);
    enter_context(engine, request->channel->context);
    SBE_STEP("before a handler");
    do
        status = request->service->handle(request);
    while (status == SBE_MORE &&
           (engine->config->pieces == NULL ||
            sbe_between(turn_ns, sbe_engine_now(engine)) < entry->share->left_ns));
    SBE_STEP("after a handler");
    enter_context(engine, SBE_CONTEXT_GLOBAL);
    return status;
}

SBE_OUT_OF_LINE static int call_service(struct sbe_engine *engine, struct sbe_request *request)
{
    const struct sbe_frame *frame = &engine->frame;
    if (frame->status < 0)
        return frame->status; /* its buffers did not resolve */
    if (sbe_is_late(frame, request->begun_ns))
        return SBE_ETIMEDOUT;
    int status = lay_out(engine, request);
    if (status < 0)
        return status;
    request->buffer_count = frame->buffer_count; /* from here on they are handed over */
    sbe_engine_hand_over(request->channel, SBE_TAKE, frame->buffers, frame->buffer_count);
    if (frame->type == SBE_FRAME_SYNC)
        return SBE_OK;
    if (frame->service == 0 || frame->service > engine->config->service_count)
        return SBE_ENOENT;
    request->service = engine->config->services[frame->service - 1];
    return sbe_engine_handle(engine, request->begun_ns);
}

void sbe_request_alive(const struct sbe_request *request)
{
    sbe_ring_show_work(&request->channel->rx, request->engine->beats++, request->transaction);
}

static void charge(struct sbe_share *share, uint32_t used_ns)
{
    share->left_ns = used_ns < share->left_ns ? share->left_ns - used_ns : 0;
}

void sbe_engine_settle(struct sbe_engine *engine, int status)
{
    struct sbe_request *request = &engine->request;
    struct sbe_engine_channel *entry = sbe_entry_of(request->channel);
    if (status == SBE_MORE) {
        charge(entry->share, UINT32_MAX);
        engine->config->pieces->pause(engine, entry);
        return;
    }
    sbe_ring_show_rest(&entry->channel.rx);
    entry->channel.promised--;
    if (request->transaction == 0) /* nobody is told, and a dirty line must not stay */
        sbe_engine_hand_over(&entry->channel, SBE_GIVE_BACK, request->buffers,
                             request->buffer_count);
    if (status == SBE_KEPT || request->transaction == 0) {
        charge(entry->share, sbe_between(request->begun_ns, sbe_engine_now(engine)));
        return;
    }
    if (status == SBE_OK && request->reply_size > request->reply_room)
        status = SBE_ENOSPC;
    /* a broken ring is told by the next receive */
    (void)sbe_engine_respond(request, status, request->reply,
                             status == SBE_OK ? request->reply_size : 0, request->buffers,
                             request->written);
    charge(entry->share, engine->response.handled_ns);
}

static void serve(struct sbe_engine *engine, struct sbe_channel *channel)
{
    struct sbe_request *request = &engine->request;
    struct sbe_frame *frame = &engine->frame;
    request->begun_ns = sbe_engine_now(engine);
    request->waited_ns = sbe_between(frame->seen_ns, request->begun_ns);
    request->engine = engine;
    request->channel = channel;
    request->transaction = frame->transaction;
    request->payload = frame->payload;
    request->payload_size = frame->payload_size;
    request->buffer_count = 0;
    request->buffers = frame->buffers;
    request->reply_size = 0;
    request->progress = request->state = 0;
    channel->promised++; /* nothing that the handler sends takes the answer's place */
    sbe_engine_settle(engine, call_service(engine, request));
}

static void meet_response(struct sbe_engine *engine, struct sbe_channel *channel)
{
    struct sbe_frame *frame = &engine->frame;
    struct sbe_outcall *call = frame->owner;
    sbe_engine_hand_over(channel, SBE_TAKE_BACK, frame->buffers, frame->buffer_count);
    call->done(call, frame->status, frame);
}

/* One frame of this channel: 1 taken, 0 none there, -1 it can't go on before it is rung or closed.
 */
static int serve_one(struct sbe_engine *engine, struct sbe_engine_channel *entry)
{
    struct sbe_channel *channel = &entry->channel;
    if (entry->paused) {
        engine->config->pieces->go_on(engine, entry);
        return 1;
    }
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
        sbe_kept_cancel(engine, channel);
    else if (engine->frame.type != SBE_FRAME_EVENT) /* for requesters; nobody here listens */
        serve(engine, channel);
    return 1;
}

static void take_turn(struct sbe_engine *engine, struct sbe_engine_channel *entry)
{
    uint32_t left = entry->budget;
    int taken = 1;
    while (left > 0 && entry->share->left_ns > 0 && (taken = serve_one(engine, entry)) == 1)
        left--;
    charge(entry->share, (entry->budget - left) * FRAME_NS);
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

/* False: its context has had its time in this round. */
static bool has_turn(struct sbe_engine *engine, struct sbe_share *share)
{
    if (share->round != engine->round) {
        share->round = engine->round;
        share->left_ns = SBE_TURN_NS;
    }
    return share->left_ns > 0;
}

/* Those that had no turn come first in the next round, so that their context's time goes round. */
static void begin_with(struct sbe_engine *engine, const struct sbe_engine_channel *entry)
{
    struct sbe_engine_channel **last = &engine->last[entry->priority];
    while (entry->active && (*last)->next != entry)
        *last = (*last)->next;
}

bool sbe_engine_run(struct sbe_engine *engine)
{
    run_tasks(engine);
    engine->round++;
    for (uint32_t p = SBE_PRIORITIES; p-- > 0;) {
        struct sbe_engine_channel **last = &engine->last[p], *entry = *last, *waits = NULL;
        uint32_t turns = 0; /* those that come back in this round wait for the next */
        if (entry != NULL)
            do
                turns++;
            while ((entry = entry->next) != *last);
        /* The list is whole during each turn: what runs there may ring or close any channel. */
        for (; turns > 0 && *last != NULL; turns--) {
            entry = (*last)->next;
            if (has_turn(engine, entry->share)) {
                forget_work(engine, entry);
                take_turn(engine, entry);
                continue;
            }
            *last = entry;
            if (waits == NULL)
                waits = entry;
        }
        if (waits != NULL)
            begin_with(engine, waits);
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
    sbe_engine_hand_over(channel, SBE_GIVE, frame->buffers, frame->buffer_count);
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

static struct sbe_share *share_of(struct sbe_engine *engine, uint32_t context)
{
    struct sbe_session_context *at = engine->config->session.contexts;
    for (uint32_t left = engine->config->session.limits.contexts; left > 0; left--, at++)
        if (at->id == context && context != SBE_CONTEXT_GLOBAL)
            return &at->share;
    return &engine->share;
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
    entry->share = share_of(engine, message->context);
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
    sbe_kept_drop(engine, entry);
    if (entry->paused)
        engine->config->pieces->drop(engine, entry);
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
