/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Status codes: zero or a negative errno.
 *
 * The numbers are Linux's (asm-generic/errno.h) and part of the wire format: firmware libraries
 * number errno differently, so the core never includes <errno.h>.
 */
#ifndef SBE_CORE_STATUS_H
#define SBE_CORE_STATUS_H

enum sbe_status {
    SBE_OK = 0,
    SBE_EPERM = -1,        /* policy refuses */
    SBE_ENOENT = -2,       /* no such service, context or channel */
    SBE_EIO = -5,          /* a hook failed without saying why */
    SBE_EAGAIN = -11,      /* ring full, or nothing to read: try again after a doorbell */
    SBE_ENOMEM = -12,      /* a caller-owned table is full */
    SBE_EACCES = -13,      /* the area belongs to another context */
    SBE_EFAULT = -14,      /* no such area: never mapped here, or freed */
    SBE_EBUSY = -16,       /* still in use by an open request */
    SBE_EEXIST = -17,      /* the id is taken */
    SBE_EINVAL = -22,      /* a bad argument */
    SBE_ENOSPC = -28,      /* an OUT buffer or the response has too little room */
    SBE_ERANGE = -34,      /* offset + size leaves the area */
    SBE_EPROTO = -71,      /* the peer broke the protocol; the ring or session is shut */
    SBE_EBADMSG = -74,     /* a malformed frame or control message */
    SBE_EMSGSIZE = -90,    /* the frame does not fit a slot */
    SBE_ENOTSUP = -95,     /* not supported, e.g. SHARED where memory is not coherent */
    SBE_ECONNRESET = -104, /* the other end restarted */
    SBE_ENOTCONN = -107,   /* the link is not connected */
    SBE_ESHUTDOWN = -108,  /* the channel is closed */
    SBE_ETIMEDOUT = -110,  /* the deadline passed before the handler ran */
    SBE_ECANCELED = -125,  /* the requester cancelled */
};

#endif
