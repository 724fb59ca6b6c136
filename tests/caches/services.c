/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Services that the given ones leave out: what touches buffers and then fails, is kept, paused, or
 * lends them on to Linux. Each adds 1 to every byte of what it may write, first.
 */
#include "services/service_util.h"

#define KEPT 4u

struct job {
    struct sbe_kept kept;
    struct sbe_find find;
    struct sbe_outcall call;
    bool used;
    uint64_t scratch[32];
};

static struct job jobs[KEPT];
static struct sbe_frame frame;

#define JOB_OF(pointer, member) \
    ((struct job *)(void *)((uint8_t *)(pointer)-offsetof(struct job, member)))

static void add_one(const struct sbe_buffer *buffers, uint32_t count)
{
    for (; count > 0; count--, buffers++) {
        uint8_t *bytes = buffers->data;
        for (uint64_t i = 0; i < buffers->size && buffers->direction != SBE_DIR_IN; i++)
            bytes[i]++;
    }
}

static struct job *keep(struct sbe_request *request, int *status)
{
    struct job *job = jobs;
    while (job != jobs + KEPT && job->used)
        job++;
    *status = job == jobs + KEPT ? SBE_EBUSY : sbe_check_mapped(request);
    if (*status == SBE_OK)
        *status = sbe_request_keep(request, &job->kept, job->scratch, sizeof job->scratch);
    if (*status < 0)
        return NULL;
    job->used = true;
    add_one(job->kept.buffers, job->kept.buffer_count);
    return job;
}

static void answer(struct job *job, int status, const void *payload, uint32_t size)
{
    job->used = false;
    (void)sbe_kept_answer(&job->kept, status, payload, size);
}

/* -- spoil: fails when all is done ----------------------------------------------------------- */

static int spoil(struct sbe_request *request)
{
    add_one(request->buffers, request->buffer_count);
    return SBE_EIO;
}
SBE_SERVICE(spoil, 1, spoil);

/* -- hold: is kept until it is cancelled ----------------------------------------------------- */

static int hold(struct sbe_request *request)
{
    int status;
    return keep(request, &status) == NULL ? status : SBE_KEPT;
}

static void hold_cancel(struct sbe_kept *kept)
{
    struct job *job = JOB_OF(kept, kept);
    if (kept->channel == NULL)
        job->used = false;
    else
        answer(job, SBE_ECANCELED, NULL, 0);
}
SBE_SERVICE_WITH_CANCEL(hold, 1, hold, hold_cancel);

/* -- stall: goes on in pieces for good, and calls Linux' service `began`, if there is one ----- */

static struct sbe_channel *stalled;

static void told(struct sbe_outcall *call, int status, const struct sbe_frame *response)
{
    (void)call;
    (void)status;
    (void)response;
}

static void tell(struct sbe_find *find, int status, uint16_t service)
{
    static struct sbe_outcall call = {told};
    (void)find;
    frame = (struct sbe_frame){.type = SBE_FRAME_REQUEST, .service = service};
    if (status == SBE_OK)
        (void)sbe_engine_call(NULL, stalled, &frame, &call);
}

static int stall(struct sbe_request *request)
{
    static struct sbe_find find = {tell};
    if (request->progress++ == 0) {
        add_one(request->buffers, request->buffer_count);
        stalled = request->channel;
        (void)sbe_engine_find(request->engine, stalled, "began", &find);
    }
    return SBE_MORE;
}
SBE_SERVICE(stall, 1, stall);

/*
 * -- lend: lends its buffers on to a service of the requester's end, whose name, with a zero byte,
 * is the payload. It answers with that one's status and a sum of each buffer as it is then, 4 bytes
 * each.
 */

static uint32_t sum(const struct sbe_buffer *buffer)
{
    const uint8_t *bytes = buffer->data;
    uint32_t total = 0;
    for (uint64_t i = 0; i < buffer->size; i++)
        total = total * 31u + bytes[i];
    return total;
}

static void call_done(struct sbe_outcall *call, int status, const struct sbe_frame *response)
{
    struct job *job = JOB_OF(call, call);
    uint32_t words[1 + SBE_KEPT_BUFFERS], count = job->kept.buffer_count;
    (void)response;
    words[0] = (uint32_t)status;
    for (uint32_t i = 0; i < count; i++) {
        words[1 + i] = sum(&job->kept.buffers[i]);
        job->kept.written[i] = job->kept.buffers[i].size;
    }
    answer(job, SBE_OK, words, (1 + count) * (uint32_t)sizeof *words);
}

static void find_done(struct sbe_find *find, int status, uint16_t service)
{
    struct job *job = JOB_OF(find, find);
    struct sbe_kept *kept = &job->kept;
    if (status == SBE_OK) {
        frame = (struct sbe_frame){
            .type = SBE_FRAME_REQUEST,
            .service = service,
            .buffer_count = (uint16_t)kept->buffer_count,
        };
        memcpy(frame.buffers, kept->buffers, kept->buffer_count * sizeof *kept->buffers);
        job->call.done = call_done;
        status = sbe_engine_call(kept->engine, kept->channel, &frame, &job->call);
    }
    if (status < 0)
        answer(job, status, NULL, 0);
}

static int lend(struct sbe_request *request)
{
    int status;
    struct job *job = keep(request, &status);
    if (job == NULL)
        return status;
    job->find.done = find_done;
    status = sbe_engine_find(request->engine, request->channel, job->kept.payload, &job->find);
    if (status < 0)
        answer(job, status, NULL, 0);
    return SBE_KEPT;
}

static void lend_cancel(struct sbe_kept *kept)
{
    (void)kept; /* it is answered when Linux has answered */
}
SBE_SERVICE_WITH_CANCEL(lend, 1, lend, lend_cancel);
