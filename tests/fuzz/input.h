/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fuzzer's input read as a row of choices. Past its end everything is zero, so each input is a
 * whole case, and a case that is cut short is one, too.
 */
#ifndef SBE_TESTS_FUZZ_INPUT_H
#define SBE_TESTS_FUZZ_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What libFuzzer calls. */
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

/* A rule that does not hold is a crash: the fuzzer keeps the input that led to it. */
#define HOLDS(condition)                                                                         \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            (void)fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                             \
        }                                                                                        \
    } while (0)

struct input {
    const uint8_t *at;
    size_t left;
};

static inline void take_bytes(struct input *input, void *to, size_t size)
{
    size_t some = size < input->left ? size : input->left;
    if (some != 0)
        memcpy(to, input->at, some);
    memset((uint8_t *)to + some, 0, size - some);
    input->at += some;
    input->left -= some;
}

/* take_u8() to take_u64(), with the bytes in this machine's order. */
#define TAKE(bits)                                                 \
    static inline uint##bits##_t take_u##bits(struct input *input) \
    {                                                              \
        uint##bits##_t value;                                      \
        take_bytes(input, &value, sizeof value);                   \
        return value;                                              \
    }
TAKE(8)
TAKE(16)
TAKE(32)
TAKE(64)
#undef TAKE

/* 0 to count - 1. */
static inline uint32_t pick(struct input *input, uint32_t count)
{
    return take_u8(input) % count;
}

/* One bit of a byte of its own: rare choices cost no more than frequent ones. */
static inline bool rarely(struct input *input)
{
    return take_u8(input) > 240;
}

/*
 * A number that is usually right and else where arithmetic goes wrong: near `usual`, near nothing,
 * near 2^16, 2^31, 2^32, 2^63 and 2^64, or anything.
 */
static inline uint64_t number(struct input *input, uint64_t usual)
{
    uint8_t choice = take_u8(input);
    uint64_t near = (choice >> 3 & 3u) - 2ull; /* -2 to 1 */
    if (choice < 224)
        return usual;
    switch (choice & 7u) {
    case 0:
        return take_u8(input);
    case 1:
        return usual + (take_u8(input) - 128u);
    case 2:
        return (1ull << 32) + near;
    case 3:
        return near;
    case 4:
        return (1ull << (take_u8(input) & 63u)) + near;
    case 5:
        return take_u32(input);
    case 6:
        return usual << 1;
    default:
        return take_u64(input);
    }
}

static inline uint32_t number32(struct input *input, uint32_t usual)
{
    return (uint32_t)number(input, usual);
}

/* One word of the memory becomes another one: usually the word at `place`, and what it becomes. */
static inline void scribble(struct input *input, uint8_t *memory, uint32_t size, uint32_t place,
                            uint32_t usual)
{
    uint32_t at = (uint32_t)number(input, place) % (size - 3), word = number32(input, usual);
    memcpy(memory + at, &word, sizeof word);
}

#endif
