/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A channel's endpoint of the kernel's rpmsg_char: each message is a doorbell, whatever it holds.
 * A full endpoint answers EAGAIN, and never says that it has room again.
 */
#include "doorbells.h"

#include <errno.h>
#include <unistd.h>

#define AT_ONCE 64 /* messages before other channels get their turn */

bool native_endpoint_ring(const struct doorbell *doorbell)
{
    const uint64_t one = 1; /* as an eventfd takes it: the same on both ways to ring */
    return write(doorbell->endpoint_fd, &one, sizeof one) >= 0 ||
           (errno != EAGAIN && errno != ENOMEM && errno != EINTR);
}

bool native_endpoint_read(const struct doorbell *doorbell)
{
    const uint64_t one = 1;
    uint64_t message; /* what is longer is cut */
    ssize_t size = 0;
    int count = 0;
    while (count < AT_ONCE && (size = read(doorbell->endpoint_fd, &message, sizeof message)) >= 0)
        count++;
    if (count > 0) {
        ssize_t written = write(doorbell->wake_fd, &one, sizeof one); /* EAGAIN: rung anyway */
        (void)written;
    }
    return size >= 0 || errno == EAGAIN || errno == EINTR;
}
