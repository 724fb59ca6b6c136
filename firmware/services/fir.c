/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fir: filters 16-bit signed little-endian audio, one channel.
 *
 * Payload: 1 to 1024 taps h in Q15, as 16-bit signed integers. Buffers: IN of samples x, OUT of at
 * least as many bytes, apart from each other.
 *
 *     y[n] = saturate((sum over k of x[n - k] * h[k] + 0x4000) >> 15), x[n] = 0 for n < 0
 *
 * The sum is exact; only y is limited, to -32768 .. 32767. To filter a stream in pieces, start each
 * piece with the last taps - 1 samples of the one before and drop as many results.
 *
 * SBE_EINVAL: payload or buffers of another form, half a sample. SBE_ENOSPC: OUT is too small;
 * nothing was written.
 */
#include "services/service_util.h"

#define TAPS_MAX 1024u
#define BLOCK    128u /* outputs at a time: their sums stay in the nearest cache */
#ifdef SBE_SMALL
#define WORK 8192u /* products of a piece, and those of one block more */
#else
#define WORK 131072u
#endif

static int16_t saturate(int64_t sum)
{
    int64_t value = (sum + 0x4000) >> 15;
    return (int16_t)(value < INT16_MIN ? INT16_MIN : value > INT16_MAX ? INT16_MAX : value);
}

/* Outputs n .. n + count - 1. Exact in 32 bits when the taps' magnitudes add up to 65535 or less.
 */
static void block_narrow(sbe_sample *restrict y, const sbe_sample *restrict x, size_t n,
                         uint32_t count, const sbe_sample *restrict h, uint32_t taps)
{
    int32_t sums[BLOCK] = {0};
    for (uint32_t k = 0; k < taps && k < n + count; k++) {
        uint32_t first = k > n ? (uint32_t)(k - n) : 0;
        const sbe_sample *from = x + (n + first - k);
        int16_t tap = h[k];
        for (uint32_t i = first; i < count; i++)
            sums[i] += tap * from[i - first];
    }
    for (uint32_t i = 0; i < count; i++) {
        int32_t value = (sums[i] + 0x4000) >> 15; /* at most 2^31 - 2^14: no overflow */
        y[n + i] = (int16_t)(value < INT16_MIN ? INT16_MIN : value > INT16_MAX ? INT16_MAX : value);
    }
}

static void block_wide(sbe_sample *restrict y, const sbe_sample *restrict x, size_t n,
                       uint32_t count, const sbe_sample *restrict h, uint32_t taps)
{
    int64_t sums[BLOCK] = {0};
    for (uint32_t k = 0; k < taps && k < n + count; k++) {
        uint32_t first = k > n ? (uint32_t)(k - n) : 0;
        const sbe_sample *from = x + (n + first - k);
        int16_t tap = h[k];
        for (uint32_t i = first; i < count; i++)
            sums[i] += tap * from[i - first];
    }
    for (uint32_t i = 0; i < count; i++)
        y[n + i] = saturate(sums[i]);
}

static int check(const struct sbe_request *request)
{
    uint32_t taps = request->payload_size / 2;
    int status = sbe_check_in_out(request);
    if (status < 0)
        return status;
    uint64_t size = request->buffers[0].size;
    if (request->payload_size % 2 != 0 || taps == 0 || taps > TAPS_MAX || size % 2 != 0)
        return SBE_EINVAL;
    return request->buffers[1].size < size ? SBE_ENOSPC : SBE_OK;
}

static int fir(struct sbe_request *request)
{
    const sbe_sample *h = request->payload;
    uint32_t taps = request->payload_size / 2, magnitude = 0;
    int status = sbe_is_first_piece(request) ? check(request) : SBE_OK;
    if (status < 0)
        return status;
    for (uint32_t k = 0; k < taps; k++) {
        int32_t tap = h[k];
        magnitude += (uint32_t)(tap < 0 ? -tap : tap);
    }
    size_t samples = (size_t)(request->buffers[0].size / 2), n = (size_t)request->progress;
    for (uint32_t work = 0; n < samples; n += BLOCK) {
        if (work >= WORK) {
            request->progress = n;
            return SBE_MORE;
        }
        uint32_t count = samples - n < BLOCK ? (uint32_t)(samples - n) : BLOCK;
        if (magnitude <= UINT16_MAX)
            block_narrow(request->buffers[1].data, request->buffers[0].data, n, count, h, taps);
        else
            block_wide(request->buffers[1].data, request->buffers[0].data, n, count, h, taps);
        work += BLOCK * (taps + 1);
    }
    request->written[1] = request->buffers[0].size;
    return SBE_OK;
}

SBE_SERVICE(fir, 1, fir);
