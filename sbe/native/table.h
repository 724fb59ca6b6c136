/* SPDX-License-Identifier: Apache-2.0 */
/* Table, the areas that channels may name. */
#ifndef SBE_NATIVE_TABLE_H
#define SBE_NATIVE_TABLE_H

#include "core/area.h"
#include "memory.h"

struct table {
    PyObject ob_base;
    struct sbe_area_table areas;
    Memory **members; /* by area index, borrowed: a Memory leaves before it dies */
    uint32_t member_count;
    uint32_t line; /* bytes of a cache line, at either end of the channels; 0 before the first */
};

extern PyTypeObject *Table_Type;
int native_table_init(PyObject *module);
/* The area of this table that the address lies in, NULL none. What begins there may leave it. */
Memory *native_table_find(const Table *table, const void *start);
/* The same over every table of the process. */
Memory *native_any_table_find(const void *start);
/* Bytes of the lines that are maintained in it; 1 where none is, and any range stands alone. */
uint32_t native_line_of(const Memory *memory);
/*
 * Nothing else shares the lines of this range, which the remote may write therefore. padded: it has
 * its last line for itself.
 */
bool native_stands_alone(const Memory *memory, uint64_t offset, uint64_t size, bool padded);
void native_table_forget(Memory *memory); /* at its death */
/* The member of this id, which has been resolved; NULL if it is about to die. */
Memory *native_table_member(const Table *table, uint32_t id);

#endif
