/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every file of the extension has: Python, references, exceptions. Each object has a header of
 * its own, which shows what others need of it. Limited API, floor 3.11.
 */
#ifndef SBE_NATIVE_H
#define SBE_NATIVE_H

#include <Python.h>

#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

/* The limited API wants PyObject pointers; NULL may be dropped. */
#define native_hold(object) Py_INCREF((PyObject *)(object))
#define native_drop(object) Py_XDECREF((PyObject *)(object))

/*
 * What the collector sees: Channel, Call, Reply, Request and Session, among which and the user's
 * callbacks cycles are likely. Memory, Slice and Table name nothing that leads back (a subclass in
 * Python is seen by itself), a Buffer is gone when its call has been sent.
 */
#define NATIVE_COLLECTED (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC)

PyMODINIT_FUNC PyInit__native(void);

/* Raises the sbe.errors exception for a negative status; `remote`: a service answered it. NULL. */
PyObject *native_raise(int status, bool remote, const char *format, ...);
/* Raises a copy of an exception that is kept, see sbe.errors.fresh_copy(). NULL. */
PyObject *native_raise_again(PyObject *error);
/* Monotonic time, ns. */
uint64_t native_now_ns(void *unused);
/* Closes it, if it is one, and forgets it. */
static inline void native_close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}
/* Creates a heap type from a spec and adds it to the module. 0 or -1. */
int native_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type);

/* __reduce__() of what belongs to this process: raises. For a table of methods. */
PyObject *native_not_copied(PyObject *object, PyObject *unused);
#define NATIVE_NOT_COPIED                                                                  \
    {                                                                                      \
        "__reduce__", native_not_copied, METH_NOARGS, "Raises: it belongs to its process." \
    }

#endif
