/* SPDX-License-Identifier: Apache-2.0 */
#include "race.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ONCE_MAX 65536u

/* What the compiler calls before each load, and the linker instead of each memcpy. */
void __sanitizer_cov_load1(const uint8_t *at);
void __sanitizer_cov_load2(const uint16_t *at);
void __sanitizer_cov_load4(const uint32_t *at);
void __sanitizer_cov_load8(const uint64_t *at);
void __sanitizer_cov_load16(const void *at);
void *__real_memcpy(void *to, const void *from, size_t size);
void *__wrap_memcpy(void *to, const void *from, size_t size);
void *__real___asan_memcpy(void *to, const void *from, size_t size);
void *__wrap___asan_memcpy(void *to, const void *from, size_t size);

static uint8_t *shared;
static size_t shared_size;
static uint32_t state, rate;
static bool paused = true;

static const uint8_t *once;
static size_t once_size;
static uint8_t read_before[ONCE_MAX];

static uint32_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

void race_begin(void *memory, size_t size, uint32_t seed, uint32_t one_in)
{
    shared = memory;
    shared_size = size;
    state = seed;
    rate = one_in;
    paused = false;
}

void race_end(void)
{
    paused = true;
    shared = NULL;
    shared_size = 0;
    race_once(NULL, 0);
}

void race_pause(bool pause)
{
    paused = pause;
}

void race_once(const void *memory, size_t size)
{
    once = memory;
    once_size = size < ONCE_MAX ? size : ONCE_MAX;
    if (memory != NULL)
        memset(read_before, 0, once_size);
}

static void note(size_t at, size_t size)
{
    for (size_t i = at; i < at + size && i < once_size; i++) {
        if (read_before[i] != 0) {
            (void)fprintf(stderr, "race: byte %zu of shared memory is read twice\n", i);
            abort();
        }
        read_before[i] = 1;
    }
}

/* Most often what is about to be read, else anything; a small step, a bit, or a boundary. */
static void change(size_t at)
{
    static const uint32_t EDGES[] = {0, 1, 0x7fffffffu, 0x80000000u, 0xffffffffu, 0x10000u};
    uint32_t random = draw(), word;
    if ((random & 3u) == 0)
        at = draw() % shared_size;
    if (shared_size < sizeof word)
        return;
    if (at > shared_size - sizeof word)
        at = shared_size - sizeof word;
    __real_memcpy(&word, shared + at, sizeof word);
    switch (random >> 2 & 3u) {
    case 0:
        word ^= 1u << (random >> 8 & 31u);
        break;
    case 1:
        word += (random >> 8 & 7u) - 3u;
        break;
    case 2:
        word = EDGES[(random >> 8) % (sizeof EDGES / sizeof EDGES[0])];
        break;
    default:
        word = draw();
    }
    __real_memcpy(shared + at, &word, sizeof word);
}

static void look(const void *from, size_t size)
{
    uintptr_t at = (uintptr_t)from - (uintptr_t)shared;
    if (paused || at >= shared_size)
        return;
    uintptr_t in_once = (uintptr_t)from - (uintptr_t)once;
    if (once != NULL && in_once < once_size)
        note(in_once, size);
    if (state != 0 && draw() % rate == 0)
        change(at);
}

void __sanitizer_cov_load1(const uint8_t *at)
{
    look(at, 1);
}

void __sanitizer_cov_load2(const uint16_t *at)
{
    look(at, 2);
}

void __sanitizer_cov_load4(const uint32_t *at)
{
    look(at, 4);
}

void __sanitizer_cov_load8(const uint64_t *at)
{
    look(at, 8);
}

void __sanitizer_cov_load16(const void *at)
{
    look(at, 16);
}

void *__wrap_memcpy(void *to, const void *from, size_t size)
{
    look(from, size);
    return __real_memcpy(to, from, size);
}

void *__wrap___asan_memcpy(void *to, const void *from, size_t size)
{
    look(from, size);
    return __real___asan_memcpy(to, from, size);
}
