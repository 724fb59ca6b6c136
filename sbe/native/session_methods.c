/* SPDX-License-Identifier: Apache-2.0 */
/* Session's methods: what arrives, and this end's own requests. */
#define PY_SSIZE_T_CLEAN
#include "session.h"

#include <string.h>

#include "convert.h"
#include "core/status.h"
#include "native.h"

/* Ends a method that answers None: raises what a hook raised, else the status. */
static PyObject *finish(Session *self, PyObject *outer, int status, const char *what)
{
    if (!session_leave(self, outer))
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
    PyObject *outer = session_enter(self);
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
    if (!PyArg_ParseTuple(arguments, "O&:start", native_as_u32, &epoch))
        return NULL;
    PyObject *outer = session_enter(self);
    int status = sbe_session_start(&self->session, epoch);
    return finish(self, outer, status, "start: an epoch is not zero and not the one before");
}

static PyObject *session_lost(PyObject *object, PyObject *unused)
{
    Session *self = (Session *)object;
    (void)unused;
    PyObject *outer = session_enter(self);
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
    if (!PyArg_ParseTuple(arguments, "y*O&:receive", &view, native_as_u32, &handles))
        return NULL;
    size_t size = (size_t)view.len;
    if (size <= sizeof message)
        memcpy(message, view.buf, size);
    PyBuffer_Release(&view);
    if (size > sizeof message)
        return PyLong_FromLong(SBE_EBADMSG);
    PyObject *outer = session_enter(self);
    remember_peer(self, message, size);
    int status = sbe_session_receive(&self->session, message, (uint32_t)size, handles);
    return session_leave(self, outer) ? PyLong_FromLong(status) : NULL;
}

static PyObject *session_bye(PyObject *object, PyObject *token)
{
    Session *self = (Session *)object;
    PyObject *outer = session_enter(self);
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
    if (!PyArg_ParseTuple(arguments, "O&O:ping", native_as_u64, &ping.cookie, &token))
        return NULL;
    return request((Session *)object, SBE_CONTROL_PING, &ping.control, sizeof ping, token, "ping");
}

static PyObject *context_request(PyObject *object, PyObject *arguments, enum sbe_control_type type,
                                 const char *what)
{
    struct sbe_context_message message;
    PyObject *token;
    memset(&message, 0, sizeof message);
    if (!PyArg_ParseTuple(arguments, "O&O", native_as_u32, &message.context, &token))
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
        bool taken =
            pair != NULL && PyArg_ParseTuple(pair, "O&O&", native_as_u64, &segments[i].address,
                                             native_as_u64, &segments[i].size);
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
    if (!PyArg_ParseTuple(arguments, "O&O&O&O&O&OO|O&:map_area", native_as_u32, &message.map.area,
                          native_as_u32, &message.map.context, native_as_u32, &message.map.flags,
                          native_as_u64, &message.map.size, native_as_u32, &message.map.handles,
                          &segments, &token, native_as_u32, &message.map.segment_first))
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
    if (!PyArg_ParseTuple(arguments, "O&O:unmap_area", native_as_u32, &message.area, &token))
        return NULL;
    return request((Session *)object, SBE_CONTROL_AREA_UNMAP, &message.control, sizeof message,
                   token, "unmap_area");
}

static PyObject *session_open_channel(PyObject *object, PyObject *arguments)
{
    struct sbe_channel_open open;
    PyObject *token;
    memset(&open, 0, sizeof open);
    if (!PyArg_ParseTuple(arguments, "O&O&O&O&O&O&O&O&O&O&O:open_channel", native_as_u32,
                          &open.channel, native_as_u32, &open.context, native_as_u32,
                          &open.ring_area, native_as_u32, &open.slots, native_as_u32,
                          &open.slot_size, native_as_u32, &open.line, native_as_u64,
                          &open.send_offset, native_as_u64, &open.receive_offset, native_as_u32,
                          &open.priority, native_as_u32, &open.handles, &token))
        return NULL;
    return request((Session *)object, SBE_CONTROL_CHANNEL_OPEN, &open.control, sizeof open, token,
                   "open_channel");
}

static PyObject *session_close_channel(PyObject *object, PyObject *arguments)
{
    struct sbe_channel_close message;
    PyObject *token;
    memset(&message, 0, sizeof message);
    if (!PyArg_ParseTuple(arguments, "O&O:close_channel", native_as_u32, &message.channel, &token))
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
    if (!PyArg_ParseTuple(arguments, "O&s#O&O:find_service", native_as_u32, &find.context, &name,
                          &size, native_as_u16, &find.version, &token) ||
        !session_set_name(find.name, name, size))
        return NULL;
    return request((Session *)object, SBE_CONTROL_SERVICE_FIND, &find.control, sizeof find, token,
                   "find_service");
}

static PyObject *session_list_service(PyObject *object, PyObject *arguments)
{
    struct sbe_service_list list;
    PyObject *token;
    memset(&list, 0, sizeof list);
    if (!PyArg_ParseTuple(arguments, "O&O:list_service", native_as_u32, &list.index, &token))
        return NULL;
    return request((Session *)object, SBE_CONTROL_SERVICE_LIST, &list.control, sizeof list, token,
                   "list_service");
}

static PyObject *session_send_event(PyObject *object, PyObject *arguments)
{
    Session *self = (Session *)object;
    uint32_t event, value;
    if (!PyArg_ParseTuple(arguments, "O&O&:send_event", native_as_u32, &event, native_as_u32,
                          &value))
        return NULL;
    PyObject *outer = session_enter(self);
    int status = sbe_session_event(&self->session, event, value);
    return finish(self, outer, status, "send_event");
}

PyMethodDef SESSION_METHODS[] = {
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
     "segments: (address, bytes) pairs in the receiver's address space."},
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
