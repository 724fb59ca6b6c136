/* SPDX-License-Identifier: Apache-2.0 */
/* Cache maintenance where memory is not coherent. */
#ifndef SBE_NATIVE_CACHE_H
#define SBE_NATIVE_CACHE_H

#include "channel.h"
#include "core/cache.h"
#include "core/status.h"

void native_cache_hooks(struct sbe_port *port);
/* Moves the lines of a range of memory that has a sync_fd. SBE_EIO. */
int native_maintain(const Memory *memory, uint64_t offset, uint64_t size, bool for_device);
/* sbe_cache_handover() of a buffer in this area, NULL inline. Bytes maintained. */
static inline uint64_t native_handover(Channel *channel, enum sbe_handover step,
                                       const struct sbe_buffer *buffer, const Memory *memory)
{
    if (memory == NULL || memory->sync_fd < 0)
        return 0;
    return sbe_cache_handover(&channel->port, step, buffer);
}

/* Whether one has failed since the last look: SBE_EIO, else 0. */
static inline int native_unsynced(Channel *channel)
{
    bool failed = channel->unsynced;
    channel->unsynced = false;
    return failed ? SBE_EIO : SBE_OK;
}

#endif
