/* SPDX-License-Identifier: Apache-2.0 */
/* Reply: a call's outcome. Cost: what it cost. */
#include "reply.h"

#include "call.h"
#include "convert.h"
#include "core/status.h"
#include "memory.h"
#include "native.h"

static PyTypeObject *Reply_Type, *Cost_Type;

typedef struct {
    PyObject ob_base;
    Call *call;        /* strong */
    PyObject *service; /* as it was pickled; NULL: the call knows */
} Reply;

PyObject *native_reply_new(Call *call)
{
    Reply *self = (Reply *)PyType_GenericAlloc(Reply_Type, 0);
    if (self == NULL)
        return NULL;
    native_hold(call);
    self->call = call;
    return (PyObject *)self;
}

static PyObject *reply_cost(const Call *call)
{
    const unsigned long long values[] = {
        call->copied,    call->synced,     call->doorbells,
        call->waited_ns, call->handled_ns, call->ended_ns - call->started_ns,
    };
    PyObject *cost = PyStructSequence_New(Cost_Type);
    for (Py_ssize_t i = 0; cost != NULL && i < 6; i++) {
        PyObject *value = PyLong_FromUnsignedLongLong(values[i]);
        if (value == NULL)
            Py_CLEAR(cost);
        else
            PyStructSequence_SetItem(cost, i, value);
    }
    return cost;
}

static PyObject *reply_written(const Call *call)
{
    PyObject *sizes = PyList_New(0), *tuple;
    for (uint32_t i = 0; sizes != NULL && i < call->buffer_count; i++) {
        if (call->asked[i].direction == SBE_DIR_IN)
            continue;
        PyObject *size = PyLong_FromUnsignedLongLong(call->asked[i].size);
        if (size == NULL || PyList_Append(sizes, size) < 0)
            Py_CLEAR(sizes);
        Py_XDECREF(size);
    }
    if (sizes == NULL)
        return NULL;
    tuple = PyList_AsTuple(sizes);
    Py_DECREF(sizes);
    return tuple;
}

static PyObject *reply_get(PyObject *object, void *which)
{
    const Call *call = ((Reply *)object)->call;
    if (*(const char *)which == 'c')
        return reply_cost(call);
    if (*(const char *)which == 'w')
        return reply_written(call);
    Py_INCREF(call->payload);
    return call->payload;
}

static PyObject *reply_service(const Reply *self)
{
    Py_XINCREF(self->service);
    return self->service != NULL ? self->service : native_call_service(self->call);
}

static PyObject *reply_repr(PyObject *object)
{
    const Call *call = ((Reply *)object)->call;
    PyObject *name = reply_service((Reply *)object), *text;
    if (name == NULL)
        return NULL;
    text = PyUnicode_FromFormat("<sbe.Reply of service %R: %zd bytes of payload, %llu us>", name,
                                PyBytes_Size(call->payload),
                                (unsigned long long)(call->ended_ns - call->started_ns) / 1000);
    Py_DECREF(name);
    return text;
}

/* -- pickling: a reply is plain data --------------------------------------------------------- */

static PyObject *reply_reduce(PyObject *object, PyObject *unused)
{
    const Call *call = ((Reply *)object)->call;
    (void)unused;
    PyObject *module = PyImport_ImportModule("sbe._native");
    PyObject *restore = module == NULL ? NULL : PyObject_GetAttrString(module, "restore_reply");
    Py_XDECREF(module);
    PyObject *written = restore == NULL ? NULL : reply_written(call);
    PyObject *cost = written == NULL ? NULL : reply_cost(call);
    PyObject *service = cost == NULL ? NULL : reply_service((Reply *)object);
    if (service == NULL) {
        Py_XDECREF(cost);
        Py_XDECREF(written);
        Py_XDECREF(restore);
        return NULL;
    }
    return Py_BuildValue("N(NONN)", restore, service, call->payload, written, cost);
}

/* A call that has ended, of no channel. */
static Call *restore_call(Py_ssize_t buffers)
{
    Call *call = (Call *)PyType_GenericAlloc(Call_Type, 0);
    if (call == NULL)
        return NULL;
    call->state = CALL_DONE;
    call->asked = call->few_asked;
    call->held = call->few_held;
    if (buffers > 2) {
        call->asked = PyMem_Calloc((size_t)buffers, sizeof *call->asked);
        call->held = PyMem_Calloc((size_t)buffers, sizeof(Memory *));
    }
    if (call->asked != NULL && call->held != NULL) {
        call->buffer_count = (uint16_t)buffers;
        return call;
    }
    native_drop(call);
    PyErr_NoMemory();
    return NULL;
}

PyObject *native_restore_reply(PyObject *module, PyObject *arguments)
{
    uint16_t number = 0;
    PyObject *service, *payload, *written, *reply = NULL;
    uint64_t copied, synced, total;
    uint32_t doorbells, waited, handled;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OO!O!(O&O&O&O&O&O&)", &service, &PyBytes_Type, &payload,
                          &PyTuple_Type, &written, native_as_u64, &copied, native_as_u64, &synced,
                          native_as_u32, &doorbells, native_as_u32, &waited, native_as_u32,
                          &handled, native_as_u64, &total) ||
        (!PyUnicode_CheckExact(service) && !native_as_u16(service, &number)))
        return NULL;
    Py_ssize_t count = PyTuple_Size(written);
    if (count > SBE_BUFFERS_MAX)
        return native_raise(SBE_EINVAL, false, "a reply of %zd buffers", count);
    Call *call = restore_call(count);
    if (call == NULL)
        return NULL;
    bool well = true;
    for (Py_ssize_t i = 0; i < count && well; i++) {
        call->asked[i].direction = SBE_DIR_OUT;
        well = native_as_u64(PyTuple_GetItem(written, i), &call->asked[i].size) != 0;
    }
    Py_INCREF(payload);
    call->payload = payload;
    call->open.service = number;
    call->copied = copied;
    call->synced = synced;
    call->doorbells = doorbells;
    call->waited_ns = waited;
    call->handled_ns = handled;
    call->ended_ns = total;
    if (well)
        reply = native_reply_new(call);
    if (reply != NULL) {
        Py_INCREF(service);
        ((Reply *)reply)->service = service;
    }
    native_drop(call);
    return reply;
}

static int reply_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT((PyObject *)Py_TYPE(object));
    Py_VISIT((PyObject *)((Reply *)object)->call);
    Py_VISIT(((Reply *)object)->service);
    return 0;
}

static void reply_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    native_drop(((Reply *)object)->call);
    Py_XDECREF(((Reply *)object)->service);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyGetSetDef REPLY_GETSET[] = {
    {"payload", reply_get, NULL, "bytes of the response", "p"},
    {"cost", reply_get, NULL, "what the transaction cost, a Cost", "c"},
    {"written", reply_get, NULL, "bytes really written, per Out, InOut and Shared buffer", "w"},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef REPLY_METHODS[] = {
    {"__reduce__", reply_reduce, METH_NOARGS, "For pickle: plain data."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot REPLY_SLOTS[] = {
    {Py_tp_doc, "What a service answered."},
    {Py_tp_dealloc, reply_dealloc},
    {Py_tp_traverse, reply_traverse},
    {Py_tp_repr, reply_repr},
    {Py_tp_methods, REPLY_METHODS},
    {Py_tp_getset, REPLY_GETSET},
    {0, NULL},
};

static PyType_Spec REPLY_SPEC = {
    .name = "sbe._native.Reply",
    .basicsize = sizeof(Reply),
    .flags = NATIVE_COLLECTED | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = REPLY_SLOTS,
};

static PyStructSequence_Field COST_FIELDS[] = {
    {"copied_bytes", "copied by this end: inline and staged data"},
    {"synced_bytes", "of cache maintenance at this end"},
    {"doorbells", "rung by this end for it"},
    {"queue_ns", "waited at the remote before its handler began, by the remote's clock"},
    {"remote_ns", "spent in the handler, by the remote's clock"},
    {"total_ns", "from sent to answered, by this end's clock"},
    {NULL, NULL},
};

static PyStructSequence_Desc COST = {
    .name = "sbe.Cost",
    .doc = "What one transaction cost.",
    .fields = COST_FIELDS,
    .n_in_sequence = 6,
};

int native_reply_init(PyObject *module)
{
    Cost_Type = PyStructSequence_NewType(&COST);
    if (Cost_Type == NULL || PyModule_AddObjectRef(module, "Cost", (PyObject *)Cost_Type) < 0)
        return -1;
    return native_add_type(module, &REPLY_SPEC, &Reply_Type);
}
