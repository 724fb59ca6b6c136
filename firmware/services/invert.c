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
    uint8_t *data;
    size_t size;
    int status = sbe_check_first(request, SBE_DIR_INOUT, SBE_DIR_INOUT, 0);
    if (status < 0)
        return status;
    while (sbe_next_piece(request, &data, &size)) {
        invert_bytes(data, size);
        if (size == SBE_PIECE)
            return SBE_MORE;
    }
    sbe_wrote_all(request);
    return SBE_OK;
}

SBE_SERVICE(invert, 1, invert);
