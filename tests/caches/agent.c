/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache of the host's end: moves lines between the two halves of a memfd, the first of which is
 * memory and the second what the application sees, as an attachment's socket asks.
 *
 *     agent FD
 *
 * FD is a SOCK_SEQPACKET socket. A struct order with a memfd and a socket beside it begins a cache;
 * that ends when the socket's other end is closed, and the agent when FD's is.
 */
#include <errno.h>
#include <poll.h>
#include <sbe_dmabuf.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lines.h"

#define MOST 8192u

struct order {
    uint64_t size; /* of each half */
    uint64_t seed; /* 0: nothing moves by chance */
    uint64_t line;
};

static struct pollfd polled[MOST];
static struct lines caches[MOST];
static nfds_t count = 1; /* the first is of orders */

static void *half(int fd, uint64_t offset, uint64_t size)
{
    void *made = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
    if (made == MAP_FAILED)
        abort();
    return made;
}

static void begin(const struct order *order, int memfd, int sock)
{
    if (count == MOST)
        abort();
    void *known = lines_memory(order->size);
    if (known == NULL)
        abort();
    caches[count] = (struct lines){
        .memory = half(memfd, 0, order->size),
        .copy = half(memfd, order->size, order->size),
        .known = known,
        .size = order->size,
        .line = (uint32_t)order->line,
        .state = order->seed,
    };
    polled[count++] = (struct pollfd){.fd = sock, .events = POLLIN};
    (void)close(memfd);
}

static void end(nfds_t i)
{
    size_t size = (size_t)caches[i].size;
    (void)munmap(caches[i].memory, size);
    (void)munmap(caches[i].copy, size);
    (void)munmap(caches[i].known, size);
    (void)close(polled[i].fd);
    count--;
    caches[i] = caches[count];
    polled[i] = polled[count];
}

/* False: nobody gives orders any more. */
static bool take_order(int fd)
{
    struct order order;
    int fds[2];
    union {
        struct cmsghdr align;
        char room[CMSG_SPACE(sizeof fds)];
    } beside;
    struct iovec part = {&order, sizeof order};
    struct msghdr packet = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &beside, .msg_controllen = sizeof beside};
    if (recvmsg(fd, &packet, MSG_CMSG_CLOEXEC) != (ssize_t)sizeof order)
        return false;
    const struct cmsghdr *rights = CMSG_FIRSTHDR(&packet);
    if (rights == NULL || rights->cmsg_len != CMSG_LEN(sizeof fds))
        return false;
    memcpy(fds, CMSG_DATA(rights), sizeof fds);
    begin(&order, fds[0], fds[1]);
    return true;
}

/* False: the attachment was closed. */
static bool serve(struct lines *lines, int fd)
{
    struct sbe_dmabuf_sync asked;
    int32_t status = 0;
    if (recv(fd, &asked, sizeof asked, 0) != (ssize_t)sizeof asked)
        return false;
    bool legal = asked.offset <= lines->size && asked.size <= lines->size - asked.offset;
    if (!legal)
        status = -EINVAL;
    if (legal) {
        lines_disturb(lines, asked.offset, asked.size);
        if (asked.flags == SBE_DMABUF_FOR_DEVICE)
            lines_clean(lines, asked.offset, asked.size);
        else
            lines_invalidate(lines, asked.offset, asked.size);
    }
    if (send(fd, &status, sizeof status, MSG_NOSIGNAL) != (ssize_t)sizeof status)
        return false;
    if (legal) /* and while the other end works */
        lines_disturb(lines, asked.offset, asked.size);
    return true;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    polled[0] = (struct pollfd){.fd = atoi(argv[1]), .events = POLLIN};
    for (;;) {
        if (poll(polled, count, -1) < 0 && errno != EINTR)
            return 1;
        nfds_t ready = count;
        for (nfds_t i = ready; i-- > 1;) /* the last takes the place of one that ends */
            if (polled[i].revents != 0 && !serve(&caches[i], polled[i].fd))
                end(i);
        if (polled[0].revents != 0 && !take_order(polled[0].fd))
            return 0;
    }
}
