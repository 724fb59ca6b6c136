/* SPDX-License-Identifier: Apache-2.0 */
/* Session, the control protocol of one link; and what its files share. */
#ifndef SBE_NATIVE_SESSION_H
#define SBE_NATIVE_SESSION_H

#include <Python.h>

#include <stdbool.h>

#include "core/session.h"

#define SEGMENTS_MAX ((SBE_CONTROL_MAX - sizeof(struct sbe_area_map)) / sizeof(struct sbe_segment))

typedef struct {
    PyObject ob_base;
    PyObject *handler; /* strong; NULL once collected */
    PyObject *failure; /* strong: what a hook of the running method raised, or NULL */
    struct sbe_port port;
    struct sbe_session_hooks hooks;
    struct sbe_session_config config;
    struct sbe_session session;
    struct sbe_limits peer_limits; /* of the last HELLO seen */
    char name[SBE_NAME_SIZE];
    char peer_name[SBE_NAME_SIZE]; /* of the last HELLO seen */
} Session;

int native_session_init(PyObject *module);

/* -- session_hooks.c -- */

void session_set_hooks(Session *self);
/* Begins a method: hooks may call methods in turn, and each method raises what its own hooks did.
 * Returns what session_leave() wants back. */
PyObject *session_enter(Session *self);
/* Ends a method. False: an exception is set. */
bool session_leave(Session *self, PyObject *outer);
/* A name from the wire: never trusted to end, nor to be UTF-8. */
PyObject *session_wire_name(const char *name);
/* Raises BadArgument for a name that the wire can't carry. */
bool session_set_name(char *field, const char *name, Py_ssize_t size);

/* -- session_methods.c -- */

extern PyMethodDef SESSION_METHODS[];

#endif
