/* SPDX-License-Identifier: Apache-2.0 */
/* In the place of streams.h, for a port that is built without streams. */
#ifndef SBE_STREAMS_NONE_H
#define SBE_STREAMS_NONE_H

#include <stdint.h>

struct sbe_port;

static inline uint64_t sbe_streams_due_ns(void)
{
    return UINT64_MAX;
}

static inline uint64_t sbe_streams_round(const struct sbe_port *port)
{
    (void)port;
    return UINT64_MAX;
}

#endif
