/* SPDX-License-Identifier: Apache-2.0 */
/* What names do: attach, walk, create, remove, rename. */
#include "ninep/fids.h"

int ninep_attach(struct ninep_call *call, struct ninep_in *in, struct ninep_out *out)
{
    uint32_t number = ninep_get_u32(in), auth = ninep_get_u32(in);
    (void)ninep_get_text(in); /* the user's name: who may reach the service is the link's policy */
    struct ninep_text where = ninep_get_text(in);
    uint32_t uid = ninep_get_u32(in);
    if (!ninep_is_whole(in))
        return SBE_EBADMSG;
    if (number == NINEP_NOFID || ninep_fid_find(call->session, number) != NULL)
        return SBE_EINVAL;
    if (auth != NINEP_NOFID)
        return NINEP_EBADF;
    if (where.size != 0 && !ninep_text_is(where, "/"))
        return SBE_ENOENT;
    if (ninep_fid_add(call->session, number, ninep_node(NINEP_ROOT),
                      uid == NINEP_NOFID ? 0 : uid) == NULL)
        return NINEP_ENFILE;
    ninep_put_qid(out, ninep_node(NINEP_ROOT));
    return SBE_OK;
}

static struct ninep_node *step(struct ninep_node *dir, struct ninep_text name)
{
    return ninep_text_is(name, "..") ? ninep_node(dir->parent) : ninep_find(dir, name);
}

/* As far as the names lead; `steps` of them did. */
static struct ninep_node *follow(struct ninep_node *node, struct ninep_in *in, uint32_t count,
                                 struct ninep_out *out, uint32_t *steps)
{
    for (*steps = 0; *steps < count; (*steps)++) {
        struct ninep_node *next = ninep_is_dir(node) ? step(node, ninep_get_text(in)) : NULL;
        if (next == NULL || in->bad)
            break;
        node = next;
        ninep_put_qid(out, node);
    }
    return node;
}

/* That the names of a walk are there, before anything is done. */
static bool names_are_whole(struct ninep_in in, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        (void)ninep_get_text(&in);
    return ninep_is_whole(&in);
}

int ninep_walk(struct ninep_call *call, struct ninep_in *in, struct ninep_out *out)
{
    struct ninep_fid *fid = ninep_fid_get(call, in);
    uint32_t number = ninep_get_u32(in), count = (uint32_t)ninep_get(in, 2), steps;
    if (in->bad || count > NINEP_WALK_MAX || !names_are_whole(*in, count))
        return SBE_EBADMSG;
    if (fid == NULL)
        return NINEP_EBADF;
    bool same = number == fid->number;
    if (number == NINEP_NOFID || (!same && ninep_fid_find(call->session, number) != NULL) ||
        (same && fid->open))
        return SBE_EINVAL;
    struct ninep_node *from = ninep_node_of(fid);
    if (count != 0 && !ninep_is_dir(from))
        return NINEP_ENOTDIR;
    uint32_t place = out->used;
    ninep_put(out, 0, 2);
    struct ninep_node *node = follow(from, in, count, out, &steps);
    if (steps < count && steps == 0)
        return SBE_ENOENT;
    if (steps == count && same)
        ninep_fid_point(fid, node);
    else if (steps == count && ninep_fid_add(call->session, number, node, fid->uid) == NULL)
        return NINEP_ENFILE;
    out->at[place] = (uint8_t)steps;
    return SBE_OK;
}

static int create(struct ninep_fid *dir, struct ninep_text name, enum ninep_kind kind,
                  uint32_t mode, uint32_t gid, struct ninep_node **made)
{
    if (dir == NULL)
        return NINEP_EBADF;
    int status = ninep_create(ninep_node_of(dir), name, kind, made);
    if (status != SBE_OK)
        return status;
    (*made)->mode = ((*made)->mode & ~07777u) | (mode & 07777u);
    (*made)->gid = gid;
    (*made)->uid = dir->uid;
    return SBE_OK;
}

int ninep_lcreate(struct ninep_call *call, struct ninep_in *in, struct ninep_out *out)
{
    struct ninep_fid *fid = ninep_fid_get(call, in);
    struct ninep_text name = ninep_get_text(in);
    uint32_t flags = ninep_get_u32(in), mode = ninep_get_u32(in), gid = ninep_get_u32(in);
    struct ninep_node *made;
    if (!ninep_is_whole(in))
        return SBE_EBADMSG;
    if (fid != NULL && fid->open)
        return NINEP_EBADF;
    int status = create(fid, name, NINEP_RAM_FILE, mode, gid, &made);
    if (status != SBE_OK)
        return status;
    ninep_fid_point(fid, made);
    fid->open = true;
    fid->flags = flags;
    ninep_put_qid(out, made);
    ninep_put(out, 0, 4);
    return SBE_OK;
}

int ninep_mkdir(struct ninep_call *call, struct ninep_in *in, struct ninep_out *out)
{
    struct ninep_fid *fid = ninep_fid_get(call, in);
    struct ninep_text name = ninep_get_text(in);
    uint32_t mode = ninep_get_u32(in), gid = ninep_get_u32(in);
    struct ninep_node *made;
    if (!ninep_is_whole(in))
        return SBE_EBADMSG;
    int status = create(fid, name, NINEP_RAM_DIR, mode, gid, &made);
    if (status == SBE_OK)
        ninep_put_qid(out, made);
    return status;
}

/* What a name in the directory of a fid is; NULL: no such. */
static int look_up(const struct ninep_fid *dir, struct ninep_text name, struct ninep_node **found)
{
    if (dir == NULL)
        return NINEP_EBADF;
    if (!ninep_is_dir(ninep_node_of(dir)))
        return NINEP_ENOTDIR;
    *found = ninep_find(ninep_node_of(dir), name);
    return *found == NULL ? SBE_ENOENT : SBE_OK;
}

int ninep_unlinkat(struct ninep_call *call, struct ninep_in *in, struct ninep_out *out)
{
    (void)out;
    struct ninep_fid *dir = ninep_fid_get(call, in);
    struct ninep_text name = ninep_get_text(in);
    uint32_t flags = ninep_get_u32(in);
    struct ninep_node *node;
    if (!ninep_is_whole(in))
        return SBE_EBADMSG;
    if ((flags & ~NINEP_REMOVEDIR) != 0)
        return SBE_EINVAL;
    int status = look_up(dir, name, &node);
    if (status != SBE_OK)
        return status;
    if (ninep_is_dir(node) != ((flags & NINEP_REMOVEDIR) != 0))
        return ninep_is_dir(node) ? NINEP_EISDIR : NINEP_ENOTDIR;
    return ninep_remove(node);
}

/* The fid ends in any case. */
int ninep_remove_fid(struct ninep_call *call, struct ninep_in *in, struct ninep_out *out)
{
    (void)out;
    struct ninep_fid *fid = ninep_fid_get(call, in);
    if (!ninep_is_whole(in))
        return SBE_EBADMSG;
    if (fid == NULL)
        return NINEP_EBADF;
    int status = ninep_remove(ninep_node_of(fid));
    ninep_fid_remove(call->session, fid);
    return status;
}

static int move(struct ninep_node *node, const struct ninep_fid *to, struct ninep_text name)
{
    return to == NULL ? NINEP_EBADF : ninep_rename(node, ninep_node_of(to), name);
}

int ninep_renameat(struct ninep_call *call, struct ninep_in *in, struct ninep_out *out)
{
    (void)out;
    struct ninep_fid *from = ninep_fid_get(call, in);
    struct ninep_text old = ninep_get_text(in);
    struct ninep_fid *to = ninep_fid_get(call, in);
    struct ninep_text name = ninep_get_text(in);
    struct ninep_node *node;
    if (!ninep_is_whole(in))
        return SBE_EBADMSG;
    int status = look_up(from, old, &node);
    return status == SBE_OK ? move(node, to, name) : status;
}

int ninep_rename_fid(struct ninep_call *call, struct ninep_in *in, struct ninep_out *out)
{
    (void)out;
    struct ninep_fid *fid = ninep_fid_get(call, in);
    struct ninep_fid *to = ninep_fid_get(call, in);
    struct ninep_text name = ninep_get_text(in);
    if (!ninep_is_whole(in))
        return SBE_EBADMSG;
    return fid == NULL ? NINEP_EBADF : move(ninep_node_of(fid), to, name);
}
