/* SPDX-License-Identifier: Apache-2.0 */
/*
 * digest: the size and crc32 of a file that Linux exports. It is the sample of a service that reads
 * files of Linux, piece by piece.
 *
 * Payload: the file's path. It is read from the service `files` of the requester's own context, or
 * else from what the requester's user exports to all their contexts by the service files here.
 * With a buffer (OUT, in an area) the pieces of the context's own go there, by reference; else they
 * come in frames.
 * The answer's payload: u64 size in bytes, u32 crc32, i32 error: zero, or the exporter's negative
 * errno, -2 for a file that is not there, say, and the rest counts for nothing.
 *
 * SBE_ENOENT: nobody exports files. SBE_EINVAL: no path, a longer one than SBE_9P_PATH, or other
 * buffers. SBE_EBUSY: as many are read as there is room for. SBE_EIO: the exporter is gone.
 */
#include "ninep/client.h"
#include "services/crc32.h"
#include "services/files.h"
#include "services/service_util.h"

#define POOL SBE_POOL
#define NAME "files"

struct digest_answer {
    uint64_t size;
    uint32_t crc;
    int32_t error;
};

static struct digest {
    struct sbe_9p files;
    struct sbe_9p_file file;
    struct sbe_task task; /* sums up what is in the buffer, a piece at a time */
    struct sbe_kept kept;
    struct digest_answer sum;
    uint64_t scratch[(SBE_9P_PATH + 8u) / 8u];
    uint32_t context;
    uint32_t got, done; /* bytes in the buffer, and how many of them are summed up */
    int status;
    bool used;
    bool shared; /* the files are those of sbe_files() */
    bool unwanted;
} pool[POOL];

#define DIGEST_OF(pointer, member) \
    ((struct digest *)(void *)((uint8_t *)(pointer)-offsetof(struct digest, member)))

static void have_opened(struct sbe_9p_file *file, int status, const void *data, uint32_t size);

static bool is_by_reference(const struct digest *digest)
{
    const struct sbe_kept *kept = &digest->kept;
    return !digest->shared && kept->buffer_count != 0 &&
           (kept->buffers[0].flags & SBE_BUFFER_INLINE) == 0;
}

static void finish(struct digest *digest)
{
    int status = digest->unwanted ? SBE_ECANCELED : digest->status;
    if (status == SBE_ESHUTDOWN)
        status = SBE_EIO; /* the requester's own channel is not shut */
    uint32_t size = status == SBE_OK ? sizeof digest->sum : 0;
    (void)sbe_kept_answer(&digest->kept, sbe_busy(status), &digest->sum, size);
    digest->used = false;
}

static void have_closed(struct sbe_9p_file *file, int status, const void *data, uint32_t size)
{
    (void)status;
    (void)data;
    (void)size;
    finish(DIGEST_OF(file, file));
}

/* All has been said; a session of our own closes its file. */
static void end(struct digest *digest, int status)
{
    digest->status = status;
    digest->file.done = have_closed;
    if (!digest->shared)
        sbe_9p_end(&digest->files);
    else if (sbe_9p_close(&digest->file) < 0)
        finish(digest);
}

static void open_in(struct digest *digest, struct sbe_9p *files)
{
    digest->file.done = have_opened;
    int status = sbe_9p_open(files, &digest->file, digest->kept.payload, digest->kept.payload_size,
                             SBE_9P_READ);
    if (status < 0)
        end(digest, status);
}

static void ended(struct sbe_9p *files)
{
    struct digest *digest = DIGEST_OF(files, files);
    struct sbe_9p *others = NULL;
    if (digest->status == SBE_ENOENT && !digest->unwanted)
        others = sbe_files(digest->context);
    digest->shared = others != NULL;
    if (others != NULL)
        open_in(digest, others);
    else
        finish(digest);
}

/* What an operation came to. False: that was the end. */
static bool goes_on(struct digest *digest, int status)
{
    if (status < 0 && digest->file.refused) {
        digest->sum.error = status;
        end(digest, SBE_OK);
    } else if (status < 0 || digest->unwanted) {
        end(digest, status);
    }
    return status >= 0 && !digest->unwanted;
}

static void read_on(struct digest *digest)
{
    const struct sbe_buffer *buffer = is_by_reference(digest) ? digest->kept.buffers : NULL;
    int status = sbe_9p_read(&digest->file, digest->sum.size, UINT32_MAX, buffer);
    if (status < 0)
        end(digest, status);
}

static bool sum_up(struct sbe_task *task)
{
    struct digest *digest = DIGEST_OF(task, task);
    uint32_t left = digest->got - digest->done;
    uint32_t size = left < SBE_PIECE ? left : SBE_PIECE;
    if (!digest->used || !goes_on(digest, SBE_OK))
        return false;
    const uint8_t *data = digest->kept.buffers[0].data;
    digest->sum.crc = sbe_crc32(digest->sum.crc, data + digest->done, size);
    digest->done += size;
    digest->sum.size += size;
    if (left > size)
        return true;
    read_on(digest);
    return false;
}

static void have_read(struct sbe_9p_file *file, int status, const void *data, uint32_t size)
{
    struct digest *digest = DIGEST_OF(file, file);
    if (!goes_on(digest, status))
        return;
    if (size == 0) {
        end(digest, SBE_OK);
    } else if (data != NULL) {
        digest->sum.crc = sbe_crc32(digest->sum.crc, data, size);
        digest->sum.size += size;
        read_on(digest);
    } else {
        digest->got = size;
        digest->done = 0;
        sbe_engine_later(digest->kept.engine, &digest->task);
    }
}

static void have_opened(struct sbe_9p_file *file, int status, const void *data, uint32_t size)
{
    struct digest *digest = DIGEST_OF(file, file);
    (void)data;
    (void)size;
    if (!goes_on(digest, status))
        return;
    file->done = have_read;
    read_on(digest);
}

/* One of the pool, or NULL: none is free, or this context or its user has its share. */
static struct digest *take_free(uint32_t context)
{
    struct digest *found = NULL;
    struct sbe_share_count count = {.context = context};
    for (uint32_t i = 0; i < POOL; i++) {
        if (!pool[i].used && !pool[i].task.queued)
            found = &pool[i];
        else if (pool[i].used)
            sbe_share_count(&count, pool[i].context);
    }
    return sbe_pool_has(&count) ? found : NULL;
}

static int check_request(const struct sbe_request *request)
{
    if (request->payload_size == 0 || request->payload_size > SBE_9P_PATH)
        return SBE_EINVAL;
    if (request->buffer_count == 0)
        return SBE_OK;
    const struct sbe_buffer *buffer = request->buffers;
    if (request->buffer_count > 1 || buffer->direction != SBE_DIR_OUT || buffer->size == 0)
        return SBE_EINVAL;
    return sbe_check_mapped(request);
}

static int handle(struct sbe_request *request)
{
    int status = check_request(request);
    if (status < 0)
        return status;
    struct digest *digest = take_free(request->channel->context);
    if (digest == NULL)
        return SBE_EBUSY;
    memset(digest, 0, sizeof *digest);
    digest->context = request->channel->context;
    status = sbe_request_keep(request, &digest->kept, digest->scratch, sizeof digest->scratch);
    if (status < 0)
        return sbe_busy(status);
    digest->files.ended = ended;
    digest->task.run = sum_up;
    digest->used = true;
    status = sbe_9p_begin(&digest->files, request->engine, request->channel, NAME);
    digest->status = status;
    if (status < 0)
        ended(&digest->files);
    else
        open_in(digest, &digest->files); /* once it can be used */
    return SBE_KEPT;
}

/* With a buffer it is answered when what is under way has ended: until then the exporter has it. */
static void cancel(struct sbe_kept *kept)
{
    struct digest *digest = DIGEST_OF(kept, kept);
    digest->unwanted = true;
    if (!is_by_reference(digest))
        (void)sbe_kept_answer(kept, SBE_ECANCELED, NULL, 0);
    if (!digest->shared)
        sbe_9p_end(&digest->files);
}

SBE_SERVICE_WITH_CANCEL(digest, 1, handle, cancel);
