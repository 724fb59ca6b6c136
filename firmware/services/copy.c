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

static int check(const struct sbe_request *request)
{
    uint32_t inputs = 0;
    int status = sbe_check_all(request, SBE_DIR_IN, SBE_DIR_OUT);
    for (uint32_t i = 0; i < request->buffer_count; i++)
        inputs += request->buffers[i].direction == SBE_DIR_IN;
    if (inputs * 2 != request->buffer_count || request->payload_size != 0)
        status = status < 0 ? status : SBE_EINVAL;
    return status;
}

/*
 * The piece of `size` bytes that comes after `done` of them: from the end where the target lies
 * behind its source and over it, so that nothing is overwritten before it was moved.
 */
static void move_piece(const struct sbe_buffer *to, const struct sbe_buffer *from, uint64_t all,
                       uint64_t done, size_t size)
{
    uint64_t at = (uintptr_t)to->data > (uintptr_t)from->data ? all - done - size : done;
    memmove((uint8_t *)to->data + at, (const uint8_t *)from->data + at, size);
}

static int copy(struct sbe_request *request)
{
    int status = sbe_is_first_piece(request) ? check(request) : SBE_OK;
    if (status < 0)
        return status;
    uint32_t in = 0, out = 0; /* of pair number `state` */
    for (uint64_t pair = 0; in < request->buffer_count; pair++, in++, out++) {
        in = next_of(request, in, SBE_DIR_IN);
        out = next_of(request, out, SBE_DIR_OUT);
        if (in == request->buffer_count)
            break;
        const struct sbe_buffer *from = &request->buffers[in], *to = &request->buffers[out];
        uint64_t size = from->size < to->size ? from->size : to->size;
        if (size < from->size)
            status = SBE_ENOSPC;
        if (pair < request->state)
            continue;
        uint64_t left = size - request->progress;
        size_t piece = left < SBE_PIECE ? (size_t)left : SBE_PIECE;
        move_piece(to, from, size, request->progress, piece);
        request->progress += piece;
        if (piece == SBE_PIECE)
            return SBE_MORE;
        request->written[out] = size;
        request->state++;
        request->progress = 0;
    }
    return status;
}

SBE_SERVICE(copy, 1, copy);
