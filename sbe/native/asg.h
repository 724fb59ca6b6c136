/* SPDX-License-Identifier: Apache-2.0 */
/* AsgClient, AsgServer: the ends of an Address Space Graphics stream. */
#ifndef SBE_NATIVE_ASG_H
#define SBE_NATIVE_ASG_H

#include "native.h"

int native_asg_init(PyObject *module);

#endif
