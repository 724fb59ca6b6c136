/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mulaw: encodes 16-bit samples as G.711 mu-law, a byte each. It is the sample of a codec: the
 * request is kept, a piece is encoded in each round of the engine, and the answer comes when the
 * output is full. Several are under way at a time and a short one overtakes a long one.
 *
 * Buffers: IN samples, little-endian, OUT bytes; `written` is what was encoded.
 *
 * SBE_EINVAL: other buffers, an odd number of bytes, or a payload. SBE_ENOSPC: fewer bytes of
 * output than samples. SBE_EBUSY: as many requests as the pool or the ring holds are open.
 * SBE_EMSGSIZE: more inline bytes than the pool holds. SBE_ENOTSUP: a message, which nobody waits
 * for.
 */
#include "services/service_util.h"

#define POOL  SBE_POOL
#define PIECE 4096u /* samples a round: the longest that channels wait for it */
#define ROOM  4096u /* inline bytes of a request */

struct job {
    struct sbe_task task; /* first, so that the task leads to its job */
    struct sbe_kept kept;
    uint64_t done; /* samples */
    bool used;
    uint64_t scratch[ROOM / sizeof(uint64_t)];
};

static struct job pool[POOL];

static uint8_t encode(int32_t sample)
{
    uint32_t sign = 0, exponent = 7;
    if (sample < 0) {
        sign = 0x80;
        sample = -sample;
    }
    if (sample > 32635)
        sample = 32635;
    uint32_t level = (uint32_t)sample + 132;
    while (exponent > 0 && (level & (1u << (exponent + 7))) == 0)
        exponent--;
    return (uint8_t) ~(sign | exponent << 4 | ((level >> (exponent + 3)) & 0xfu));
}

static bool go_on(struct sbe_task *task)
{
    struct job *job = (struct job *)(void *)task;
    struct sbe_kept *kept = &job->kept;
    if (!job->used)
        return false; /* cancelled */
    const sbe_sample *samples = kept->buffers[0].data;
    uint8_t *out = kept->buffers[1].data;
    uint64_t count = kept->buffers[0].size / sizeof *samples, end = job->done + PIECE;
    for (end = end > count ? count : end; job->done < end; job->done++)
        out[job->done] = encode(samples[job->done]);
    if (job->done < count)
        return true;
    kept->written[1] = count;
    job->used = false;
    (void)sbe_kept_answer(kept, SBE_OK, NULL, 0);
    return false;
}

/* One of the pool, or NULL: none is free, or this user has half of all. */
static struct job *take_free(uint32_t context)
{
    struct job *found = NULL;
    struct sbe_share_count count = {.context = context};
    for (uint32_t i = 0; i < POOL; i++) {
        if (pool[i].used)
            sbe_share_count(&count, pool[i].kept.channel->context);
        else if (!pool[i].task.queued)
            found = &pool[i];
    }
    return count.of_owner < SBE_POOL_OWNER ? found : NULL;
}

static int mulaw(struct sbe_request *request)
{
    int status = sbe_check_in_out(request);
    if (status < 0)
        return status;
    if (request->payload_size != 0 || request->buffers[0].size % sizeof(sbe_sample) != 0)
        return SBE_EINVAL;
    if (request->buffers[1].size < request->buffers[0].size / sizeof(sbe_sample))
        return SBE_ENOSPC;
    struct job *job = take_free(request->channel->context);
    if (job == NULL)
        return SBE_EBUSY;
    status = sbe_request_keep(request, &job->kept, job->scratch, sizeof job->scratch);
    if (status < 0)
        return status == SBE_ENOSPC ? SBE_EMSGSIZE : sbe_busy(status);
    job->done = 0;
    job->used = true;
    job->task.run = go_on;
    sbe_engine_later(request->engine, &job->task);
    return SBE_KEPT;
}

static void mulaw_cancel(struct sbe_kept *kept)
{
    struct job *job = (struct job *)(void *)((uint8_t *)kept - offsetof(struct job, kept));
    job->used = false;
    (void)sbe_kept_answer(kept, SBE_ECANCELED, NULL, 0);
}

SBE_SERVICE_WITH_CANCEL(mulaw, 1, mulaw, mulaw_cancel);
