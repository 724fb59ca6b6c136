/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client of an Address Space Graphics stream ("guest"): writes bytes, reads the replies.
 *
 * Nothing waits here: what would have to gives SBE_EAGAIN, and the caller waits as it can, looks
 * after sbe_asg_client_doorbell() each time, and asks again. Bytes of both directions share the
 * transfer buffer, so they take turns: nothing can be written while a reply is unread. Not
 * thread-safe.
 *
 * Statuses: SBE_EPROTO one end has set the error, SBE_ENOTCONN the server has gone.
 */
#ifndef SBE_ASG_CLIENT_H
#define SBE_ASG_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "asg/flow.h"

struct sbe_asg_client {
    struct sbe_asg_region region;
    struct sbe_asg_flow records, large, replies;
    uint32_t step;        /* as it was when this end attached: it is shared memory */
    uint32_t at;          /* offset of the step that is being filled */
    uint32_t filled;      /* its bytes */
    uint32_t outstanding; /* bytes of records, at most */
    bool sending;         /* a large transfer has begun */
    bool owes;            /* a doorbell */
};

/*
 * Attaches to a region that was laid out. SBE_EINVAL: its configuration is none that one can work
 * with. SBE_EPROTO: for a buffer of another size.
 */
int sbe_asg_client_attach(struct sbe_asg_client *client, void *memory, uint32_t size);

/*
 * `size` bytes of the transfer buffer, at most a step, to be filled before the next call. They go
 * out with all that was allocated in the same step, by flush or when it is full. SBE_EBUSY: a reply
 * is unread.
 */
int sbe_asg_client_alloc(struct sbe_asg_client *client, uint32_t size, void **place);

/* The last `size` bytes that were allocated in this step are not sent. SBE_EINVAL: there are fewer.
 */
int sbe_asg_client_give_back(struct sbe_asg_client *client, uint32_t size);

/* Sends what was allocated. */
int sbe_asg_client_flush(struct sbe_asg_client *client);

/*
 * Sends bytes of any number through the whole buffer, `*sent` of them so far, 0 at first; nothing
 * else may be done until it has returned something other than SBE_EAGAIN. With `wait` that is when
 * the server has taken them, without when they are in the buffer.
 */
int sbe_asg_client_send(struct sbe_asg_client *client, const void *data, uint32_t size,
                        uint32_t *sent, bool wait);

/* Bytes of replies, at most `size`: how many, or SBE_EAGAIN, also while the server has to read. */
int64_t sbe_asg_client_read(struct sbe_asg_client *client, void *data, uint32_t size);

/* Bytes of replies that were not read: while there are some, nothing can be written. */
uint32_t sbe_asg_client_unread(const struct sbe_asg_client *client);

/* The server has read all that was sent. */
bool sbe_asg_client_is_idle(const struct sbe_asg_client *client);

/* A doorbell is to be rung, once for each time this says so. */
bool sbe_asg_client_doorbell(struct sbe_asg_client *client);

/*
 * For who waits and has waited: owes a doorbell again if the server sleeps over unread bytes, as
 * the original's may, which looks for them and sleeps without a barrier between.
 */
void sbe_asg_client_remind(struct sbe_asg_client *client);

#endif
