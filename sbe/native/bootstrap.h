/* SPDX-License-Identifier: Apache-2.0 */
/* The bootstrap of a carve-out link. */
#ifndef SBE_NATIVE_BOOTSTRAP_H
#define SBE_NATIVE_BOOTSTRAP_H

#include <Python.h>

int native_bootstrap_init(PyObject *module);
/* The crash record of the remote's life that is there now, or None. */
PyObject *native_read_crash(PyObject *module, PyObject *window);
/* A remote's word on itself and its window: (window, address, board, image). */
PyObject *native_describe_window(PyObject *module, PyObject *arguments);

#endif
