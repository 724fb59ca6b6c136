/* SPDX-License-Identifier: Apache-2.0 */
/* What is in files and directories, and what they are. */
#include "ninep/fids.h"

#define SPECIAL_MAX 64u /* bytes of what is written to a file of the firmware */
#define TYPE_DIR    4u  /* of a directory's entry, as readdir() has it */
#define TYPE_FILE   8u
#define FS_MAGIC    0x01021997u /* v9fs */

static bool may_write(const struct ninep_fid *fid)
{
    uint32_t access = fid->flags & NINEP_ACCESS;
    return fid->open && (access == NINEP_WRONLY || access == NINEP_RDWR);
}

static bool may_read(const struct ninep_fid *fid)
{
    uint32_t access = fid->flags & NINEP_ACCESS;
    return fid->open && (access == 0 || access == NINEP_RDWR);
}

static uint32_t smaller(uint64_t a, uint32_t b)
{
    return a < b ? (uint32_t)a : b;
}

static int check_open(const struct ninep_node *node, uint32_t flags)
{
    bool writes = (flags & NINEP_ACCESS) != 0 || (flags & NINEP_TRUNCATE) != 0;
    if (ninep_is_dir(node))
        return writes ? NINEP_EISDIR : SBE_OK;
    if ((flags & NINEP_DIRECTORY) != 0)
        return NINEP_ENOTDIR;
    if (node->kind == NINEP_SPECIAL && node->special->write == NULL && writes)
        return SBE_EACCES;
    return writes && node->kind == NINEP_RAM_FILE && ninep_read_only ? NINEP_EROFS : SBE_OK;
}

int ninep_lopen(struct ninep_call *call, struct ninep_in *in, struct ninep_out *out)
{
    struct ninep_fid *fid = ninep_fid_get(call, in);
    uint32_t flags = ninep_get_u32(in);
    if (!ninep_is_whole(in))
        return SBE_EBADMSG;
    if (fid == NULL || fid->open)
        return NINEP_EBADF;
    struct ninep_node *node = ninep_node_of(fid);
    int status = check_open(node, flags);
    if (status != SBE_OK)
        return status;
    if ((flags & NINEP_TRUNCATE) != 0 && node->kind == NINEP_RAM_FILE) {
        ninep_ram_cut(node, 0);
        ninep_touch(node);
    }
    fid->open = true;
    fid->flags = flags;
    ninep_put_qid(out, node);
    ninep_put(out, 0, 4); /* as much at a time as a message holds */
    return SBE_OK;
}

/* Where what is read goes, and how much may: the buffer, or the reply behind its header. */
static struct ninep_out room_for(const struct ninep_call *call, const struct ninep_out *out,
                                 uint32_t count)
{
    struct ninep_out place = {.at = call->to};
    uint64_t room = call->data_size;
    if (call->to == NULL) {
        place.at = out->at + NINEP_READ_HEAD;
        room = out->room - NINEP_READ_HEAD;
    }
    if (room > call->session->msize - NINEP_READ_HEAD)
        room = call->session->msize - NINEP_READ_HEAD;
    place.room = smaller(room, count);
    return place;
}

static void put_data(struct ninep_call *call, struct ninep_out *out, uint32_t bytes)
{
    ninep_put(out, bytes, 4);
    if (call->to != NULL)
        call->written = bytes;
    else
        out->used += bytes;
}

static uint32_t read_some(struct ninep_node *node, uint64_t offset, uint8_t *to, uint32_t size)
{
    if (node->kind == NINEP_RAM_FILE)
        return ninep_ram_read(node, offset, to, size);
    const struct ninep_special *file = node->special;
    return offset > UINT32_MAX ? 0 : file->read(file, (uint32_t)offset, to, size);
}

struct range {
    struct ninep_node *node;
    uint64_t at;
    struct ninep_out place;
};

/* Of a Tread or Treaddir: a fid that may be read, from where, and where to. */
static int get_range(struct ninep_call *call, struct ninep_in *in, const struct ninep_out *out,
                     struct range *range)
{
    const struct ninep_fid *fid = ninep_fid_get(call, in);
    range->at = ninep_get(in, 8);
    uint32_t count = ninep_get_u32(in);
    if (!ninep_is_whole(in))
        return SBE_EBADMSG;
    if (fid == NULL || !may_read(fid))
        return NINEP_EBADF;
    range->node = ninep_node_of(fid);
    range->place = room_for(call, out, count);
    return SBE_OK;
}

int ninep_read(struct ninep_call *call, struct ninep_in *in, struct ninep_out *out)
{
    struct range range;
    int status = get_range(call, in, out, &range);
    if (status != SBE_OK)
        return status;
    if (ninep_is_dir(range.node))
        return NINEP_EISDIR;
    uint32_t room = range.place.room;
    uint32_t done = smaller(call->progress, room);
    uint32_t size = smaller(room - done, call->piece);
    uint32_t got = range.at > UINT64_MAX - done
                       ? 0
                       : read_some(range.node, range.at + done, range.place.at + done, size);
    done += got;
    call->progress = done;
    if (got == size && done < room && got != 0)
        return SBE_MORE;
    ninep_counters.read_bytes += done;
    put_data(call, out, done);
    return SBE_OK;
}

static int write_special(const struct ninep_node *node, const uint8_t *from, uint64_t offset,
                         uint32_t count)
{
    uint8_t value[SPECIAL_MAX]; /* what is looked at is no longer the other end's */
    if (node->special->write == NULL)
        return SBE_EACCES;
    if (offset != 0 || count > sizeof value)
        return SBE_EINVAL;
    memcpy(value, from, count);
    return node->special->write(node->special, value, count);
}

/* The next piece. SBE_MORE: it is not the last. */
static int write_some(struct ninep_call *call, struct ninep_node *node, const uint8_t *from,
                      uint64_t offset, uint32_t count)
{
    uint32_t done = smaller(call->progress, count);
    uint32_t size = smaller(count - done, call->piece);
    uint64_t room = ninep_ram_room(node);
    bool last = offset + done + size > room; /* as much as there is room for */
    if (last && offset + done >= room)
        return done == 0 ? SBE_ENOSPC : SBE_OK;
    if (last)
        size = (uint32_t)(room - offset - done);
    int status = ninep_ram_grow(node, offset + done + size, call->piece);
    if (status != SBE_OK)
        return status;
    ninep_ram_write(node, offset + done, from + done, size);
    call->progress = done + size;
    return !last && call->progress < count ? SBE_MORE : SBE_OK;
}

static int write_to(struct ninep_call *call, const struct ninep_fid *fid, const uint8_t *from,
                    uint64_t offset, uint32_t count)
{
    struct ninep_node *node = ninep_node_of(fid);
    if (ninep_is_dir(node))
        return NINEP_EISDIR;
    if (node->kind == NINEP_SPECIAL) {
        call->progress = count;
        return write_special(node, from, offset, count);
    }
    if (ninep_read_only)
        return NINEP_EROFS;
    if ((fid->flags & NINEP_APPEND) != 0)
        offset = node->size - smaller(call->progress, smaller(node->size, count));
    if (offset > (uint64_t)NINEP_BLOCKS * NINEP_BLOCK)
        return NINEP_EFBIG;
    int status = count == 0 ? SBE_OK : write_some(call, node, from, offset, count);
    if (status == SBE_OK)
        ninep_touch(node);
    return status;
}

int ninep_write(struct ninep_call *call, struct ninep_in *in, struct ninep_out *out)
{
    const struct ninep_fid *fid = ninep_fid_get(call, in);
    uint64_t offset = ninep_get(in, 8);
    uint32_t count = ninep_get_u32(in);
    uint64_t has = call->from == NULL ? in->left : call->data_size;
    if (in->bad || has != count || (call->from != NULL && in->left != 0))
        return SBE_EBADMSG;
    if (fid == NULL || !may_write(fid))
        return NINEP_EBADF;
    int status = write_to(call, fid, call->from == NULL ? in->at : call->from, offset, count);
    if (status != SBE_OK)
        return status;
    ninep_counters.written_bytes += call->progress;
    ninep_put(out, call->progress, 4);
    return SBE_OK;
}

static void put_entry(struct ninep_out *out, const struct ninep_node *node, uint64_t next,
                      const char *name, uint16_t size)
{
    ninep_put_qid(out, node);
    ninep_put(out, next, 8);
    ninep_put(out, ninep_is_dir(node) ? TYPE_DIR : TYPE_FILE, 1);
    ninep_put_text(out, name, size);
}

/* Puts the entry at a place, if it fits; the place of the next one. 0: there is none. Places are
 * 0 and 1 for the directory and its own, then one for each node. */
static uint64_t put_next(struct ninep_out *out, const struct ninep_node *dir, uint64_t place)
{
    if (place == 0) {
        put_entry(out, dir, 1, ".", 1);
        return 1;
    }
    if (place == 1) {
        put_entry(out, ninep_node(dir->parent), 2, "..", 2);
        return 2;
    }
    const struct ninep_node *node = ninep_next(dir, place - 2u);
    if (node == NULL)
        return 0;
    uint64_t next = (uint64_t)ninep_index(node) + 3u;
    put_entry(out, node, next, node->name, node->name_size);
    return next;
}

int ninep_readdir(struct ninep_call *call, struct ninep_in *in, struct ninep_out *out)
{
    struct range range;
    int status = get_range(call, in, out, &range);
    if (status != SBE_OK)
        return status;
    if (!ninep_is_dir(range.node))
        return NINEP_ENOTDIR;
    struct ninep_out *entries = &range.place; /* written only, wherever it is */
    uint64_t place = range.at;
    uint32_t used;
    do {
        used = entries->used;
        place = put_next(entries, range.node, place);
    } while (place != 0 && !entries->full);
    if (entries->full && used == 0)
        return SBE_EINVAL; /* not even one */
    put_data(call, out, used);
    return SBE_OK;
}

int ninep_getattr(struct ninep_call *call, struct ninep_in *in, struct ninep_out *out)
{
    const struct ninep_fid *fid = ninep_fid_get(call, in);
    (void)ninep_get(in, 8); /* what is asked for: all of it comes */
    if (!ninep_is_whole(in))
        return SBE_EBADMSG;
    if (fid == NULL)
        return NINEP_EBADF;
    const struct ninep_node *node = ninep_node_of(fid);
    uint64_t size = ninep_size(node);
    ninep_put(out, NINEP_ATTRIBUTES, 8);
    ninep_put_qid(out, node);
    ninep_put(out, node->mode, 4);
    ninep_put(out, node->uid, 4);
    ninep_put(out, node->gid, 4);
    ninep_put(out, node->removed ? 0 : ninep_is_dir(node) ? 2 : 1, 8); /* links */
    ninep_put(out, 0, 8);                                              /* a device's number */
    ninep_put(out, size, 8);
    ninep_put(out, NINEP_BLOCK, 8);
    ninep_put(out, size / 512u + (size % 512u != 0), 8);
    for (uint32_t i = 0; i < 3; i++) { /* read, written, changed */
        ninep_put(out, node->mtime_s, 8);
        ninep_put(out, node->mtime_ns, 8);
    }
    for (uint32_t i = 0; i < 4; i++) /* born, s and ns; generation, version of the data */
        ninep_put(out, 0, 8);
    return SBE_OK;
}

struct changes {
    uint32_t valid, mode, uid, gid;
    uint64_t size, mtime_s, mtime_ns;
};

static struct changes get_changes(struct ninep_in *in)
{
    struct changes to = {.valid = ninep_get_u32(in)};
    to.mode = ninep_get_u32(in);
    to.uid = ninep_get_u32(in);
    to.gid = ninep_get_u32(in);
    to.size = ninep_get(in, 8);
    (void)ninep_get(in, 8); /* the time of the last look is not kept */
    (void)ninep_get(in, 8);
    to.mtime_s = ninep_get(in, 8);
    to.mtime_ns = ninep_get(in, 8);
    return to;
}

static int resize(struct ninep_call *call, struct ninep_node *node, uint64_t size)
{
    if (ninep_is_dir(node))
        return NINEP_EISDIR;
    if (node->kind == NINEP_SPECIAL)
        return node->special->write == NULL ? SBE_EACCES : SBE_OK; /* written as a whole */
    if (size > (uint64_t)NINEP_BLOCKS * NINEP_BLOCK)
        return NINEP_EFBIG;
    int status = ninep_ram_grow(node, size, call->piece);
    if (status != SBE_OK)
        return status;
    ninep_ram_cut(node, size);
    ninep_touch(node);
    return SBE_OK;
}

static void set(struct ninep_node *node, const struct changes *to)
{
    if ((to->valid & NINEP_SET_MODE) != 0)
        node->mode = (node->mode & ~07777u) | (to->mode & 07777u);
    if ((to->valid & NINEP_SET_UID) != 0)
        node->uid = to->uid;
    if ((to->valid & NINEP_SET_GID) != 0)
        node->gid = to->gid;
    if ((to->valid & NINEP_SET_MTIME_TO) != 0) {
        node->mtime_s = to->mtime_s;
        node->mtime_ns = (uint32_t)(to->mtime_ns % 1000000000u);
    } else if ((to->valid & NINEP_SET_MTIME) != 0) {
        ninep_touch(node);
    }
}

int ninep_setattr(struct ninep_call *call, struct ninep_in *in, struct ninep_out *out)
{
    (void)out;
    const struct ninep_fid *fid = ninep_fid_get(call, in);
    const struct changes to = get_changes(in);
    if (!ninep_is_whole(in))
        return SBE_EBADMSG;
    if (fid == NULL)
        return NINEP_EBADF;
    struct ninep_node *node = ninep_node_of(fid);
    bool owned = node->kind == NINEP_RAM_FILE || node->kind == NINEP_RAM_DIR;
    if (owned && ninep_read_only)
        return NINEP_EROFS;
    if (!owned && (to.valid & (NINEP_SET_MODE | NINEP_SET_UID | NINEP_SET_GID)) != 0)
        return SBE_EPERM;
    if ((to.valid & NINEP_SET_SIZE) != 0) {
        int status = resize(call, node, to.size);
        if (status != SBE_OK)
            return status;
    }
    if (owned)
        set(node, &to);
    return SBE_OK;
}

int ninep_statfs(struct ninep_call *call, struct ninep_in *in, struct ninep_out *out)
{
    const struct ninep_fid *fid = ninep_fid_get(call, in);
    if (!ninep_is_whole(in))
        return SBE_EBADMSG;
    if (fid == NULL)
        return NINEP_EBADF;
    struct ninep_usage usage = ninep_tree_usage();
    ninep_put(out, FS_MAGIC, 4);
    ninep_put(out, NINEP_BLOCK, 4);
    ninep_put(out, NINEP_BLOCKS, 8);
    ninep_put(out, usage.free_blocks, 8);
    ninep_put(out, usage.free_blocks, 8); /* to all */
    ninep_put(out, NINEP_NODES, 8);
    ninep_put(out, usage.free_nodes, 8);
    ninep_put(out, 0, 8);
    ninep_put(out, NINEP_NAME, 4);
    return SBE_OK;
}

/* It is in RAM: nothing is under way. */
int ninep_fsync(struct ninep_call *call, struct ninep_in *in, struct ninep_out *out)
{
    (void)out;
    const struct ninep_fid *fid = ninep_fid_get(call, in);
    if (in->left != 0)
        (void)ninep_get_u32(in); /* data only; clients of old leave it out */
    if (!ninep_is_whole(in))
        return SBE_EBADMSG;
    return fid == NULL ? NINEP_EBADF : SBE_OK;
}
