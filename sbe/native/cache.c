/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cache maintenance at this end: areas whose memory is not coherent carry the attachment of our
 * kernel module sbe_dmabuf, which maintains a range at a time. What must be done when, the core
 * says.
 */
#include "cache.h"

#include <sbe_dmabuf.h>
#include <sys/ioctl.h>

#include "channel.h"
#include "core/status.h"
#include "memory.h"
#include "table.h"

static void maintain(Channel *channel, const void *start, uint64_t size, uint32_t flags)
{
    const Memory *memory = native_table_find(channel->table, start);
    if (memory == NULL || memory->sync_fd < 0)
        return;
    struct sbe_dmabuf_sync range = {
        .offset = (uint64_t)((const uint8_t *)start - memory->base),
        .size = size,
        .flags = flags,
    };
    if (ioctl(memory->sync_fd, SBE_DMABUF_SYNC, &range) < 0)
        channel->unsynced = true;
}

static void clean(void *self, const void *start, uint64_t size)
{
    maintain(self, start, size, SBE_DMABUF_FOR_DEVICE);
}

static void invalidate(void *self, void *start, uint64_t size)
{
    maintain(self, start, size, SBE_DMABUF_FOR_CPU);
}

void native_cache_hooks(struct sbe_port *port)
{
    port->cache_clean = clean;
    port->cache_invalidate = invalidate;
}
