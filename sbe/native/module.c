/* SPDX-License-Identifier: Apache-2.0 */
#include "native.h"

#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include "asg.h"
#include "asg/layout.h"
#include "asg/stream.h"
#include "bootstrap.h"
#include "buffer.h"
#include "call.h"
#include "channel.h"
#include "convert.h"
#include "core/status.h"
#include "core/version.h"
#include "doorbells.h"
#include "memory.h"
#include "mirror/mirror.h"
#include "reply.h"
#include "request.h"
#include "session.h"
#include "signals.h"
#include "stream.h"
#include "streams/layout.h"
#include "table.h"

uint64_t native_now_ns(void *unused)
{
    struct timespec now;
    (void)unused;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

PyObject *native_raise(int status, bool remote, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    PyObject *message = PyUnicode_FromFormatV(format, arguments);
    va_end(arguments);
    PyObject *errors = message == NULL ? NULL : PyImport_ImportModule("sbe.errors");
    PyObject *make = errors == NULL ? NULL : PyObject_GetAttrString(errors, "from_status");
    PyObject *positional = make == NULL ? NULL : Py_BuildValue("(iO)", status, message);
    PyObject *keyword = positional == NULL ? NULL : Py_BuildValue("{s:i}", "remote", remote);
    PyObject *error = keyword == NULL ? NULL : PyObject_Call(make, positional, keyword);
    if (error != NULL)
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    Py_XDECREF(error);
    Py_XDECREF(keyword);
    Py_XDECREF(positional);
    Py_XDECREF(make);
    Py_XDECREF(errors);
    Py_XDECREF(message);
    return NULL;
}

PyObject *native_raise_again(PyObject *error)
{
    PyObject *errors = PyImport_ImportModule("sbe.errors");
    PyObject *fresh = errors == NULL ? NULL : PyObject_GetAttrString(errors, "fresh_copy");
    PyObject *copy = fresh == NULL ? NULL : PyObject_CallFunctionObjArgs(fresh, error, NULL);
    if (copy != NULL && PyExceptionInstance_Check(copy))
        PyErr_SetObject((PyObject *)Py_TYPE(copy), copy);
    Py_XDECREF(copy);
    Py_XDECREF(fresh);
    Py_XDECREF(errors);
    return NULL;
}

int native_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type)
{
    PyObject *made = PyType_FromSpec(spec);
    if (made == NULL)
        return -1;
    *type = (PyTypeObject *)made; /* the module's types live as long as the process */
    return PyModule_AddType(module, *type);
}

/* -- constants and layout: what Python knows of the wire comes from here -- */

struct constant {
    const char *name;
    long value;
};

static const struct constant CONSTANTS[] = {
    {"VERSION_MIN", SBE_VERSION_MIN},
    {"VERSION_MAX", SBE_VERSION_MAX},
    {"MAGIC", SBE_MAGIC},
    {"ASG_STORAGE", SBE_ASG_STORAGE},
    {"ASG_BUFFER_MAX", SBE_ASG_BUFFER_MAX},
    {"ASG_OPEN", SBE_ASG_OPEN},
    {"ASG_RING", SBE_ASG_RING},
    {"CONTROL_MAX", SBE_CONTROL_MAX},
    {"NAME_SIZE", SBE_NAME_SIZE},
    {"SLOT_ALIGN", SBE_SLOT_ALIGN},
    {"AT_WORK", SBE_AT_WORK},
    {"AT_WORK_BEATS", SBE_AT_WORK_BEATS},
    {"AT_WORK_TRANSACTIONS", SBE_AT_WORK_TRANSACTIONS},
    {"SLOTS_MAX", SBE_SLOTS_MAX},
    {"SLOT_SIZE_MAX", SBE_SLOT_SIZE_MAX},
    {"MIRROR_SLOT_MAX", SBE_MIRROR_SLOT_MAX},
    {"BUFFERS_MAX", SBE_BUFFERS_MAX},
    {"DIR_IN", SBE_DIR_IN},
    {"DIR_OUT", SBE_DIR_OUT},
    {"DIR_INOUT", SBE_DIR_INOUT},
    {"DIR_SHARED", SBE_DIR_SHARED},
    {"BUFFER_INLINE", SBE_BUFFER_INLINE},
    {"AREA_COHERENT", SBE_AREA_COHERENT},
    {"AREA_READONLY", SBE_AREA_READONLY},
    {"AREA_RING", SBE_AREA_RING},
    {"FRAME_HEADER_SIZE", sizeof(struct sbe_wire_frame)},
    {"FRAME_REQUEST", SBE_FRAME_REQUEST},
    {"FRAME_RESPONSE", SBE_FRAME_RESPONSE},
    {"FRAME_MESSAGE", SBE_FRAME_MESSAGE},
    {"FRAME_SYNC", SBE_FRAME_SYNC},
    {"FRAME_EVENT", SBE_FRAME_EVENT},
    {"FRAME_CANCEL", SBE_FRAME_CANCEL},
    {"CONTEXT_OWNER", SBE_CONTEXT_OWNER},
    {"ROLE_HOST", SBE_ROLE_HOST},
    {"ROLE_REMOTE", SBE_ROLE_REMOTE},
    {"EVENT_CHANNEL_BROKEN", SBE_EVENT_CHANNEL_BROKEN},
    {"EVENT_SUSPEND", SBE_EVENT_SUSPEND},
    {"EVENT_RESUME", SBE_EVENT_RESUME},
    {"EVENT_FREQUENCY", SBE_EVENT_FREQUENCY},
    {"EVENT_ANSWERED", SBE_EVENT_ANSWERED},
    {"ANSWERED_SHIFT", SBE_ANSWERED_SHIFT},
    {"CONTROL_REPLY", SBE_CONTROL_REPLY},
    {"CONTROL_HELLO", SBE_CONTROL_HELLO},
    {"CONTROL_BYE", SBE_CONTROL_BYE},
    {"CONTROL_PING", SBE_CONTROL_PING},
    {"CONTROL_CONTEXT_CREATE", SBE_CONTROL_CONTEXT_CREATE},
    {"CONTROL_CONTEXT_DESTROY", SBE_CONTROL_CONTEXT_DESTROY},
    {"CONTROL_AREA_MAP", SBE_CONTROL_AREA_MAP},
    {"CONTROL_AREA_UNMAP", SBE_CONTROL_AREA_UNMAP},
    {"CONTROL_CHANNEL_OPEN", SBE_CONTROL_CHANNEL_OPEN},
    {"CONTROL_CHANNEL_CLOSE", SBE_CONTROL_CHANNEL_CLOSE},
    {"CONTROL_SERVICE_FIND", SBE_CONTROL_SERVICE_FIND},
    {"CONTROL_SERVICE_LIST", SBE_CONTROL_SERVICE_LIST},
    {"CONTROL_EVENT", SBE_CONTROL_EVENT},
    {"STREAM_FORMAT_SIZE", SBE_STREAM_FORMAT_SIZE},
    {"STREAM_STRIDE_MIN", SBE_STREAM_STRIDE_MIN},
    {"STREAM_BUFFER_MAX", SBE_STREAM_BUFFER_MAX},
    {"STREAM_GROUP_MAX", SBE_STREAM_GROUP_MAX},
    {"STREAM_BLOCK_RECORDS", SBE_STREAM_BLOCK_RECORDS},
    {"STREAM_NEGOTIATE", SBE_STREAM_NEGOTIATE},
    {"STREAM_OPEN", SBE_STREAM_OPEN},
    {"STREAM_QUERY", SBE_STREAM_QUERY},
    {"STREAM_PREPARE", SBE_STREAM_PREPARE},
    {"STREAM_START", SBE_STREAM_START},
    {"STREAM_PAUSE", SBE_STREAM_PAUSE},
    {"STREAM_RESUME", SBE_STREAM_RESUME},
    {"STREAM_DRAIN", SBE_STREAM_DRAIN},
    {"STREAM_STOP", SBE_STREAM_STOP},
    {"STREAM_CLOSE", SBE_STREAM_CLOSE},
    {"STREAM_QUEUE_BLOCK", SBE_STREAM_QUEUE_BLOCK},
    {"STREAM_SETUP", SBE_STREAM_SETUP},
    {"STREAM_PREPARED", SBE_STREAM_PREPARED},
    {"STREAM_RUNNING", SBE_STREAM_RUNNING},
    {"STREAM_PAUSED", SBE_STREAM_PAUSED},
    {"STREAM_DRAINING", SBE_STREAM_DRAINING},
    {"STREAM_XRUN", SBE_STREAM_XRUN},
    {"STREAM_SUSPENDED", SBE_STREAM_SUSPENDED},
    {"STREAM_DISCONNECTED", SBE_STREAM_DISCONNECTED},
    {"STREAM_PLAYBACK", SBE_STREAM_PLAYBACK},
    {"STREAM_CAPTURE", SBE_STREAM_CAPTURE},
    {"STREAM_CYCLIC", SBE_STREAM_CYCLIC},
    {"STREAM_ENDLESS", SBE_STREAM_ENDLESS},
    {"STREAM_QUEUE", SBE_STREAM_QUEUE},
    {"STREAM_XRUN_STOPS", SBE_STREAM_XRUN_STOPS},
    {"STREAM_XRUN_GOES_ON", SBE_STREAM_XRUN_GOES_ON},
    {"STREAM_SUSPEND_REFUSED", SBE_STREAM_SUSPEND_REFUSED},
    {"STREAM_SUSPEND_PAUSES", SBE_STREAM_SUSPEND_PAUSES},
    {"STREAM_EVENT_PERIOD", SBE_STREAM_EVENT_PERIOD},
    {"STREAM_EVENT_STATE", SBE_STREAM_EVENT_STATE},
    {"STREAM_EVENT_XRUN", SBE_STREAM_EVENT_XRUN},
};

struct field {
    const char *structure, *name;
    size_t offset, size;
};

#define FIELD(structure, name)                                                                     \
    {                                                                                              \
#structure, #name, offsetof(struct structure, name), sizeof(((struct structure *)0)->name) \
    }

static const struct field LAYOUT[] = {
    FIELD(sbe_ring_producer, head),
    FIELD(sbe_ring_producer, space_wake),
    FIELD(sbe_ring_producer, doorbells),
    FIELD(sbe_ring_consumer, tail),
    FIELD(sbe_ring_consumer, data_wake),
    FIELD(sbe_ring_consumer, doorbells),
    FIELD(sbe_ring_consumer, at_work),
    FIELD(sbe_wire_frame, size),
    FIELD(sbe_wire_frame, type),
    FIELD(sbe_wire_frame, flags),
    FIELD(sbe_wire_frame, service),
    FIELD(sbe_wire_frame, transaction),
    FIELD(sbe_wire_frame, status),
    FIELD(sbe_wire_frame, buffer_count),
    FIELD(sbe_wire_frame, reserved),
    FIELD(sbe_wire_frame, payload_size),
    FIELD(sbe_wire_frame, deadline_us),
    FIELD(sbe_wire_frame, waited_ns),
    FIELD(sbe_wire_frame, handled_ns),
    FIELD(sbe_wire_buffer, area),
    FIELD(sbe_wire_buffer, direction),
    FIELD(sbe_wire_buffer, flags),
    FIELD(sbe_wire_buffer, reserved),
    FIELD(sbe_wire_buffer, offset),
    FIELD(sbe_wire_buffer, size),
    FIELD(sbe_control, type),
    FIELD(sbe_control, size),
    FIELD(sbe_control, epoch),
    FIELD(sbe_control, id),
    FIELD(sbe_control, status),
    FIELD(sbe_limits, areas),
    FIELD(sbe_limits, contexts),
    FIELD(sbe_limits, channels),
    FIELD(sbe_limits, slots),
    FIELD(sbe_limits, slot_size),
    FIELD(sbe_limits, buffers),
    FIELD(sbe_hello, magic),
    FIELD(sbe_hello, version_min),
    FIELD(sbe_hello, version_max),
    FIELD(sbe_hello, peer_epoch),
    FIELD(sbe_hello, role),
    FIELD(sbe_hello, coherent),
    FIELD(sbe_hello, address_bits),
    FIELD(sbe_hello, reserved),
    FIELD(sbe_hello, features),
    FIELD(sbe_hello, cache_line),
    FIELD(sbe_hello, limits),
    FIELD(sbe_hello, name),
    FIELD(sbe_hello_reply, magic),
    FIELD(sbe_hello_reply, version),
    FIELD(sbe_hello_reply, refusal),
    FIELD(sbe_hello_reply, version_min),
    FIELD(sbe_hello_reply, version_max),
    FIELD(sbe_hello_reply, peer_epoch),
    FIELD(sbe_ping, cookie),
    FIELD(sbe_context_message, context),
    FIELD(sbe_context_message, reserved),
    FIELD(sbe_segment, address),
    FIELD(sbe_segment, size),
    FIELD(sbe_area_map, area),
    FIELD(sbe_area_map, context),
    FIELD(sbe_area_map, flags),
    FIELD(sbe_area_map, handles),
    FIELD(sbe_area_map, size),
    FIELD(sbe_area_map, segment_first),
    FIELD(sbe_area_map, segment_count),
    FIELD(sbe_area_unmap, area),
    FIELD(sbe_area_unmap, reserved),
    FIELD(sbe_channel_open, channel),
    FIELD(sbe_channel_open, context),
    FIELD(sbe_channel_open, ring_area),
    FIELD(sbe_channel_open, slots),
    FIELD(sbe_channel_open, slot_size),
    FIELD(sbe_channel_open, line),
    FIELD(sbe_channel_open, send_offset),
    FIELD(sbe_channel_open, receive_offset),
    FIELD(sbe_channel_open, priority),
    FIELD(sbe_channel_open, handles),
    FIELD(sbe_channel_close, channel),
    FIELD(sbe_channel_close, reserved),
    FIELD(sbe_service_find, context),
    FIELD(sbe_service_find, version),
    FIELD(sbe_service_find, reserved),
    FIELD(sbe_service_find, name),
    FIELD(sbe_service_list, index),
    FIELD(sbe_service_list, reserved),
    FIELD(sbe_service_reply, service),
    FIELD(sbe_service_reply, version),
    FIELD(sbe_service_reply, reserved),
    FIELD(sbe_service_reply, name),
    FIELD(sbe_event_message, event),
    FIELD(sbe_event_message, value),
    FIELD(sbe_stream_settings, frame_bytes),
    FIELD(sbe_stream_settings, rate_hz),
    FIELD(sbe_stream_settings, buffer_bytes),
    FIELD(sbe_stream_settings, period_bytes),
    FIELD(sbe_stream_settings, direction),
    FIELD(sbe_stream_settings, mode),
    FIELD(sbe_stream_settings, on_xrun),
    FIELD(sbe_stream_settings, on_suspend),
    FIELD(sbe_stream_settings, format),
    FIELD(sbe_stream_request, op),
    FIELD(sbe_stream_request, stream),
    FIELD(sbe_stream_request, generation),
    FIELD(sbe_stream_request, count),
    FIELD(sbe_stream_status, generation),
    FIELD(sbe_stream_status, state),
    FIELD(sbe_stream_status, position),
    FIELD(sbe_stream_status, clock_ns),
    FIELD(sbe_stream_status, application),
    FIELD(sbe_stream_status, lost_bytes),
    FIELD(sbe_stream_status, xruns),
    FIELD(sbe_stream_status, delay_bytes),
    FIELD(sbe_stream_status, skipped),
    FIELD(sbe_stream_status, reserved),
    FIELD(sbe_stream_status, reserved2),
    FIELD(sbe_stream_answer, result),
    FIELD(sbe_stream_answer, stream),
    FIELD(sbe_stream_answer, status),
    FIELD(sbe_stream_block_answer, result),
    FIELD(sbe_stream_block_answer, stream),
    FIELD(sbe_stream_block_answer, generation),
    FIELD(sbe_stream_block_answer, sequence),
    FIELD(sbe_stream_block_answer, position),
    FIELD(sbe_stream_block_answer, clock_ns),
    FIELD(sbe_stream_block_answer, used_bytes),
    FIELD(sbe_stream_block_answer, state),
    FIELD(sbe_stream_proposal, result),
    FIELD(sbe_stream_proposal, stream),
    FIELD(sbe_stream_proposal, settings),
    FIELD(sbe_stream_event, stream),
    FIELD(sbe_stream_event, generation),
    FIELD(sbe_stream_event, kind),
    FIELD(sbe_stream_event, sequence),
    FIELD(sbe_stream_event, position),
    FIELD(sbe_stream_event, clock_ns),
    FIELD(sbe_stream_event, from),
    FIELD(sbe_stream_event, bytes),
    FIELD(sbe_stream_event, state),
    FIELD(sbe_stream_event, skipped),
    FIELD(sbe_stream_event, data),
    FIELD(sbe_stream_host_record, newest),
    FIELD(sbe_stream_host_record, reserved),
    FIELD(sbe_stream_host_record, application),
    FIELD(sbe_stream_remote_record, newest),
};

static int add_constants(PyObject *module)
{
    for (size_t i = 0; i < sizeof CONSTANTS / sizeof CONSTANTS[0]; i++)
        if (PyModule_AddIntConstant(module, CONSTANTS[i].name, CONSTANTS[i].value) < 0)
            return -1;
    return PyModule_AddStringConstant(module, "RELEASE", SBE_RELEASE);
}

/* {"sbe_wire_frame": {"size": (offset, size), ...}, ...} */
static PyObject *layout(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    PyObject *structures = PyDict_New();
    for (size_t i = 0; structures != NULL && i < sizeof LAYOUT / sizeof LAYOUT[0]; i++) {
        const struct field *field = &LAYOUT[i];
        PyObject *fields = PyDict_GetItemString(structures, field->structure); /* borrowed */
        if (fields == NULL) {
            fields = PyDict_New();
            if (fields == NULL || PyDict_SetItemString(structures, field->structure, fields) < 0)
                Py_CLEAR(structures);
            Py_XDECREF(fields); /* the outer dict holds it */
        }
        PyObject *place = structures == NULL ? NULL
                                             : Py_BuildValue("(nn)", (Py_ssize_t)field->offset,
                                                             (Py_ssize_t)field->size);
        if (place == NULL || PyDict_SetItemString(fields, field->name, place) < 0)
            Py_CLEAR(structures);
        Py_XDECREF(place);
    }
    return structures;
}

static PyObject *ring_size(PyObject *module, PyObject *arguments)
{
    struct sbe_ring_geometry geometry;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "O&O&O&", native_as_u32, &geometry.slots, native_as_u32,
                          &geometry.slot_size, native_as_u32, &geometry.line))
        return NULL;
    int64_t size = sbe_ring_size(&geometry);
    if (size < 0)
        return native_raise((int)size, false,
                            "ring of %u slots of %u bytes, lines of %u bytes: slots and lines are "
                            "powers of two, slots a multiple of %u bytes",
                            geometry.slots, geometry.slot_size, geometry.line, SBE_SLOT_ALIGN);
    return PyLong_FromLongLong(size);
}

PyObject *native_not_copied(PyObject *object, PyObject *unused)
{
    PyObject *name = PyType_GetName(Py_TYPE(object));
    (void)unused;
    if (name == NULL)
        return NULL;
    native_raise(SBE_EINVAL, false,
                 "a %U can't be pickled or copied, for it belongs to this process and its link: "
                 "pass on bytes or a Reply, and call sbe.connect() in the other process",
                 name);
    Py_DECREF(name);
    return NULL;
}

static PyMethodDef METHODS[] = {
    {"layout", layout, METH_NOARGS, "Offsets and sizes of every wire structure."},
    {"ring_size", ring_size, METH_VARARGS,
     "ring_size(slots, slot_size, line): bytes of one ring's memory."},
    {"restore_reply", native_restore_reply, METH_VARARGS, "A Reply that was pickled."},
    {"read_crash", native_read_crash, METH_O,
     "read_crash(window): the crash record in the shared RAM of a carve-out link, or None."},
    {"describe_window", native_describe_window, METH_VARARGS,
     "describe_window(window, address, board, image): a remote's word on itself, for its host."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "sbe._native",
    .m_doc = "The C core for Python: memory, areas, channels, sessions.",
    .m_size = -1,
    .m_methods = METHODS,
};

PyMODINIT_FUNC PyInit__native(void)
{
    PyObject *module = PyModule_Create(&MODULE);
    if (module == NULL)
        return NULL;
    if (add_constants(module) < 0 || native_memory_init(module) < 0 ||
        native_table_init(module) < 0 || native_buffer_init(module) < 0 ||
        native_call_init(module) < 0 || native_reply_init(module) < 0 ||
        native_request_init(module) < 0 || native_channel_init(module) < 0 ||
        native_session_init(module) < 0 || native_bootstrap_init(module) < 0 ||
        native_doorbells_init(module) < 0 || native_signals_init(module) < 0 ||
        native_stream_init(module) < 0 || native_asg_init(module) < 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}
