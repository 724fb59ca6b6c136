/* SPDX-License-Identifier: Apache-2.0 */
/*
 * copy: the first IN buffer to the first OUT buffer, the second to the second, and so on. An OUT
 * buffer that is too small is filled and the answer is SBE_ENOSPC; `written` tells how far each
 * went. Buffers of one area may overlap: a pair is moved as by memmove, pairs in order.
 */
#include "services/service_util.h"

/* The next buffer of this direction at or after index, or buffer_count. */
static uint32_t next_of(const struct sbe_request *request, uint32_t index, uint8_t direction)
{
    while (index < request->buffer_count && request->buffers[index].direction != direction)
        index++;
    return index;
}

static int copy(struct sbe_request *request)
{
    uint32_t inputs = 0;
    int status = sbe_check_all(request, SBE_DIR_IN, SBE_DIR_OUT);
    if (status < 0)
        return status;
    for (uint32_t i = 0; i < request->buffer_count; i++)
        inputs += request->buffers[i].direction == SBE_DIR_IN;
    if (inputs * 2 != request->buffer_count || request->payload_size != 0)
        return SBE_EINVAL;
    uint32_t in = next_of(request, 0, SBE_DIR_IN), out = next_of(request, 0, SBE_DIR_OUT);
    while (in < request->buffer_count) {
        const struct sbe_buffer *from = &request->buffers[in], *to = &request->buffers[out];
        uint64_t size = from->size;
        if (size > to->size) {
            size = to->size;
            status = SBE_ENOSPC;
        }
        memmove(to->data, from->data, (size_t)size);
        request->written[out] = size;
        in = next_of(request, in + 1, SBE_DIR_IN);
        out = next_of(request, out + 1, SBE_DIR_OUT);
    }
    return status;
}

SBE_SERVICE(copy, 1, copy);
