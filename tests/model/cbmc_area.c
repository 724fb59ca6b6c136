/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For cbmc: area.c with any table that a hostile peer could bring about and any buffer that it
 * could name. README.md beside has the command.
 */
#include <stdlib.h>

#include "core/area.c"

#define AREAS 3

struct sbe_area nondet_area(void);
struct sbe_buffer nondet_buffer(void);
uint32_t nondet_word(void);
uint16_t nondet_half(void);
size_t nondet_size(void);

static struct sbe_area areas[AREAS];

/* Entries as sbe_area_add() makes them; some are mapped here. */
static void any_table(struct sbe_area_table *table)
{
    table->areas = areas;
    table->count = nondet_half();
    __CPROVER_assume(table->count <= AREAS);
    for (uint32_t i = 0; i < AREAS; i++) {
        uint32_t id = nondet_word();
        areas[i] = nondet_area();
        areas[i].dying = nondet_word() % 2 != 0;
        areas[i].id = id;
        __CPROVER_assume(id == 0 || (SBE_AREA_INDEX(id) == i && id >> 16 != 0));
        areas[i].base =
            nondet_word() % 2 != 0 && areas[i].size < 4096 ? malloc(areas[i].size) : NULL;
    }
}

void check_resolve(void)
{
    struct sbe_area_table table;
    any_table(&table);
    uint32_t context = nondet_word();
    struct sbe_buffer asked = nondet_buffer(), buffer = asked;
    if (sbe_area_resolve(&table, context, &buffer) != SBE_OK)
        return;
    const struct sbe_area *area = &areas[SBE_AREA_INDEX(asked.area)];
    __CPROVER_assert(SBE_AREA_INDEX(asked.area) < table.count, "in the table");
    __CPROVER_assert(area->id == asked.area && asked.area != 0, "the one that was named");
    __CPROVER_assert(!area->dying && area->missing == 0, "whole and alive");
    __CPROVER_assert(area->context == context || area->context == SBE_CONTEXT_GLOBAL, "one's own");
    __CPROVER_assert((area->flags & SBE_AREA_RING) == 0, "no ring");
    __CPROVER_assert(asked.offset <= area->size && asked.size <= area->size - asked.offset,
                     "inside");
    __CPROVER_assert(buffer.size == asked.size && buffer.offset == asked.offset, "as it was asked");
    __CPROVER_assert(area->base == NULL || buffer.size == 0 ||
                         __CPROVER_r_ok(buffer.data, (size_t)buffer.size),
                     "all of its bytes are there");
}

void check_add(void)
{
    struct sbe_area_table table;
    struct sbe_area *area = NULL;
    any_table(&table);
    uint32_t id = nondet_word(), flags = nondet_word();
    uint16_t at = nondet_half();
    __CPROVER_assume(at < AREAS);
    struct sbe_area before = areas[at];
    int status = sbe_area_add(&table, id, nondet_word(), flags, nondet_size(), &area);
    if (status == SBE_OK) {
        __CPROVER_assert(area == &areas[SBE_AREA_INDEX(id)], "its own place");
        __CPROVER_assert(sbe_area_find(&table, id) == area, "is found");
        __CPROVER_assert(area->size != 0, "has bytes");
    }
    if (status != SBE_OK || at != SBE_AREA_INDEX(id))
        __CPROVER_assert(areas[at].id == before.id && areas[at].size == before.size &&
                             areas[at].context == before.context,
                         "no other entry is touched");
}
