/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions with an exporter: how one begins, what is sent by it, how it ends. */
#include "ninep/client.h"

#include "core/engine.h"
#include "ninep/client_base.h"

enum state {
    NONE,
    FINDING, /* the service */
    AGREEING,
    ATTACHING,
    READY,
    LOST,   /* the other end is gone; the storage is not yet the caller's */
    FAILED, /* ready() will say so, when nothing is out any more */
    ENDING,
};

#define SESSION_TAG 0xffffu /* files have their fid's number */
#define NO_USER     0xffffffffu

static uint32_t last_id;
static struct sbe_9p *unsaid; /* ending, and the ring had no room to say so */

static uint64_t storage[(sizeof(struct ninep_request) + NINEP_CLIENT_MESSAGE + 7u) / 8u];
static struct sbe_frame frame; /* too large for a small stack */

static struct sbe_9p *of_find(struct sbe_find *find)
{
    return (struct sbe_9p *)(void *)((uint8_t *)find - offsetof(struct sbe_9p, find));
}

static struct sbe_9p *of_open(struct sbe_outcall *call)
{
    return (struct sbe_9p *)(void *)((uint8_t *)call - offsetof(struct sbe_9p, open));
}

static struct sbe_9p *of_ask(struct sbe_outcall *call)
{
    return (struct sbe_9p *)(void *)((uint8_t *)call - offsetof(struct sbe_9p, ask));
}

/* -- messages --------------------------------------------------------------------------------- */

struct ninep_out ninep_client_message(uint8_t type, uint16_t tag)
{
    struct ninep_out out = {.at = (uint8_t *)storage, .room = sizeof storage};
    out.used = sizeof(struct ninep_request) + 4u; /* and the size, once it is known */
    ninep_put(&out, type, 1);
    ninep_put(&out, tag, 2);
    return out;
}

static int call(struct sbe_9p *files, const struct ninep_out *out, const struct sbe_buffer *buffer,
                struct sbe_outcall *outcall)
{
    frame = (struct sbe_frame){
        .service = files->service,
        .payload = out->at,
        .payload_size = out->used,
        .buffer_count = buffer != NULL,
    };
    if (buffer != NULL)
        frame.buffers[0] = *buffer;
    int status = sbe_engine_call(files->engine, files->channel, &frame, outcall);
    files->calls = (uint16_t)(files->calls + (status == SBE_OK));
    return status;
}

int ninep_client_send(struct sbe_9p *files, struct ninep_out *out, const struct sbe_buffer *buffer,
                      struct sbe_outcall *outcall)
{
    struct ninep_request head = {.op = NINEP_MESSAGE, .session = files->id};
    struct ninep_out size = {.at = out->at, .room = out->room, .used = sizeof head};
    bool written = buffer != NULL && buffer->direction == SBE_DIR_IN;
    if (out->full)
        return SBE_EMSGSIZE;
    sbe_copy_record(out->at, &head, sizeof head);
    ninep_put(&size, out->used - sizeof head + (written ? buffer->size : 0), 4);
    return call(files, out, buffer, outcall);
}

/* The header of an answer, and whether it is one. */
int ninep_client_take(int status, const struct sbe_frame *response, uint8_t type, uint16_t tag,
                      struct ninep_answer *answer)
{
    *answer = (struct ninep_answer){.status = status};
    if (response == NULL || status < 0)
        return status < 0 ? status : SBE_EPROTO;
    answer->in = (struct ninep_in){.at = response->payload, .left = response->payload_size};
    answer->size = ninep_get_u32(&answer->in);
    uint8_t got = (uint8_t)ninep_get(&answer->in, 1);
    uint16_t by = (uint16_t)ninep_get(&answer->in, 2);
    if (answer->in.bad || by != tag || answer->size < response->payload_size)
        return SBE_EBADMSG;
    answer->elsewhere = answer->size - response->payload_size;
    if (got == type + 1u)
        return SBE_OK;
    uint32_t error = ninep_get_u32(&answer->in);
    if (got != NINEP_RLERROR || !ninep_is_whole(&answer->in) || error == 0 || error > 4095u)
        return SBE_EBADMSG;
    answer->refused = true;
    return -(int)error;
}

/* -- the end ---------------------------------------------------------------------------------- */

static bool is_open_channel(const struct sbe_channel *channel)
{
    return ((const struct sbe_engine_channel *)(const void *)channel)->used;
}

/* The call that the session lasts as long as. False: the ring has no room. */
static bool give_up(struct sbe_9p *files)
{
    if (files->transaction == 0 || !is_open_channel(files->channel))
        return true;
    if (sbe_channel_room(files->channel) == 0)
        return false;
    frame = (struct sbe_frame){.type = SBE_FRAME_CANCEL, .transaction = files->transaction};
    (void)sbe_channel_send(files->channel, &frame);
    (void)sbe_channel_flush(files->channel);
    files->transaction = 0;
    return true;
}

static void forget(struct sbe_9p *files)
{
    struct sbe_9p **place = &unsaid;
    while (*place != NULL && *place != files)
        place = &(*place)->next;
    if (*place == files)
        *place = files->next;
}

/* What had no room may have some now. */
static void say_unsaid(void)
{
    struct sbe_9p **place = &unsaid;
    while (*place != NULL)
        if (give_up(*place))
            *place = (*place)->next;
        else
            place = &(*place)->next;
}

static void give_up_or_later(struct sbe_9p *files)
{
    if (give_up(files))
        return;
    files->next = unsaid;
    unsaid = files;
}

/* Files that were closed when the ring had no room. */
static void close_unsaid(struct sbe_9p *files)
{
    if (files->state != READY || files->saying != 0 || files->unsaid == 0)
        return;
    uint8_t fid = 1;
    while ((files->unsaid >> fid & 1u) == 0)
        fid++;
    struct ninep_out out = ninep_client_message(NINEP_TCLUNK, SESSION_TAG);
    ninep_put(&out, fid, 4);
    if (ninep_client_send(files, &out, NULL, &files->ask) == SBE_OK)
        files->saying = fid;
}

static void closed(struct sbe_9p *files)
{
    uint32_t bit = 1u << files->saying;
    files->fids &= ~bit;
    files->unsaid &= ~bit;
    files->saying = 0;
}

static void tell_ready(struct sbe_9p *files, int status)
{
    if (files->ready != NULL)
        files->ready(files, status);
}

void ninep_client_settle(struct sbe_9p *files)
{
    say_unsaid();
    close_unsaid(files);
    bool failed = files->state == FAILED;
    if (files->calls != 0 || (!failed && files->state != ENDING))
        return;
    ninep_client_open_waiting(files, failed ? files->status : SBE_ESHUTDOWN);
    files->state = NONE;
    if (failed)
        tell_ready(files, files->status);
    files->ended(files);
}

static void fail(struct sbe_9p *files, int status)
{
    files->state = FAILED;
    files->status = status;
    give_up_or_later(files);
}

void sbe_9p_end(struct sbe_9p *files)
{
    if (files->state == NONE || files->state == FAILED || files->state == ENDING)
        return;
    files->state = ENDING;
    give_up_or_later(files);
    ninep_client_settle(files);
}

/* -- the beginning ---------------------------------------------------------------------------- */

/* The exporter ended it, or is gone. */
static void over(struct sbe_outcall *outcall, int status, const struct sbe_frame *response)
{
    struct sbe_9p *files = of_open(outcall);
    (void)response;
    files->calls--;
    files->transaction = 0;
    forget(files);
    if (files->state == READY) {
        files->state = LOST;
    } else if (files->state != ENDING && files->state != FAILED) {
        files->state = FAILED;
        files->status = status < 0 ? status : SBE_EPROTO;
    }
    ninep_client_settle(files);
}

static int attach(struct sbe_9p *files)
{
    struct ninep_out out = ninep_client_message(NINEP_TATTACH, SESSION_TAG);
    ninep_put(&out, 0, 4);
    ninep_put(&out, NINEP_NOFID, 4);
    ninep_put_text(&out, "", 0);
    ninep_put_text(&out, "", 0);
    ninep_put(&out, NO_USER, 4);
    files->state = ATTACHING;
    files->fids = 1;
    files->unsaid = files->saying = 0;
    return ninep_client_send(files, &out, NULL, &files->ask);
}

static int agreed(struct sbe_9p *files, int status, const struct sbe_frame *response)
{
    struct ninep_answer answer;
    status = ninep_client_take(status, response, NINEP_TVERSION, SESSION_TAG, &answer);
    if (status < 0)
        return status;
    uint32_t msize = ninep_get_u32(&answer.in);
    struct ninep_text name = ninep_get_text(&answer.in);
    if (!ninep_is_whole(&answer.in) || msize > files->msize)
        return SBE_EBADMSG;
    if (msize < NINEP_MSIZE_MIN || !ninep_text_is(name, NINEP_VERSION))
        return SBE_ENOTSUP;
    files->msize = msize;
    return attach(files);
}

static void asked(struct sbe_outcall *outcall, int status, const struct sbe_frame *response)
{
    struct sbe_9p *files = of_ask(outcall);
    struct ninep_answer answer;
    if (files->state == AGREEING) {
        status = agreed(files, status, response);
        if (status < 0)
            fail(files, status);
    } else if (files->state == ATTACHING) {
        status = ninep_client_take(status, response, NINEP_TATTACH, SESSION_TAG, &answer);
        if (status < 0) {
            fail(files, status);
        } else {
            files->state = READY;
            tell_ready(files, SBE_OK);
            ninep_client_open_waiting(files, SBE_OK);
        }
    } else if (files->saying != 0) {
        closed(files);
    }
    files->calls--;
    ninep_client_settle(files);
}

static int open_session(struct sbe_9p *files)
{
    struct ninep_request head = {.op = NINEP_OPEN};
    last_id += last_id == 0xffffffffu ? 2u : 1u; /* 0 is none */
    files->id = head.session = last_id;
    struct ninep_out out = {.at = (uint8_t *)storage, .used = sizeof head};
    sbe_copy_record(out.at, &head, sizeof head);
    int status = call(files, &out, NULL, &files->open);
    if (status < 0)
        return status;
    files->transaction = frame.transaction;
    files->state = AGREEING;
    files->msize = NINEP_MSIZE_MOST;
    out = ninep_client_message(NINEP_TVERSION, SESSION_TAG);
    ninep_put(&out, files->msize, 4);
    ninep_put_text(&out, NINEP_VERSION, sizeof NINEP_VERSION - 1u);
    return ninep_client_send(files, &out, NULL, &files->ask);
}

static void found(struct sbe_find *find, int status, uint16_t service)
{
    struct sbe_9p *files = of_find(find);
    files->service = service;
    if (files->state == FINDING) {
        status = status < 0 ? status : open_session(files);
        if (status < 0)
            fail(files, status);
    }
    files->calls--;
    ninep_client_settle(files);
}

int sbe_9p_begin(struct sbe_9p *files, struct sbe_engine *engine, struct sbe_channel *channel,
                 const char *service)
{
    if (files->state != NONE)
        return SBE_EBUSY;
    say_unsaid();
    files->engine = engine;
    files->channel = channel;
    files->find.done = found;
    files->open.done = over;
    files->ask.done = asked;
    files->transaction = 0;
    files->waiting = NULL;
    int status = sbe_engine_find(engine, channel, service, &files->find);
    if (status < 0)
        return status;
    files->state = FINDING;
    files->calls = 1;
    return SBE_OK;
}

bool ninep_client_is_ready(const struct sbe_9p *files)
{
    return files->state == READY;
}

bool sbe_9p_is_usable(const struct sbe_9p *files)
{
    return files->state >= FINDING && files->state <= READY;
}

uint32_t sbe_9p_inline(const struct sbe_9p *files)
{
    uint32_t room = sbe_channel_payload_room(files->channel, 0, 0);
    room = room < files->msize ? room : files->msize;
    return room < NINEP_READ_HEAD ? 0 : room - NINEP_READ_HEAD;
}
