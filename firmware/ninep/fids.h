/* SPDX-License-Identifier: Apache-2.0 */
/* Within the server: a message at hand, and what a session calls by numbers. */
#ifndef NINEP_FIDS_H
#define NINEP_FIDS_H

#include "core/service.h"
#include "core/status.h"
#include "ninep/server.h"

/* Handlers read what `in` still has, and put their answer behind the header. A negative errno is
 * answered as Rlerror. */
typedef int ninep_handler(struct ninep_call *call, struct ninep_in *in, struct ninep_out *out);

struct ninep_fid *ninep_fid_find(struct ninep_session *session, uint32_t number);
/* The fid that a message names next; NULL: none such, or the message is too short. */
struct ninep_fid *ninep_fid_get(struct ninep_call *call, struct ninep_in *in);
struct ninep_fid *ninep_fid_add(struct ninep_session *session, uint32_t number,
                                struct ninep_node *node, uint32_t uid);
void ninep_fid_point(struct ninep_fid *fid, struct ninep_node *node);
void ninep_fid_remove(struct ninep_session *session, struct ninep_fid *fid);

static inline struct ninep_node *ninep_node_of(const struct ninep_fid *fid)
{
    return ninep_node(fid->node);
}

void ninep_put_qid(struct ninep_out *out, const struct ninep_node *node);

ninep_handler ninep_walk, ninep_attach, ninep_lcreate, ninep_mkdir, ninep_unlinkat,
    ninep_remove_fid, ninep_renameat, ninep_rename_fid;
ninep_handler ninep_lopen, ninep_read, ninep_write, ninep_readdir, ninep_getattr, ninep_setattr,
    ninep_statfs, ninep_fsync;

#endif
