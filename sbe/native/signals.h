/* SPDX-License-Identifier: Apache-2.0 */
/* SignalsHeld. */
#ifndef SBE_NATIVE_SIGNALS_H
#define SBE_NATIVE_SIGNALS_H

#include <Python.h>

int native_signals_init(PyObject *module);

#endif
