/* SPDX-License-Identifier: Apache-2.0 */
/* The services' results against plain references, and the status of every bad input. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "core/engine.h"
#include "core/service.h"
#include "services/service_util.h"

static struct sbe_buffer buffers[SBE_BUFFERS_MAX];
static struct sbe_request request;
static uint8_t reply[64];
static uint32_t seed = 1;

static uint8_t random_byte(void)
{
    seed = seed * 1664525u + 1013904223u;
    return (uint8_t)(seed >> 24);
}

static void begin(const void *payload, uint32_t size)
{
    memset(buffers, 0, sizeof buffers);
    request = (struct sbe_request){
        .transaction = 1,
        .payload = payload,
        .payload_size = size,
        .buffers = buffers,
        .reply = reply,
        .reply_room = sizeof reply,
    };
}

static void add(uint8_t direction, void *data, uint64_t size)
{
    buffers[request.buffer_count++] =
        (struct sbe_buffer){.direction = direction, .data = data, .size = size};
}

static uint32_t pieces; /* of the last run */

static int run_to_end(const struct sbe_service *service)
{
    int status = SBE_MORE;
    request.progress = request.state = 0;
    for (pieces = 0; status == SBE_MORE; pieces++) {
        uint64_t progress = request.progress, state = request.state;
        status = service->handle(&request);
        CHECK(status != SBE_MORE || request.progress != progress || request.state != state);
    }
    return status;
}

static int run(const char *name)
{
    for (const struct sbe_service *const *at = __start_sbe_services; at != __stop_sbe_services;
         at++)
        if (strcmp((*at)->name, name) == 0)
            return run_to_end(*at);
    (void)fprintf(stderr, "no service %s\n", name);
    exit(1);
}

/* Runs a service with one or two buffers of these directions (0: none), 8 bytes each. */
static int run_with(const char *name, uint32_t payload_size, uint8_t first, uint8_t second)
{
    static uint8_t memory[2][8], payload[16];
    begin(payload, payload_size);
    if (first != 0)
        add(first, memory[0], 8);
    if (second != 0)
        add(second, memory[1], 8);
    return run(name);
}

static void test_echo(void)
{
    begin("hello", 5);
    CHECK(run("echo") == SBE_OK && request.reply_size == 5 && memcmp(reply, "hello", 5) == 0);
    request.reply_room = 4;
    CHECK(run("echo") == SBE_ENOSPC);
}

static void test_crc32(void)
{
    uint8_t memory[] = "123456789";
    uint32_t sum;
    begin(NULL, 0);
    add(SBE_DIR_IN, memory, 4);
    add(SBE_DIR_INOUT, memory + 4, 0);
    add(SBE_DIR_IN, memory + 4, 5);
    CHECK(run("crc32") == SBE_OK && request.reply_size == 4);
    memcpy(&sum, reply, 4);
    CHECK(sum == 0xcbf43926); /* the published check value */
    CHECK(run_with("crc32", 0, 0, 0) == SBE_EINVAL);
    CHECK(run_with("crc32", 0, SBE_DIR_OUT, 0) == SBE_EINVAL);
    CHECK(run_with("crc32", 0, SBE_DIR_IN, SBE_DIR_SHARED) == SBE_EINVAL);
    CHECK(run_with("crc32", 1, SBE_DIR_IN, 0) == SBE_EINVAL);
    begin(NULL, 0);
    add(SBE_DIR_IN, NULL, 4);
    CHECK(run("crc32") == SBE_EFAULT);
}

static void test_copy(void)
{
    char memory[] = "abcdefgh", one[8] = "", two[8] = "";
    begin(NULL, 0);
    add(SBE_DIR_OUT, one, 2);
    add(SBE_DIR_IN, memory, 4);
    add(SBE_DIR_IN, memory + 4, 3);
    add(SBE_DIR_OUT, two, 8);
    CHECK(run("copy") == SBE_ENOSPC);
    CHECK(request.written[0] == 2 && request.written[3] == 3);
    CHECK(strcmp(one, "ab") == 0 && strcmp(two, "efg") == 0);
    begin(NULL, 0);
    add(SBE_DIR_IN, memory, 6);
    add(SBE_DIR_OUT, memory + 2, 6);
    CHECK(run("copy") == SBE_OK && strcmp(memory, "ababcdef") == 0);
    CHECK(run_with("copy", 0, 0, 0) == SBE_EINVAL);
    CHECK(run_with("copy", 0, SBE_DIR_IN, 0) == SBE_EINVAL);
    CHECK(run_with("copy", 0, SBE_DIR_IN, SBE_DIR_IN) == SBE_EINVAL);
    CHECK(run_with("copy", 0, SBE_DIR_IN, SBE_DIR_INOUT) == SBE_EINVAL);
    CHECK(run_with("copy", 1, SBE_DIR_IN, SBE_DIR_OUT) == SBE_EINVAL);
}

static void test_fill_and_invert(void)
{
    uint8_t memory[40] = {0};
    begin("\xa5", 1);
    add(SBE_DIR_OUT, memory + 1, 37);
    CHECK(run("fill") == SBE_OK && request.written[0] == 37);
    CHECK(memory[0] == 0 && memory[1] == 0xa5 && memory[37] == 0xa5 && memory[38] == 0);
    begin(NULL, 0);
    add(SBE_DIR_INOUT, memory + 2, 35);
    CHECK(run("invert") == SBE_OK && request.written[0] == 35);
    CHECK(memory[1] == 0xa5 && memory[2] == 0x5a && memory[36] == 0x5a && memory[37] == 0xa5);
    CHECK(run_with("fill", 0, SBE_DIR_OUT, 0) == SBE_EINVAL);
    CHECK(run_with("fill", 2, SBE_DIR_OUT, 0) == SBE_EINVAL);
    CHECK(run_with("fill", 1, SBE_DIR_INOUT, 0) == SBE_EINVAL);
    CHECK(run_with("fill", 1, 0, 0) == SBE_EINVAL);
    CHECK(run_with("invert", 0, SBE_DIR_OUT, 0) == SBE_EINVAL);
    CHECK(run_with("invert", 1, SBE_DIR_INOUT, 0) == SBE_EINVAL);
    CHECK(run_with("invert", 0, 0, 0) == SBE_EINVAL);
}

static int sobel_at(const uint8_t *in, uint32_t width, uint32_t height, uint32_t x, uint32_t y)
{
    int gx = 0, gy = 0;
    if (x == 0 || y == 0 || x == width - 1 || y == height - 1)
        return 0;
    for (int i = -1; i <= 1; i++) {
        uint32_t row = (y + (uint32_t)i) * width, column = x + (uint32_t)i;
        gx += (2 - abs(i)) * (in[row + x + 1] - in[row + x - 1]);
        gy += (2 - abs(i)) * (in[(y + 1) * width + column] - in[(y - 1) * width + column]);
    }
    int sum = abs(gx) + abs(gy);
    return sum > 255 ? 255 : sum;
}

static void check_sobel(uint32_t width, uint32_t height, uint8_t mask)
{
    uint32_t wire[2] = {width, height}, size = width * height;
    uint8_t *in = malloc(size), *out = malloc(size);
    CHECK(in != NULL && out != NULL);
    for (uint32_t i = 0; i < size; i++)
        in[i] = (uint8_t)(random_byte() & mask);
    memset(out, 0xee, size);
    begin(wire, 8);
    add(SBE_DIR_IN, in, size);
    add(SBE_DIR_OUT, out, size);
    CHECK(run("sobel") == SBE_OK && request.written[1] == size);
    for (uint32_t i = 0; i < size; i++)
        CHECK(out[i] == sobel_at(in, width, height, i % width, i / width));
    free(in);
    free(out);
}

static int sobel_of(uint32_t width, uint32_t height, uint64_t in_size, uint64_t out_size)
{
    static uint8_t in[64], out[64];
    static uint32_t wire[2];
    wire[0] = width;
    wire[1] = height;
    begin(wire, 8);
    add(SBE_DIR_IN, in, in_size);
    add(SBE_DIR_OUT, out, out_size);
    return run("sobel");
}

static void test_sobel(void)
{
    static const uint32_t SIZES[] = {1, 2, 3, 4, 17, 257, 258, 259, 600};
    for (uint32_t i = 0; i < sizeof SIZES / sizeof SIZES[0]; i++)
        for (uint32_t height = 1; height < 6; height++) {
            check_sobel(SIZES[i], height, 0x1f);
            check_sobel(SIZES[i], height, 0xff);
        }
    CHECK(sobel_of(8, 8, 64, 64) == SBE_OK);
    CHECK(sobel_of(8, 8, 63, 64) == SBE_EINVAL);
    CHECK(sobel_of(8, 7, 64, 64) == SBE_EINVAL);
    CHECK(sobel_of(8, 8, 64, 63) == SBE_ENOSPC);
    CHECK(sobel_of(0, 8, 0, 64) == SBE_EINVAL);
    CHECK(sobel_of(UINT32_MAX, UINT32_MAX, 1, 64) == SBE_EINVAL);
    CHECK(sobel_of(65536, 65536, 0, 64) == SBE_EINVAL); /* 2^32: zero if it were cut to 32 bits */
    CHECK(run_with("sobel", 8, SBE_DIR_OUT, SBE_DIR_IN) == SBE_EINVAL);
    CHECK(run_with("sobel", 8, SBE_DIR_IN, 0) == SBE_EINVAL);
    CHECK(run_with("sobel", 7, SBE_DIR_IN, SBE_DIR_OUT) == SBE_EINVAL);
    uint8_t memory[12];
    begin("\2\0\0\0\4\0\0\0", 8);
    add(SBE_DIR_IN, memory, 8);
    add(SBE_DIR_OUT, memory + 4, 8);
    CHECK(run("sobel") == SBE_EINVAL); /* they overlap */
}

static void check_fir(uint32_t samples, uint32_t taps, int shift, int extreme)
{
    int16_t *x = malloc(samples * 2 + 1), *y = malloc(samples * 2 + 1), h[1024];
    uint8_t *in = (uint8_t *)x + 1, *out = (uint8_t *)y + 1; /* any alignment will do */
    CHECK(x != NULL && y != NULL);
    for (uint32_t i = 0; i < samples * 2; i++)
        in[i] = (uint8_t)(!extreme ? random_byte() : i % 2 != 0 ? 0x80 : 0);
    for (uint32_t k = 0; k < taps; k++) {
        int tap = (random_byte() << 8 | random_byte()) - 0x8000;
        h[k] = (int16_t)(extreme ? INT16_MIN : tap >> shift);
    }
    begin(h, taps * 2);
    add(SBE_DIR_IN, in, samples * 2);
    add(SBE_DIR_OUT, out, samples * 2);
    CHECK(run("fir") == SBE_OK && request.written[1] == samples * 2);
    for (uint32_t n = 0; n < samples; n++) {
        int64_t sum = 0x4000;
        int16_t sample, result;
        for (uint32_t k = 0; k < taps && k <= n; k++) {
            memcpy(&sample, in + (size_t)(n - k) * 2, 2);
            sum += (int64_t)sample * h[k];
        }
        sum >>= 15;
        memcpy(&result, out + (size_t)n * 2, 2);
        CHECK(result == (sum > INT16_MAX ? INT16_MAX : sum < INT16_MIN ? INT16_MIN : sum));
    }
    free(x);
    free(y);
}

static void test_fir(void)
{
    static const uint32_t SAMPLES[] = {0, 1, 2, 127, 128, 129, 1000}, TAPS[] = {1, 2, 3, 129, 1024};
    for (uint32_t i = 0; i < sizeof SAMPLES / sizeof SAMPLES[0]; i++)
        for (uint32_t k = 0; k < sizeof TAPS / sizeof TAPS[0]; k++) {
            check_fir(SAMPLES[i], TAPS[k], 0, 0); /* too large for sums of 32 bits */
            check_fir(SAMPLES[i], TAPS[k], 9, 0);
            check_fir(SAMPLES[i], TAPS[k], 0, 1);
        }
    CHECK(run_with("fir", 4, SBE_DIR_IN, SBE_DIR_OUT) == SBE_OK);
    CHECK(run_with("fir", 0, SBE_DIR_IN, SBE_DIR_OUT) == SBE_EINVAL);
    CHECK(run_with("fir", 3, SBE_DIR_IN, SBE_DIR_OUT) == SBE_EINVAL);
    CHECK(run_with("fir", 4, SBE_DIR_INOUT, SBE_DIR_OUT) == SBE_EINVAL);
    static uint8_t memory[16], taps[2050];
    begin(taps, 2050);
    add(SBE_DIR_IN, memory, 8);
    add(SBE_DIR_OUT, memory + 8, 8);
    CHECK(run("fir") == SBE_EINVAL);
    request.payload_size = 2;
    buffers[0].size = 7;
    CHECK(run("fir") == SBE_EINVAL);
    buffers[0].size = 8;
    buffers[1].size = 6;
    CHECK(run("fir") == SBE_ENOSPC);
}

#define LARGE (6 * SBE_PIECE)
static uint8_t all[2 * LARGE];
static uint8_t *const large[2] = {all, all + LARGE};

static void make_large(void)
{
    for (size_t i = 0; i < sizeof all; i++)
        all[i] = random_byte();
}

static void check_move(ptrdiff_t by, size_t size)
{
    static uint8_t expected[sizeof all];
    uint8_t *from = large[0] + SBE_PIECE, *to = from + by;
    make_large();
    memcpy(expected, all, sizeof all);
    memmove(expected + (to - all), from, size);
    begin(NULL, 0);
    add(SBE_DIR_IN, from, size);
    add(SBE_DIR_OUT, to, size);
    CHECK(run("copy") == SBE_OK && request.written[1] == size && pieces == size / SBE_PIECE + 1);
    CHECK(memcmp(all, expected, sizeof all) == 0);
}

static uint32_t plain_crc(const uint8_t *bytes, size_t size)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ ((crc & 1) != 0 ? 0xedb88320u : 0);
    }
    return ~crc;
}

/* Work that takes several calls comes to the same, whatever the pieces' borders meet. */
static void test_pieces(void)
{
    static const size_t PARTS[] = {SBE_PIECE - 1, 0, SBE_PIECE, SBE_PIECE + 1, 2 * SBE_PIECE, 0};
    uint32_t sum, count = sizeof PARTS / sizeof PARTS[0];
    size_t at = 0;
    for (size_t size = SBE_PIECE - 1; size <= 3 * SBE_PIECE + 1; size += SBE_PIECE / 2 + 1) {
        check_move(100, size);
        check_move(-100, size);
        check_move(0, size);
        check_move(LARGE, size);
    }
    make_large();
    begin(NULL, 0);
    for (uint32_t i = 0; i < count; at += PARTS[i++])
        add(SBE_DIR_IN, large[0] + at, PARTS[i]);
    CHECK(run("crc32") == SBE_OK && pieces == 5);
    memcpy(&sum, reply, 4);
    CHECK_EQ(sum, plain_crc(large[0], at));
    begin(NULL, 0);
    at = 0;
    for (uint32_t i = 0; i < count; at += PARTS[i++])
        add(SBE_DIR_INOUT, large[1] + at, PARTS[i]);
    memcpy(large[1], large[0], LARGE);
    CHECK(run("invert") == SBE_OK && pieces == 5);
    for (size_t i = 0; i < LARGE; i++)
        CHECK(large[1][i] == (i < at ? (uint8_t)~large[0][i] : large[0][i]));
    begin("x", 1);
    add(SBE_DIR_OUT, large[1] + 1, 3 * SBE_PIECE);
    CHECK(run("fill") == SBE_OK && pieces == 4 && request.written[0] == 3 * SBE_PIECE);
    CHECK(large[1][0] != 'x' && large[1][1] == 'x' && large[1][3 * SBE_PIECE] == 'x');
    CHECK_EQ(large[1][3 * SBE_PIECE + 1], (uint8_t)~large[0][3 * SBE_PIECE + 1]);
    check_sobel(300, 600, 0xff);
    CHECK(pieces > 4);
    check_sobel(40000, 4, 0xff);
    CHECK(pieces > 3);
    check_sobel(2, 50000, 0xff);
    check_sobel(50000, 2, 0xff);
    CHECK(pieces > 2);
    check_fir(3000, 1024, 9, 0);
    CHECK(pieces > 10);
    check_fir(3000, 1023, 0, 0);
}

/* What a port need not say: everything but tables, limits, a name and the cache line. */
static void test_defaults(void)
{
    const struct sbe_port port = {.self = NULL};
    const struct sbe_engine_config config = sbe_engine_defaults(&port);
    bool echo_is_there = false;
    for (uint32_t i = 0; i < config.service_count; i++)
        echo_is_there = echo_is_there || strcmp(config.services[i]->name, "echo") == 0;
    CHECK(echo_is_there);
    CHECK(config.services + config.service_count == __stop_sbe_services);
    CHECK(config.port == &port);
    CHECK_EQ(config.session.role, SBE_ROLE_REMOTE);
    CHECK_EQ(config.session.coherent, 1);
    CHECK_EQ(config.session.address_bits, UINTPTR_MAX == UINT64_MAX ? 64 : 32);
    CHECK_EQ(config.session.version_min, SBE_VERSION_MIN);
    CHECK_EQ(config.session.version_max, SBE_VERSION_MAX);
    CHECK_EQ(config.session.limits.buffers, SBE_BUFFERS_MAX);
    CHECK(config.calls == NULL && config.opened == NULL && config.closed == NULL);
}

int main(void)
{
    test_defaults();
    test_echo();
    test_crc32();
    test_copy();
    test_fill_and_invert();
    test_sobel();
    test_fir();
    test_pieces();
    return 0;
}
