/* SPDX-License-Identifier: Apache-2.0 */
/* Many calls at once, a method of Channel. */
#ifndef SBE_NATIVE_BATCH_H
#define SBE_NATIVE_BATCH_H

#include <Python.h>

PyObject *native_batch(PyObject *channel, PyObject *arguments, PyObject *keywords);

#endif
