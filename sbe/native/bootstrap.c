/* SPDX-License-Identifier: Apache-2.0 */
/* Bootstrap: this end of a carve-out link's control rings, and what else lies in the window. */
#define PY_SSIZE_T_CLEAN
#include "bootstrap.h"

#include <string.h>

#include "carveout/bootstrap.h"
#include "carveout/crash.h"
#include "carveout/token.h"
#include "convert.h"
#include "memory.h"
#include "native.h"

typedef struct {
    PyObject ob_base;
    Memory *window; /* strong */
    struct sbe_bootstrap bootstrap;
} Bootstrap;

static bool is_window(const Memory *window)
{
    if (window->size >= SBE_CARVEOUT_WINDOW_MIN && !window->readonly)
        return true;
    (void)native_raise(SBE_EINVAL, false, "a window of %llu bytes: at least %u are needed",
                       (unsigned long long)window->size, SBE_CARVEOUT_WINDOW_MIN);
    return false;
}

static PyObject *bootstrap_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"window", "seed", "role", NULL};
    Memory *window;
    uint32_t seed, role = SBE_ROLE_HOST;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O!O&|O&", names, Memory_Type, &window,
                                     native_as_u32, &seed, native_as_u32, &role))
        return NULL;
    if (!is_window(window))
        return NULL;
    Bootstrap *self = (Bootstrap *)PyType_GenericAlloc(type, 0);
    if (self == NULL)
        return NULL;
    native_hold(window);
    self->window = window;
    int status = sbe_bootstrap_start(&self->bootstrap, window->base, (enum sbe_role)role, seed);
    if (status < 0) {
        native_drop(self);
        return native_raise(status, false, "the window is not aligned");
    }
    return (PyObject *)self;
}

static void bootstrap_dealloc(PyObject *object)
{
    Bootstrap *self = (Bootstrap *)object;
    PyTypeObject *type = Py_TYPE(object);
    native_drop(self->window);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* Our block is whole, and somebody else's: both would write it, and the rings, in turn. */
static bool is_taken(const struct sbe_bootstrap *bootstrap)
{
    struct sbe_carveout_block own;
    sbe_snapshot(&own, bootstrap->own, sizeof own);
    return own.generation != 0 && own.generation != bootstrap->generation &&
           own.check == ~own.generation && own.magic == SBE_CARVEOUT_MAGIC;
}

static PyObject *bootstrap_look(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(sbe_bootstrap_look(&((Bootstrap *)object)->bootstrap));
}

static PyObject *bootstrap_send(PyObject *object, PyObject *message)
{
    Bootstrap *self = (Bootstrap *)object;
    Py_buffer view;
    if (PyObject_GetBuffer(message, &view, PyBUF_SIMPLE) < 0)
        return NULL;
    int status = SBE_EMSGSIZE;
    if (view.len <= (Py_ssize_t)SBE_CONTROL_MAX)
        status = sbe_bootstrap_send(&self->bootstrap, view.buf, (uint32_t)view.len);
    PyBuffer_Release(&view);
    /* Asks for a doorbell in the same step, so that the caller may go to sleep on it. */
    if (status == SBE_EAGAIN && sbe_bootstrap_room(&self->bootstrap, 1) > 0)
        return bootstrap_send(object, message);
    if (status < 0)
        return native_raise(status, false, "the control ring");
    return PyBool_FromLong(status);
}

/* (message or None, ring the peer) */
static PyObject *bootstrap_receive(PyObject *object, PyObject *unused)
{
    Bootstrap *self = (Bootstrap *)object;
    uint64_t message[SBE_CONTROL_MAX / sizeof(uint64_t)];
    bool ring_peer;
    (void)unused;
    int size = sbe_bootstrap_receive(&self->bootstrap, message, &ring_peer);
    if (size < 0)
        return native_raise(size, false,
                            size == SBE_EBADMSG ? "control message of impossible size"
                                                : "the other end published a control ring's index "
                                                  "that can't be");
    if (size == 0)
        return Py_BuildValue("(OO)", Py_None, ring_peer ? Py_True : Py_False);
    return Py_BuildValue("(y#O)", (const char *)message, (Py_ssize_t)size,
                         ring_peer ? Py_True : Py_False);
}

/* Our block says something new since the last call. */
static PyObject *bootstrap_changed(PyObject *object, PyObject *unused)
{
    Bootstrap *self = (Bootstrap *)object;
    bool changed = self->bootstrap.changed;
    (void)unused;
    self->bootstrap.changed = false;
    return PyBool_FromLong(changed);
}

static PyObject *text(const char *field, size_t size)
{
    size_t length = 0;
    while (length < size && field[length] != '\0')
        length++;
    return PyUnicode_DecodeUTF8(field, (Py_ssize_t)length, "replace");
}

static PyObject *bootstrap_info(PyObject *object, PyObject *unused)
{
    struct sbe_carveout_info info;
    (void)unused;
    sbe_snapshot(&info, ((Bootstrap *)object)->window->base + SBE_CARVEOUT_INFO, sizeof info);
    if (info.magic != SBE_CARVEOUT_MAGIC || info.check != SBE_CARVEOUT_SUM(&info))
        return Py_BuildValue("");
    PyObject *regions = PyList_New(0);
    for (uint32_t i = 0; regions != NULL && i < SBE_CARVEOUT_OFFERS; i++) {
        const struct sbe_carveout_region *region = &info.regions[i];
        if (region->name[0] == '\0')
            continue;
        PyObject *entry = Py_BuildValue("(NII)", text(region->name, sizeof region->name),
                                        region->offset, region->size);
        if (entry == NULL || PyList_Append(regions, entry) < 0)
            Py_CLEAR(regions);
        Py_XDECREF(entry);
    }
    if (regions == NULL)
        return NULL;
    return Py_BuildValue("{s:K,s:K,s:N,s:N,s:N}", "window_address",
                         (unsigned long long)info.window_address, "window_size",
                         (unsigned long long)info.window_size, "board",
                         text(info.board, sizeof info.board), "image",
                         text(info.image, sizeof info.image), "regions", regions);
}

static bool put_text(char *field, size_t size, const char *value)
{
    size_t length = strlen(value);
    if (length >= size)
        return native_raise(SBE_EINVAL, false, "a name of at most %u bytes is shown, not %s",
                            (unsigned)size - 1, value) != NULL;
    memset(field, 0, size);
    memcpy(field, value, length);
    return true;
}

/* The remote's word on itself; it offers no regions. */
PyObject *native_describe_window(PyObject *module, PyObject *arguments)
{
    struct sbe_carveout_info info = {0};
    Memory *window;
    const char *board, *image;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "O!O&ss", Memory_Type, &window, native_as_u64,
                          &info.window_address, &board, &image) ||
        !is_window(window) || !put_text(info.board, sizeof info.board, board) ||
        !put_text(info.image, sizeof info.image, image))
        return NULL;
    info.window_size = window->size;
    info.check = SBE_CARVEOUT_SUM(&info);
    info.magic = SBE_CARVEOUT_MAGIC;
    memcpy(window->base + SBE_CARVEOUT_INFO, &info, sizeof info);
    Py_RETURN_NONE;
}

static PyObject *backtrace(const struct sbe_crash_record *record)
{
    Py_ssize_t count = 0;
    while (count < (Py_ssize_t)SBE_CRASH_BACKTRACE && record->backtrace[count] != 0)
        count++;
    PyObject *addresses = PyTuple_New(count);
    for (Py_ssize_t i = 0; addresses != NULL && i < count; i++) {
        PyObject *address = PyLong_FromUnsignedLong(record->backtrace[i]);
        if (address == NULL || PyTuple_SetItem(addresses, i, address) < 0)
            Py_CLEAR(addresses);
    }
    return addresses;
}

static PyObject *crash_in(const Memory *window)
{
    struct sbe_crash_record record;
    if (!sbe_crash_read(window->base, &record))
        return Py_BuildValue("");
    const uint32_t *r = record.registers, *f = record.fault_status;
    return Py_BuildValue(
        "{s:s,s:I,s:N,s:N,s:K,s:I,s:N,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}",
        "kind", sbe_crash_kind_name(&record), "exception", record.exception, "text",
        text(record.text, sizeof record.text), "service",
        text(record.service, sizeof record.service), "transaction",
        (unsigned long long)record.transaction, "context", record.context, "backtrace",
        backtrace(&record), "r0", r[0], "r1", r[1], "r2", r[2], "r3", r[3], "r12", r[4], "lr", r[5],
        "pc", r[6], "xpsr", r[7], "sp", record.stack_pointer, "cfsr", f[0], "hfsr", f[1], "mmfar",
        f[2], "bfar", f[3], "sfsr", f[4], "sfar", f[5]);
}

static PyObject *bootstrap_crash(PyObject *object, PyObject *unused)
{
    (void)unused;
    return crash_in(((const Bootstrap *)object)->window);
}

PyObject *native_read_crash(PyObject *module, PyObject *window)
{
    (void)module;
    if (!PyObject_TypeCheck(window, Memory_Type) ||
        ((Memory *)window)->size < SBE_CARVEOUT_WINDOW_MIN)
        return native_raise(SBE_EINVAL, false, "not the Memory of a window");
    return crash_in((Memory *)window);
}

static PyObject *bootstrap_get(PyObject *object, void *which)
{
    Bootstrap *self = (Bootstrap *)object;
    switch (*(const char *)which) {
    case 'r':
        return PyBool_FromLong(self->bootstrap.state == SBE_BOOTSTRAP_READY);
    case 'g':
        return PyLong_FromUnsignedLong(self->bootstrap.generation);
    case 't':
        return PyBool_FromLong(is_taken(&self->bootstrap));
    case 'p':
        return PyLong_FromUnsignedLong(self->bootstrap.peer_generation);
    default:
        return PyLong_FromUnsignedLong(sbe_bootstrap_other_version(&self->bootstrap));
    }
}

static PyMethodDef BOOTSTRAP_METHODS[] = {
    {"look", bootstrap_look, METH_NOARGS,
     "Looks at the peer's block: 0, 1 ready, or -ECONNRESET. Not when it is `taken`."},
    {"send", bootstrap_send, METH_O, "Sends a message. True: ring the peer."},
    {"receive", bootstrap_receive, METH_NOARGS, "(message or None, ring the peer)"},
    {"changed", bootstrap_changed, METH_NOARGS, "Our block says something new: ring the peer."},
    {"info", bootstrap_info, METH_NOARGS, "What the remote says of itself, or None."},
    {"crash", bootstrap_crash, METH_NOARGS, "The remote's crash record, or None."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef BOOTSTRAP_GETSET[] = {
    {"ready", bootstrap_get, NULL, "the rings may be used", "r"},
    {"generation", bootstrap_get, NULL, "of this end", "g"},
    {"taken", bootstrap_get, NULL, "another process has this end's block", "t"},
    {"peer_generation", bootstrap_get, NULL, "of the peer, 0 none", "p"},
    {"other_version", bootstrap_get, NULL, "the peer's layout version if it is another", "v"},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot BOOTSTRAP_SLOTS[] = {
    {Py_tp_doc, "Bootstrap(window, seed, role=ROLE_HOST)\n--\n\n"
                "One end of the control rings in a window of shared RAM."},
    {Py_tp_new, bootstrap_new},
    {Py_tp_dealloc, bootstrap_dealloc},
    {Py_tp_methods, BOOTSTRAP_METHODS},
    {Py_tp_getset, BOOTSTRAP_GETSET},
    {0, NULL},
};

static PyType_Spec BOOTSTRAP_SPEC = {
    .name = "sbe._native.Bootstrap",
    .basicsize = sizeof(Bootstrap),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = BOOTSTRAP_SLOTS,
};

static PyTypeObject *Bootstrap_Type;

int native_bootstrap_init(PyObject *module)
{
    static const struct {
        const char *name;
        long value;
    } constants[] = {
        {"CARVEOUT_REGIONS", SBE_CARVEOUT_REGIONS},
        {"CARVEOUT_ARENA", SBE_CARVEOUT_ARENA},
        {"CARVEOUT_WINDOW_MIN", SBE_CARVEOUT_WINDOW_MIN},
        {"CARVEOUT_VERSION", SBE_CARVEOUT_VERSION},
        {"CARVEOUT_REMOTE", SBE_CARVEOUT_REMOTE},
        {"TOKEN_CONTROL", SBE_TOKEN_EVENT(SBE_TOKEN_CONTROL)},
        {"TOKEN_BLOCK", SBE_TOKEN_EVENT(SBE_TOKEN_BLOCK)},
        {"TOKEN_CRASHED", SBE_TOKEN_EVENT(SBE_TOKEN_CRASHED)},
        {"TOKEN_GOODBYE", SBE_TOKEN_EVENT(SBE_TOKEN_GOODBYE)},
    };
    for (size_t i = 0; i < sizeof constants / sizeof constants[0]; i++)
        if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0)
            return -1;
    return native_add_type(module, &BOOTSTRAP_SPEC, &Bootstrap_Type);
}
