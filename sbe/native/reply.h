/* SPDX-License-Identifier: Apache-2.0 */
/* Reply, what a call came to. */
#ifndef SBE_NATIVE_REPLY_H
#define SBE_NATIVE_REPLY_H

#include "call.h"

int native_reply_init(PyObject *module);
PyObject *native_reply_new(Call *call); /* of a call that is done */
PyObject *native_restore_reply(PyObject *module, PyObject *arguments);

#endif
