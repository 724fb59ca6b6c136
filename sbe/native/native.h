/* SPDX-License-Identifier: Apache-2.0 */
/* What the extension's objects share. One file per object; limited API, floor 3.11. */
#ifndef SBE_NATIVE_H
#define SBE_NATIVE_H

#include <Python.h>

#include <stdbool.h>
#include <stdint.h>

#include "core/channel.h"
#include "core/session.h"

/* -- module.c -- */

/* Raises the sbe.errors exception for a negative status; `remote`: a service answered it. NULL. */
PyObject *native_raise(int status, bool remote, const char *format, ...);
/* Monotonic time, ns. */
uint64_t native_now_ns(void *unused);
/* Creates a heap type from a spec and adds it to the module. 0 or -1. */
int native_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type);

/* -- memory.c: Memory, a shared mapping; Slice, a range of it -- */

typedef struct table Table;

typedef struct {
    PyObject ob_base;
    uint8_t *base;
    uint64_t size; /* bytes */
    uint32_t id;   /* area id, 0: not in a table */
    uint32_t holds; /* open or quarantined transactions that name it */
    bool readonly;
    bool freed; /* out of the table; the mapping lives on while views of it do */
    Table *table; /* strong, once added */
} Memory;

typedef struct {
    PyObject ob_base;
    Memory *memory; /* strong */
    uint64_t offset;
    uint64_t size;
} Slice;

extern PyTypeObject *Memory_Type, *Slice_Type;
int native_memory_init(PyObject *module);
PyObject *native_slice_new(Memory *memory, uint64_t offset, uint64_t size);

/* -- table.c: Table, the areas that channels may name -- */

struct table {
    PyObject ob_base;
    struct sbe_area_table areas;
    Memory **members;  /* by area index, borrowed: a Memory leaves before it dies */
    Memory **by_address; /* sorted by base, borrowed, freed ones included */
    uint32_t address_count;
    uint32_t address_room;
    struct table *next_table; /* all tables of the process, to tell whose a pointer is */
};

extern PyTypeObject *Table_Type;
int native_table_init(PyObject *module);
/* The area of this table that holds [start, start + size), NULL none. */
Memory *native_table_find(const Table *table, const void *start, uint64_t size);
/* The same over every table of the process. */
Memory *native_any_table_find(const void *start, uint64_t size);
void native_table_forget(Memory *memory); /* at its death */

/* -- buffer.c: In, Out, InOut, Shared -- */

typedef struct {
    PyObject ob_base;
    PyObject *target; /* strong: Memory, Slice or anything with the buffer protocol */
    uint8_t direction;
} Buffer;

extern PyTypeObject *Buffer_Type;
int native_buffer_init(PyObject *module);

/* -- call.c: Call, one transaction in flight -- */

typedef struct channel Channel;

enum call_state { CALL_OPEN, CALL_DONE, CALL_FAILED };

/* What the core's `owner` points at: a Call or an entry of a batch. */
struct open_call {
    void (*complete)(struct open_call *open, Channel *channel, const struct sbe_frame *response,
                     int status);
};

struct call_buffer {
    struct sbe_buffer asked;
    Memory *memory;   /* strong and held, NULL for inline */
    Py_buffer inline_view; /* inline: the caller's bytes, obj NULL when none */
};

typedef struct {
    PyObject ob_base;
    struct open_call open;
    Channel *channel; /* strong */
    enum call_state state;
    bool in_flight; /* the remote has not answered: buffers are held, whatever the state */
    int status;     /* when failed */
    bool remote_said; /* the status came from the remote */
    uint16_t service;
    uint16_t buffer_count;
    uint32_t doorbells;
    uint32_t waited_ns, handled_ns;
    uint64_t transaction;
    uint64_t started_ns, ended_ns;
    uint64_t copied; /* bytes */
    uint64_t synced; /* bytes */
    PyObject *payload;   /* of the response */
    PyObject *callbacks; /* list or NULL */
    struct call_buffer *buffers;
    struct call_buffer few[2];
    uint64_t *written; /* per asked buffer, in few_written or allocated */
    uint64_t few_written[2];
} Call;

extern PyTypeObject *Call_Type, *Reply_Type;
int native_call_init(PyObject *module);

/* -- channel.c, wait.c, batch.c -- */

extern PyTypeObject *Channel_Type;
int native_channel_init(PyObject *module);

/* -- request.c: Request, a call from the other end -- */

extern PyTypeObject *Request_Type;
int native_request_init(PyObject *module);

/* -- session.c -- */

int native_session_init(PyObject *module);

#endif
