/* SPDX-License-Identifier: Apache-2.0 */
/* fill: the payload, exactly one byte, into every OUT buffer; there are no others. */
#include "services/service_util.h"

static int fill(struct sbe_request *request)
{
    uint8_t *data;
    size_t size;
    int status = sbe_check_first(request, SBE_DIR_OUT, SBE_DIR_OUT, 1);
    if (status < 0)
        return status;
    while (sbe_next_piece(request, &data, &size)) {
        memset(data, *(const uint8_t *)request->payload, size);
        if (size == SBE_PIECE)
            return SBE_MORE;
    }
    sbe_wrote_all(request);
    return SBE_OK;
}

SBE_SERVICE(fill, 1, fill);
