/* SPDX-License-Identifier: Apache-2.0 */
#include "ninep/server.h"

#include "ninep/fids.h"

struct ninep_counters ninep_counters;

struct ninep_fid *ninep_fid_find(struct ninep_session *session, uint32_t number)
{
    for (uint32_t i = 0; i < NINEP_FIDS; i++) { /* clients count from 0: mostly it is the first */
        struct ninep_fid *fid = &session->fids[(number + i) % NINEP_FIDS];
        if (fid->used && fid->number == number)
            return fid;
    }
    return NULL;
}

struct ninep_fid *ninep_fid_get(struct ninep_call *call, struct ninep_in *in)
{
    uint32_t number = ninep_get_u32(in);
    return in->bad ? NULL : ninep_fid_find(call->session, number);
}

struct ninep_fid *ninep_fid_add(struct ninep_session *session, uint32_t number,
                                struct ninep_node *node, uint32_t uid)
{
    for (uint32_t i = 0; i < NINEP_FIDS; i++) {
        struct ninep_fid *fid = &session->fids[(number + i) % NINEP_FIDS];
        if (fid->used)
            continue;
        *fid = (struct ninep_fid){
            .number = number,
            .node = (uint16_t)ninep_index(node),
            .used = true,
            .uid = uid,
        };
        node->fids++;
        session->used_fids++;
        return fid;
    }
    return NULL;
}

void ninep_fid_point(struct ninep_fid *fid, struct ninep_node *node)
{
    struct ninep_node *before = ninep_node_of(fid);
    fid->node = (uint16_t)ninep_index(node);
    node->fids++;
    before->fids--;
    ninep_let_go(before);
}

void ninep_fid_remove(struct ninep_session *session, struct ninep_fid *fid)
{
    struct ninep_node *node = ninep_node_of(fid);
    fid->used = false;
    session->used_fids--;
    node->fids--;
    ninep_let_go(node);
}

void ninep_session_reset(struct ninep_session *session)
{
    for (uint32_t i = 0; i < NINEP_FIDS; i++)
        if (session->fids[i].used)
            ninep_fid_remove(session, &session->fids[i]);
    session->msize = 0;
}

void ninep_put_qid(struct ninep_out *out, const struct ninep_node *node)
{
    ninep_put(out, ninep_is_dir(node) ? NINEP_QID_DIR : 0u, 1);
    ninep_put(out, node->version, 4);
    ninep_put(out, node->path, 8);
}

static int version(struct ninep_call *call, struct ninep_in *in, struct ninep_out *out)
{
    uint32_t msize = ninep_get_u32(in);
    struct ninep_text name = ninep_get_text(in);
    if (!ninep_is_whole(in))
        return SBE_EBADMSG;
    ninep_session_reset(call->session);
    if (msize < NINEP_MSIZE_MIN)
        return SBE_EINVAL;
    msize = msize < NINEP_MSIZE ? msize : NINEP_MSIZE;
    bool known = ninep_text_is(name, NINEP_VERSION);
    call->session->msize = known ? msize : 0;
    const char *answer = known ? NINEP_VERSION : "unknown";
    ninep_put(out, msize, 4);
    ninep_put_text(out, answer, (uint16_t)strlen(answer));
    return SBE_OK;
}

/* All that came before has been answered by now: messages of a session come in order. */
static int flush(struct ninep_call *call, struct ninep_in *in, struct ninep_out *out)
{
    (void)call;
    (void)out;
    (void)ninep_get(in, 2);
    return ninep_is_whole(in) ? SBE_OK : SBE_EBADMSG;
}

static int clunk(struct ninep_call *call, struct ninep_in *in, struct ninep_out *out)
{
    (void)out;
    struct ninep_fid *fid = ninep_fid_get(call, in);
    if (!ninep_is_whole(in))
        return SBE_EBADMSG;
    if (fid == NULL)
        return NINEP_EBADF;
    ninep_fid_remove(call->session, fid);
    return SBE_OK;
}

static int dispatch(struct ninep_call *call, uint8_t type, struct ninep_in *in,
                    struct ninep_out *out)
{
    switch (type) {
    case NINEP_TFLUSH:
        return flush(call, in, out);
    case NINEP_TATTACH:
        return ninep_attach(call, in, out);
    case NINEP_TWALK:
        return ninep_walk(call, in, out);
    case NINEP_TCLUNK:
        return clunk(call, in, out);
    case NINEP_TLOPEN:
        return ninep_lopen(call, in, out);
    case NINEP_TLCREATE:
        return ninep_lcreate(call, in, out);
    case NINEP_TREAD:
        return ninep_read(call, in, out);
    case NINEP_TWRITE:
        return ninep_write(call, in, out);
    case NINEP_TREADDIR:
        return ninep_readdir(call, in, out);
    case NINEP_TGETATTR:
        return ninep_getattr(call, in, out);
    case NINEP_TSETATTR:
        return ninep_setattr(call, in, out);
    case NINEP_TSTATFS:
        return ninep_statfs(call, in, out);
    case NINEP_TFSYNC:
        return ninep_fsync(call, in, out);
    case NINEP_TMKDIR:
        return ninep_mkdir(call, in, out);
    case NINEP_TUNLINKAT:
        return ninep_unlinkat(call, in, out);
    case NINEP_TREMOVE:
        return ninep_remove_fid(call, in, out);
    case NINEP_TRENAMEAT:
        return ninep_renameat(call, in, out);
    case NINEP_TRENAME:
        return ninep_rename_fid(call, in, out);
    default:
        return SBE_ENOTSUP;
    }
}

static int answer(struct ninep_call *call, uint8_t type, struct ninep_in *in, struct ninep_out *out)
{
    if (type == NINEP_TVERSION)
        return version(call, in, out);
    return call->session->msize == 0 ? SBE_EPROTO : dispatch(call, type, in, out);
}

/* Begins the reply anew; what data it has at `to` does not count then. */
static void refuse(struct ninep_call *call, struct ninep_out *out, int status)
{
    out->used = NINEP_HEADER;
    call->written = 0;
    ninep_counters.errors++;
    ninep_put(out, (uint32_t)-status, 4);
}

static void put_header(struct ninep_call *call, struct ninep_out *out, uint8_t type, uint16_t tag)
{
    call->reply_size = out->used;
    out->used = 0;
    ninep_put(out, (uint64_t)call->reply_size + call->written, 4);
    ninep_put(out, type, 1);
    ninep_put(out, tag, 2);
}

int ninep_serve(struct ninep_call *call)
{
    struct ninep_in in = {.at = call->message, .left = call->message_size};
    uint32_t size = ninep_get_u32(&in);
    uint8_t type = (uint8_t)ninep_get(&in, 1);
    uint16_t tag = (uint16_t)ninep_get(&in, 2);
    uint64_t came = call->message_size + (call->from == NULL ? 0 : call->data_size);
    if (in.bad || size != came || (call->session->msize != 0 && size > call->session->msize))
        return SBE_EBADMSG;
    if (call->reply_room < NINEP_REPLY_MIN)
        return SBE_EMSGSIZE;
    struct ninep_out out = {.at = call->reply, .room = call->reply_room, .used = NINEP_HEADER};
    call->written = 0;
    int status = answer(call, type, &in, &out);
    if (status == SBE_MORE)
        return status;
    ninep_counters.messages++;
    if (status == SBE_OK && out.full)
        status = SBE_EMSGSIZE;
    if (status < 0)
        refuse(call, &out, status);
    put_header(call, &out, status < 0 ? NINEP_RLERROR : (uint8_t)(type + 1u), tag);
    return SBE_OK;
}
