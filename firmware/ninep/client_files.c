/* SPDX-License-Identifier: Apache-2.0 */
/* Files of a session with an exporter: an operation is a message, or two. */
#include "ninep/client_base.h"

enum operation {
    IDLE,
    WALKING, /* and then opening */
    OPENING,
    READING,
    WRITING,
    LISTING,
    LOOKING,
    CLOSING,
    GIVING_UP, /* closing what could not be opened */
    WAITING,   /* for the session */
};

static const uint8_t TYPES[] = {
    [WALKING] = NINEP_TWALK,  [OPENING] = NINEP_TLOPEN,   [READING] = NINEP_TREAD,
    [WRITING] = NINEP_TWRITE, [LISTING] = NINEP_TREADDIR, [LOOKING] = NINEP_TGETATTR,
    [CLOSING] = NINEP_TCLUNK, [GIVING_UP] = NINEP_TCLUNK,
};

static void answered(struct sbe_outcall *call, int status, const struct sbe_frame *response);

/* Sends the operation's message; `status`: what stopped it before, if less than zero. */
static int begin(struct sbe_9p_file *file, enum operation operation, struct ninep_out *out,
                 const struct sbe_buffer *buffer)
{
    file->call.done = answered;
    int status = ninep_client_send(file->files, out, buffer, &file->call);
    if (status == SBE_OK)
        file->operation = (uint8_t)operation;
    return status;
}

static struct ninep_out message(const struct sbe_9p_file *file, enum operation operation)
{
    struct ninep_out out = ninep_client_message(TYPES[operation], file->fid);
    ninep_put(&out, operation == WALKING ? 0u : file->fid, 4);
    return out;
}

/* That an operation may begin. */
static int check(const struct sbe_9p_file *file)
{
    if (!file->is_open || file->operation != IDLE)
        return SBE_EBUSY;
    bool there = file->session == file->files->id && ninep_client_is_ready(file->files);
    return there ? SBE_OK : SBE_ESHUTDOWN;
}

static void let_go(struct sbe_9p_file *file)
{
    if (file->session == file->files->id)
        file->files->fids &= ~(1u << file->fid);
    file->is_open = false;
}

/* The exporter is told; or later, where the ring has no room. */
static int close_fid(struct sbe_9p_file *file, enum operation operation)
{
    struct ninep_out out = message(file, operation);
    int status = begin(file, operation, &out, NULL);
    if (status == SBE_ESHUTDOWN)
        let_go(file);
    else if (status < 0)
        file->files->unsaid |= 1u << file->fid;
    if (status < 0)
        file->is_open = false;
    return status;
}

/* -- opening ---------------------------------------------------------------------------------- */

/* The names of a path, and how many; more than may be at once: NINEP_WALK_MAX + 1. */
static uint32_t put_names(struct ninep_out *out, const char *path, uint32_t size)
{
    uint32_t count = 0;
    while (size > 0 && count <= NINEP_WALK_MAX) {
        const char *end = memchr(path, '/', size);
        uint32_t length = end == NULL ? size : (uint32_t)(end - path);
        bool here = length == 0 || (length == 1 && path[0] == '.');
        if (!here && count < NINEP_WALK_MAX)
            ninep_put_text(out, path, (uint16_t)length);
        count += !here;
        length += end != NULL;
        path += length;
        size -= length;
    }
    return count;
}

static int take_fid(struct sbe_9p *files, struct sbe_9p_file *file)
{
    for (uint8_t fid = 1; fid < 32u; fid++)
        if ((files->fids >> fid & 1u) == 0) {
            files->fids |= 1u << fid;
            file->fid = fid;
            return SBE_OK;
        }
    return SBE_EBUSY;
}

static int walk(struct sbe_9p_file *file)
{
    struct sbe_9p *files = file->files;
    int status = take_fid(files, file);
    if (status < 0)
        return status;
    file->session = files->id;
    struct ninep_out out = message(file, WALKING);
    ninep_put(&out, file->fid, 4);
    uint8_t *count = out.at + out.used;
    ninep_put(&out, 0, 2);
    file->asked = put_names(&out, file->path, file->path_size);
    count[0] = (uint8_t)file->asked;
    status = file->asked > NINEP_WALK_MAX ? SBE_EINVAL : begin(file, WALKING, &out, NULL);
    if (status < 0)
        let_go(file);
    return status;
}

void ninep_client_open_waiting(struct sbe_9p *files, int status)
{
    struct sbe_9p_file *file;
    while ((file = files->waiting) != NULL) {
        files->waiting = file->next;
        file->operation = IDLE;
        int failed = status < 0 ? status : walk(file);
        if (failed < 0)
            file->done(file, failed, NULL, 0);
    }
}

int sbe_9p_open(struct sbe_9p *files, struct sbe_9p_file *file, const char *path,
                uint32_t path_size, uint32_t flags)
{
    if (file->is_open || file->operation != IDLE)
        return SBE_EBUSY;
    if (path_size > SBE_9P_PATH)
        return SBE_EINVAL;
    if (!sbe_9p_is_usable(files))
        return SBE_ESHUTDOWN;
    file->files = files;
    file->path = path;
    file->path_size = path_size;
    file->flags = flags;
    file->refused = false;
    if (ninep_client_is_ready(files))
        return walk(file);
    file->operation = WAITING;
    file->next = files->waiting;
    files->waiting = file;
    return SBE_OK;
}

/* What was walked to is let go of again. */
static int give_up(struct sbe_9p_file *file, int failed)
{
    file->failed = failed;
    return close_fid(file, GIVING_UP) == SBE_OK ? SBE_MORE : failed;
}

/* SBE_MORE: the operation goes on with another message. */
static int walked(struct sbe_9p_file *file, struct ninep_answer *answer)
{
    uint32_t count = (uint32_t)ninep_get(&answer->in, 2);
    if (answer->in.bad || count > file->asked || answer->in.left != count * NINEP_QID) {
        let_go(file);
        return SBE_EBADMSG;
    }
    if (count < file->asked) {
        let_go(file);
        file->refused = true;
        return SBE_ENOENT;
    }
    struct ninep_out out = message(file, OPENING);
    ninep_put(&out, file->flags, 4);
    int status = begin(file, OPENING, &out, NULL);
    return status < 0 ? give_up(file, status) : SBE_MORE;
}

/* -- what is answered ------------------------------------------------------------------------- */

struct result {
    const void *data;
    uint32_t size;
    struct sbe_9p_stat stat;
};

/* Data of Rread and Rreaddir: behind the count, or in the buffer that was given for them. */
static int take_data(struct sbe_9p_file *file, struct ninep_answer *answer,
                     const struct sbe_frame *response, struct result *result)
{
    result->size = ninep_get_u32(&answer->in);
    if (answer->in.bad || result->size > file->asked)
        return SBE_EBADMSG;
    if (!file->by_reference) {
        result->data = answer->in.at;
        return answer->elsewhere == 0 && answer->in.left == result->size ? SBE_OK : SBE_EBADMSG;
    }
    bool there = response->buffer_count == 1 && response->buffers[0].size == result->size;
    there = there && answer->elsewhere == result->size && answer->in.left == 0;
    return there ? SBE_OK : SBE_EBADMSG;
}

static int take_count(const struct sbe_9p_file *file, struct ninep_answer *answer,
                      struct result *result)
{
    result->size = ninep_get_u32(&answer->in);
    return ninep_is_whole(&answer->in) && result->size <= file->asked ? SBE_OK : SBE_EBADMSG;
}

static int take_stat(struct ninep_answer *answer, struct result *result)
{
    struct ninep_in *in = &answer->in;
    struct sbe_9p_stat *stat = &result->stat;
    (void)ninep_get(in, 8); /* which fields are valid: those that are not are 0 */
    (void)ninep_get(in, 5);
    stat->number = ninep_get(in, 8);
    stat->mode = ninep_get_u32(in);
    (void)ninep_get(in, 8); /* whose it is */
    (void)ninep_get(in, 8);
    (void)ninep_get(in, 8);
    stat->size = ninep_get(in, 8);
    (void)ninep_get(in, 8);
    (void)ninep_get(in, 8);
    (void)ninep_get(in, 8);
    (void)ninep_get(in, 8);
    stat->mtime_s = ninep_get(in, 8);
    stat->mtime_ns = (uint32_t)ninep_get(in, 8);
    result->data = stat;
    result->size = sizeof *stat;
    return in->bad ? SBE_EBADMSG : SBE_OK;
}

static int take(struct sbe_9p_file *file, enum operation operation, struct ninep_answer *answer,
                const struct sbe_frame *response, struct result *result)
{
    switch (operation) {
    case WALKING:
        return walked(file, answer);
    case OPENING:
        file->is_open = true;
        return SBE_OK;
    case READING:
    case LISTING:
        return take_data(file, answer, response, result);
    case WRITING:
        return take_count(file, answer, result);
    case LOOKING:
        return take_stat(answer, result);
    default:
        return SBE_OK;
    }
}

/* What an operation that failed leaves. */
static int clear(struct sbe_9p_file *file, enum operation operation, int status)
{
    if (operation == OPENING)
        return give_up(file, status);
    if (operation == WALKING)
        let_go(file);
    return status;
}

static void answered(struct sbe_outcall *call, int status, const struct sbe_frame *response)
{
    struct sbe_9p_file *file =
        (struct sbe_9p_file *)(void *)((uint8_t *)call - offsetof(struct sbe_9p_file, call));
    struct sbe_9p *files = file->files;
    enum operation operation = (enum operation)file->operation;
    struct ninep_answer answer;
    struct result result = {0};
    file->operation = IDLE;
    status = ninep_client_take(status, response, TYPES[operation], file->fid, &answer);
    if (operation != GIVING_UP)
        file->refused = answer.refused;
    if (status < 0)
        status = clear(file, operation, status);
    else
        status = take(file, operation, &answer, response, &result);
    if (operation == CLOSING || operation == GIVING_UP)
        let_go(file);
    if (operation == GIVING_UP)
        status = file->failed;
    if (status != SBE_MORE)
        file->done(file, status, status < 0 ? NULL : result.data, status < 0 ? 0 : result.size);
    files->calls--;
    ninep_client_settle(files);
}

/* -- operations of an open file ---------------------------------------------------------------- */

static int ask_data(struct sbe_9p_file *file, enum operation operation, uint64_t place,
                    uint32_t size, const struct sbe_buffer *buffer)
{
    struct sbe_buffer room;
    int status = check(file);
    if (status < 0)
        return status;
    uint32_t most = file->files->msize - NINEP_READ_HEAD;
    if (buffer == NULL) {
        most = sbe_9p_inline(file->files);
    } else {
        room = *buffer;
        room.direction = SBE_DIR_OUT;
        most = room.size < most ? (uint32_t)room.size : most;
        room.size = size < most ? size : most;
    }
    file->asked = size < most ? size : most;
    file->by_reference = buffer != NULL;
    struct ninep_out out = message(file, operation);
    ninep_put(&out, place, 8);
    ninep_put(&out, file->asked, 4);
    return begin(file, operation, &out, buffer == NULL ? NULL : &room);
}

int sbe_9p_read(struct sbe_9p_file *file, uint64_t offset, uint32_t size,
                const struct sbe_buffer *buffer)
{
    return ask_data(file, READING, offset, size, buffer);
}

int sbe_9p_readdir(struct sbe_9p_file *file, uint64_t place, uint32_t size)
{
    return ask_data(file, LISTING, place, size, NULL);
}

int sbe_9p_write(struct sbe_9p_file *file, uint64_t offset, const void *data, uint32_t size,
                 const struct sbe_buffer *buffer)
{
    struct sbe_buffer from = {.direction = SBE_DIR_IN, .flags = SBE_BUFFER_INLINE};
    int status = check(file);
    if (status < 0)
        return status;
    uint32_t most = file->files->msize - NINEP_WRITE_HEAD;
    if (buffer != NULL) {
        from = *buffer;
        from.direction = SBE_DIR_IN;
        most = from.size < most ? (uint32_t)from.size : most;
    } else {
        uint32_t head = (uint32_t)sizeof(struct ninep_request) + NINEP_WRITE_HEAD;
        uint32_t room = sbe_channel_payload_room(file->files->channel, 1, 0);
        room = room < head ? 0 : room - head;
        most = room < most ? room : most;
        from.data = (void *)(uintptr_t)data; /* only read: it is IN */
    }
    file->asked = size < most ? size : most;
    from.size = file->asked;
    struct ninep_out out = message(file, WRITING);
    ninep_put(&out, offset, 8);
    ninep_put(&out, file->asked, 4);
    return begin(file, WRITING, &out, &from);
}

int sbe_9p_stat(struct sbe_9p_file *file)
{
    int status = check(file);
    struct ninep_out out = message(file, LOOKING);
    ninep_put(&out, NINEP_ATTRIBUTES, 8);
    return status < 0 ? status : begin(file, LOOKING, &out, NULL);
}

int sbe_9p_close(struct sbe_9p_file *file)
{
    int status = check(file);
    if (status == SBE_ESHUTDOWN)
        let_go(file);
    return status < 0 ? status : close_fid(file, CLOSING);
}

bool sbe_9p_next(const void **data, uint32_t *size, struct sbe_9p_entry *entry)
{
    struct ninep_in in = {.at = *data, .left = *size};
    struct ninep_text name;
    do {
        (void)ninep_get(&in, 5);
        (void)ninep_get(&in, 8);
        entry->next = ninep_get(&in, 8);
        entry->type = (uint8_t)ninep_get(&in, 1);
        name = ninep_get_text(&in);
        if (in.bad)
            return false;
    } while (ninep_text_is(name, ".") || ninep_text_is(name, ".."));
    entry->name = name.bytes;
    entry->name_size = name.size;
    *data = in.at;
    *size = in.left;
    return true;
}
