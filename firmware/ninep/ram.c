/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Content of the files in RAM: chains of blocks. Bytes of a chain beyond the file's size are zero,
 * so that growing shows nothing that was there before.
 */
#include <string.h>

#include "core/service.h"
#include "core/status.h"
#include "ninep/tree.h"

static struct {
    uint32_t used;  /* blocks that are in a chain */
    uint32_t fresh; /* those from here on never were */
    uint32_t free;  /* first of those that were, one more than its index; 0: none */
    uint32_t next[NINEP_BLOCKS];
    uint8_t bytes[NINEP_BLOCKS][NINEP_BLOCK];
} ram;

struct ninep_usage ninep_tree_usage(void)
{
    return (struct ninep_usage){
        .free_blocks = NINEP_BLOCKS - ram.used,
        .free_nodes = ninep_tree_free_nodes(),
    };
}

/* There is one. */
static uint32_t take_block(void)
{
    uint32_t block = ram.free == 0 ? ram.fresh++ : ram.free - 1u;
    if (ram.free != 0)
        ram.free = ram.next[block];
    ram.used++;
    ram.next[block] = NINEP_NONE;
    memset(ram.bytes[block], 0, NINEP_BLOCK);
    return block;
}

/* The list of free blocks ends with 0 and counts from 1: all of it is zero at first. */
static void free_chain(uint32_t block)
{
    while (block != NINEP_NONE) {
        uint32_t next = ram.next[block];
        ram.next[block] = ram.free;
        ram.free = block + 1u;
        ram.used--;
        block = next;
    }
}

/* The block that has this byte, which the file has. */
static uint32_t block_at(struct ninep_node *file, uint64_t offset)
{
    uint32_t index = (uint32_t)(offset / NINEP_BLOCK);
    if (file->at_block == NINEP_NONE || index < file->at_index) {
        file->at_block = file->first;
        file->at_index = 0;
    }
    for (; file->at_index < index; file->at_index++)
        file->at_block = ram.next[file->at_block];
    return file->at_block;
}

static uint32_t smaller(uint64_t a, uint32_t b)
{
    return a < b ? (uint32_t)a : b;
}

/* What of a range lies in its first block. */
static uint8_t *piece_at(struct ninep_node *file, uint64_t offset, uint32_t size, uint32_t *piece)
{
    uint32_t within = (uint32_t)(offset % NINEP_BLOCK);
    *piece = smaller(size, NINEP_BLOCK - within);
    return ram.bytes[block_at(file, offset)] + within;
}

uint32_t ninep_ram_read(struct ninep_node *file, uint64_t offset, uint8_t *to, uint32_t size)
{
    uint32_t done = 0, piece;
    if (offset >= file->size)
        return 0;
    size = smaller(file->size - offset, size);
    for (; done < size; done += piece) {
        const uint8_t *from = piece_at(file, offset + done, size - done, &piece);
        memcpy(to + done, from, piece);
    }
    return size;
}

void ninep_ram_write(struct ninep_node *file, uint64_t offset, const uint8_t *from, uint32_t size)
{
    uint32_t piece;
    for (uint32_t done = 0; done < size; done += piece) {
        uint8_t *to = piece_at(file, offset + done, size - done, &piece);
        memcpy(to, from + done, piece);
    }
}

static uint64_t blocks_of(uint64_t size)
{
    return size / NINEP_BLOCK + (size % NINEP_BLOCK != 0);
}

uint64_t ninep_ram_room(const struct ninep_node *file)
{
    return (blocks_of(file->size) + (NINEP_BLOCKS - ram.used)) * NINEP_BLOCK;
}

int ninep_ram_grow(struct ninep_node *file, uint64_t size, uint32_t most)
{
    uint64_t has = blocks_of(file->size), wants = blocks_of(size);
    uint32_t done = 0;
    if (size <= file->size)
        return SBE_OK;
    if (wants - has > NINEP_BLOCKS - ram.used)
        return SBE_ENOSPC;
    for (; has < wants && done < most; has++, done += NINEP_BLOCK) {
        uint32_t block = take_block();
        if (file->first == NINEP_NONE)
            file->first = block;
        else
            ram.next[file->last] = block;
        file->last = block;
    }
    file->size = has < wants ? has * NINEP_BLOCK : size;
    return has < wants ? SBE_MORE : SBE_OK;
}

void ninep_ram_cut(struct ninep_node *file, uint64_t size)
{
    if (size >= file->size)
        return;
    if (size == 0) {
        free_chain(file->first);
        file->first = file->last = NINEP_NONE;
    } else {
        file->last = block_at(file, size - 1u);
        free_chain(ram.next[file->last]);
        ram.next[file->last] = NINEP_NONE;
        uint32_t within = (uint32_t)((size - 1u) % NINEP_BLOCK) + 1u;
        memset(ram.bytes[file->last] + within, 0, NINEP_BLOCK - within);
    }
    file->at_block = NINEP_NONE;
    file->at_index = 0;
    file->size = size;
}
