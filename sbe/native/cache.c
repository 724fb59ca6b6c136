/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cache maintenance at this end: areas whose memory is not coherent carry the attachment of our
 * kernel module sbe_dmabuf, which maintains a range at a time, or a socket whose other end does:
 * it takes the same structure as a message, and answers with a status when it is done. What must be
 * done when, the core says.
 */
#include "cache.h"

#include <errno.h>
#include <poll.h>
#include <sbe_dmabuf.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "channel.h"
#include "core/status.h"
#include "memory.h"
#include "table.h"

/* It has answered within this time, or is taken for dead. */
#define ANSWER_MS 1000

/*
 * The GIL is kept, as in the ioctl: a frame is half made. One that is late is not asked again, or
 * its answers would be taken for those of other questions.
 */
static bool ask(int sock, const struct sbe_dmabuf_sync *range)
{
    struct pollfd answered = {.fd = sock, .events = POLLIN};
    int32_t status = -1;
    ssize_t size = send(sock, range, sizeof *range, MSG_NOSIGNAL | MSG_DONTWAIT);
    int ready = 0;
    if (size == (ssize_t)sizeof *range)
        do
            ready = poll(&answered, 1, ANSWER_MS);
        while (ready < 0 && errno == EINTR);
    if (ready > 0 && recv(sock, &status, sizeof status, MSG_DONTWAIT) == (ssize_t)sizeof status)
        return status == 0;
    (void)shutdown(sock, SHUT_RDWR);
    return false;
}

int native_maintain(const Memory *memory, uint64_t offset, uint64_t size, bool for_device)
{
    struct sbe_dmabuf_sync range = {
        .offset = offset,
        .size = size,
        .flags = for_device ? SBE_DMABUF_FOR_DEVICE : SBE_DMABUF_FOR_CPU,
    };
    bool done = memory->sync_asks ? ask(memory->sync_fd, &range)
                                  : ioctl(memory->sync_fd, SBE_DMABUF_SYNC, &range) >= 0;
    return done ? SBE_OK : SBE_EIO;
}

static void maintain(Channel *channel, const void *start, uint64_t size, bool for_device)
{
    const Memory *memory = native_table_find(channel->table, start);
    if (memory == NULL || memory->sync_fd < 0)
        return;
    uint64_t offset = (uint64_t)((const uint8_t *)start - memory->base);
    if (native_maintain(memory, offset, size, for_device) < 0)
        channel->unsynced = true;
}

static void clean(void *self, const void *start, uint64_t size)
{
    maintain(self, start, size, true);
}

static void invalidate(void *self, void *start, uint64_t size)
{
    maintain(self, start, size, false);
}

void native_cache_hooks(struct sbe_port *port)
{
    port->cache_clean = clean;
    port->cache_invalidate = invalidate;
}
