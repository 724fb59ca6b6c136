/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers, checked: Python's own formats H, I and K cut off what does not fit. */
#include "convert.h"

#include "core/status.h"
#include "native.h"

static int as_unsigned(PyObject *object, unsigned long long max, unsigned long long *value)
{
    *value = PyLong_AsUnsignedLongLong(object);
    if (*value == (unsigned long long)-1 && PyErr_Occurred() != NULL) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError))
            return 0;
        PyErr_Clear();
    } else if (*value <= max) {
        return 1;
    }
    (void)native_raise(SBE_EINVAL, false, "%R is not between 0 and %llu", object, max);
    return 0;
}

int native_as_u16(PyObject *object, void *out)
{
    unsigned long long value;
    if (!as_unsigned(object, UINT16_MAX, &value))
        return 0;
    *(uint16_t *)out = (uint16_t)value;
    return 1;
}

int native_as_u32(PyObject *object, void *out)
{
    unsigned long long value;
    if (!as_unsigned(object, UINT32_MAX, &value))
        return 0;
    *(uint32_t *)out = (uint32_t)value;
    return 1;
}

int native_as_u64(PyObject *object, void *out)
{
    unsigned long long value;
    if (!as_unsigned(object, UINT64_MAX, &value))
        return 0;
    *(uint64_t *)out = value;
    return 1;
}
