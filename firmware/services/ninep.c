/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 9p: sessions of 9P2000.L, a call for each message. docs/spec/9p.md says what goes where. A
 * session is a request that is kept until it is cancelled, so that it ends with its context.
 */
#include <stddef.h>

#include "core/engine.h"
#include "ninep/files.h"
#include "ninep/server.h"
#include "services/service_util.h"

static struct opened {
    uint32_t id; /* 0: free */
    uint32_t context;
    struct ninep_session session;
    struct sbe_kept kept;
    struct ninep_request scratch;
} pool[NINEP_SESSIONS];

static struct opened *find(uint32_t context, uint32_t id)
{
    for (uint32_t i = 0; i < NINEP_SESSIONS && id != 0; i++)
        if (pool[i].id == id && pool[i].context == context)
            return &pool[i];
    return NULL;
}

/* A free one, unless the context has its share, or its user half of all. */
static struct opened *take_free(uint32_t context)
{
    struct opened *found = NULL;
    struct sbe_share_count count = {.context = context};
    for (uint32_t i = 0; i < NINEP_SESSIONS; i++) {
        if (pool[i].id == 0)
            found = &pool[i];
        else
            sbe_share_count(&count, pool[i].context);
    }
    bool may =
        count.of_context < NINEP_SESSIONS_SHARE && count.of_owner < (NINEP_SESSIONS + 1u) / 2u;
    return may ? found : NULL;
}

static int open_session(struct sbe_request *request, uint32_t id)
{
    uint32_t context = request->channel->context;
    if (id == 0 || request->buffer_count != 0 ||
        request->payload_size != sizeof(struct ninep_request))
        return SBE_EINVAL;
    if (find(context, id) != NULL)
        return SBE_EEXIST;
    struct opened *opened = take_free(context);
    if (opened == NULL)
        return SBE_EBUSY;
    int status = sbe_request_keep(request, &opened->kept, &opened->scratch, sizeof opened->scratch);
    if (status != SBE_OK)
        return sbe_busy(status);
    ninep_files_init();
    opened->id = id;
    opened->context = context;
    ninep_log("a session of 9p begins");
    return SBE_KEPT;
}

static void cancel(struct sbe_kept *kept)
{
    struct opened *opened =
        (struct opened *)(void *)((uint8_t *)kept - offsetof(struct opened, kept));
    ninep_session_reset(&opened->session);
    ninep_log("a session of 9p ends");
    opened->id = 0;
    (void)sbe_kept_answer(kept, SBE_ECANCELED, NULL, 0);
}

/* Nothing is touched between messages. */
static int rest(const struct sbe_engine *engine, bool now)
{
    (void)engine;
    (void)now;
    return SBE_OK;
}

/* At most one buffer: what is written, or room for what is read. */
static int take_buffer(const struct sbe_request *request, struct ninep_call *call)
{
    const struct sbe_buffer *buffer = request->buffers;
    if (request->buffer_count == 0)
        return SBE_OK;
    if (request->buffer_count != 1)
        return SBE_EINVAL;
    if (buffer->data == NULL)
        return SBE_EFAULT;
    if (buffer->direction == SBE_DIR_IN)
        call->from = buffer->data;
    else if (buffer->direction == SBE_DIR_OUT)
        call->to = buffer->data;
    else
        return SBE_EINVAL;
    call->data_size = buffer->size;
    return SBE_OK;
}

static int handle(struct sbe_request *request)
{
    struct ninep_request asked;
    if (request->payload_size < sizeof asked || request->transaction == 0)
        return SBE_EINVAL;
    sbe_copy_record(&asked, request->payload, sizeof asked);
    if (asked.op == NINEP_OPEN)
        return open_session(request, asked.session);
    struct opened *opened = find(request->channel->context, asked.session);
    if (asked.op != NINEP_MESSAGE)
        return SBE_EINVAL;
    if (opened == NULL)
        return SBE_ENOENT;
    struct ninep_call call = {
        .session = &opened->session,
        .message = (const uint8_t *)request->payload + sizeof asked,
        .message_size = request->payload_size - (uint32_t)sizeof asked,
        .reply = request->reply,
        .reply_room = request->reply_room,
        .progress = request->progress,
        .piece = SBE_PIECE,
    };
    int status = take_buffer(request, &call);
    if (status != SBE_OK)
        return status;
    const struct sbe_port *port = request->engine->port;
    ninep_tree_at(port->now_ns(port->self));
    status = ninep_serve(&call);
    request->progress = call.progress;
    request->state++; /* a piece of clearing makes no other progress */
    request->reply_size = call.reply_size;
    if (call.to != NULL)
        request->written[0] = call.written;
    return status;
}

SBE_SERVICE_ENTRY(ninep, "9p", 1, handle, cancel, rest);
