/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Session: the core's control protocol for Python, in either role. The core's hooks become methods
 * of a handler object. What a hook raises is kept, so that the core can finish its step, and raised
 * from the method that was running.
 */
#define PY_SSIZE_T_CLEAN
#include "native.h"

#include <stddef.h>
#include <string.h>

#include "core/status.h"

#define SEGMENTS_MAX ((SBE_CONTROL_MAX - sizeof(struct sbe_area_map)) / sizeof(struct sbe_segment))
#define CODE_MAX     4095 /* the largest errno there can be */

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

static PyTypeObject *Session_Type;

/* -- what hooks raise ------------------------------------------------------------------------ */

/* Begins a method: hooks may call methods in turn, and each method raises what its own hooks did.
 * Returns what leave() wants back. */
static PyObject *enter(Session *self)
{
    PyObject *outer = self->failure;
    self->failure = NULL;
    return outer;
}

/* Ends a method. False: an exception is set. */
static bool leave(Session *self, PyObject *outer)
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

/* Keeps the exception that is set for leave(). A later one is only reported: one can be raised. */
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

/* Calls a method of the handler; the format makes a tuple. */
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
    PyObject *bound = arguments == NULL ? NULL : PyObject_GetAttrString(self->handler, method);
    PyObject *result = bound == NULL ? NULL : PyObject_CallObject(bound, arguments);
    Py_XDECREF(bound);
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

/* -- numbers, checked: Python's own formats I and K cut off what does not fit ------------------ */

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

static int as_u16(PyObject *object, void *out)
{
    unsigned long long value;
    if (!as_unsigned(object, UINT16_MAX, &value))
        return 0;
    *(uint16_t *)out = (uint16_t)value;
    return 1;
}

static int as_u32(PyObject *object, void *out)
{
    unsigned long long value;
    if (!as_unsigned(object, UINT32_MAX, &value))
        return 0;
    *(uint32_t *)out = (uint32_t)value;
    return 1;
}

static int as_u64(PyObject *object, void *out)
{
    unsigned long long value;
    if (!as_unsigned(object, UINT64_MAX, &value))
        return 0;
    *(uint64_t *)out = value;
    return 1;
}

/* A name from the wire: never trusted to end, nor to be UTF-8. */
static PyObject *wire_name(const char *name)
{
    size_t size = 0;
    while (size < SBE_NAME_SIZE && name[size] != '\0')
        size++;
    return PyUnicode_DecodeUTF8(name, (Py_ssize_t)size, "replace");
}

/* Raises BadArgument for a name that the wire can't carry. */
static bool set_name(char *field, const char *name, Py_ssize_t size)
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

static int hook_area_attach(void *opaque, struct sbe_area *area, const struct sbe_area_map *message)
{
    Session *self = opaque;
    PyObject *address = call(self, "area_attach", "(IIIKI)", message->area, message->context,
                             message->flags, (unsigned long long)message->size, message->handles);
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

static int hook_channel_open(void *opaque, const struct sbe_channel_open *message, void *send,
                             void *receive)
{
    Session *self = opaque;
    (void)send, (void)receive;
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

static int hook_channel_close(void *opaque, uint32_t channel)
{
    Session *self = opaque;
    return done(self, call(self, "channel_close", "(I)", channel));
}

static bool fill_service(PyObject *found, struct sbe_service_reply *reply)
{
    const char *name;
    Py_ssize_t size;
    if (!PyTuple_Check(found)) {
        PyErr_SetString(PyExc_TypeError, "service() returns (id, version, name) or None");
        return false;
    }
    return PyArg_ParseTuple(found, "O&O&s#", as_u16, &reply->service, as_u16, &reply->version,
                            &name, &size) &&
           set_name(reply->name, name, size);
}

static int hook_service(void *opaque, uint32_t context, const char *name, int64_t index,
                        struct sbe_service_reply *reply)
{
    Session *self = opaque;
    PyObject *wanted = name == NULL ? Py_None : wire_name(name);
    if (wanted == Py_None)
        Py_INCREF(wanted);
    PyObject *found =
        wanted == NULL ? NULL : call(self, "service", "(IOL)", context, wanted, (long long)index);
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
        return Py_BuildValue("(HHN)", service->service, service->version, wire_name(service->name));
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

/* -- methods ----------------------------------------------------------------------------------- */

/* Ends a method that answers None: raises what a hook raised, else the status. */
static PyObject *finish(Session *self, PyObject *outer, int status, const char *what)
{
    if (!leave(self, outer))
        return NULL;
    if (status == SBE_ENOMEM)
        return native_raise(status, false, "%s: all %u requests that may be open are", what,
                            self->config.pending_count);
    if (status < 0)
        return native_raise(status, false, "%s", what);
    return Py_BuildValue("");
}

static PyObject *request(Session *self, enum sbe_control_type type, struct sbe_control *message,
                         size_t size, PyObject *token, const char *what)
{
    PyObject *outer = enter(self);
    Py_INCREF(token); /* the pending table's, given back by hook_replied() */
    int status = sbe_session_request(&self->session, type, message, (uint32_t)size, token);
    if (status < 0)
        Py_DECREF(token);
    return finish(self, outer, status, what);
}

static PyObject *session_start(PyObject *object, PyObject *arguments)
{
    Session *self = (Session *)object;
    uint32_t epoch;
    if (!PyArg_ParseTuple(arguments, "O&:start", as_u32, &epoch))
        return NULL;
    PyObject *outer = enter(self);
    int status = sbe_session_start(&self->session, epoch);
    return finish(self, outer, status, "start: an epoch is not zero and not the one before");
}

static PyObject *session_lost(PyObject *object, PyObject *unused)
{
    Session *self = (Session *)object;
    (void)unused;
    PyObject *outer = enter(self);
    sbe_session_lost(&self->session);
    return finish(self, outer, SBE_OK, "lost");
}

static void remember_peer(Session *self, const void *message, size_t size)
{
    const struct sbe_hello *hello = message;
    if (size != sizeof *hello || hello->control.type != SBE_CONTROL_HELLO ||
        hello->magic != SBE_MAGIC)
        return;
    self->peer_limits = hello->limits;
    memcpy(self->peer_name, hello->name, sizeof self->peer_name);
}

static PyObject *session_receive(PyObject *object, PyObject *arguments)
{
    Session *self = (Session *)object;
    _Alignas(8) uint8_t message[SBE_CONTROL_MAX]; /* private: the caller's bytes may change */
    Py_buffer view;
    uint32_t handles;
    if (!PyArg_ParseTuple(arguments, "y*O&:receive", &view, as_u32, &handles))
        return NULL;
    size_t size = (size_t)view.len;
    if (size <= sizeof message)
        memcpy(message, view.buf, size);
    PyBuffer_Release(&view);
    if (size > sizeof message)
        return PyLong_FromLong(SBE_EBADMSG);
    PyObject *outer = enter(self);
    remember_peer(self, message, size);
    int status = sbe_session_receive(&self->session, message, (uint32_t)size, handles);
    return leave(self, outer) ? PyLong_FromLong(status) : NULL;
}

static PyObject *session_bye(PyObject *object, PyObject *token)
{
    Session *self = (Session *)object;
    PyObject *outer = enter(self);
    Py_INCREF(token);
    int status = sbe_session_bye(&self->session, token);
    if (status < 0)
        Py_DECREF(token);
    return finish(self, outer, status, "bye");
}

static PyObject *session_ping(PyObject *object, PyObject *arguments)
{
    struct sbe_ping ping;
    PyObject *token;
    memset(&ping, 0, sizeof ping);
    if (!PyArg_ParseTuple(arguments, "O&O:ping", as_u64, &ping.cookie, &token))
        return NULL;
    return request((Session *)object, SBE_CONTROL_PING, &ping.control, sizeof ping, token, "ping");
}

static PyObject *context_request(PyObject *object, PyObject *arguments, enum sbe_control_type type,
                                 const char *what)
{
    struct sbe_context_message message;
    PyObject *token;
    memset(&message, 0, sizeof message);
    if (!PyArg_ParseTuple(arguments, "O&O", as_u32, &message.context, &token))
        return NULL;
    return request((Session *)object, type, &message.control, sizeof message, token, what);
}

static PyObject *session_create_context(PyObject *object, PyObject *arguments)
{
    return context_request(object, arguments, SBE_CONTROL_CONTEXT_CREATE, "create_context");
}

static PyObject *session_destroy_context(PyObject *object, PyObject *arguments)
{
    return context_request(object, arguments, SBE_CONTROL_CONTEXT_DESTROY, "destroy_context");
}

/* Pairs (address, size) into the message, their count or -1. */
static Py_ssize_t take_segments(PyObject *sequence, struct sbe_segment *segments)
{
    Py_ssize_t count = PySequence_Size(sequence);
    if (count > (Py_ssize_t)SEGMENTS_MAX) {
        (void)native_raise(SBE_EINVAL, false, "%zd segments: a message holds at most %zu", count,
                           SEGMENTS_MAX);
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PySequence_GetItem(sequence, i);
        PyObject *pair = item == NULL ? NULL : PySequence_Tuple(item);
        bool taken = pair != NULL && PyArg_ParseTuple(pair, "O&O&", as_u64, &segments[i].address,
                                                      as_u64, &segments[i].size);
        Py_XDECREF(pair);
        Py_XDECREF(item);
        if (!taken)
            return -1;
    }
    return count;
}

static PyObject *session_map_area(PyObject *object, PyObject *arguments)
{
    struct {
        struct sbe_area_map map;
        struct sbe_segment segments[SEGMENTS_MAX];
    } message;
    PyObject *segments, *token;
    memset(&message, 0, sizeof message);
    if (!PyArg_ParseTuple(arguments, "O&O&O&O&O&OO|O&:map_area", as_u32, &message.map.area, as_u32,
                          &message.map.context, as_u32, &message.map.flags, as_u64,
                          &message.map.size, as_u32, &message.map.handles, &segments, &token,
                          as_u32, &message.map.segment_first))
        return NULL;
    Py_ssize_t count = take_segments(segments, message.segments);
    if (count < 0)
        return NULL;
    message.map.segment_count = (uint32_t)count;
    size_t size = sizeof message.map + (size_t)count * sizeof message.segments[0];
    return request((Session *)object, SBE_CONTROL_AREA_MAP, &message.map.control, size, token,
                   "map_area");
}

static PyObject *session_unmap_area(PyObject *object, PyObject *arguments)
{
    struct sbe_area_unmap message;
    PyObject *token;
    memset(&message, 0, sizeof message);
    if (!PyArg_ParseTuple(arguments, "O&O:unmap_area", as_u32, &message.area, &token))
        return NULL;
    return request((Session *)object, SBE_CONTROL_AREA_UNMAP, &message.control, sizeof message,
                   token, "unmap_area");
}

static PyObject *session_open_channel(PyObject *object, PyObject *arguments)
{
    struct sbe_channel_open open;
    PyObject *token;
    memset(&open, 0, sizeof open);
    if (!PyArg_ParseTuple(arguments, "O&O&O&O&O&O&O&O&O&O&O:open_channel", as_u32, &open.channel,
                          as_u32, &open.context, as_u32, &open.ring_area, as_u32, &open.slots,
                          as_u32, &open.slot_size, as_u32, &open.line, as_u64, &open.send_offset,
                          as_u64, &open.receive_offset, as_u32, &open.priority, as_u32,
                          &open.handles, &token))
        return NULL;
    return request((Session *)object, SBE_CONTROL_CHANNEL_OPEN, &open.control, sizeof open, token,
                   "open_channel");
}

static PyObject *session_close_channel(PyObject *object, PyObject *arguments)
{
    struct sbe_channel_close message;
    PyObject *token;
    memset(&message, 0, sizeof message);
    if (!PyArg_ParseTuple(arguments, "O&O:close_channel", as_u32, &message.channel, &token))
        return NULL;
    return request((Session *)object, SBE_CONTROL_CHANNEL_CLOSE, &message.control, sizeof message,
                   token, "close_channel");
}

static PyObject *session_find_service(PyObject *object, PyObject *arguments)
{
    struct sbe_service_find find;
    PyObject *token;
    const char *name;
    Py_ssize_t size;
    memset(&find, 0, sizeof find);
    if (!PyArg_ParseTuple(arguments, "O&s#O&O:find_service", as_u32, &find.context, &name, &size,
                          as_u16, &find.version, &token) ||
        !set_name(find.name, name, size))
        return NULL;
    return request((Session *)object, SBE_CONTROL_SERVICE_FIND, &find.control, sizeof find, token,
                   "find_service");
}

static PyObject *session_list_service(PyObject *object, PyObject *arguments)
{
    struct sbe_service_list list;
    PyObject *token;
    memset(&list, 0, sizeof list);
    if (!PyArg_ParseTuple(arguments, "O&O:list_service", as_u32, &list.index, &token))
        return NULL;
    return request((Session *)object, SBE_CONTROL_SERVICE_LIST, &list.control, sizeof list, token,
                   "list_service");
}

static PyObject *session_send_event(PyObject *object, PyObject *arguments)
{
    Session *self = (Session *)object;
    uint32_t event, value;
    if (!PyArg_ParseTuple(arguments, "O&O&:send_event", as_u32, &event, as_u32, &value))
        return NULL;
    PyObject *outer = enter(self);
    int status = sbe_session_event(&self->session, event, value);
    return finish(self, outer, status, "send_event");
}

static PyMethodDef SESSION_METHODS[] = {
    {"start", session_start, METH_VARARGS,
     "start(epoch)\n\nForgets the peer and sends HELLO with a fresh non-zero epoch."},
    {"lost", session_lost, METH_NOARGS,
     "lost()\n\nThe peer is gone: what it made here goes, what waits for it is replied."},
    {"receive", session_receive, METH_VARARGS,
     "receive(message, handles)\n\nTakes one message and the number of handles beside it; returns\n"
     "0 or the negative status of a message that was refused."},
    {"bye", session_bye, METH_O, "bye(token)\n\nSays goodbye; replied() when the peer has let go."},
    {"ping", session_ping, METH_VARARGS, "ping(cookie, token)"},
    {"create_context", session_create_context, METH_VARARGS, "create_context(context, token)"},
    {"destroy_context", session_destroy_context, METH_VARARGS, "destroy_context(context, token)"},
    {"map_area", session_map_area, METH_VARARGS,
     "map_area(area, context, flags, size, handles, segments, token, first=0)\n\n"
     "segments: (address, bytes) pairs in the receiver's address space, SEGMENTS_MAX at most;\n"
     "first: how many former messages have carried."},
    {"unmap_area", session_unmap_area, METH_VARARGS, "unmap_area(area, token)"},
    {"open_channel", session_open_channel, METH_VARARGS,
     "open_channel(channel, context, ring_area, slots, slot_size, line, send_offset,\n"
     "receive_offset, priority, handles, token)"},
    {"close_channel", session_close_channel, METH_VARARGS, "close_channel(channel, token)"},
    {"find_service", session_find_service, METH_VARARGS,
     "find_service(context, name, version, token)"},
    {"list_service", session_list_service, METH_VARARGS, "list_service(index, token)"},
    {"send_event", session_send_event, METH_VARARGS, "send_event(event, value)"},
    {NULL, NULL, 0, NULL},
};

/* -- properties -------------------------------------------------------------------------------- */

/* The closure is the offset of a uint32_t in struct sbe_session. */
static PyObject *get_u32(PyObject *object, void *closure)
{
    const uint8_t *session = (const uint8_t *)&((Session *)object)->session;
    uint32_t value;
    memcpy(&value, session + (uintptr_t)closure, sizeof value);
    return PyLong_FromUnsignedLong(value);
}

static PyObject *get_state(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromLong(((Session *)object)->session.state);
}

static PyObject *get_version(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromLong(((Session *)object)->session.version);
}

static PyObject *get_coherent(PyObject *object, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((Session *)object)->session.coherent);
}

static PyObject *get_peer_address_bits(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromLong(((Session *)object)->session.peer_address_bits);
}

static PyObject *get_peer_name(PyObject *object, void *unused)
{
    (void)unused;
    return wire_name(((Session *)object)->peer_name);
}

static PyObject *limits_dict(const struct sbe_limits *limits)
{
    return Py_BuildValue("{sIsIsIsIsIsI}", "areas", limits->areas, "contexts", limits->contexts,
                         "channels", limits->channels, "slots", limits->slots, "slot_size",
                         limits->slot_size, "buffers", limits->buffers);
}

static PyObject *get_limits(PyObject *object, void *unused)
{
    (void)unused;
    return limits_dict(&((Session *)object)->session.limits);
}

static PyObject *get_peer_limits(PyObject *object, void *unused)
{
    (void)unused;
    return limits_dict(&((Session *)object)->peer_limits);
}

#define AT(field) ((void *)offsetof(struct sbe_session, field))

static PyGetSetDef SESSION_PROPERTIES[] = {
    {"state", get_state, NULL, "One of SESSION_INITIALISING to SESSION_CLOSED.", NULL},
    {"epoch", get_u32, NULL, "This end's epoch, 0 before start().", AT(epoch)},
    {"peer_epoch", get_u32, NULL, "Of the peer whose HELLO was accepted, 0 none.", AT(peer_epoch)},
    {"version", get_version, NULL, "The agreed version of the protocol.", NULL},
    {"line", get_u32, NULL, "The agreed cache line: the larger of both, bytes.", AT(line)},
    {"coherent", get_coherent, NULL, "Both ends see areas cache-coherently.", NULL},
    {"limits", get_limits, NULL, "The agreed limits: the smaller of both ends', by name.", NULL},
    {"dropped", get_u32, NULL, "Messages of dead epochs or in the wrong state.", AT(dropped)},
    {"peer_address_bits", get_peer_address_bits, NULL, "Width of its device addresses.", NULL},
    {"peer_limits", get_peer_limits, NULL, "What the last HELLO offered, by name.", NULL},
    {"peer_name", get_peer_name, NULL, "What the last HELLO called its sender.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

/* -- life -------------------------------------------------------------------------------------- */

static bool power_of_two(uint32_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

/* What sbe_session_init() leaves to its caller. Raises BadArgument. */
static bool check_config(const struct sbe_session_config *config)
{
    const struct sbe_limits *limits = &config->limits;
    const char *wrong = NULL;
    if (config->role != SBE_ROLE_HOST && config->role != SBE_ROLE_REMOTE)
        wrong = "role is ROLE_HOST or ROLE_REMOTE";
    else if (config->address_bits < 1 || config->address_bits > 64)
        wrong = "address_bits is between 1 and 64";
    else if (!power_of_two(config->cache_line) || config->cache_line < 16 ||
             config->cache_line > SBE_LINE_MAX)
        wrong = "cache_line is a power of two between 16 and 1024 bytes";
    else if (config->version_min > config->version_max)
        wrong = "version_min is not above version_max";
    else if (limits->areas < 1 || limits->areas > UINT16_MAX || limits->contexts > UINT16_MAX ||
             limits->channels < 1 || limits->channels > UINT16_MAX)
        wrong = "areas and channels are between 1 and 65535, contexts at most 65535";
    else if (limits->slots < 2 || limits->slots > SBE_SLOTS_MAX ||
             limits->slot_size < SBE_SLOT_ALIGN || limits->slot_size > SBE_SLOT_SIZE_MAX)
        wrong = "slots is between 2 and 65536, slot_size between 64 and 65536 bytes";
    else if (config->pending_count < 1 || config->pending_count > UINT16_MAX)
        wrong = "pending is between 1 and 65535";
    if (wrong != NULL)
        (void)native_raise(SBE_EINVAL, false, "Session: %s", wrong);
    return wrong == NULL;
}

/* Hooks, tables and the core's session; config holds what the user chose. */
static bool set_up(Session *self, PyObject *handler)
{
    struct sbe_session_config *config = &self->config;
    self->port = (struct sbe_port){
        .self = self,
        .now_ns = native_now_ns,
        .control_send = hook_send,
        .area_attach = hook_area_attach,
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
    config->port = &self->port;
    config->hooks = &self->hooks;
    config->name = self->name;
    config->areas = PyMem_Calloc(config->limits.areas, sizeof *config->areas);
    config->contexts = PyMem_Calloc(config->limits.contexts, sizeof *config->contexts);
    config->channels = PyMem_Calloc(config->limits.channels, sizeof *config->channels);
    config->pending = PyMem_Calloc(config->pending_count, sizeof *config->pending);
    if (config->areas == NULL || config->contexts == NULL || config->channels == NULL ||
        config->pending == NULL) {
        (void)PyErr_NoMemory();
        return false;
    }
    int status = sbe_session_init(&self->session, config);
    if (status < 0) {
        (void)native_raise(status, false, "Session");
        return false;
    }
    Py_INCREF(handler);
    self->handler = handler;
    return true;
}

static PyObject *session_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"handler",    "role",        "name",        "coherent", "address_bits",
                            "cache_line", "version_min", "version_max", "areas",    "contexts",
                            "channels",   "slots",       "slot_size",   "pending",  NULL};
    PyObject *handler;
    const char *name = "sbe";
    Py_ssize_t name_size = 3;
    int coherent = 1;
    uint16_t role = 0, address_bits = 64;
    struct sbe_session_config config = {
        .version_min = SBE_VERSION_MIN,
        .version_max = SBE_VERSION_MAX,
        .cache_line = 64,
        .limits = {64, 64, 64, 4096, SBE_SLOT_SIZE_MAX, SBE_BUFFERS_MAX},
        .pending_count = 64,
    };
    struct sbe_limits *limits = &config.limits;
    if (!PyArg_ParseTupleAndKeywords(
            arguments, keywords, "O|$O&s#pO&O&O&O&O&O&O&O&O&O&:Session", names, &handler, as_u16,
            &role, &name, &name_size, &coherent, as_u16, &address_bits, as_u32, &config.cache_line,
            as_u16, &config.version_min, as_u16, &config.version_max, as_u32, &limits->areas,
            as_u32, &limits->contexts, as_u32, &limits->channels, as_u32, &limits->slots, as_u32,
            &limits->slot_size, as_u32, &config.pending_count))
        return NULL;
    config.role = role > UINT8_MAX ? 0 : (uint8_t)role;
    config.coherent = coherent != 0;
    config.address_bits = address_bits > 64 ? 0 : (uint8_t)address_bits;
    if (!check_config(&config))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Session *self = (Session *)allocate(type, 0);
    if (self == NULL)
        return NULL;
    self->config = config;
    if (!set_name(self->name, name, name_size) || !set_up(self, handler)) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int session_traverse(PyObject *object, visitproc visit, void *arg)
{
    Session *self = (Session *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->handler);
    Py_VISIT(self->failure);
    for (uint32_t i = 0; self->config.pending != NULL && i < self->config.pending_count; i++)
        if (self->config.pending[i].id != 0)
            Py_VISIT((PyObject *)self->config.pending[i].token);
    return 0;
}

static int session_clear(PyObject *object)
{
    Session *self = (Session *)object;
    Py_CLEAR(self->handler);
    Py_CLEAR(self->failure);
    for (uint32_t i = 0; self->config.pending != NULL && i < self->config.pending_count; i++) {
        struct sbe_session_pending entry = self->config.pending[i];
        self->config.pending[i] = (struct sbe_session_pending){0};
        if (entry.id != 0)
            Py_DECREF((PyObject *)entry.token);
    }
    return 0;
}

static void session_dealloc(PyObject *object)
{
    Session *self = (Session *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    (void)session_clear(object);
    PyMem_Free(self->config.areas);
    PyMem_Free(self->config.contexts);
    PyMem_Free(self->config.channels);
    PyMem_Free(self->config.pending);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

static const char SESSION_DOC[] =
    "Session(handler, *, role, name='sbe', coherent=True, address_bits=64, cache_line=64,\n"
    "version_min=VERSION_MIN, version_max=VERSION_MAX, areas=64, contexts=64, channels=64,\n"
    "slots=4096, slot_size=65536, pending=64)\n\n"
    "The control protocol of one link, in either role, over the methods of a handler. Sizes are\n"
    "bytes. What a handler's method raises is raised from the Session method that was running;\n"
    "an sbe.errors.Error from area_attach, channel_open or service answers the peer instead.\n"
    "A token is held until replied() has had it, once. Handlers may call methods; otherwise not\n"
    "thread-safe: the owner serialises.";

static PyType_Slot SESSION_SLOTS[] = {
    {Py_tp_doc, (void *)SESSION_DOC},         {Py_tp_new, (void *)session_new},
    {Py_tp_dealloc, (void *)session_dealloc}, {Py_tp_traverse, (void *)session_traverse},
    {Py_tp_clear, (void *)session_clear},     {Py_tp_methods, SESSION_METHODS},
    {Py_tp_getset, SESSION_PROPERTIES},       {0, NULL},
};

static PyType_Spec SESSION_SPEC = {
    .name = "sbe._native.Session",
    .basicsize = sizeof(Session),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = SESSION_SLOTS,
};

static const struct {
    const char *name;
    long value;
} CONSTANTS[] = {
    {"SESSION_INITIALISING", SBE_SESSION_INITIALISING},
    {"SESSION_WAITING", SBE_SESSION_WAITING},
    {"SESSION_INITIALISED", SBE_SESSION_INITIALISED},
    {"SESSION_CONNECTED", SBE_SESSION_CONNECTED},
    {"SESSION_CLOSING", SBE_SESSION_CLOSING},
    {"SESSION_CLOSED", SBE_SESSION_CLOSED},
    {"REFUSED_NOT", SBE_REFUSED_NOT},
    {"REFUSED_MAGIC", SBE_REFUSED_MAGIC},
    {"REFUSED_VERSION", SBE_REFUSED_VERSION},
    {"REFUSED_ROLE", SBE_REFUSED_ROLE},
    {"REFUSED_LIMITS", SBE_REFUSED_LIMITS},
    {"CONTEXT_GLOBAL", SBE_CONTEXT_GLOBAL},
    {"SEGMENTS_MAX", SEGMENTS_MAX},
};

int native_session_init(PyObject *module)
{
    for (size_t i = 0; i < sizeof CONSTANTS / sizeof CONSTANTS[0]; i++)
        if (PyModule_AddIntConstant(module, CONSTANTS[i].name, CONSTANTS[i].value) < 0)
            return -1;
    return native_add_type(module, &SESSION_SPEC, &Session_Type);
}
