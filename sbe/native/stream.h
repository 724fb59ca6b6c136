/* SPDX-License-Identifier: Apache-2.0 */
/* StreamBlock: where both ends of a stream show how far they are. */
#ifndef SBE_NATIVE_STREAM_H
#define SBE_NATIVE_STREAM_H

#include "native.h"

int native_stream_init(PyObject *module);

#endif
