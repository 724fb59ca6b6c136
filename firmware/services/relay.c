/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relay: calls a service of the requester's own end and answers with what that answered. It is the
 * sample of a remote that calls Linux, and of a request that is kept and answered later.
 *
 * Payload: the name of the service, a zero byte, then the payload for it. No buffers. The answer is
 * that service's payload and status.
 *
 * SBE_EINVAL: no name, or buffers. SBE_EMSGSIZE: more payload than the pool holds. SBE_EBUSY: as
 * many calls as the pool or the ring holds are open. SBE_ENOTSUP: a message, which nobody waits
 * for.
 */
#include "services/service_util.h"

#define POOL SBE_POOL
#ifndef SBE_RELAY_ROOM /* bytes of payload per open call */
#ifdef SBE_SMALL
#define SBE_RELAY_ROOM 256u
#else
#define SBE_RELAY_ROOM 16384u
#endif
#endif

/*
 * Free again once the outstanding find or call has come back, also when the requester has been
 * answered long before: until then the core points at `find` or `call`.
 */
struct relay {
    struct sbe_kept kept;
    struct sbe_find find;
    struct sbe_outcall call;
    uint64_t transaction; /* of our call, 0 before it was sent */
    uint32_t context;
    bool used;
    bool answered; /* or the requester is gone */
    uint64_t scratch[SBE_RELAY_ROOM / sizeof(uint64_t)];
};

static struct relay pool[POOL];
static struct sbe_frame frame; /* too large for a small stack */

#define RELAY_OF(pointer, member) \
    ((struct relay *)(void *)((uint8_t *)(pointer)-offsetof(struct relay, member)))

static void answer(struct relay *relay, int status, const void *payload, uint32_t size)
{
    if (relay->answered)
        return;
    relay->answered = true;
    (void)sbe_kept_answer(&relay->kept, status, payload, size);
}

static void call_done(struct sbe_outcall *call, int status, const struct sbe_frame *response)
{
    struct relay *relay = RELAY_OF(call, call);
    if (response != NULL)
        answer(relay, status, response->payload, response->payload_size);
    else
        answer(relay, status, NULL, 0);
    relay->used = false;
}

static void find_done(struct sbe_find *find, int status, uint16_t service)
{
    struct relay *relay = RELAY_OF(find, find);
    struct sbe_kept *kept = &relay->kept;
    if (status == SBE_OK && !relay->answered) {
        const char *name = kept->payload;
        uint32_t skip = (uint32_t)strlen(name) + 1;
        frame = (struct sbe_frame){
            .type = SBE_FRAME_REQUEST,
            .service = service,
            .payload = name + skip,
            .payload_size = kept->payload_size - skip,
        };
        status = sbe_engine_call(kept->engine, kept->channel, &frame, &relay->call);
        if (status == SBE_OK) {
            relay->transaction = frame.transaction;
            return;
        }
    }
    answer(relay, sbe_busy(status), NULL, 0);
    relay->used = false;
}

/* One of the pool, or NULL: none is free, or this context or its user has its share. */
static struct relay *take_free(uint32_t context)
{
    struct relay *found = NULL;
    struct sbe_share_count count = {.context = context};
    for (uint32_t i = 0; i < POOL; i++) {
        if (!pool[i].used)
            found = &pool[i];
        else
            sbe_share_count(&count, pool[i].context);
    }
    return sbe_pool_has(&count) ? found : NULL;
}

static bool has_name(const struct sbe_request *request)
{
    const char *name = request->payload;
    uint32_t limit = request->payload_size < SBE_NAME_SIZE ? request->payload_size : SBE_NAME_SIZE;
    return limit > 1 && name[0] != '\0' && memchr(name, '\0', limit) != NULL;
}

static int relay_handle(struct sbe_request *request)
{
    if (request->buffer_count != 0 || !has_name(request))
        return SBE_EINVAL;
    struct relay *relay = take_free(request->channel->context);
    if (relay == NULL)
        return SBE_EBUSY;
    int status = sbe_request_keep(request, &relay->kept, relay->scratch, sizeof relay->scratch);
    if (status < 0)
        return status == SBE_ENOSPC ? SBE_EMSGSIZE : sbe_busy(status);
    relay->find.done = find_done;
    relay->call.done = call_done;
    relay->context = request->channel->context;
    relay->transaction = 0;
    relay->answered = false;
    relay->used = true;
    status = sbe_engine_find(request->engine, request->channel, relay->kept.payload, &relay->find);
    if (status < 0) {
        answer(relay, sbe_busy(status), NULL, 0);
        relay->used = false;
    }
    return SBE_KEPT;
}

/* Passes the wish on, if there is room: the answer to our call frees the pool's entry. */
static void withdraw(const struct relay *relay)
{
    struct sbe_channel *channel = relay->kept.channel;
    if (relay->transaction == 0 || sbe_channel_room(channel) == 0)
        return;
    frame = (struct sbe_frame){.type = SBE_FRAME_CANCEL, .transaction = relay->transaction};
    (void)sbe_channel_send(channel, &frame);
}

static void relay_cancel(struct sbe_kept *kept)
{
    struct relay *relay = RELAY_OF(kept, kept);
    if (kept->channel != NULL)
        withdraw(relay);
    answer(relay, SBE_ECANCELED, NULL, 0); /* does nothing when the requester is gone */
}

SBE_SERVICE_WITH_CANCEL(relay, 1, relay_handle, relay_cancel);
