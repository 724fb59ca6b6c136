/* SPDX-License-Identifier: Apache-2.0 */
/* In, Out, InOut, Shared: a target and the direction seen from the remote. */
#include "buffer.h"

#include <string.h>

#include "core/status.h"
#include "core/wire.h"
#include "memory.h"

PyTypeObject *Buffer_Type;
static PyTypeObject *In_Type, *Out_Type, *InOut_Type, *Shared_Type;

/* -- what may be shown to the other end ----------------------------------------------------- */

/*
 * PEP 3118: names stand between colons. O is a Python object, & and X a pointer, z and Z one to
 * text, but Zf, Zd and Zg are complex numbers.
 */
static bool has_pointers(const char *format)
{
    if (format == NULL || format[0] == '\0')
        return false;
    if (format[1] == '\0') /* most: one letter */
        return strchr("O&zZ", format[0]) != NULL;
    for (const char *at = format; (at = strpbrk(at, ":O&zZX")) != NULL; at++) {
        if (*at == 'Z' && at[1] != '\0' && strchr("efdgFDG", at[1]) != NULL)
            continue;
        if (*at != ':')
            return true;
        if ((at = strchr(at + 1, ':')) == NULL)
            return false;
    }
    return false;
}

/* For memory whose format can't be said, such as numpy's dates. -1 raised. */
static int has_objects(PyObject *target)
{
    PyObject *dtype = PyObject_GetAttrString(target, "dtype");
    PyObject *has = dtype == NULL ? NULL : PyObject_GetAttrString(dtype, "hasobject");
    int objects = has == NULL ? -1 : PyObject_IsTrue(has);
    Py_XDECREF(dtype);
    Py_XDECREF(has);
    if (objects >= 0 || !PyErr_ExceptionMatches(PyExc_AttributeError))
        return objects;
    PyErr_Clear(); /* no array of numpy's: its exporter shows it as bytes */
    return 0;
}

enum native_shown native_show_bytes(PyObject *target, Py_buffer *view, bool writes)
{
    int writable = writes ? PyBUF_WRITABLE : 0;
    int pointers;
    if (PyObject_GetBuffer(target, view, PyBUF_ND | PyBUF_FORMAT | writable) == 0) {
        pointers = has_pointers(view->format);
    } else {
        if (!PyErr_ExceptionMatches(PyExc_ValueError) && !PyErr_ExceptionMatches(PyExc_BufferError))
            return SHOWN_NOT;
        PyErr_Clear();
        if (PyObject_GetBuffer(target, view, PyBUF_SIMPLE | writable) < 0)
            return SHOWN_NOT;
        pointers = has_objects(target);
    }
    if (pointers == 0)
        return SHOWN;
    if (pointers > 0)
        native_raise(SBE_EINVAL, false,
                     "this memory holds Python objects or pointers (its format is %s), which mean "
                     "nothing at the other end: give numbers or bytes, as from array.astype()",
                     view->format == NULL ? "not known" : view->format);
    PyBuffer_Release(view);
    return SHOWN_REFUSED;
}

/* -- the objects --------------------------------------------------------------------------- */

static PyObject *make(PyTypeObject *type, PyObject *arguments, PyObject *keywords,
                      uint8_t direction)
{
    static char *names[] = {"", NULL}; /* by position only */
    PyObject *target;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O", names, &target))
        return NULL;
    if (PyObject_TypeCheck(target, Buffer_Type))
        return native_raise(SBE_EINVAL, false, "a buffer of a buffer");
    if (!PyObject_CheckBuffer(target)) {
        PyErr_SetString(PyExc_TypeError, "a buffer is an area, a slice of one, a numpy array, "
                                         "bytes or another object with the buffer protocol");
        return NULL;
    }
    Buffer *self = (Buffer *)PyType_GenericAlloc(type, 0);
    if (self == NULL)
        return NULL;
    Py_INCREF(target);
    self->target = target;
    self->direction = direction;
    return (PyObject *)self;
}

static PyObject *in_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    return make(type, arguments, keywords, SBE_DIR_IN);
}

static PyObject *out_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    return make(type, arguments, keywords, SBE_DIR_OUT);
}

static PyObject *inout_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    return make(type, arguments, keywords, SBE_DIR_INOUT);
}

static PyObject *shared_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    return make(type, arguments, keywords, SBE_DIR_SHARED);
}

static void buffer_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    Py_XDECREF(((Buffer *)object)->target);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyObject *buffer_get(PyObject *object, void *which)
{
    Buffer *self = (Buffer *)object;
    if (*(const char *)which == 'd')
        return PyLong_FromLong(self->direction);
    Py_INCREF(self->target);
    return self->target;
}

/* The target's memory as plain bytes, whatever type and shape its elements have. */
static int buffer_getbuffer(PyObject *object, Py_buffer *view, int flags)
{
    static char format[] = "B";
    bool writes = (flags & PyBUF_WRITABLE) != 0;
    if (native_show_bytes(((Buffer *)object)->target, view, writes) != SHOWN) {
        view->obj = NULL;
        return -1;
    }
    view->ndim = 1;
    view->itemsize = 1;
    view->format = (flags & PyBUF_FORMAT) != 0 ? format : NULL;
    view->shape = (flags & PyBUF_ND) != 0 ? &view->len : NULL;
    view->strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES ? &view->itemsize : NULL;
    view->suboffsets = NULL;
    return 0;
}

/* Areas and slices say what they are; of other memory only kind and size, it may be anything. */
static PyObject *buffer_repr(PyObject *object)
{
    Buffer *self = (Buffer *)object;
    static const char *const DIRECTIONS[] = {"", "In", "Out", "InOut", "Shared"};
    static_assert(SBE_DIR_IN == 1 && SBE_DIR_OUT == 2 && SBE_DIR_INOUT == 3 && SBE_DIR_SHARED == 4,
                  "the words are in this order");
    const char *direction = DIRECTIONS[self->direction];
    if (PyObject_TypeCheck(self->target, Memory_Type) ||
        PyObject_TypeCheck(self->target, Slice_Type))
        return PyUnicode_FromFormat("sbe.%s(%R)", direction, self->target);
    PyObject *kind = PyObject_GetAttrString((PyObject *)Py_TYPE(self->target), "__name__");
    Py_buffer view;
    PyObject *text = NULL;
    if (kind != NULL && PyObject_GetBuffer(self->target, &view, PyBUF_FULL_RO) == 0) {
        text = PyUnicode_FromFormat("sbe.%s(<%zd bytes of %U>)", direction, view.len, kind);
        PyBuffer_Release(&view);
    } else if (kind != NULL) {
        PyErr_Clear();
        text = PyUnicode_FromFormat("sbe.%s(<%U>)", direction, kind);
    }
    Py_XDECREF(kind);
    return text;
}

static PyGetSetDef BUFFER_GETSET[] = {
    {"target", buffer_get, NULL, "what was given", "t"},
    {"direction", buffer_get, NULL, "DIR_IN, DIR_OUT, DIR_INOUT or DIR_SHARED", "d"},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef BUFFER_METHODS[] = {
    NATIVE_NOT_COPIED,
    {NULL, NULL, 0, NULL},
};

static PyType_Slot BUFFER_SLOTS[] = {
    {Py_tp_doc, "A buffer of a message: a target and a direction."},
    {Py_tp_dealloc, buffer_dealloc},
    {Py_tp_methods, BUFFER_METHODS},
    {Py_tp_getset, BUFFER_GETSET},
    {Py_tp_repr, buffer_repr},
    {Py_bf_getbuffer, buffer_getbuffer},
    {0, NULL},
};

static PyType_Spec BUFFER_SPEC = {
    .name = "sbe._native.Buffer",
    .basicsize = sizeof(Buffer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = BUFFER_SLOTS,
};

static int add_direction(PyObject *module, const char *name, newfunc new, const char *doc,
                         PyTypeObject **type)
{
    PyType_Slot slots[] = {{Py_tp_doc, (void *)doc}, {Py_tp_new, new}, {0, NULL}};
    PyType_Spec spec = {.name = name, .flags = Py_TPFLAGS_DEFAULT, .slots = slots};
    PyObject *made = PyType_FromSpecWithBases(&spec, (PyObject *)Buffer_Type);
    if (made == NULL)
        return -1;
    *type = (PyTypeObject *)made;
    return PyModule_AddType(module, *type);
}

int native_buffer_init(PyObject *module)
{
    if (native_add_type(module, &BUFFER_SPEC, &Buffer_Type) < 0)
        return -1;
    if (add_direction(module, "sbe._native.In", in_new, "In(target)\n--\n\nThe remote reads it.",
                      &In_Type) < 0 ||
        add_direction(module, "sbe._native.Out", out_new,
                      "Out(target)\n--\n\nThe remote writes it.", &Out_Type) < 0 ||
        add_direction(module, "sbe._native.InOut", inout_new,
                      "InOut(target)\n--\n\nThe remote reads and writes it.", &InOut_Type) < 0)
        return -1;
    return add_direction(
        module, "sbe._native.Shared", shared_new,
        "Shared(target)\n--\n\nBoth ends read and write it at once; coherent memory only.",
        &Shared_Type);
}
