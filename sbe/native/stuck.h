/* SPDX-License-Identifier: Apache-2.0 */
/* What the remote was about when a deadline came. */
#ifndef SBE_NATIVE_STUCK_H
#define SBE_NATIVE_STUCK_H

#include "channel.h"

struct stuck {
    bool runs;    /* a handler runs for this channel, of `service` */
    bool moves;   /* and has shown that it goes on */
    bool mine;    /* for this very call */
    bool untaken; /* none runs, and frames lie in the ring */
    uint16_t service;
    uint32_t behind;  /* calls that wait behind it */
    uint64_t runs_ns; /* so far, at most */
};

/* Now and then, while something is in flight. */
void native_stuck_look(Channel *channel);
void native_stuck_find(struct stuck *stuck, const Call *call);
/* A sentence, new reference; NULL raised. name: of the call's service. */
PyObject *native_stuck_say(const struct stuck *stuck, const Call *call, PyObject *name);

#endif
