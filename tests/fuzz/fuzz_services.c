/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each service with requests that are nearly right, over areas of exactly their size: the answer is
 * what a plain form of the same says, or a status that the service's page names, and nothing else
 * is written. relay, which needs a host that serves, is fuzz_engine's.
 */
#include "core/status.h"
#include "engine_end.h"

#define AREA_MAX 4096u
#define TAPS     48u

enum {
    IN,
    OUT,
    RINGS
};

static struct input input;
static struct end_ring ring;
static uint8_t in[AREA_MAX], expected[AREA_MAX];
static uint32_t sizes[2];

struct request {
    struct sbe_wire_frame header;
    struct sbe_wire_buffer buffers[2];
    uint8_t payload[2 * TAPS + 32];
};

static uint8_t plain_mulaw(int16_t sample)
{
    uint32_t magnitude = (uint32_t)(sample < 0 ? -(int32_t)sample : sample), segment = 0;
    magnitude = (magnitude > 32635 ? 32635 : magnitude) + 132;
    while (magnitude >> (segment + 8) != 0)
        segment++;
    uint32_t code = segment << 4 | ((magnitude >> (segment + 3)) & 15u);
    return (uint8_t)(0xffu ^ (code | (sample < 0 ? 0x80u : 0u)));
}

static int16_t sample_at(const uint8_t *bytes, size_t index)
{
    int16_t sample;
    memcpy(&sample, bytes + 2 * index, sizeof sample);
    return sample;
}

static void plain_fir(const uint8_t *taps, uint32_t count, uint32_t samples)
{
    for (uint32_t n = 0; n < samples; n++) {
        int64_t sum = 0x4000;
        for (uint32_t k = 0; k < count && k <= n; k++)
            sum += (int64_t)sample_at(in, n - k) * sample_at(taps, k);
        sum >>= 15;
        int16_t y = (int16_t)(sum < INT16_MIN ? INT16_MIN : sum > INT16_MAX ? INT16_MAX : sum);
        memcpy(expected + 2 * n, &y, sizeof y);
    }
}

static void plain_sobel(uint32_t width, uint32_t height)
{
    memset(expected, 0, (size_t)width * height);
    for (uint32_t y = 1; y + 1 < height; y++)
        for (uint32_t x = 1; x + 1 < width; x++) {
            const uint8_t *at = in + y * width + x, *up = at - width, *down = at + width;
            int gx = up[1] + 2 * at[1] + down[1] - up[-1] - 2 * at[-1] - down[-1];
            int gy = down[-1] + 2 * down[0] + down[1] - up[-1] - 2 * up[0] - up[1];
            int sum = abs(gx) + abs(gy);
            expected[y * width + x] = (uint8_t)(sum > 255 ? 255 : sum);
        }
}

static uint32_t plain_crc32(uint32_t size)
{
    uint32_t crc = UINT32_MAX;
    for (uint32_t i = 0; i < size; i++) {
        crc ^= in[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ ((crc & 1u) != 0 ? 0xedb88320u : 0u);
    }
    return ~crc;
}

static struct sbe_wire_buffer part(uint32_t area, uint8_t direction)
{
    uint32_t offset = pick(&input, 4) == 3 ? pick(&input, 16) : 0;
    offset = offset < sizes[area] ? offset : 0;
    return (struct sbe_wire_buffer){
        .area = 1u << 16 | area,
        .direction = direction,
        .offset = number(&input, offset),
        .size = number(&input, sizes[area] - offset),
    };
}

/* Whether the frame names exactly an IN part and then an OUT part as they are. */
static bool in_out(const struct request *request)
{
    for (uint32_t i = 0; i < 2; i++) {
        const struct sbe_wire_buffer *buffer = &request->buffers[i];
        if (buffer->area != (1u << 16 | i) || buffer->offset > sizes[i] ||
            buffer->size > sizes[i] - buffer->offset || buffer->flags != 0)
            return false;
    }
    return request->header.buffer_count == 2 && request->buffers[0].direction == SBE_DIR_IN &&
           request->buffers[1].direction == SBE_DIR_OUT;
}

/* What it should be: the status and, for a success, how much of `expected` holds. */
static int plain(const char *name, const struct request *request, uint64_t *written)
{
    const struct sbe_wire_buffer *from = &request->buffers[0], *to = &request->buffers[1];
    uint32_t payload = request->header.payload_size, dimensions[2];
    memmove(in, in + from->offset, (size_t)from->size);
    if (strcmp(name, "mulaw") == 0) {
        if (payload != 0 || from->size % 2 != 0)
            return SBE_EINVAL;
        *written = from->size / 2;
        for (uint32_t i = 0; i < *written; i++)
            expected[i] = plain_mulaw(sample_at(in, i));
    } else if (strcmp(name, "fir") == 0) {
        if (payload == 0 || payload % 2 != 0 || from->size % 2 != 0)
            return SBE_EINVAL;
        *written = from->size;
        plain_fir(request->payload, payload / 2, (uint32_t)from->size / 2);
    } else if (strcmp(name, "sobel") == 0) {
        memcpy(dimensions, request->payload, sizeof dimensions);
        *written = (uint64_t)dimensions[0] * dimensions[1];
        if (payload != sizeof dimensions || *written == 0 || *written != from->size)
            return SBE_EINVAL;
        if (to->size >= *written)
            plain_sobel(dimensions[0], dimensions[1]);
    } else {
        return 1; /* one that is not compared */
    }
    return to->size < *written ? SBE_ENOSPC : SBE_OK;
}

static void check(const char *name, const struct request *request, const uint8_t *slot)
{
    struct sbe_wire_frame response;
    memcpy(&response, slot, sizeof response);
    HOLDS(response.type == SBE_FRAME_RESPONSE && response.transaction == 1);
    HOLDS(response.status <= 0 && response.size <= END_SLOT_SIZE);
    HOLDS(memcmp(end_areas[IN].base, in, sizes[IN]) == 0 ||
          request->buffers[0].direction != SBE_DIR_IN);
    if (strcmp(name, "crc32") == 0 && request->header.buffer_count == 1 &&
        response.status == SBE_OK && request->buffers[0].area == 1u << 16) {
        uint32_t sum;
        memcpy(&sum, slot + response.size - sizeof sum, sizeof sum);
        memmove(in, in + request->buffers[0].offset, (size_t)request->buffers[0].size);
        HOLDS(sum == plain_crc32((uint32_t)request->buffers[0].size));
    }
    uint64_t written = 0;
    if (!in_out(request))
        return;
    int wanted = plain(name, request, &written);
    if (wanted == 1)
        return;
    HOLDS(response.status == wanted);
    const uint8_t *out = (const uint8_t *)end_areas[OUT].base;
    if (wanted == SBE_OK) {
        struct sbe_wire_buffer told;
        memcpy(&told, slot + sizeof response, sizeof told);
        HOLDS(told.size == written);
        out += request->buffers[1].offset;
        HOLDS(memcmp(out, expected, (size_t)written) == 0);
    }
}

/* Payload as the service wants it, or nearly. */
static uint32_t make_payload(const char *name, struct request *request)
{
    uint32_t size = 0;
    if (strcmp(name, "sobel") == 0) {
        uint32_t width = 1 + take_u8(&input) % 64u;
        uint32_t dimensions[2] = {number32(&input, width),
                                  number32(&input, (uint32_t)request->buffers[0].size / width)};
        memcpy(request->payload, dimensions, sizeof dimensions);
        size = sizeof dimensions;
    } else if (strcmp(name, "fir") == 0) {
        size = 2 * (1 + pick(&input, TAPS));
        take_bytes(&input, request->payload, size);
    } else if (strcmp(name, "fill") == 0 || strcmp(name, "echo") == 0) {
        size = 1;
    }
    size = rarely(&input) ? take_u8(&input) % sizeof request->payload : size;
    return size;
}

static void set_up(void)
{
    uint8_t choice = take_u8(&input);
    end_incoherent = (choice & 1u) != 0;
    sizes[IN] = 1 + number32(&input, take_u8(&input)) % AREA_MAX;
    sizes[OUT] = 1 + number32(&input, sizes[IN]) % AREA_MAX;
    end_begin();
    end_context(1);
    end_map(IN, 1, 0, sizes[IN]);
    end_map(OUT, 1, 0, sizes[OUT]);
    end_open(1, 1, RINGS, 1, &ring);
    uint32_t some = take_u8(&input), state = take_u16(&input);
    for (uint32_t i = 0; i < sizes[IN]; i++) { /* noise, then what the input says */
        state = state * 1664525u + 1013904223u;
        in[i] = (uint8_t)(state >> 24);
    }
    take_bytes(&input, in, some < sizes[IN] ? some : sizes[IN]);
    memcpy(end_areas[IN].base, in, sizes[IN]);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const char *const NAMES[] = {"mulaw", "sobel", "fir",  "crc32",
                                        "copy",  "fill",  "echo", "invert"};
    input = (struct input){bytes, size};
    const char *name = NAMES[pick(&input, sizeof NAMES / sizeof NAMES[0])];
    set_up();
    struct request request = {.header = {.type = SBE_FRAME_REQUEST, .transaction = 1}};
    uint32_t usual = strcmp(name, "crc32") == 0  ? 1
                     : strcmp(name, "fill") == 0 ? 1
                     : strcmp(name, "echo") == 0 ? 0
                                                 : 2;
    request.header.service = end_service(name);
    request.header.buffer_count = (uint16_t)(rarely(&input) ? pick(&input, 3) : usual);
    request.buffers[0] = part(IN, (uint8_t)number(&input, SBE_DIR_IN));
    request.buffers[1] = part(OUT, (uint8_t)number(&input, SBE_DIR_OUT));
    if (strcmp(name, "fill") == 0 || strcmp(name, "invert") == 0)
        request.buffers[0] = request.buffers[1];
    uint32_t payload = make_payload(name, &request), count = request.header.buffer_count;
    request.header.payload_size = payload;
    uint8_t frame[sizeof request];
    uint32_t at = (uint32_t)(sizeof request.header + count * sizeof request.buffers[0]);
    request.header.size = at + payload;
    memcpy(frame, &request, sizeof frame);
    memcpy(frame + at, request.payload, payload);
    end_put(&ring, frame, at + payload);
    end_bell(1);
    end_run(50);
    const uint8_t *slot = end_take(&ring);
    HOLDS(slot != NULL);
    HOLDS(end_take(&ring) == NULL);
    check(name, &request, slot);
    end_finish();
    return 0;
}
