/* SPDX-License-Identifier: Apache-2.0 */
/* Doorbells of many channels, over one byte stream or an endpoint for each. */
#ifndef SBE_NATIVE_DOORBELLS_H
#define SBE_NATIVE_DOORBELLS_H

#include <Python.h>

int native_doorbells_init(PyObject *module);

#endif
