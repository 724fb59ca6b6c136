/* SPDX-License-Identifier: Apache-2.0 */
/* fill: the payload, exactly one byte, into every OUT buffer; there are no others. */
#include "services/service_util.h"

static int fill(struct sbe_request *request)
{
    int status = sbe_check_all(request, SBE_DIR_OUT, SBE_DIR_OUT);
    if (status < 0)
        return status;
    if (request->payload_size != 1)
        return SBE_EINVAL;
    uint8_t value = *(const uint8_t *)request->payload;
    for (uint32_t i = 0; i < request->buffer_count; i++) {
        const struct sbe_buffer *buffer = &request->buffers[i];
        memset(buffer->data, value, (size_t)buffer->size);
        request->written[i] = buffer->size;
    }
    return SBE_OK;
}

SBE_SERVICE(fill, 1, fill);
