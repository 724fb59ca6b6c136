/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory: a shared mapping with the buffer protocol. Slice: a range of one, which is a descriptor
 * and a buffer at once. A mapping is unmapped when its last view is gone, never under one.
 */
#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buffer.h"
#include "convert.h"
#include "core/status.h"
#include "native.h"
#include "table.h"

PyTypeObject *Memory_Type, *Slice_Type;

/*
 * A memfd that its owner may still truncate would kill us with SIGBUS on the next access, so it
 * must be sealed. What is not a file (a dma-buf, a device) can't be truncated.
 */
static int check_fd(int fd, uint64_t offset, uint64_t size, bool trusted, uint64_t *block)
{
    struct stat info;
    if (fstat(fd, &info) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (!S_ISREG(info.st_mode))
        return 0;
    *block = info.st_blksize > 0 ? (uint64_t)info.st_blksize : 1;
    int seals = fcntl(fd, F_GET_SEALS);
    if (!trusted && (seals < 0 || (seals & F_SEAL_SHRINK) == 0)) {
        native_raise(SBE_EPERM, false, "memory that is not sealed against shrinking is refused");
        return -1;
    }
    if ((uint64_t)info.st_size < offset || (uint64_t)info.st_size - offset < size) {
        native_raise(SBE_ERANGE, false, "the file has %lld bytes, %llu were announced",
                     (long long)info.st_size, (unsigned long long)(offset + size));
        return -1;
    }
    return 0;
}

/* Where to map from so that bytes at `offset` are `*before` bytes in; of a file, from there. */
static bool find_place(int fd, uint64_t offset, uint64_t *from, uint64_t *before)
{
    struct stat info;
    *from = offset;
    *before = 0;
    if ((offset & NATIVE_MAP) == 0)
        return true;
    if (fstat(fd, &info) < 0 || !S_ISCHR(info.st_mode)) {
        native_raise(SBE_EINVAL, false, "a place in a map, and the descriptor is no device's");
        return false;
    }
    *from = (offset & ~NATIVE_MAP) / NATIVE_MAP_STEP * (uint64_t)sysconf(_SC_PAGESIZE);
    *before = offset % NATIVE_MAP_STEP;
    return true;
}

static bool is_socket(int fd)
{
    struct stat info;
    return fstat(fd, &info) == 0 && S_ISSOCK(info.st_mode);
}

/* Unmapped memory has addresses, by which it is found, and nothing can be read or written there. */
static uint8_t *map(int fd, uint64_t size, uint64_t offset, bool readonly)
{
    int protection = readonly ? PROT_READ : PROT_READ | PROT_WRITE;
    void *base = offset == NATIVE_UNMAPPED
                     ? mmap(NULL, (size_t)size, PROT_NONE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
                     : mmap(NULL, (size_t)size, protection, MAP_SHARED, fd, (off_t)offset);
    if (base != MAP_FAILED)
        return base;
    PyErr_SetFromErrno(PyExc_OSError);
    return NULL;
}

static PyObject *memory_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"fd", "size", "readonly", "trusted", "offset", "sync_fd", NULL};
    int fd, readonly = 0, trusted = 0, sync_fd = -1;
    uint64_t size, offset = 0, before, block = 1;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "iO&|$ppO&i", names, &fd, native_as_u64,
                                     &size, &readonly, &trusted, native_as_u64, &offset, &sync_fd))
        return NULL;
    if (size == 0 || size > PY_SSIZE_T_MAX)
        return native_raise(SBE_EINVAL, false, "a mapping of %llu bytes", (unsigned long long)size);
    if (offset > (uint64_t)INT64_MAX - size)
        return native_raise(SBE_EINVAL, false, "a mapping at %llu", (unsigned long long)offset);
    bool unmapped = offset == NATIVE_UNMAPPED;
    if (!find_place(fd, offset, &offset, &before) ||
        (!unmapped && check_fd(fd, offset, size, trusted != 0, &block) < 0))
        return NULL;
    uint64_t whole = before + size; /* both are below 2^63 */
    /* Huge pages, a file's blocks, are unmapped as a whole or not at all. */
    whole += (block - whole % block) % block;
    if (whole > PY_SSIZE_T_MAX)
        return native_raise(SBE_EINVAL, false, "a mapping of %llu bytes",
                            (unsigned long long)whole);
    if (sync_fd >= 0 && (sync_fd = fcntl(sync_fd, F_DUPFD_CLOEXEC, 0)) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    uint8_t *base = map(fd, whole, offset, readonly != 0);
    if (base == NULL) {
        native_close_fd(&sync_fd);
        return NULL;
    }
    Memory *self = (Memory *)PyType_GenericAlloc(type, 0);
    if (self == NULL) {
        munmap(base, (size_t)whole);
        native_close_fd(&sync_fd);
        return NULL;
    }
    self->sync_fd = sync_fd;
    self->sync_asks = sync_fd >= 0 && is_socket(sync_fd);
    self->base = base + before;
    self->before = before;
    self->whole = whole;
    self->size = size;
    self->readonly = readonly != 0 || unmapped;
    self->unmapped = unmapped;
    return (PyObject *)self;
}

void native_memory_let_go(Memory *memory)
{
    native_close_fd(&memory->sync_fd);
}

/* In C from here to there, if the heir is: no handler of a signal comes between. */
static void tell_heir(Memory *self)
{
    PyObject *type, *error, *trace;
    if (self->at_death == NULL)
        return;
    PyErr_Fetch(&type, &error, &trace);
    PyObject *result = PyObject_CallFunction(self->at_death, "I", (unsigned)self->heir_id);
    if (result == NULL)
        PyErr_WriteUnraisable(self->at_death);
    Py_XDECREF(result);
    Py_CLEAR(self->at_death);
    PyErr_Restore(type, error, trace);
}

static void memory_dealloc(PyObject *object)
{
    Memory *self = (Memory *)object;
    PyTypeObject *type = Py_TYPE(object);
    native_table_forget(self);
    tell_heir(self);
    if (self->base != NULL)
        munmap(self->base - self->before, (size_t)self->whole);
    native_memory_let_go(self);
    Py_CLEAR(self->table);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* True: an exception is set. */
static bool is_out_of_reach(const Memory *memory)
{
    if (memory->unmapped)
        native_raise(SBE_EPERM, false,
                     "the memory of area %u may not be mapped: only devices reach it. Pass the "
                     "area, or area[a:b], to calls",
                     memory->id);
    return memory->unmapped;
}

static int memory_getbuffer(PyObject *object, Py_buffer *view, int flags)
{
    Memory *self = (Memory *)object;
    view->obj = NULL;
    if (is_out_of_reach(self))
        return -1;
    return PyBuffer_FillInfo(view, object, self->base, (Py_ssize_t)self->size, self->readonly,
                             flags);
}

static Py_ssize_t memory_length(PyObject *object)
{
    return (Py_ssize_t)((Memory *)object)->size;
}

/* Resolves [a:b] against `size` bytes. Steps other than 1 are not contiguous memory. */
static int unpack(PyObject *key, uint64_t size, uint64_t *offset, uint64_t *length)
{
    Py_ssize_t start, stop, step;
    if (!PySlice_Check(key)) {
        PyErr_SetString(PyExc_TypeError,
                        "an area is sliced: area[a:b] (bytes come from memoryview(area))");
        return -1;
    }
    if (PySlice_Unpack(key, &start, &stop, &step) < 0)
        return -1;
    if (step != 1) {
        native_raise(SBE_EINVAL, false, "a slice with step %zd is not contiguous", step);
        return -1;
    }
    Py_ssize_t count = PySlice_AdjustIndices((Py_ssize_t)size, &start, &stop, step);
    *offset = (uint64_t)start;
    *length = (uint64_t)count;
    return 0;
}

static PyObject *memory_subscript(PyObject *object, PyObject *key)
{
    Memory *self = (Memory *)object;
    uint64_t offset, length;
    if (unpack(key, self->size, &offset, &length) < 0)
        return NULL;
    return native_slice_new(self, offset, length);
}

/* area[a:b] = bytes-like of the same length */
static int assign(Memory *memory, uint64_t base, uint64_t size, PyObject *key, PyObject *value)
{
    uint64_t offset, length;
    Py_buffer source;
    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError, "bytes of an area can't be deleted");
        return -1;
    }
    if (is_out_of_reach(memory))
        return -1;
    if (memory->readonly) {
        native_raise(SBE_EPERM, false, "the area is read-only");
        return -1;
    }
    if (unpack(key, size, &offset, &length) < 0 ||
        native_show_bytes(value, &source, false) != SHOWN)
        return -1;
    bool fits = (uint64_t)source.len == length;
    if (!fits)
        native_raise(SBE_ERANGE, false, "%zd bytes don't fit a slice of %llu", source.len,
                     (unsigned long long)length);
    else if (length != 0) /* of nothing, the source's address may be NULL */
        memmove(memory->base + base + offset, source.buf, (size_t)length);
    PyBuffer_Release(&source);
    return fits ? 0 : -1;
}

static int memory_assign(PyObject *object, PyObject *key, PyObject *value)
{
    Memory *self = (Memory *)object;
    return assign(self, 0, self->size, key, value);
}

static PyObject *memory_get(PyObject *object, void *which)
{
    Memory *self = (Memory *)object;
    switch (*(const char *)which) {
    case 's':
        return PyLong_FromUnsignedLongLong(self->size);
    case 'i':
        return PyLong_FromUnsignedLong(self->id);
    case 'h':
        return PyLong_FromUnsignedLong(self->holds);
    case 'a':
        return PyLong_FromVoidPtr(self->base);
    case 'f':
        return PyBool_FromLong(self->freed);
    case 'm':
        return PyBool_FromLong(!self->unmapped);
    case 'l':
        return PyLong_FromUnsignedLong(native_line_of(self));
    default:
        return PyBool_FromLong(self->readonly);
    }
}

static PyGetSetDef MEMORY_GETSET[] = {
    {"size", memory_get, NULL, "bytes", "s"},
    {"id", memory_get, NULL, "area id, 0 when not registered", "i"},
    {"holds", memory_get, NULL, "open or quarantined transactions that name it", "h"},
    {"address", memory_get, NULL, "of the mapping in this process", "a"},
    {"freed", memory_get, NULL, "no longer registered", "f"},
    {"readonly", memory_get, NULL, "this process can't write it", "r"},
    {"mapped", memory_get, NULL, "this process can read it", "m"},
    {"line_bytes", memory_get, NULL,
     "bytes: what the remote writes in place begins and ends at multiples of it", "l"},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyObject *memory_at_death(PyObject *object, PyObject *heir)
{
    Memory *self = (Memory *)object;
    PyObject *former = self->at_death;
    Py_INCREF(heir);
    self->at_death = heir;
    self->heir_id = self->id;
    Py_XDECREF(former);
    Py_RETURN_NONE;
}

static PyMethodDef MEMORY_METHODS[] = {
    {"_at_death", memory_at_death, METH_O,
     "_at_death(function): function(id) is called when it dies. It must not refer to the memory."},
    NATIVE_NOT_COPIED,
    {NULL, NULL, 0, NULL},
};

/* The rest of it is padding: whoever makes pieces gives each whole lines. */
static PyObject *slice_first(PyObject *object, PyObject *wanted)
{
    Slice *self = (Slice *)object;
    uint64_t size;
    if (!native_as_u64(wanted, &size))
        return NULL;
    if (size > self->size)
        return native_raise(SBE_ERANGE, false, "%llu bytes of a slice of %llu",
                            (unsigned long long)size, (unsigned long long)self->size);
    PyObject *first = native_slice_new(self->memory, self->offset, size);
    if (first != NULL)
        ((Slice *)first)->padded =
            native_stands_alone(self->memory, self->offset, self->size, false);
    return first;
}

static PyMethodDef SLICE_METHODS[] = {
    {"_first", slice_first, METH_O, "_first(size): these bytes of it; the rest is left unused."},
    NATIVE_NOT_COPIED,
    {NULL, NULL, 0, NULL},
};

static PyType_Slot MEMORY_SLOTS[] = {
    {Py_tp_doc, "Memory(fd, size, *, readonly=False, trusted=False, offset=0, sync_fd=-1)\n--\n\n"
                "A shared mapping of `size` bytes of fd, which stays the caller's, from `offset`, "
                "a multiple of the page size; in a UIO device MEMORY_MAP + N * MEMORY_MAP_STEP "
                "+ bytes of map N, and MEMORY_UNMAPPED for memory that may not be mapped. Files "
                "must be sealed against shrinking unless "
                "trusted. sync_fd: an attachment of sbe_dmabuf, or a socket whose other end does "
                "as one, of which a duplicate is kept, where the memory is not coherent."},
    {Py_tp_new, memory_new},
    {Py_tp_dealloc, memory_dealloc},
    {Py_tp_methods, MEMORY_METHODS},
    {Py_tp_getset, MEMORY_GETSET},
    {Py_mp_length, memory_length},
    {Py_mp_subscript, memory_subscript},
    {Py_mp_ass_subscript, memory_assign},
    {Py_bf_getbuffer, memory_getbuffer},
    {0, NULL},
};

static PyType_Spec MEMORY_SPEC = {
    .name = "sbe._native.Memory",
    .basicsize = sizeof(Memory),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = MEMORY_SLOTS,
};

/* -- Slice --------------------------------------------------------------------------------- */

PyObject *native_slice_new(Memory *memory, uint64_t offset, uint64_t size)
{
    Slice *self = (Slice *)PyType_GenericAlloc(Slice_Type, 0);
    if (self == NULL)
        return NULL;
    native_hold(memory);
    self->memory = memory;
    self->offset = offset;
    self->size = size;
    return (PyObject *)self;
}

static void slice_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    native_drop(((Slice *)object)->memory);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static int slice_getbuffer(PyObject *object, Py_buffer *view, int flags)
{
    Slice *self = (Slice *)object;
    view->obj = NULL;
    if (is_out_of_reach(self->memory))
        return -1;
    return PyBuffer_FillInfo(view, object, self->memory->base + self->offset,
                             (Py_ssize_t)self->size, self->memory->readonly, flags);
}

static Py_ssize_t slice_length(PyObject *object)
{
    return (Py_ssize_t)((Slice *)object)->size;
}

static PyObject *slice_subscript(PyObject *object, PyObject *key)
{
    Slice *self = (Slice *)object;
    uint64_t offset, length;
    if (unpack(key, self->size, &offset, &length) < 0)
        return NULL;
    return native_slice_new(self->memory, self->offset + offset, length);
}

static int slice_assign(PyObject *object, PyObject *key, PyObject *value)
{
    Slice *self = (Slice *)object;
    return assign(self->memory, self->offset, self->size, key, value);
}

static PyObject *slice_get(PyObject *object, void *which)
{
    Slice *self = (Slice *)object;
    switch (*(const char *)which) {
    case 'a':
        native_hold(self->memory);
        return (PyObject *)self->memory;
    case 'o':
        return PyLong_FromUnsignedLongLong(self->offset);
    case 'l':
        return PyBool_FromLong(
            native_stands_alone(self->memory, self->offset, self->size, self->padded));
    default:
        return PyLong_FromUnsignedLongLong(self->size);
    }
}

static PyObject *slice_repr(PyObject *object)
{
    Slice *self = (Slice *)object;
    return PyUnicode_FromFormat("<bytes %llu to %llu of area %u>", (unsigned long long)self->offset,
                                (unsigned long long)(self->offset + self->size), self->memory->id);
}

static PyGetSetDef SLICE_GETSET[] = {
    {"area", slice_get, NULL, "the area it is a range of", "a"},
    {"offset", slice_get, NULL, "bytes into the area", "o"},
    {"stands_alone", slice_get, NULL, "it shares no cache line, so the remote may write it", "l"},
    {"size", slice_get, NULL, "bytes", "s"},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot SLICE_SLOTS[] = {
    {Py_tp_doc, "A contiguous range of an area: a descriptor and a buffer."},
    {Py_tp_dealloc, slice_dealloc},
    {Py_tp_repr, slice_repr},
    {Py_tp_methods, SLICE_METHODS},
    {Py_tp_getset, SLICE_GETSET},
    {Py_mp_length, slice_length},
    {Py_mp_subscript, slice_subscript},
    {Py_mp_ass_subscript, slice_assign},
    {Py_bf_getbuffer, slice_getbuffer},
    {0, NULL},
};

static PyType_Spec SLICE_SPEC = {
    .name = "sbe._native.Slice",
    .basicsize = sizeof(Slice),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = SLICE_SLOTS,
};

static int add_constant(PyObject *module, const char *name, uint64_t value)
{
    PyObject *number = PyLong_FromUnsignedLongLong(value); /* more than a long on some machines */
    int status = number == NULL ? -1 : PyModule_AddObjectRef(module, name, number);
    Py_XDECREF(number);
    return status;
}

int native_memory_init(PyObject *module)
{
    if (add_constant(module, "MEMORY_MAP", NATIVE_MAP) < 0 ||
        add_constant(module, "MEMORY_MAP_STEP", NATIVE_MAP_STEP) < 0 ||
        add_constant(module, "MEMORY_UNMAPPED", NATIVE_UNMAPPED) < 0)
        return -1;
    if (native_add_type(module, &MEMORY_SPEC, &Memory_Type) < 0)
        return -1;
    return native_add_type(module, &SLICE_SPEC, &Slice_Type);
}
