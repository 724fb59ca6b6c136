/* SPDX-License-Identifier: Apache-2.0 */
/*
 * StreamBlock: the memory of a stream at this end. It shows our position to the remote, takes what
 * the remote shows in one piece, and moves the lines of the data where memory is not coherent.
 */
#define PY_SSIZE_T_CLEAN
#include "stream.h"

#include "cache.h"
#include "convert.h"
#include "core/status.h"
#include "memory.h"
#include "streams/block.h"

typedef struct {
    PyObject ob_base;
    Memory *memory;  /* strong */
    uint32_t newest; /* of our record */
    bool unsynced;
    struct sbe_port port;
    struct sbe_stream_place ours, theirs;
} StreamBlock;

static void maintain(StreamBlock *block, const void *start, uint64_t size, bool for_device)
{
    uint64_t offset = (uint64_t)((const uint8_t *)start - block->memory->base);
    if (native_maintain(block->memory, offset, size, for_device) < 0)
        block->unsynced = true;
}

static void clean(void *self, const void *start, uint64_t size)
{
    maintain(self, start, size, true);
}

static void invalidate(void *self, void *start, uint64_t size)
{
    maintain(self, start, size, false);
}

static PyObject *block_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"memory", "stride", NULL};
    Memory *memory;
    uint32_t stride;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O!O&", names, Memory_Type, &memory,
                                     native_as_u32, &stride))
        return NULL;
    if (stride < SBE_STREAM_STRIDE_MIN || stride > SBE_LINE_MAX || (stride & (stride - 1)) != 0 ||
        memory->readonly || memory->size < (uint64_t)stride * SBE_STREAM_BLOCK_RECORDS)
        return native_raise(SBE_EINVAL, false,
                            "a stream's block of records %u bytes apart in %llu bytes of memory",
                            stride, (unsigned long long)memory->size);
    StreamBlock *self = (StreamBlock *)PyType_GenericAlloc(type, 0);
    if (self == NULL)
        return NULL;
    native_hold(memory);
    self->memory = memory;
    self->port =
        (struct sbe_port){.self = self, .cache_clean = clean, .cache_invalidate = invalidate};
    const struct sbe_port *port = memory->sync_fd < 0 ? NULL : &self->port;
    self->ours = sbe_stream_host_place(memory->base, port);
    self->theirs = sbe_stream_remote_place(memory->base, stride, port);
    return (PyObject *)self;
}

static void block_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    native_drop(((StreamBlock *)object)->memory);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static bool was_synced(StreamBlock *self)
{
    bool failed = self->unsynced;
    self->unsynced = false;
    if (failed)
        native_raise(SBE_EIO, false, "cache maintenance of a stream's memory has failed");
    return !failed;
}

static PyObject *block_status(PyObject *object, PyObject *unused)
{
    StreamBlock *self = (StreamBlock *)object;
    struct sbe_stream_status status;
    uint32_t newest;
    (void)unused;
    sbe_acquire_barrier(); /* bytes that were read are older than what is said of them now */
    if (!sbe_stream_see(&self->theirs, &status, &newest))
        return native_raise(SBE_EPROTO, false,
                            "the remote changes a stream's status without rest: it can't be read");
    if (!was_synced(self))
        return NULL;
    return Py_BuildValue(
        "(IIKKKKIII)", status.generation, status.state, (unsigned long long)status.position,
        (unsigned long long)status.clock_ns, (unsigned long long)status.application,
        (unsigned long long)status.lost_bytes, status.xruns, status.delay_bytes, status.skipped);
}

static PyObject *block_show(PyObject *object, PyObject *argument)
{
    StreamBlock *self = (StreamBlock *)object;
    uint64_t position;
    if (!native_as_u64(argument, &position))
        return NULL;
    sbe_stream_show(&self->ours, &self->newest, &position);
    if (!was_synced(self))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *block_sync(PyObject *object, PyObject *arguments)
{
    StreamBlock *self = (StreamBlock *)object;
    uint64_t offset, size;
    int written;
    if (!PyArg_ParseTuple(arguments, "O&O&p", native_as_u64, &offset, native_as_u64, &size,
                          &written))
        return NULL;
    if (offset > self->memory->size || size > self->memory->size - offset)
        return native_raise(SBE_ERANGE, false, "bytes outside of a stream's memory");
    if (self->memory->sync_fd >= 0 && size != 0)
        maintain(self, self->memory->base + offset, size, written != 0);
    if (!was_synced(self))
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef BLOCK_METHODS[] = {
    NATIVE_NOT_COPIED,
    {"status", block_status, METH_NOARGS,
     "status(): what the remote shows, whole: generation, state, position, clock_ns, application, "
     "lost_bytes, xruns, delay_bytes, skipped."},
    {"show", block_show, METH_O, "show(position): our position, in bytes, to the remote."},
    {"sync", block_sync, METH_VARARGS,
     "sync(offset, size, written): caches, for bytes we have written, or are about to read."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot BLOCK_SLOTS[] = {
    {Py_tp_doc, "The memory in which both ends of a stream show how far they are."},
    {Py_tp_new, block_new},
    {Py_tp_dealloc, block_dealloc},
    {Py_tp_methods, BLOCK_METHODS},
    {0, NULL},
};

static PyType_Spec BLOCK_SPEC = {
    .name = "sbe._native.StreamBlock",
    .basicsize = sizeof(StreamBlock),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = BLOCK_SLOTS,
};

static PyTypeObject *StreamBlock_Type;

int native_stream_init(PyObject *module)
{
    return native_add_type(module, &BLOCK_SPEC, &StreamBlock_Type);
}
