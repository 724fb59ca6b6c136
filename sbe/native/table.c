/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Table: the areas that the channels of one link may name, by id for frames and by address for
 * numpy slices. Members are borrowed: a Memory takes itself out when it dies.
 */
#include "table.h"

#include <string.h>

#include "convert.h"
#include "core/status.h"
#include "memory.h"
#include "native.h"

PyTypeObject *Table_Type;

/*
 * The areas of all tables, sorted by base, freed ones included, borrowed: one search tells whose a
 * pointer is, however many links there are. To add one moves pointers, eight bytes for each of the
 * others. Guarded by the GIL.
 */
static struct {
    Memory **at;
    uint32_t count;
    uint32_t room;
} by_address;

static PyObject *table_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"capacity", NULL};
    uint32_t capacity;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O&", names, native_as_u32, &capacity))
        return NULL;
    if (capacity == 0 || capacity > UINT16_MAX)
        return native_raise(SBE_EINVAL, false, "a table of %u areas", capacity);
    Table *self = (Table *)PyType_GenericAlloc(type, 0);
    if (self == NULL)
        return NULL;
    self->areas.areas = PyMem_Calloc(capacity, sizeof *self->areas.areas);
    self->members = PyMem_Calloc(capacity, sizeof(Memory *));
    self->areas.count = (uint16_t)capacity;
    if (self->areas.areas == NULL || self->members == NULL) {
        native_drop(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void table_dealloc(PyObject *object)
{
    Table *self = (Table *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyMem_Free(self->areas.areas);
    PyMem_Free(self->members);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* Position of the first area whose base is above `address`. */
static uint32_t above(const uint8_t *address)
{
    uint32_t low = 0, high = by_address.count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (by_address.at[middle]->base > address)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* A Memory that a subclass is taking apart is in the table still, but can't be held any more. */
static Memory *living(Memory *memory)
{
    return memory != NULL && Py_REFCNT((PyObject *)memory) > 0 ? memory : NULL;
}

Memory *native_any_table_find(const void *start)
{
    uint32_t position = above(start);
    if (position == 0)
        return NULL;
    Memory *memory = by_address.at[position - 1];
    uint64_t offset = (uint64_t)((const uint8_t *)start - memory->base);
    return offset < memory->size ? living(memory) : NULL;
}

Memory *native_table_find(const Table *table, const void *start)
{
    Memory *memory = native_any_table_find(start);
    return memory != NULL && memory->table == table ? memory : NULL;
}

Memory *native_table_member(const Table *table, uint32_t id)
{
    return living(table->members[SBE_AREA_INDEX(id)]);
}

uint32_t native_line_of(const Memory *memory)
{
    bool maintained = memory->sync_fd >= 0 && memory->table != NULL && memory->table->line != 0;
    return maintained ? memory->table->line : 1;
}

/* Areas are pages: behind the end of one lies nobody else's. */
bool native_stands_alone(const Memory *memory, uint64_t offset, uint64_t size, bool padded)
{
    uint64_t within = native_line_of(memory) - 1, end = offset + size;
    return size == 0 ||
           ((offset & within) == 0 && ((end & within) == 0 || end == memory->size || padded));
}

static int remember(Memory *memory)
{
    if (by_address.count == by_address.room) {
        uint32_t room = by_address.room == 0 ? 64 : by_address.room * 2;
        Memory **grown = PyMem_Realloc(by_address.at, room * sizeof *grown);
        if (grown == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        by_address.at = grown;
        by_address.room = room;
    }
    uint32_t position = above(memory->base);
    memmove(&by_address.at[position + 1], &by_address.at[position],
            (by_address.count - position) * sizeof *by_address.at);
    by_address.at[position] = memory;
    by_address.count++;
    return 0;
}

/* Takes the area out of the ids; its addresses stay known as freed. */
static void unregister(Memory *memory)
{
    Table *table = memory->table;
    struct sbe_area *area = sbe_area_find(&table->areas, memory->id);
    if (area == NULL || table->members[SBE_AREA_INDEX(memory->id)] != memory)
        return;
    sbe_area_remove(area);
    table->members[SBE_AREA_INDEX(memory->id)] = NULL;
    table->member_count--;
}

void native_table_forget(Memory *memory)
{
    if (memory->table == NULL)
        return;
    unregister(memory);
    uint32_t position = above(memory->base);
    if (position == 0 || by_address.at[position - 1] != memory)
        return;
    memmove(&by_address.at[position - 1], &by_address.at[position],
            (by_address.count - position) * sizeof *by_address.at);
    by_address.count--;
}

static PyObject *table_add(PyObject *object, PyObject *arguments)
{
    Table *self = (Table *)object;
    Memory *memory;
    uint32_t id, context, flags = 0;
    struct sbe_area *area;
    if (!PyArg_ParseTuple(arguments, "O!O&O&|O&", Memory_Type, &memory, native_as_u32, &id,
                          native_as_u32, &context, native_as_u32, &flags))
        return NULL;
    if (memory->table != NULL)
        return native_raise(SBE_EEXIST, false, "this memory is area %u already", memory->id);
    int status = sbe_area_add(&self->areas, id, context, flags, memory->size, &area);
    if (status < 0)
        return native_raise(status, false, "area %u in a table of %u", id, self->areas.count);
    if (remember(memory) < 0) {
        sbe_area_remove(area);
        return NULL;
    }
    area->base = memory->base;
    self->members[SBE_AREA_INDEX(id)] = memory;
    self->member_count++;
    memory->id = id;
    native_hold(self);
    memory->table = self;
    Py_RETURN_NONE;
}

static PyObject *table_remove(PyObject *object, PyObject *arguments)
{
    Memory *memory;
    int force = 0;
    if (!PyArg_ParseTuple(arguments, "O!|p", Memory_Type, &memory, &force))
        return NULL;
    if (memory->table != (void *)object)
        return native_raise(SBE_EFAULT, false, "not an area of this table");
    if (memory->holds != 0 && !force && !memory->freed)
        return native_raise(SBE_EBUSY, false,
                            "area %u is held by %u unanswered transaction%s and stays quarantined "
                            "until the remote answers or is reset, as link.restart() does",
                            memory->id, memory->holds, memory->holds == 1 ? "" : "s");
    unregister(memory);
    memory->freed = true;
    native_memory_let_go(memory);
    Py_RETURN_NONE;
}

static PyObject *table_locate(PyObject *object, PyObject *target)
{
    Py_buffer view;
    if (PyObject_GetBuffer(target, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    Memory *memory = native_table_find((Table *)object, view.buf);
    uint64_t offset = memory == NULL ? 0 : (uint64_t)((uint8_t *)view.buf - memory->base);
    PyObject *found = Py_None;
    if (memory == NULL || (uint64_t)view.len > memory->size - offset)
        Py_INCREF(found);
    else
        found = native_slice_new(memory, offset, (uint64_t)view.len);
    PyBuffer_Release(&view);
    return found;
}

static Py_ssize_t table_length(PyObject *object)
{
    return (Py_ssize_t)((const Table *)object)->member_count;
}

static PyObject *table_line(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLong(((const Table *)object)->line);
}

static PyGetSetDef TABLE_GETSET[] = {
    {"line_bytes", table_line, NULL, "of a cache line at either end, 0 before there is a channel",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef TABLE_METHODS[] = {
    NATIVE_NOT_COPIED,
    {"add", table_add, METH_VARARGS, "add(memory, id, context, flags=0): makes memory an area."},
    {"locate", table_locate, METH_O,
     "locate(object): the Slice of an area whose memory this object shows, or None."},
    {"remove", table_remove, METH_VARARGS,
     "remove(memory, force=False): the area is freed; views of it stay valid. Busy while it is "
     "held."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot TABLE_SLOTS[] = {
    {Py_tp_doc, "Table(capacity)\n--\n\nThe areas that the channels of one link may name."},
    {Py_tp_new, table_new},
    {Py_tp_dealloc, table_dealloc},
    {Py_tp_methods, TABLE_METHODS},
    {Py_tp_getset, TABLE_GETSET},
    {Py_mp_length, table_length},
    {0, NULL},
};

static PyType_Spec TABLE_SPEC = {
    .name = "sbe._native.Table",
    .basicsize = sizeof(Table),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = TABLE_SLOTS,
};

int native_table_init(PyObject *module)
{
    return native_add_type(module, &TABLE_SPEC, &Table_Type);
}
