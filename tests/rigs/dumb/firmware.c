/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three formats as co-processors have them: a DMA descriptor with 32-bit addresses, a kick with a
 * chain of 64-bit descriptors, and text.
 */
#include <stdbool.h>
#include <stdio.h>

#include "dumb.h"

#define MESSAGE_MAX 496u

static uint8_t message[MESSAGE_MAX]; /* the one at hand, private */

static bool take(const void *data, uint32_t size, uint32_t least)
{
    if (size > sizeof message || size < least)
        return false;
    memcpy(message, data, size);
    return true;
}

/* -- "dma": command, id, and a parameter set as TI's EDMA3 has it (PaRAM) -----------------------
 */

enum {
    DMA_RUN = 1,
    DMA_RUN_LATE = 2,  /* answered when the next message has come, before that one */
    DMA_RUN_TWICE = 3, /* answered twice */
    DMA_LOSE = 4,      /* never */
    DMA_FOREIGN = 5    /* answered beside something with an id that nobody has asked with */
};

#define DMA_SIZE 40u

static struct {
    uint32_t source;
    uint8_t message[DMA_SIZE];
} late;

/* OPT, SRC, BCNT:ACNT, DST, DSTBIDX:SRCBIDX, BCNTRLD:LINK, DSTCIDX:SRCCIDX, CCNT; AB-synchronised.
 */
static bool dma_copy(const uint8_t *set)
{
    uint32_t a = get16(set + 8), b = get16(set + 10), c = get16(set + 28);
    for (uint32_t k = 0; k < c; k++)
        for (uint32_t j = 0; j < b; j++) {
            uint32_t from = get32(set + 4) + j * get16(set + 16) + k * get16(set + 24);
            uint32_t to = get32(set + 12) + j * get16(set + 18) + k * get16(set + 26);
            const uint8_t *source = dumb_reach(from, a);
            uint8_t *target = dumb_reach(to, a);
            if (source == NULL || target == NULL)
                return false;
            memmove(target, source, a);
        }
    return true;
}

static void dma_answer(const struct dumb_endpoint *self, uint32_t source, const uint8_t *asked)
{
    uint8_t answer[8];
    put32(answer, dma_copy(asked + 8) ? 0u : 1u);
    memcpy(answer + 4, asked + 4, 4);
    dumb_send(self, source, answer, sizeof answer);
}

static void dma_received(const struct dumb_endpoint *self, uint32_t source, const void *data,
                         uint32_t size)
{
    if (size != DMA_SIZE || !take(data, size, DMA_SIZE))
        return;
    uint32_t command = get32(message);
    if (late.source != 0)
        dma_answer(self, late.source, late.message);
    late.source = 0;
    if (command == DMA_RUN_LATE) {
        late.source = source;
        memcpy(late.message, message, size);
        return;
    }
    if (command == DMA_LOSE)
        return;
    if (command == DMA_FOREIGN) {
        static const uint8_t foreign[8] = {0, 0, 0, 0, 0xef, 0xbe, 0xad, 0xde};
        dumb_send(self, source, foreign, sizeof foreign);
    }
    dma_answer(self, source, message);
    if (command == DMA_RUN_TWICE)
        dma_answer(self, source, message);
}

/* -- "kick": queue, id, count and descriptors as virtio's split queue has them ------------------
 */

#define DESCRIPTOR   16u /* le64 address, le32 length, le16 flags, le16 next */
#define DESC_F_NEXT  1u
#define DESC_F_WRITE 2u
#define KICK_HEADER  8u

/* What was to be read goes, inverted, where it may be written. How much was. */
static uint32_t kick_run(const uint8_t *table, uint32_t count)
{
    uint64_t filled = 0, offset = 0;
    uint32_t in = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *entry = table + i * DESCRIPTOR;
        uint32_t length = get32(entry + 8);
        if ((get16(entry + 12) & DESC_F_WRITE) == 0)
            continue;
        uint8_t *target = dumb_reach(get64(entry), length);
        for (uint32_t done = 0; target != NULL && done < length && in < count;) {
            const uint8_t *from = table + in * DESCRIPTOR;
            uint32_t have = get32(from + 8);
            const uint8_t *data = dumb_reach(get64(from), have);
            if (data == NULL || (get16(from + 12) & DESC_F_WRITE) != 0 || offset == have) {
                in++;
                offset = 0;
                continue;
            }
            target[done++] = (uint8_t)~data[offset++];
            filled++;
        }
    }
    return (uint32_t)filled;
}

/* Queue 1: a list of le64 address, le64 length; the sum of their bytes. */
static uint32_t kick_sum(const uint8_t *list, uint32_t count)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t size = get64(list + i * 16u + 8);
        const uint8_t *data = dumb_reach(get64(list + i * 16u), size);
        for (uint64_t j = 0; data != NULL && j < size; j++)
            sum += data[j];
    }
    return sum;
}

static void kick_received(const struct dumb_endpoint *self, uint32_t source, const void *data,
                          uint32_t size)
{
    uint8_t used[8]; /* le32 id, le32 length */
    if (!take(data, size, KICK_HEADER))
        return;
    uint32_t count = get32(message + 4);
    if (count > (size - KICK_HEADER) / DESCRIPTOR)
        return;
    const uint8_t *table = message + KICK_HEADER;
    put32(used, get16(message + 2));
    put32(used + 4, get16(message) == 1u ? kick_sum(table, count) : kick_run(table, count));
    dumb_send(self, source, used, sizeof used);
}

/* -- "text": B<number>A<address>L<length>, hexadecimal, as ST's rpmsg_sdb has it ----------------
 */

/* Takes exactly so many digits after a letter; false: they are not there. */
static bool take_hex(const uint8_t **at, const uint8_t *end, char letter, uint32_t digits,
                     uint32_t *value)
{
    const uint8_t *text = *at;
    if (end - text < (ptrdiff_t)digits + 1 || *text++ != (uint8_t)letter)
        return false;
    *value = 0;
    for (uint32_t i = 0; i < digits; i++, text++) {
        uint32_t digit = *text >= '0' && *text <= '9'   ? *text - (uint32_t)'0'
                         : *text >= 'a' && *text <= 'f' ? *text - (uint32_t)'a' + 10u
                                                        : 16u;
        if (digit > 15u)
            return false;
        *value = *value << 4 | digit;
    }
    *at = text;
    return true;
}

static void text_received(const struct dumb_endpoint *self, uint32_t source, const void *data,
                          uint32_t size)
{
    static const char pattern[] = "sampled ";
    const uint8_t *at = message, *end = message + size;
    if (!take(data, size, 0))
        return;
    uint32_t number, address, length;
    char answer[16];
    if (!take_hex(&at, end, 'B', 1, &number) || !take_hex(&at, end, 'A', 8, &address) ||
        !take_hex(&at, end, 'L', 8, &length) || at != end) {
        dumb_send(self, source, "E", 1);
        return;
    }
    uint8_t *target = dumb_reach(address, length);
    if (target == NULL)
        length = 0;
    for (uint32_t i = 0; i < length; i++)
        target[i] = (uint8_t)pattern[i % (sizeof pattern - 1u)];
    int written = snprintf(answer, sizeof answer, "B%xL%08x", number, length);
    if (written > 0 && written < (int)sizeof answer)
        dumb_send(self, source, answer, (uint32_t)written);
}

static const struct dumb_endpoint dma = {"dumb-dma", 1030, dma_received};
static const struct dumb_endpoint kick = {"dumb-kick", 1031, kick_received};
static const struct dumb_endpoint text = {"dumb-text", 1032, text_received};
const struct dumb_endpoint *const dumb_endpoints[] = {&dma, &kick, &text, NULL};
