/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sobel: edges of an 8-bit grey image.
 *
 * Payload: width and height, two 32-bit integers. Buffers: IN of exactly width * height bytes, OUT
 * of at least as many, apart from each other. Each pixel becomes |gx| + |gy|, at most 255; the
 * outermost rows and columns become 0.
 *
 * SBE_EINVAL: payload or buffers of another form, an empty image, an IN buffer of another size.
 * SBE_ENOSPC: OUT is too small; nothing was written.
 */
#include "services/service_util.h"

#define TILE 256u /* pixels of a row at a time, so that the sums stay in the nearest cache */

static int16_t magnitude(int16_t value)
{
    int16_t negative = (int16_t)-value;
    return value > negative ? value : negative;
}

/*
 * From columns that were summed top to bottom: smooth (1 2 1) and slope (-1 0 1), left, middle and
 * right of each pixel. Not inlined, because a compiler that sees that the columns are the same
 * array carries them from pixel to pixel instead of working on many pixels at once.
 */
static __attribute__((noinline)) void combine(uint8_t *restrict out, const int16_t *smooth_left,
                                              const int16_t *smooth_right,
                                              const int16_t *slope_left, const int16_t *slope,
                                              const int16_t *slope_right, size_t count)
{
    for (size_t x = 0; x < count; x++) {
        int16_t gx = (int16_t)(smooth_right[x] - smooth_left[x]);
        int16_t gy = (int16_t)(slope_left[x] + 2 * slope[x] + slope_right[x]);
        int16_t sum = (int16_t)(magnitude(gx) + magnitude(gy));
        out[x] = (uint8_t)(sum > 255 ? 255 : sum);
    }
}

/* count pixels of a row; the sources begin one pixel to the left. In 16 bits throughout. */
static void sobel_tile(uint8_t *restrict out, const uint8_t *restrict above,
                       const uint8_t *restrict row, const uint8_t *restrict below, size_t count)
{
    int16_t smooth[TILE + 2], slope[TILE + 2];
    for (size_t x = 0; x < count + 2; x++) {
        smooth[x] = (int16_t)(above[x] + 2 * row[x] + below[x]);
        slope[x] = (int16_t)(below[x] - above[x]);
    }
    combine(out, smooth, smooth + 2, slope, slope + 1, slope + 2, count);
}

/* Pixels from `at` to `end` or a little further; where it has come to. */
static size_t sobel_piece(uint8_t *out, const uint8_t *in, size_t width, size_t height, size_t at,
                          size_t end)
{
    size_t y = at / width, x = at % width;
    while (at < end) {
        size_t count = 1; /* the first of a row, and the last */
        if (y == 0 || y == height - 1 || width < 3) {
            count = width - x < end - at ? width - x : end - at;
            memset(out + at, 0, count);
        } else if (x == 0 || x == width - 1) {
            out[at] = 0;
        } else {
            count = width - 1 - x < TILE ? width - 1 - x : TILE;
            sobel_tile(out + at, in + at - width - 1, in + at - 1, in + at + width - 1, count);
        }
        at += count;
        x += count;
        if (x == width) {
            x = 0;
            y++;
        }
    }
    return at;
}

static int sobel(struct sbe_request *request)
{
    const uint8_t *payload = request->payload;
    if (sbe_is_first_piece(request)) {
        int status = sbe_check_in_out(request);
        if (status < 0)
            return status;
        if (request->payload_size != 8)
            return SBE_EINVAL;
    }
    uint32_t width = sbe_read_u32(payload), height = sbe_read_u32(payload + 4);
    uint64_t size = (uint64_t)width * height; /* cannot overflow */
    if (size == 0 || request->buffers[0].size != size)
        return SBE_EINVAL;
    if (request->buffers[1].size < size)
        return SBE_ENOSPC;
    uint64_t end = size - request->progress > SBE_PIECE ? request->progress + SBE_PIECE : size;
    request->progress = sobel_piece(request->buffers[1].data, request->buffers[0].data, width,
                                    height, (size_t)request->progress, (size_t)end);
    if (request->progress < size)
        return SBE_MORE;
    request->written[1] = size;
    return SBE_OK;
}

SBE_SERVICE(sobel, 1, sobel);
