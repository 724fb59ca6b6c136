/* SPDX-License-Identifier: Apache-2.0 */
/*
 * total: adds up bytes, as a byte stream of Address Space Graphics. The client writes a length, 4
 * bytes, and as many bytes; it reads their sum modulo 2^32, 4 bytes. It is the sample of such a
 * service.
 */
#include "asg/stream.h"
#include "services/service_util.h"

#define PIECE 256u /* bytes on the stack, and so at a time */

enum {
    LENGTH,
    BYTES,
    ANSWER
}; /* what comes next */

struct total {           /* in the stream's state */
    uint32_t next, done; /* bytes of a length or of an answer that have come or gone */
    uint32_t left;       /* bytes to add up */
    uint32_t sum;
};
_Static_assert(sizeof(struct total) <= sizeof(((struct sbe_asg_stream *)0)->state), "it fits");

static bool take(struct sbe_asg_stream *stream, struct total *total)
{
    uint8_t data[PIECE];
    uint32_t wanted = total->next == LENGTH ? 4u - total->done : total->left;
    int64_t got = sbe_asg_server_read(&stream->server, data, wanted < PIECE ? wanted : PIECE);
    if (got <= 0)
        return false;
    for (uint32_t i = 0; i < (uint32_t)got; i++) {
        if (total->next == BYTES)
            total->sum += data[i];
        else
            total->left |= (uint32_t)data[i] << (8u * total->done++);
    }
    if (total->next == BYTES)
        total->left -= (uint32_t)got;
    else if (total->done == 4)
        total->next = BYTES;
    if (total->next == BYTES && total->left == 0)
        *total = (struct total){.next = ANSWER, .sum = total->sum};
    return true;
}

static bool answer(struct sbe_asg_stream *stream, struct total *total)
{
    uint8_t bytes[4];
    for (uint32_t i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(total->sum >> (8u * i));
    int64_t sent = sbe_asg_server_reply(&stream->server, bytes + total->done, 4u - total->done);
    if (sent <= 0)
        return false;
    total->done += (uint32_t)sent;
    if (total->done == 4)
        *total = (struct total){.next = LENGTH};
    return true;
}

static bool serve(struct sbe_asg_stream *stream)
{
    struct total total;
    memcpy(&total, stream->state, sizeof(total));
    bool did = total.next == ANSWER ? answer(stream, &total) : take(stream, &total);
    memcpy(stream->state, &total, sizeof(total));
    return did;
}

SBE_ASG(total, 1, serve);
