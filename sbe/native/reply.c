/* SPDX-License-Identifier: Apache-2.0 */
/* Reply: a call's outcome. Cost: what it cost. */
#include "native.h"

#include "core/status.h"

static PyTypeObject *Reply_Type, *Cost_Type;

typedef struct {
    PyObject ob_base;
    Call *call; /* strong */
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

static PyObject *reply_repr(PyObject *object)
{
    const Call *call = ((Reply *)object)->call;
    return PyUnicode_FromFormat("<Reply of service %u: %zd bytes of payload, %llu us>",
                                (unsigned)call->service, PyBytes_Size(call->payload),
                                (unsigned long long)(call->ended_ns - call->started_ns) / 1000);
}

static int reply_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT((PyObject *)Py_TYPE(object));
    Py_VISIT((PyObject *)((Reply *)object)->call);
    return 0;
}

static void reply_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    native_drop(((Reply *)object)->call);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyGetSetDef REPLY_GETSET[] = {
    {"payload", reply_get, NULL, "bytes of the response", "p"},
    {"cost", reply_get, NULL, "what the transaction cost, a Cost", "c"},
    {"written", reply_get, NULL, "bytes really written, per Out, InOut and Shared buffer", "w"},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot REPLY_SLOTS[] = {
    {Py_tp_doc, "What a service answered."},
    {Py_tp_dealloc, reply_dealloc},
    {Py_tp_traverse, reply_traverse},
    {Py_tp_repr, reply_repr},
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
