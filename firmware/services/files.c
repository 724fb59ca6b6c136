/* SPDX-License-Identifier: Apache-2.0 */
/*
 * files: a context exports files to all contexts of its user, for as long as it does not cancel
 * this. So services that one program calls read what another one exports; never another user's.
 *
 * Payload: the name of the service that the context exports by. No buffers. There is an answer only
 * at the end.
 *
 * SBE_EINVAL: no name, or buffers. SBE_EEXIST: the user has an export already. SBE_EBUSY: there is
 * no room for one more. SBE_ENOENT: the context serves nothing by that name.
 */
#include "services/files.h"

#include "services/service_util.h"

#ifndef SBE_EXPORTS
#ifdef SBE_SMALL
#define SBE_EXPORTS 2u
#else
#define SBE_EXPORTS 16u
#endif
#endif

static struct export_ {
    struct sbe_9p files;
    struct sbe_kept kept;
    uint64_t name[SBE_NAME_SIZE / sizeof(uint64_t) + 1u];
    uint32_t context;
    int status;
    bool used;
} pool[SBE_EXPORTS];

#define EXPORT_OF(pointer, member) \
    ((struct export_ *)(void *)((uint8_t *)(pointer)-offsetof(struct export_, member)))

static struct export_ *of_user(uint32_t context)
{
    for (uint32_t i = 0; i < SBE_EXPORTS; i++)
        if (pool[i].used && pool[i].context >> SBE_CONTEXT_OWNER == context >> SBE_CONTEXT_OWNER)
            return &pool[i];
    return NULL;
}

struct sbe_9p *sbe_files(uint32_t context)
{
    struct export_ *found = of_user(context);
    return found != NULL && sbe_9p_is_usable(&found->files) ? &found->files : NULL;
}

static void ready(struct sbe_9p *files, int status)
{
    EXPORT_OF(files, files)->status = status < 0 ? status : SBE_ECANCELED;
}

static void ended(struct sbe_9p *files)
{
    struct export_ *export_ = EXPORT_OF(files, files);
    (void)sbe_kept_answer(&export_->kept, export_->status, NULL, 0);
    export_->used = false;
}

static int handle(struct sbe_request *request)
{
    uint32_t context = request->channel->context, size = request->payload_size, i = 0;
    if (request->buffer_count != 0 || size == 0 || size >= SBE_NAME_SIZE ||
        memchr(request->payload, '\0', size) != NULL)
        return SBE_EINVAL;
    if (of_user(context) != NULL)
        return SBE_EEXIST;
    while (i < SBE_EXPORTS && pool[i].used)
        i++;
    if (i == SBE_EXPORTS)
        return SBE_EBUSY;
    struct export_ *export_ = &pool[i];
    memset(export_, 0, sizeof *export_);
    int status = sbe_request_keep(request, &export_->kept, export_->name, sizeof export_->name);
    if (status < 0)
        return sbe_busy(status);
    export_->context = context;
    export_->status = SBE_ECANCELED;
    export_->files.ready = ready;
    export_->files.ended = ended;
    export_->used = true;
    status = sbe_9p_begin(&export_->files, request->engine, request->channel,
                          (const char *)export_->name);
    if (status < 0) {
        export_->status = sbe_busy(status);
        ended(&export_->files);
    }
    return SBE_KEPT;
}

static void cancel(struct sbe_kept *kept)
{
    sbe_9p_end(&EXPORT_OF(kept, kept)->files);
}

/* Files are read by requests, which are asked themselves. */
static int rest(const struct sbe_engine *engine, bool now)
{
    (void)engine;
    (void)now;
    return SBE_OK;
}

SBE_SERVICE_THAT_LASTS(files, 1, handle, cancel, rest);
