/* SPDX-License-Identifier: Apache-2.0 */
/* In, Out, InOut, Shared. */
#ifndef SBE_NATIVE_BUFFER_H
#define SBE_NATIVE_BUFFER_H

#include "native.h"

typedef struct {
    PyObject ob_base;
    PyObject *target; /* strong: Memory, Slice or anything with the buffer protocol */
    uint8_t direction;
} Buffer;

extern PyTypeObject *Buffer_Type;
int native_buffer_init(PyObject *module);

enum native_shown {
    SHOWN = 0,
    SHOWN_NOT,    /* the exporter's own error was raised */
    SHOWN_REFUSED /* BadArgument was raised: its bytes are pointers of this process */
};
/* The target's memory as plain bytes, to be read or written by the other end. */
enum native_shown native_show_bytes(PyObject *target, Py_buffer *view, bool writes);

#endif
