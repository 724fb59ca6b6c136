/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The core's hooks become methods of the session's handler. What a hook raises is kept, so that the
 * core can finish its step, and raised from the method that was running.
 */
#define PY_SSIZE_T_CLEAN
#include "session.h"

#include <stdarg.h>
#include <string.h>

#include "convert.h"
#include "core/status.h"
#include "native.h"

#define CODE_MAX 4095 /* the largest errno there can be */

/* -- what hooks raise ------------------------------------------------------------------------ */

PyObject *session_enter(Session *self)
{
    PyObject *outer = self->failure;
    self->failure = NULL;
    return outer;
}

bool session_leave(Session *self, PyObject *outer)
{
    PyObject *failure = self->failure;
    self->failure = outer;
    if (failure == NULL)
        return true;
    PyObject *type = (PyObject *)Py_TYPE(failure);
    Py_INCREF(type);
    PyErr_Restore(type, failure, PyException_GetTraceback(failure));
    return false;
}

/* The exception that is set, as an object. */
static PyObject *take_exception(void)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(value, traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
}

/* Keeps the exception that is set for session_leave(). A later one is only reported: one can be
 * raised. */
static int keep(Session *self)
{
    if (self->failure == NULL)
        self->failure = take_exception();
    else
        PyErr_WriteUnraisable(self->handler);
    return SBE_EIO;
}

/* The status that an exception stands for, 0 when it is not one of sbe.errors. */
static int status_of(PyObject *exception)
{
    long code = 0;
    PyObject *errors = PyImport_ImportModule("sbe.errors");
    PyObject *base = errors == NULL ? NULL : PyObject_GetAttrString(errors, "Error");
    if (base != NULL && PyObject_IsInstance(exception, base) == 1) {
        PyObject *number = PyObject_GetAttrString(exception, "code");
        code = number == NULL ? 0 : PyLong_AsLong(number);
        Py_XDECREF(number);
    }
    PyErr_Clear(); /* none of this is the user's fault: the exception itself is raised instead */
    Py_XDECREF(base);
    Py_XDECREF(errors);
    return code > 0 && code <= CODE_MAX ? -(int)code : 0;
}

/* A hook that may refuse has raised: an sbe.errors.Error is the answer to the peer. */
static int refuse(Session *self)
{
    PyObject *exception = take_exception();
    int status = status_of(exception);
    if (status == 0) {
        PyObject *type = (PyObject *)Py_TYPE(exception);
        Py_INCREF(type);
        PyErr_Restore(type, exception, PyException_GetTraceback(exception));
        return keep(self);
    }
    Py_DECREF(exception);
    return status;
}

/*
 * Calls a method of the handler; the format makes a tuple. The name is the interpreter's one string
 * of it: of each other one its cache of attributes would keep a copy, somewhere in memory that
 * could otherwise be given back.
 */
static PyObject *call(Session *self, const char *method, const char *format, ...)
{
    va_list values;
    if (self->handler == NULL) {
        PyErr_SetString(PyExc_ReferenceError, "the session's handler is gone");
        return NULL;
    }
    va_start(values, format);
    PyObject *arguments = Py_VaBuildValue(format, values);
    va_end(values);
    PyObject *name = arguments == NULL ? NULL : PyUnicode_InternFromString(method);
    PyObject *bound = name == NULL ? NULL : PyObject_GetAttr(self->handler, name);
    PyObject *result = bound == NULL ? NULL : PyObject_CallObject(bound, arguments);
    Py_XDECREF(bound);
    Py_XDECREF(name);
    Py_XDECREF(arguments);
    return result;
}

/* For hooks without an answer. Takes the result. */
static int done(Session *self, PyObject *result)
{
    if (result == NULL)
        return keep(self);
    Py_DECREF(result);
    return SBE_OK;
}

PyObject *session_wire_name(const char *name)
{
    size_t size = 0;
    while (size < SBE_NAME_SIZE && name[size] != '\0')
        size++;
    return PyUnicode_DecodeUTF8(name, (Py_ssize_t)size, "replace");
}

bool session_set_name(char *field, const char *name, Py_ssize_t size)
{
    if (size >= (Py_ssize_t)SBE_NAME_SIZE || memchr(name, '\0', (size_t)size) != NULL) {
        (void)native_raise(SBE_EINVAL, false, "a name has at most %u bytes and no zero byte",
                           SBE_NAME_SIZE - 1);
        return false;
    }
    memset(field, 0, SBE_NAME_SIZE);
    memcpy(field, name, (size_t)size);
    return true;
}

/* -- the core's hooks -------------------------------------------------------------------------- */

static int hook_send(void *opaque, const void *message, uint32_t size)
{
    Session *self = opaque;
    return done(self, call(self, "send", "(y#)", (const char *)message, (Py_ssize_t)size));
}

/* Handlers are shown those of the first message: more come only for areas without a handle. */
static int hook_area_extend(void *opaque, struct sbe_area *area, const struct sbe_area_map *message)
{
    (void)opaque;
    (void)area;
    (void)message;
    return SBE_OK;
}

/* (address, bytes) each */
static PyObject *segments_of(const struct sbe_area_map *message)
{
    const struct sbe_segment *segment = (const void *)(message + 1);
    PyObject *segments = PyTuple_New((Py_ssize_t)message->segment_count);
    for (Py_ssize_t i = 0; segments != NULL && i < (Py_ssize_t)message->segment_count; i++) {
        PyObject *pair = Py_BuildValue("(KK)", (unsigned long long)segment[i].address,
                                       (unsigned long long)segment[i].size);
        if (pair == NULL || PyTuple_SetItem(segments, i, pair) < 0)
            Py_CLEAR(segments);
    }
    return segments;
}

static int hook_area_attach(void *opaque, struct sbe_area *area, const struct sbe_area_map *message)
{
    Session *self = opaque;
    PyObject *segments = segments_of(message);
    if (segments == NULL)
        return keep(self);
    PyObject *address =
        call(self, "area_attach", "(IIIKIO)", message->area, message->context, message->flags,
             (unsigned long long)message->size, message->handles, segments);
    Py_DECREF(segments);
    if (address == NULL)
        return refuse(self);
    void *base = address == Py_None ? NULL : PyLong_AsVoidPtr(address);
    Py_DECREF(address);
    if (PyErr_Occurred() != NULL)
        return keep(self);
    area->base = base; /* only compared with NULL here: rings are reached through the handler */
    return SBE_OK;
}

static void hook_area_detach(void *opaque, struct sbe_area *area)
{
    Session *self = opaque;
    (void)done(self, call(self, "area_detach", "(I)", area->id));
}

static int hook_channel_open(void *opaque, const struct sbe_session_channel *place,
                             const struct sbe_channel_open *message, void *send, void *receive)
{
    Session *self = opaque;
    (void)place, (void)send, (void)receive;
    PyObject *result =
        call(self, "channel_open", "(IIIIIIKKII)", message->channel, message->context,
             message->ring_area, message->slots, message->slot_size, message->line,
             (unsigned long long)message->send_offset, (unsigned long long)message->receive_offset,
             message->priority, message->handles);
    if (result == NULL)
        return refuse(self);
    Py_DECREF(result);
    return SBE_OK;
}

static void hook_channel_close(void *opaque, const struct sbe_session_channel *place)
{
    Session *self = opaque;
    (void)done(self, call(self, "channel_close", "(I)", place->id));
}

static bool fill_service(PyObject *found, struct sbe_service_reply *reply)
{
    const char *name;
    Py_ssize_t size;
    if (!PyTuple_Check(found)) {
        PyErr_SetString(PyExc_TypeError, "service() returns (id, version, name) or None");
        return false;
    }
    return PyArg_ParseTuple(found, "O&O&s#", native_as_u16, &reply->service, native_as_u16,
                            &reply->version, &name, &size) &&
           session_set_name(reply->name, name, size);
}

static int hook_service(void *opaque, uint32_t context, const char *name, uint32_t index,
                        struct sbe_service_reply *reply)
{
    Session *self = opaque;
    PyObject *wanted = name == NULL ? Py_None : session_wire_name(name);
    if (wanted == Py_None)
        Py_INCREF(wanted);
    long long at = name == NULL ? (long long)index : -1;
    PyObject *found = wanted == NULL ? NULL : call(self, "service", "(IOL)", context, wanted, at);
    Py_XDECREF(wanted);
    if (found == NULL)
        return refuse(self);
    int status = SBE_OK;
    if (found == Py_None)
        status = SBE_ENOENT;
    else if (!fill_service(found, reply))
        status = keep(self);
    Py_DECREF(found);
    return status;
}

static void hook_state_changed(void *opaque, enum sbe_session_state state)
{
    Session *self = opaque;
    (void)done(self, call(self, "state_changed", "(i)", (int)state));
}

static void hook_refused(void *opaque, enum sbe_refusal why, bool theirs, uint16_t peer_min,
                         uint16_t peer_max)
{
    Session *self = opaque;
    (void)done(self, call(self, "refused", "(iOHH)", (int)why, theirs ? Py_True : Py_False,
                          peer_min, peer_max));
}

static PyObject *reply_fields(const struct sbe_control *message)
{
    const void *body = message;
    const struct sbe_service_reply *service = body;
    const struct sbe_ping *ping = body;
    switch (message == NULL || message->status != 0 ? 0 : message->type & ~SBE_CONTROL_REPLY) {
    case SBE_CONTROL_PING:
        return Py_BuildValue("(K)", (unsigned long long)ping->cookie);
    case SBE_CONTROL_SERVICE_FIND:
    case SBE_CONTROL_SERVICE_LIST:
        return Py_BuildValue("(HHN)", service->service, service->version,
                             session_wire_name(service->name));
    default:
        return Py_BuildValue("");
    }
}

static void hook_replied(void *opaque, void *token, int status, const struct sbe_control *message)
{
    Session *self = opaque;
    PyObject *fields = reply_fields(message);
    (void)done(self, fields == NULL ? NULL : call(self, "replied", "(OiO)", token, status, fields));
    Py_XDECREF(fields);
    Py_DECREF((PyObject *)token); /* the reference that request() took */
}

static void hook_event(void *opaque, uint32_t event, uint32_t value)
{
    Session *self = opaque;
    (void)done(self, call(self, "event", "(II)", event, value));
}

void session_set_hooks(Session *self)
{
    self->port = (struct sbe_port){
        .self = self,
        .now_ns = native_now_ns,
        .control_send = hook_send,
        .area_attach = hook_area_attach,
        .area_extend = hook_area_extend,
        .area_detach = hook_area_detach,
    };
    self->hooks = (struct sbe_session_hooks){
        .self = self,
        .channel_open = hook_channel_open,
        .channel_close = hook_channel_close,
        .service = hook_service,
        .state_changed = hook_state_changed,
        .refused = hook_refused,
        .replied = hook_replied,
        .event = hook_event,
    };
    self->config.port = &self->port;
    self->config.hooks = &self->hooks;
}
