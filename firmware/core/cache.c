/* SPDX-License-Identifier: Apache-2.0 */
#include "core/cache.h"

#include <stddef.h>

#include "core/wire.h"

/*
 *             GIVE    TAKE         GIVE_BACK   TAKE_BACK
 * IN          clean   invalidate   -           -
 * OUT         clean   invalidate   clean       invalidate
 * INOUT       clean   invalidate   clean       invalidate
 *
 * OUT is cleaned at GIVE because a dirty line evicted later would overwrite what the remote wrote,
 * and invalidated at TAKE because the responder cleans whole lines back: bytes it did not write
 * must be the requester's, not stale ones. SHARED exists only where memory is coherent.
 */
uint64_t sbe_cache_handover(const struct sbe_port *port, enum sbe_handover step,
                            const struct sbe_buffer *buffer)
{
    if (buffer->data == NULL || buffer->size == 0)
        return 0;
    if (step >= SBE_GIVE_BACK && buffer->direction == SBE_DIR_IN)
        return 0;
    if (step == SBE_GIVE || step == SBE_GIVE_BACK) {
        if (port->cache_clean == NULL)
            return 0;
        port->cache_clean(port->self, buffer->data, buffer->size);
    } else {
        if (port->cache_invalidate == NULL)
            return 0;
        port->cache_invalidate(port->self, buffer->data, buffer->size);
    }
    return buffer->size;
}
