/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server of an Address Space Graphics stream ("host"): reads bytes, writes replies.
 *
 * It attaches without a reset, and believes nothing: what a client writes can end the stream with
 * SBE_EPROTO and lead no read or write out of the transfer buffer. Nothing waits here, as in
 * client.h. Not thread-safe.
 */
#ifndef SBE_ASG_SERVER_H
#define SBE_ASG_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "asg/flow.h"

struct sbe_asg_server {
    struct sbe_asg_region region;
    struct sbe_asg_flow records, large, replies;
    struct sbe_asg_record record; /* being read, as it was when it was checked */
    uint32_t taken;               /* of its bytes */
    int ended;                    /* why nothing is read any more, or SBE_OK */
    bool sleeping;                /* as the client has been told */
};

/* Attaches to where the rings stand. SBE_EINVAL as sbe_asg_attach(). */
int sbe_asg_server_attach(struct sbe_asg_server *server, void *memory, uint32_t size);

/*
 * Bytes that the client has sent, at most `size`, of one record at most: how many. SBE_EAGAIN:
 * none. SBE_EPROTO: a record outside the buffer, bytes that were not announced, or a mode that
 * there is not; the client is told. SBE_ESHUTDOWN: closed here.
 */
int64_t sbe_asg_server_read(struct sbe_asg_server *server, void *data, uint32_t size);

/* What the next read can give at once: bytes, 0, or a status. */
int64_t sbe_asg_server_available(struct sbe_asg_server *server);

/*
 * Before a wait for the doorbell. Until then a client that has seen a read rings none: we look
 * again by ourselves. False: do not wait, there is something.
 */
bool sbe_asg_server_may_sleep(struct sbe_asg_server *server);

/*
 * Puts bytes of a reply, at most `size`, into the buffer: how many, or SBE_EAGAIN for no room.
 * SBE_EBUSY: the client's bytes are there, read them first.
 */
int64_t sbe_asg_server_reply(struct sbe_asg_server *server, const void *data, uint32_t size);

/* Shows the client that nobody reads any more; `failed` that it is for an error. */
void sbe_asg_server_close(struct sbe_asg_server *server, bool failed);

#endif
