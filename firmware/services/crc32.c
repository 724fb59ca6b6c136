/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crc32: of all IN and INOUT buffers, in order, as if they were one; there are no others, and no
 * payload. The answer's payload is the sum, 4 bytes, as zlib's crc32() computes it.
 */
#include "services/crc32.h"
#include "services/service_util.h"

#ifdef SBE_SMALL

static const uint32_t NIBBLES[16] = {
    0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
    0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
};

static uint32_t update(uint32_t crc, const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        crc = crc >> 4 ^ NIBBLES[crc & 15];
        crc = crc >> 4 ^ NIBBLES[crc & 15];
    }
    return crc;
}

#else

/*
 * Sixteen bytes at a time: SLICES[k][n] is what byte n contributes when k more bytes follow it. The
 * sum is linear, so a table is spanned by its entries for single bits, given here lowest bit first.
 */
#define BIT(n, bit, value) ((n) >> (bit)&1u ? (value) : 0u)
#define ENTRY(n, a, b, c, d, e, f, g, h)                                                       \
    BIT(n, 0, a)                                                                               \
    ^BIT(n, 1, b) ^ BIT(n, 2, c) ^ BIT(n, 3, d) ^ BIT(n, 4, e) ^ BIT(n, 5, f) ^ BIT(n, 6, g) ^ \
        BIT(n, 7, h)
#define ROW_4(n, ...)                                                              \
    ENTRY(n, __VA_ARGS__), ENTRY(n + 1u, __VA_ARGS__), ENTRY(n + 2u, __VA_ARGS__), \
        ENTRY(n + 3u, __VA_ARGS__)
#define ROW_16(n, ...)                                                             \
    ROW_4(n, __VA_ARGS__), ROW_4(n + 4u, __VA_ARGS__), ROW_4(n + 8u, __VA_ARGS__), \
        ROW_4(n + 12u, __VA_ARGS__)
#define ROW_64(n, ...)                                                                  \
    ROW_16(n, __VA_ARGS__), ROW_16(n + 16u, __VA_ARGS__), ROW_16(n + 32u, __VA_ARGS__), \
        ROW_16(n + 48u, __VA_ARGS__)
#define SLICE(...)                                                                    \
    {                                                                                 \
        ROW_64(0u, __VA_ARGS__), ROW_64(64u, __VA_ARGS__), ROW_64(128u, __VA_ARGS__), \
            ROW_64(192u, __VA_ARGS__)                                                 \
    }

/* clang-format off */
static const uint32_t SLICES[16][256] = {
    SLICE(0x77073096, 0xee0e612c, 0x076dc419, 0x0edb8832,
          0x1db71064, 0x3b6e20c8, 0x76dc4190, 0xedb88320),
    SLICE(0x191b3141, 0x32366282, 0x646cc504, 0xc8d98a08,
          0x4ac21251, 0x958424a2, 0xf0794f05, 0x3b83984b),
    SLICE(0x01c26a37, 0x0384d46e, 0x0709a8dc, 0x0e1351b8,
          0x1c26a370, 0x384d46e0, 0x709a8dc0, 0xe1351b80),
    SLICE(0xb8bc6765, 0xaa09c88b, 0x8f629757, 0xc5b428ef,
          0x5019579f, 0xa032af3e, 0x9b14583d, 0xed59b63b),
    SLICE(0x3d6029b0, 0x7ac05360, 0xf580a6c0, 0x30704bc1,
          0x60e09782, 0xc1c12f04, 0x58f35849, 0xb1e6b092),
    SLICE(0xcb5cd3a5, 0x4dc8a10b, 0x9b914216, 0xec53826d,
          0x03d6029b, 0x07ac0536, 0x0f580a6c, 0x1eb014d8),
    SLICE(0xa6770bb4, 0x979f1129, 0xf44f2413, 0x33ef4e67,
          0x67de9cce, 0xcfbd399c, 0x440b7579, 0x8816eaf2),
    SLICE(0xccaa009e, 0x4225077d, 0x844a0efa, 0xd3e51bb5,
          0x7cbb312b, 0xf9766256, 0x299dc2ed, 0x533b85da),
    SLICE(0x177b1443, 0x2ef62886, 0x5dec510c, 0xbbd8a218,
          0xacc04271, 0x82f182a3, 0xde920307, 0x6655004f),
    SLICE(0xefc26b3e, 0x04f5d03d, 0x09eba07a, 0x13d740f4,
          0x27ae81e8, 0x4f5d03d0, 0x9eba07a0, 0xe6050901),
    SLICE(0xc18edfc0, 0x586cb9c1, 0xb0d97382, 0xbac3e145,
          0xaef6c4cb, 0x869c8fd7, 0xd64819ef, 0x77e1359f),
    SLICE(0x9ba54c6f, 0xec3b9e9f, 0x03063b7f, 0x060c76fe,
          0x0c18edfc, 0x1831dbf8, 0x3063b7f0, 0x60c76fe0),
    SLICE(0xdd96d985, 0x605cb54b, 0xc0b96a96, 0x5a03d36d,
          0xb407a6da, 0xb37e4bf5, 0xbd8d91ab, 0xa06a2517),
    SLICE(0x9d0fe176, 0xe16ec4ad, 0x19ac8f1b, 0x33591e36,
          0x66b23c6c, 0xcd6478d8, 0x41b9f7f1, 0x8373efe2),
    SLICE(0xb9fbdbe8, 0xa886b191, 0x8a7c6563, 0xcf89cc87,
          0x44629f4f, 0x88c53e9e, 0xcafb7b7d, 0x4e87f0bb),
    SLICE(0xae689191, 0x87a02563, 0xd4314c87, 0x73139f4f,
          0xe6273e9e, 0x173f7b7d, 0x2e7ef6fa, 0x5cfdedf4),
};
/* clang-format on */

static uint32_t fold(uint32_t word, uint32_t after)
{
    return SLICES[after + 3][word & 255] ^ SLICES[after + 2][word >> 8 & 255] ^
           SLICES[after + 1][word >> 16 & 255] ^ SLICES[after][word >> 24];
}

static uint32_t update(uint32_t crc, const uint8_t *bytes, size_t size)
{
    for (; size >= 16; bytes += 16, size -= 16)
        crc = fold(crc ^ sbe_read_u32(bytes), 12) ^ fold(sbe_read_u32(bytes + 4), 8) ^
              fold(sbe_read_u32(bytes + 8), 4) ^ fold(sbe_read_u32(bytes + 12), 0);
    for (; size > 0; bytes++, size--)
        crc = crc >> 8 ^ SLICES[0][(crc ^ *bytes) & 255];
    return crc;
}

#endif

uint32_t sbe_crc32(uint32_t sum, const void *bytes, size_t size)
{
    return ~update(~sum, bytes, size);
}

static int crc32(struct sbe_request *request)
{
    uint8_t *data;
    size_t size;
    int status = sbe_check_first(request, SBE_DIR_IN, SBE_DIR_INOUT, 0);
    if (status < 0)
        return status;
    while (sbe_next_piece(request, &data, &size)) {
        uint32_t sum = sbe_crc32((uint32_t)request->state, data, size);
        request->state = request->state >> 32 << 32 | sum;
        if (size == SBE_PIECE)
            return SBE_MORE;
    }
    uint32_t crc = (uint32_t)request->state;
    if (request->reply_room < sizeof crc)
        return SBE_ENOSPC;
    memcpy(request->reply, &crc, sizeof crc);
    request->reply_size = sizeof crc;
    return SBE_OK;
}

SBE_SERVICE(crc32, 1, crc32);
