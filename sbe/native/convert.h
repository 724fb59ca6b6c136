/* SPDX-License-Identifier: Apache-2.0 */
/* Checked integers for PyArg_Parse*'s O&. */
#ifndef SBE_NATIVE_CONVERT_H
#define SBE_NATIVE_CONVERT_H

#include <Python.h>

int native_as_u16(PyObject *object, void *out);
int native_as_u32(PyObject *object, void *out);
int native_as_u64(PyObject *object, void *out);

#endif
