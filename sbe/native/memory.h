/* SPDX-License-Identifier: Apache-2.0 */
/* Memory, a shared mapping; Slice, a range of it. */
#ifndef SBE_NATIVE_MEMORY_H
#define SBE_NATIVE_MEMORY_H

#include "native.h"

typedef struct table Table;

typedef struct {
    PyObject ob_base;
    uint8_t *base;
    uint64_t size;   /* bytes */
    uint64_t before; /* bytes that are mapped below base and not ours: a UIO map has no middle */
    uint64_t whole;  /* bytes that are mapped, those included */
    uint32_t id;     /* area id, 0: not in a table */
    uint32_t holds;  /* open or quarantined transactions that name it */
    int sync_fd;     /* maintains caches for a range of it; -1: coherent */
    bool sync_asks;  /* it is a socket, whose other end does */
    bool readonly;
    bool unmapped; /* nothing of it is at base, which only stands for it: it is read-only as well */
    bool freed;    /* out of the table; the mapping lives on while views of it do */
    Table *table;  /* strong, once added */
    PyObject *at_death; /* at_death(heir_id) is called when it dies; NULL nobody's */
    uint32_t heir_id;
} Memory;

typedef struct {
    PyObject ob_base;
    Memory *memory; /* strong */
    uint64_t offset;
    uint64_t size;
    bool padded; /* the rest of its last line is its own */
} Slice;

/*
 * A place in map N of a UIO device, whose mmap() knows whole maps only (N pages as the offset
 * select one): MAP + N * MAP_STEP + bytes. No file is so long, so nobody takes it for one of a
 * file.
 */
#define NATIVE_MAP      (UINT64_C(1) << 62)
#define NATIVE_MAP_STEP (UINT64_C(1) << 56)
/* Memory that this machine's processor must not touch: an offset at which nothing can be mapped. */
#define NATIVE_UNMAPPED (UINT64_C(1) << 61)

extern PyTypeObject *Memory_Type, *Slice_Type;
int native_memory_init(PyObject *module);
void native_memory_let_go(Memory *memory); /* of what maintains its caches */
PyObject *native_slice_new(Memory *memory, uint64_t offset, uint64_t size);

#endif
