/* SPDX-License-Identifier: Apache-2.0 */
/* What the client's halves share: sessions (client.c) and files (client_files.c). */
#ifndef NINEP_CLIENT_BASE_H
#define NINEP_CLIENT_BASE_H

#include <stddef.h>

#include "core/status.h"
#include "ninep/client.h"
#include "ninep/wire.h"

/* A walk of as many names as one may have, with the longest path. */
#define NINEP_CLIENT_MESSAGE (NINEP_HEADER + 10u + 2u * NINEP_WALK_MAX + SBE_9P_PATH)
#define NINEP_MSIZE_MOST     ((1u << 20) + NINEP_READ_HEAD)

struct ninep_answer {
    int status;
    struct ninep_in in; /* what follows the header */
    uint32_t size;
    uint32_t elsewhere; /* bytes that it says are in the buffer */
    bool refused;       /* Rlerror */
};

/* Begins a message; there is one at a time. */
struct ninep_out ninep_client_message(uint8_t type, uint16_t tag);
/* Sends it as a call of the session. A buffer that is IN is the message's end. */
int ninep_client_send(struct sbe_9p *files, struct ninep_out *out, const struct sbe_buffer *buffer,
                      struct sbe_outcall *outcall);
/* Reads the header of what was answered to a message of this type and tag. */
int ninep_client_take(int status, const struct sbe_frame *response, uint8_t type, uint16_t tag,
                      struct ninep_answer *answer);
/* After each answer: what waited for it may go on or end. */
void ninep_client_settle(struct sbe_9p *files);

/* That it can be used now: ready() was told so, and the other end is there. */
bool ninep_client_is_ready(const struct sbe_9p *files);
/* The session can be used now, or with a status less than zero it never will: of who waits for it.
 */
void ninep_client_open_waiting(struct sbe_9p *files, int status);

#endif
