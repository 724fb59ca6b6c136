/* SPDX-License-Identifier: Apache-2.0 */
#include "lines.h"

#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#define LINE_MAX_BYTES 4096u
#define NEAR           6u /* lines moved at a time, of the range and its neighbours */
#define FAR            3u /* and of all */

static uint64_t next_random(struct lines *lines)
{
    uint64_t x = lines->state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    lines->state = x;
    return x * 0x2545f4914f6cdd1du >> 16;
}

static bool is_dirty(const struct lines *lines, uint64_t at)
{
    return memcmp(lines->copy + at, lines->known + at, lines->line) != 0;
}

/* Others may write the copy meanwhile: what is written back is what is known from then on. */
static void write_back(struct lines *lines, uint64_t at)
{
    uint8_t bytes[LINE_MAX_BYTES];
    memcpy(bytes, lines->copy + at, lines->line);
    memcpy(lines->memory + at, bytes, lines->line);
    memcpy(lines->known + at, bytes, lines->line);
}

static void fill(struct lines *lines, uint64_t at, uint64_t size)
{
    uint8_t bytes[LINE_MAX_BYTES];
    memcpy(bytes, lines->memory + at, size);
    memcpy(lines->copy + at, bytes, size);
    memcpy(lines->known + at, bytes, size);
}

/* As a fill before whatever this end writes meanwhile: a word that it has just written stays. */
static void fill_beside_writers(struct lines *lines, uint64_t at)
{
    for (uint64_t end = at + lines->line; at < end; at += sizeof(uint64_t)) {
        uint64_t was, now;
        memcpy(&was, lines->known + at, sizeof was);
        memcpy(&now, lines->memory + at, sizeof now);
        uint64_t *word = (void *)(lines->copy + at);
        if (__atomic_compare_exchange_n(word, &was, now, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            memcpy(lines->known + at, &now, sizeof now);
    }
}

/* To whole lines of the area. */
static uint64_t widen(const struct lines *lines, uint64_t *offset, uint64_t size)
{
    uint64_t mask = lines->line - 1, end = (*offset + size + mask) & ~mask;
    *offset &= ~mask;
    return end < lines->size ? end : lines->size;
}

void *lines_memory(uint64_t size)
{
    void *made = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return made == MAP_FAILED ? NULL : made;
}

void lines_begin(struct lines *lines)
{
    for (uint64_t at = 0; at < lines->size; at += lines->line)
        if (memcmp(lines->memory + at, lines->copy + at, lines->line) != 0)
            fill(lines, at, lines->line);
}

void lines_clean(struct lines *lines, uint64_t offset, uint64_t size)
{
    for (uint64_t end = widen(lines, &offset, size); offset < end; offset += lines->line)
        if (is_dirty(lines, offset))
            write_back(lines, offset);
}

void lines_invalidate(struct lines *lines, uint64_t offset, uint64_t size)
{
    for (uint64_t end = widen(lines, &offset, size); offset < end; offset += lines->line) {
        if (is_dirty(lines, offset) && (next_random(lines) & 1u) != 0)
            write_back(lines, offset);
        fill(lines, offset, lines->line);
    }
}

static void disturb_one(struct lines *lines, uint64_t at)
{
    if (is_dirty(lines, at))
        write_back(lines, at);
    else
        fill_beside_writers(lines, at);
}

void lines_disturb(struct lines *lines, uint64_t offset, uint64_t size)
{
    if (lines->state == 0)
        return;
    uint64_t end = widen(lines, &offset, size), all = lines->size / lines->line;
    uint64_t first = offset / lines->line, last = end / lines->line;
    first -= first > 0;
    last += last < all;
    for (uint32_t i = 0; i < NEAR && last > first; i++)
        disturb_one(lines, (first + next_random(lines) % (last - first)) * lines->line);
    for (uint32_t i = 0; i < FAR; i++)
        disturb_one(lines, next_random(lines) % all * lines->line);
}
