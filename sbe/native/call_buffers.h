/* SPDX-License-Identifier: Apache-2.0 */
/* What a Call holds until the remote has answered. */
#ifndef SBE_NATIVE_CALL_BUFFERS_H
#define SBE_NATIVE_CALL_BUFFERS_H

#include "call.h"

int native_call_buffers_init(PyObject *module);
/* Takes a Buffer object as buffer i. 0, 1 if it must be staged, -1 raised. */
int native_call_use(Call *call, uint32_t i, PyObject *item);
/* 0: room in one frame for everything, there and back; 1: not unless staged; -1 raised. */
int native_call_check_room(const Call *call, Py_ssize_t payload);
void native_call_need_staging(void); /* raises */
void native_call_release(Call *call);
/* The inline ones only, which the remote never had. */
void native_call_release_views(Call *call);

#endif
