/* SPDX-License-Identifier: Apache-2.0 */
/* invert: every bit of every INOUT buffer; there are no others, and no payload. */
#include "services/service_util.h"

static void invert_bytes(uint8_t *bytes, size_t size)
{
    size_t i = 0;
    for (; size - i >= sizeof(uint64_t); i += sizeof(uint64_t)) { /* vectorised by the compiler */
        uint64_t word;
        memcpy(&word, bytes + i, sizeof word);
        word = ~word;
        memcpy(bytes + i, &word, sizeof word);
    }
    for (; i < size; i++)
        bytes[i] = (uint8_t)~bytes[i];
}

static int invert(struct sbe_request *request)
{
    int status = sbe_check_all(request, SBE_DIR_INOUT, SBE_DIR_INOUT);
    if (status < 0)
        return status;
    if (request->payload_size != 0)
        return SBE_EINVAL;
    for (uint32_t i = 0; i < request->buffer_count; i++) {
        const struct sbe_buffer *buffer = &request->buffers[i];
        invert_bytes(buffer->data, (size_t)buffer->size);
        request->written[i] = buffer->size;
    }
    return SBE_OK;
}

SBE_SERVICE(invert, 1, invert);
