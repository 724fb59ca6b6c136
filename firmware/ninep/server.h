/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Serves 9P2000.L: one message at a time, answered at once or in pieces. A session is a table of
 * fids; it sees the tree and no other session. How messages come is docs/spec/9p.md.
 */
#ifndef NINEP_SERVER_H
#define NINEP_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "ninep/tree.h"

#ifndef NINEP_SESSIONS
#define NINEP_SESSIONS NINEP_DEFAULT(2u, 8u)
#endif
#ifndef NINEP_SESSIONS_SHARE /* of one context */
#define NINEP_SESSIONS_SHARE NINEP_DEFAULT(1u, 2u)
#endif
#ifndef NINEP_FIDS /* of a session */
#define NINEP_FIDS NINEP_DEFAULT(8u, 64u)
#endif
#ifndef NINEP_MSIZE /* data lie in the requester's memory, so this costs none here */
#define NINEP_MSIZE ((1u << 20) + 24u)
#endif

struct ninep_fid {
    uint32_t number; /* the client's */
    uint16_t node;
    bool used, open;
    uint32_t flags; /* it was opened with */
    uint32_t uid;   /* the user's who attached: of what is made */
};

struct ninep_session {
    uint32_t msize; /* 0: no version was agreed yet */
    uint32_t used_fids;
    struct ninep_fid fids[NINEP_FIDS];
};

/* A message at hand. Fields without a word are for the server alone. */
struct ninep_call {
    struct ninep_session *session;
    const uint8_t *message; /* in private memory: all of it but what `data` has */
    uint32_t message_size;
    /* In shared memory: what a Twrite writes, or where a Tread or Treaddir has its data. */
    const uint8_t *from;
    uint8_t *to;
    uint64_t data_size;
    uint8_t *reply; /* private */
    uint32_t reply_room;
    uint32_t reply_size; /* set */
    uint32_t written;    /* set: bytes at `to` that are the end of the reply */
    uint64_t progress;   /* kept between its pieces, zero before the first */
    uint32_t piece;      /* bytes to move or clear at a time */
};

#define NINEP_REPLY_MIN 256u /* room for any answer, but for what is read */

/*
 * SBE_OK: answered, by Rlerror maybe. SBE_MORE: to be called again. SBE_EBADMSG: this is no message
 * of the protocol. SBE_EMSGSIZE: no room for an answer.
 */
int ninep_serve(struct ninep_call *call);

/* Lets go of all its fids, and of what was agreed. */
void ninep_session_reset(struct ninep_session *session);

/* For /counters. */
struct ninep_counters {
    uint64_t messages, errors, read_bytes, written_bytes;
};
extern struct ninep_counters ninep_counters;

#endif
