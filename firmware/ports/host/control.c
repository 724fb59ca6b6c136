/* SPDX-License-Identifier: Apache-2.0 */
/* Control messages: one per packet, file descriptors beside it. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ports/host/host.h"

#define RECEIVE_AT_ONCE 16u /* messages before the rings get their turn */

int host_take_fd(struct host *host, uint32_t index)
{
    if (index >= host->inbox_count)
        return -1;
    int fd = host->inbox[index];
    host->inbox[index] = -1;
    return fd;
}

/* -- sending ------------------------------------------------------------------------------- */

/*
 * While half of the outbox waits nothing more is taken from a host that has asked faster than it
 * reads the answers. The other half is for what does not answer, or answers several at once.
 */
static bool has_room(const struct host *host)
{
    return host->outbox_count <= HOST_OUTBOX / 2;
}

static void watch_control(struct host *host)
{
    uint32_t events = (has_room(host) ? (uint32_t)EPOLLIN : 0u) |
                      (host->outbox_count > 0 ? (uint32_t)EPOLLOUT : 0u);
    if (events != host->control_events)
        (void)host_watch(host, host->control_fd, events, &host->control_fd);
    host->control_events = events;
}

/* The kernel may say so now and not a moment later. */
static bool passes(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK || error == EINTR || error == ENOBUFS ||
           error == ENOMEM;
}

/* A host that has gone is no news; whoever reads the log of one that has not wants to know why. */
static void lose(struct host *host)
{
    if (errno != EPIPE && errno != ECONNRESET)
        host_log("disconnecting: control messages fail: %s", strerror(errno));
    host->lost = true;
}

/* True: it is on its way. False: the socket is full, or host->lost is set. */
static bool send_now(struct host *host, const void *bytes, uint32_t size)
{
    ssize_t sent;
    do
        sent = send(host->control_fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && !passes(errno))
        lose(host);
    return sent >= 0;
}

int host_control_send(void *self, const void *message, uint32_t size)
{
    struct host *host = self;
    if (host->control_fd < 0 || host->lost)
        return SBE_ENOTCONN;
    if (host->outbox_count == 0) {
        if (send_now(host, message, size))
            return SBE_OK;
        if (host->lost)
            return SBE_ENOTCONN;
    }
    if (host->outbox_count == HOST_OUTBOX) {
        host_log("disconnecting: the host leaves %u control messages unread", HOST_OUTBOX);
        host->lost = true;
        return SBE_ENOTCONN;
    }
    struct host_message *slot =
        &host->outbox[(host->outbox_first + host->outbox_count++) % HOST_OUTBOX];
    slot->size = size;
    memcpy(slot->bytes, message, size);
    watch_control(host);
    return SBE_OK;
}

void host_control_flush(struct host *host)
{
    while (host->outbox_count > 0) {
        const struct host_message *slot = &host->outbox[host->outbox_first];
        if (!send_now(host, slot->bytes, slot->size))
            break;
        host->outbox_first = (host->outbox_first + 1) % HOST_OUTBOX;
        host->outbox_count--;
    }
    watch_control(host);
}

/* -- receiving ----------------------------------------------------------------------------- */

/* Takes every descriptor that came, so that none can stay open unknown. */
static void collect_fds(struct host *host, struct msghdr *packet)
{
    host->inbox_count = 0;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(packet); part != NULL;
         part = CMSG_NXTHDR(packet, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
            if (host->inbox_count < HOST_INBOX_FDS)
                host->inbox[host->inbox_count++] = fd;
            else
                (void)close(fd);
        }
    }
}

static void close_rest(struct host *host)
{
    for (uint32_t i = 0; i < host->inbox_count; i++)
        if (host->inbox[i] >= 0)
            (void)close(host->inbox[i]);
    host->inbox_count = 0;
}

/*
 * The kernel drops descriptors when this process can hold no more. The message is then taken as if
 * they had come, and the hook that misses them answers SBE_ENOMEM, which beats no answer at all.
 */
static uint32_t handles_of(const struct host *host, const struct msghdr *packet,
                           const void *message, size_t size)
{
    const struct sbe_control *control = message;
    if ((packet->msg_flags & MSG_CTRUNC) == 0 || host->inbox_count == HOST_INBOX_FDS)
        return host->inbox_count;
    host_log("out of file descriptors");
    if (size >= sizeof(struct sbe_area_map) && control->type == SBE_CONTROL_AREA_MAP)
        return ((const struct sbe_area_map *)message)->handles;
    if (size >= sizeof(struct sbe_channel_open) && control->type == SBE_CONTROL_CHANNEL_OPEN)
        return ((const struct sbe_channel_open *)message)->handles;
    return host->inbox_count;
}

/* False: nothing more to read, or the host is gone. */
static bool receive_one(struct host *host)
{
    uint64_t message[512 / sizeof(uint64_t)]; /* longer than any legal one, aligned */
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof(int) * HOST_INBOX_FDS)];
    } beside;
    struct iovec part = {message, sizeof message};
    struct msghdr packet = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = &beside,
        .msg_controllen = sizeof beside,
    };
    ssize_t size = recvmsg(host->control_fd, &packet, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (size < 0) {
        if (!passes(errno))
            lose(host);
        return false;
    }
    collect_fds(host, &packet);
    if (size == 0) {
        host->lost = true;
    } else {
        uint32_t handles = handles_of(host, &packet, message, (size_t)size);
        int status = sbe_session_receive(&host->engine.session, message, (uint32_t)size, handles);
        if (status == SBE_EBADMSG)
            host_log("malformed control message of %zd bytes with %u descriptors dropped", size,
                     host->inbox_count);
    }
    close_rest(host);
    return !host->lost;
}

void host_control_receive(struct host *host)
{
    for (uint32_t i = 0; i < RECEIVE_AT_ONCE && has_room(host) && receive_one(host); i++)
        ;
}
