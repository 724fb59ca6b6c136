/* SPDX-License-Identifier: Apache-2.0 */
/* What the carrier of doorbells knows of a channel, and the endpoint of one. */
#ifndef SBE_NATIVE_DOORBELLS_H
#define SBE_NATIVE_DOORBELLS_H

#include <stdbool.h>
#include <stdint.h>

struct doorbell { /* of one channel */
    struct doorbell *next;
    uint32_t channel;
    int ring_fd;     /* rung here, for the remote */
    int wake_fd;     /* rung by the remote */
    int endpoint_fd; /* messages of this channel alone, non-blocking; -1: tokens on the stream */
    bool owed;       /* a token or message that was not taken */
};

/* Sends a doorbell. False: the endpoint takes nothing now. One that is gone takes everything. */
bool native_endpoint_ring(const struct doorbell *doorbell);
/* Takes what came and rings for it. False: the endpoint is gone, look no more. */
bool native_endpoint_read(const struct doorbell *doorbell);

#endif
