/* SPDX-License-Identifier: Apache-2.0 */
/* The cache rule, in one place: what each end does when ownership of a buffer moves. */
#ifndef SBE_CORE_CACHE_H
#define SBE_CORE_CACHE_H

#include <stdint.h>

#include "core/area.h"
#include "core/port.h"

enum sbe_handover {
    SBE_GIVE,      /* requester, before the request is published */
    SBE_TAKE,      /* responder, before the handler looks */
    SBE_GIVE_BACK, /* responder, before the response is published */
    SBE_TAKE_BACK, /* requester, before the caller looks */
};

/* Maintains this end's cache for one buffer, whose memory is not coherent. Bytes maintained. */
uint64_t sbe_cache_handover(const struct sbe_port *port, enum sbe_handover step,
                            const struct sbe_buffer *buffer);

#endif
