/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Doorbells are eventfds. Ours are in the epoll set, edge-triggered, and never read: every write to
 * an eventfd wakes its waiters whatever the counter holds, so each is an event of its own, and the
 * read would cost a system call per doorbell. The counter saturates only after 2^64 doorbells or
 * when a host writes absurd values; then it is the host's own write that fails and the host's own
 * channel that sleeps. tests/core/test_remote.c proves the edge on the kernel it runs on.
 *
 * File status flags belong to the open file, so a write cannot be kept from blocking as long as
 * somebody else may clear O_NONBLOCK. An honest host lets nobody hold both the eventfd that we
 * write and a reason to harm us: docs/adr/0010-listeners.md.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ports/host/host.h"

/*
 * Told by what they do, for there may be no /proc. Of the files without a type, eventfds alone take
 * eight bytes; those of zero change nothing, and never block, whatever the counter holds.
 */
static bool is_eventfd(int fd)
{
    const uint64_t nothing = 0;
    struct stat info;
    return fstat(fd, &info) == 0 && (info.st_mode & S_IFMT) == 0 &&
           write(fd, &nothing, sizeof nothing) == sizeof nothing;
}

/*
 * An epoll descriptor over an eventfd: it can be waited for and no more. `other` is a descriptor
 * that it does not watch, and can't be told to forget.
 */
static bool is_listener(int fd, int other)
{
    struct epoll_event unused = {0};
    return epoll_ctl(fd, EPOLL_CTL_DEL, other, &unused) < 0 && errno == ENOENT;
}

/* The flag belongs to the host's end too, which knows it from the specification. */
static bool never_block(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

static int watch_doorbell(struct host *host, struct host_channel *entry, int wait_fd, int ring_fd)
{
    if (wait_fd < 0 || ring_fd < 0)
        return SBE_ENOMEM; /* this process has no descriptors left */
    if ((!is_eventfd(wait_fd) && !is_listener(wait_fd, ring_fd)) || !is_eventfd(ring_fd)) {
        host_log("channel refused: a doorbell is no eventfd");
        return SBE_EINVAL;
    }
    if (!never_block(wait_fd) || !never_block(ring_fd))
        return SBE_EIO;
    return host_watch(host, wait_fd, EPOLLIN | EPOLLET, entry) ? SBE_OK : SBE_ENOMEM;
}

int host_channel_opened(void *self, struct sbe_channel *channel,
                        const struct sbe_channel_open *message)
{
    struct host *host = self;
    struct sbe_engine_channel *engine_entry = (struct sbe_engine_channel *)(void *)channel;
    uint32_t index = (uint32_t)(engine_entry - host->config.channels);
    struct host_channel *entry = &host->channels[index];
    if (message->handles != 2)
        return SBE_EINVAL;
    int wait_fd = host_take_fd(host, 0), ring_fd = host_take_fd(host, 1);
    int status = watch_doorbell(host, entry, wait_fd, ring_fd);
    if (status < 0) {
        if (wait_fd >= 0)
            (void)close(wait_fd);
        if (ring_fd >= 0)
            (void)close(ring_fd);
        return status;
    }
    *entry = (struct host_channel){.channel = channel, .wait_fd = wait_fd, .ring_fd = ring_fd};
    channel->handle = entry;
    if (index >= host->channels_high)
        host->channels_high = index + 1;
    return SBE_OK;
}

void host_channel_closed(void *self, struct sbe_channel *channel)
{
    struct host *host = self;
    struct host_channel *entry = channel->handle;
    host->bells_owed -= entry->owed;
    host_unwatch(self, entry->wait_fd);
    (void)close(entry->wait_fd);
    (void)close(entry->ring_fd);
    *entry = (struct host_channel){.wait_fd = -1, .ring_fd = -1};
}

void host_doorbell(void *self, const struct sbe_channel *channel)
{
    struct host *host = self;
    struct host_channel *entry = channel->handle;
    uint64_t now_ns = host_now_ns(NULL);
    if (entry->owed)
        return;
    if (sbe_bell_may_ring(&host->bells, &entry->bell, now_ns)) {
        sbe_bell_ring(&host->bells, &entry->bell, entry->ring_fd, now_ns);
        return;
    }
    entry->owed = true;
    host->bells_owed++;
}

int host_owed_bells(struct host *host)
{
    if (host->bells_owed == 0)
        return -1;
    uint64_t now_ns = host_now_ns(NULL);
    if (now_ns >= host->bells.next_ns) {
        /* From where it ended the last time, so that each has its turn. */
        do
            host->bell_at = host->bell_at + 1 < host->channels_high ? host->bell_at + 1 : 0;
        while (!host->channels[host->bell_at].owed);
        struct host_channel *entry = &host->channels[host->bell_at];
        entry->owed = false;
        host->bells_owed--;
        sbe_bell_ring(&host->bells, &entry->bell, entry->ring_fd, now_ns);
    }
    uint64_t left_ns = host->bells.next_ns > now_ns ? host->bells.next_ns - now_ns : 0;
    return host->bells_owed == 0 ? -1 : (int)(left_ns / 1000000u + 1);
}

bool host_look_again(struct host *host)
{
    struct sbe_patience *patience = &host->patience;
    if (patience->longest_ns == 0)
        return false;
    if (sbe_power_suspended(&host->power)) {
        host->engine.busy = false;
        return false;
    }
    uint64_t now_ns = host_now_ns(NULL);
    uint64_t waited_ns = now_ns - host->traffic_ns;
    if (host->engine.served != host->served_seen) {
        if (!host->engine.busy)
            sbe_patience_slept(patience, host->looked_ns, waited_ns - host->looked_ns);
        else if (host->looked_ns != 0) /* else it was there already */
            sbe_patience_paid(patience);
        host->served_seen = host->engine.served;
        host->traffic_ns = now_ns;
        host->looked_ns = waited_ns = 0;
    } else if (host->engine.busy) {
        host->looked_ns = waited_ns;
    }
    host->engine.busy = waited_ns < patience->window_ns;
    return host->engine.busy;
}
