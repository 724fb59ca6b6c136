/* SPDX-License-Identifier: Apache-2.0 */
/* Methods of Channel: one call. */
#ifndef SBE_NATIVE_CHANNEL_CALL_H
#define SBE_NATIVE_CHANNEL_CALL_H

#include <Python.h>

PyObject *native_channel_submit(PyObject *object, PyObject *const *given, Py_ssize_t count);
PyObject *native_channel_call(PyObject *object, PyObject *const *given, Py_ssize_t count);
PyObject *native_channel_sync(PyObject *object, PyObject *const *given, Py_ssize_t count);
PyObject *native_channel_send(PyObject *object, PyObject *const *given, Py_ssize_t count);

#endif
