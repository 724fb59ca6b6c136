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

/* One row without its first and last pixel, in 16 bits throughout so that it vectorises. */
static void sobel_row(uint8_t *restrict out, const uint8_t *restrict above,
                      const uint8_t *restrict row, const uint8_t *restrict below, size_t width)
{
    for (size_t x = 1; x < width - 1; x++) {
        int16_t diagonal = (int16_t)(below[x + 1] - above[x - 1]);
        int16_t opposite = (int16_t)(above[x + 1] - below[x - 1]);
        int16_t gx = (int16_t)(diagonal + opposite + 2 * (row[x + 1] - row[x - 1]));
        int16_t gy = (int16_t)(diagonal - opposite + 2 * (below[x] - above[x]));
        gx = (int16_t)(gx < 0 ? -gx : gx);
        gy = (int16_t)(gy < 0 ? -gy : gy);
        int16_t sum = (int16_t)(gx + gy);
        out[x] = (uint8_t)(sum > 255 ? 255 : sum);
    }
}

static void sobel_image(uint8_t *out, const uint8_t *in, size_t width, size_t height)
{
    if (width < 3 || height < 3) {
        memset(out, 0, width * height);
        return;
    }
    memset(out, 0, width);
    for (size_t y = 1; y < height - 1; y++) {
        const uint8_t *row = in + y * width;
        uint8_t *to = out + y * width;
        to[0] = 0;
        sobel_row(to, row - width, row, row + width, width);
        to[width - 1] = 0;
    }
    memset(out + (height - 1) * width, 0, width);
}

static int sobel(struct sbe_request *request)
{
    const uint8_t *payload = request->payload;
    int status = sbe_check_in_out(request);
    if (status < 0)
        return status;
    if (request->payload_size != 8)
        return SBE_EINVAL;
    uint32_t width = sbe_read_u32(payload), height = sbe_read_u32(payload + 4);
    uint64_t size = (uint64_t)width * height; /* cannot overflow */
    if (size == 0 || request->buffers[0].size != size)
        return SBE_EINVAL;
    if (request->buffers[1].size < size)
        return SBE_ENOSPC;
    sobel_image(request->buffers[1].data, request->buffers[0].data, width, height);
    request->written[1] = size;
    return SBE_OK;
}

SBE_SERVICE(sobel, 1, sobel);
