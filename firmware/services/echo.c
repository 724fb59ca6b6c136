/* SPDX-License-Identifier: Apache-2.0 */
/*
 * echo: returns the payload. Buffers of any kind may ride along and come back untouched, which
 * makes it the null service: what a call costs with this many descriptors.
 */
#include <string.h>

#include "core/service.h"

static int echo(struct sbe_request *request)
{
    if (request->payload_size > request->reply_room)
        return SBE_ENOSPC;
    if (request->payload_size != 0)
        memcpy(request->reply, request->payload, request->payload_size);
    request->reply_size = request->payload_size;
    return SBE_OK;
}

SBE_SERVICE(echo, 1, echo);
