/* SPDX-License-Identifier: Apache-2.0 */
/* What several services check in the same way. */
#ifndef SBE_SERVICES_SERVICE_UTIL_H
#define SBE_SERVICES_SERVICE_UTIL_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "core/service.h"
#include "streams/layout.h"

/* Samples in a buffer or payload: any alignment, any other type beneath. */
typedef int16_t sbe_sample __attribute__((aligned(1), may_alias));

/* Requests that a service has room for at a time, and how many may be one context's. */
#ifndef SBE_POOL
#define SBE_POOL       8u
#define SBE_POOL_SHARE 4u
#endif
#ifndef SBE_POOL_OWNER /* of one user's, in however many contexts */
#define SBE_POOL_OWNER (SBE_POOL / 2u > SBE_POOL_SHARE ? SBE_POOL / 2u : SBE_POOL_SHARE)
#endif

/* Bytes of work at a time: some ten microseconds of a core that moves as many in a second or two.
 */
#ifdef SBE_SMALL
#define SBE_PIECE 2048u
#else
#define SBE_PIECE 32768u
#endif

/* A context may have one more. */
static inline bool sbe_pool_has(const struct sbe_share_count *count)
{
    return count->of_context < SBE_POOL_SHARE && count->of_owner < SBE_POOL_OWNER;
}

/* What a handler answers when it can't keep a request or pass it on: with no room, SBE_EBUSY. */
static inline int sbe_busy(int status)
{
    return status == SBE_EAGAIN || status == SBE_ENOMEM ? SBE_EBUSY : status;
}

/* The request has just come, and is to be checked. */
static inline bool sbe_is_first_piece(const struct sbe_request *request)
{
    return request->progress == 0 && request->state == 0;
}

/*
 * The next piece of the buffers, one after the other: where and how much. False: there is no more.
 * It keeps its place in `progress` and the upper half of `state`; the lower is the service's.
 */
static inline bool sbe_next_piece(struct sbe_request *request, uint8_t **data, size_t *size)
{
    uint32_t index = (uint32_t)(request->state >> 32);
    while (index < request->buffer_count && request->progress == request->buffers[index].size) {
        index++;
        request->progress = 0;
    }
    request->state = (uint64_t)index << 32 | (uint32_t)request->state;
    if (index == request->buffer_count)
        return false;
    uint64_t left = request->buffers[index].size - request->progress;
    *data = (uint8_t *)request->buffers[index].data + request->progress;
    *size = left < SBE_PIECE ? (size_t)left : SBE_PIECE;
    request->progress += *size;
    return true;
}

static inline void sbe_wrote_all(struct sbe_request *request)
{
    for (uint32_t i = 0; i < request->buffer_count; i++)
        request->written[i] = request->buffers[i].size;
}

/* SBE_EFAULT when a buffer lies in memory that this end does not map. */
static inline int sbe_check_mapped(const struct sbe_request *request)
{
    for (uint32_t i = 0; i < request->buffer_count; i++)
        if (request->buffers[i].data == NULL)
            return SBE_EFAULT;
    return SBE_OK;
}

/* At least one buffer, each with one of these directions (a set: IN and OUT are bits), mapped. */
static inline int sbe_check_all(const struct sbe_request *request, uint8_t first, uint8_t second)
{
    if (request->buffer_count == 0)
        return SBE_EINVAL;
    for (uint32_t i = 0; i < request->buffer_count; i++) {
        uint8_t direction = request->buffers[i].direction;
        if (direction != first && direction != second)
            return SBE_EINVAL;
    }
    return sbe_check_mapped(request);
}

/* As sbe_check_all(), with a payload of so many bytes: once, when the request has just come. */
static inline int sbe_check_first(const struct sbe_request *request, uint8_t first, uint8_t second,
                                  uint32_t payload_size)
{
    if (!sbe_is_first_piece(request))
        return SBE_OK;
    int status = sbe_check_all(request, first, second);
    return status == SBE_OK && request->payload_size != payload_size ? SBE_EINVAL : status;
}

static inline bool sbe_overlap(const struct sbe_buffer *a, const struct sbe_buffer *b)
{
    uintptr_t from = (uintptr_t)a->data, to = (uintptr_t)b->data;
    return from < to ? to - from < a->size : from - to < b->size;
}

/* Exactly an IN and then an OUT buffer, mapped and apart from each other. */
static inline int sbe_check_in_out(const struct sbe_request *request)
{
    const struct sbe_buffer *buffers = request->buffers;
    if (request->buffer_count != 2 || buffers[0].direction != SBE_DIR_IN ||
        buffers[1].direction != SBE_DIR_OUT)
        return SBE_EINVAL;
    int status = sbe_check_mapped(request);
    if (status < 0)
        return status;
    return sbe_overlap(&buffers[0], &buffers[1]) ? SBE_EINVAL : SBE_OK;
}

/* A stream of 16-bit samples, of one channel or several. */
static inline int sbe_check_samples(struct sbe_stream_settings *settings)
{
    bool named = strncmp(settings->format, "S16_LE", sizeof settings->format) == 0;
    return named && settings->frame_bytes % sizeof(sbe_sample) == 0 ? SBE_OK : SBE_ENOTSUP;
}

static inline uint32_t sbe_read_u32(const void *from)
{
    uint32_t value;
    memcpy(&value, from, sizeof value);
    return value;
}

#endif
