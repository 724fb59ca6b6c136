/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server of firmware/ninep with nothing but a socket between it and its client: what ninep.py
 * has beside the bridge. Usage: ninep_socket FD; says "ready", then serves the client at the other
 * end of the connected stream socket FD until that leaves.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/service.h"
#include "core/status.h"
#include "ninep/files.h"
#include "ninep/server.h"

static struct ninep_session session;
static uint8_t come[NINEP_MSIZE], reply[NINEP_MSIZE + NINEP_REPLY_MIN];
static uint32_t used; /* bytes of `come` */

static int fail(const char *what)
{
    fprintf(stderr, "ninep_socket: %s\n", what);
    return 1;
}

/* Until so many bytes have come, and whatever came with them. False: no more will. */
static bool fill(int fd, uint32_t size)
{
    while (used < size) {
        ssize_t got = read(fd, come + used, sizeof come - used);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        used += (uint32_t)got;
    }
    return true;
}

static bool send_all(int fd, const uint8_t *from, uint32_t size)
{
    while (size > 0) {
        ssize_t sent = write(fd, from, size);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return false;
        from += sent;
        size -= (uint32_t)sent;
    }
    return true;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Nobody else waits: all of a message is one piece. */
static int serve(struct ninep_call *call)
{
    int status;
    ninep_tree_at(now_ns());
    do
        status = ninep_serve(call);
    while (status == SBE_MORE);
    return status;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return fail("usage: ninep_socket FD");
    int fd = atoi(argv[1]);
    ninep_files_init();
    puts("ready");
    fflush(stdout);
    while (fill(fd, NINEP_HEADER)) {
        struct ninep_in in = {.at = come, .left = NINEP_HEADER};
        uint32_t size = ninep_get_u32(&in);
        if (size < NINEP_HEADER || size > sizeof come)
            return fail("a message has a size that none may have");
        if (!fill(fd, size))
            return fail("the client left in the middle of a message");
        struct ninep_call call = {
            .session = &session,
            .message = come,
            .message_size = size,
            .reply = reply,
            .reply_room = sizeof reply,
            .piece = NINEP_MSIZE,
        };
        if (serve(&call) != SBE_OK)
            return fail("the client broke the protocol");
        if (!send_all(fd, reply, call.reply_size))
            return fail("the client takes no answer");
        used -= size;
        memmove(come, come + size, used); /* nothing, unless the client is ahead */
    }
    return 0;
}
