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
};

extern PyTypeObject *Table_Type;
int native_table_init(PyObject *module);
/* The area of this table that the address lies in, NULL none. What begins there may leave it. */
Memory *native_table_find(const Table *table, const void *start);
/* The same over every table of the process. */
Memory *native_any_table_find(const void *start);
void native_table_forget(Memory *memory); /* at its death */
/* The member of this id, which has been resolved; NULL if it is about to die. */
Memory *native_table_member(const Table *table, uint32_t id);

#endif
