/* SPDX-License-Identifier: Apache-2.0 */
/* The channel's methods that send: submit, call, sync, send. */
#include "channel_call.h"

#include "buffer.h"
#include "call.h"
#include "channel.h"
#include "convert.h"
#include "core/status.h"
#include "native.h"
#include "wait.h"

static void raise_no_room(const Channel *channel, int status, bool all_open)
{
    if (all_open)
        native_raise(status, false,
                     "not sent: all %u calls that channel %u may have open are unanswered",
                     channel->core.call_count, channel->core.id);
    else
        native_raise(status, false,
                     "not sent: the ring of channel %u is full: the remote has %u frames to take",
                     channel->core.id, sbe_ring_in_flight(&channel->core.tx));
}

struct arguments {
    uint16_t service;
    PyObject *buffers; /* a tuple, borrowed, or NULL */
    Py_buffer payload;
    uint64_t deadline_ns, now_ns;
    int wait;
};

/* Sends, waiting for room until the deadline. 0, or -1 raised. */
static int send_call(Call *call, const struct arguments *given)
{
    Channel *channel = call->channel;
    const Py_buffer *payload = &given->payload;
    uint64_t now_ns = given->now_ns;
    for (;; now_ns = 0) {
        if (native_channel_check(channel) < 0)
            return -1;
        int status = native_call_send(call, payload->buf, (uint32_t)payload->len,
                                      given->deadline_ns, now_ns);
        if (status == SBE_OK)
            break;
        if (status == SBE_EPROTO && native_channel_drain(channel) < 0)
            return -1;
        if (status == SBE_EPROTO)
            continue; /* the drain has shut the channel, and said why */
        if (status != SBE_EAGAIN && status != SBE_ENOMEM) {
            native_raise(status, false, "channel %u", channel->core.id);
            return -1;
        }
        enum native_wait how =
            given->wait ? native_wait_room(channel, given->deadline_ns) : WAIT_TIMEOUT;
        if (how == WAIT_TIMEOUT)
            raise_no_room(channel, given->wait ? SBE_ETIMEDOUT : SBE_EAGAIN, status == SBE_ENOMEM);
        if (how != WAIT_READY)
            return -1;
    }
    call->doorbells += sbe_channel_flush(&channel->core);
    native_wake_untimed(channel);
    return 0;
}

/* (service, buffers=(), payload=b"", timeout=None, wait=True), all by position. -1 raised. */
static int parse(PyObject *const *given, Py_ssize_t count, struct arguments *parsed)
{
    *parsed = (struct arguments){.deadline_ns = NATIVE_FOREVER, .wait = 1};
    if (count < 1 || count > 5 || (count > 1 && !PyTuple_Check(given[1]))) {
        PyErr_SetString(PyExc_TypeError, "(service, buffers, payload, timeout, wait) are wanted");
        return -1;
    }
    if (!native_as_u16(given[0], &parsed->service))
        return -1;
    parsed->buffers = count > 1 ? given[1] : NULL;
    if (count > 3 && native_deadline(given[3], &parsed->deadline_ns, &parsed->now_ns) < 0)
        return -1;
    if (count > 4 && (parsed->wait = PyObject_IsTrue(given[4])) < 0)
        return -1;
    if (count < 3)
        return 0;
    enum native_shown shown = native_show_bytes(given[2], &parsed->payload, false);
    if (shown == SHOWN_NOT && PyErr_ExceptionMatches(PyExc_TypeError))
        PyErr_Format(PyExc_TypeError,
                     "payload: bytes or another object with the buffer protocol, not %R%s",
                     (PyObject *)Py_TYPE(given[2]),
                     PyUnicode_Check(given[2]) ? "; a string's are encode()" : "");
    return shown == SHOWN ? 0 : -1;
}

/* A sent call, or NULL raised. */
static Call *start(Channel *self, PyObject *const *given, Py_ssize_t count, uint8_t type,
                   uint64_t *deadline_ns)
{
    struct arguments parsed;
    if (native_channel_check(self) < 0 || parse(given, count, &parsed) < 0)
        return NULL;
    *deadline_ns = parsed.deadline_ns;
    Call *call = native_call_new(self, type, parsed.service, parsed.buffers, parsed.payload.len);
    if (call != NULL && send_call(call, &parsed) < 0)
        Py_CLEAR(call);
    PyBuffer_Release(&parsed.payload);
    return call;
}

PyObject *native_channel_submit(PyObject *object, PyObject *const *given, Py_ssize_t count)
{
    uint64_t deadline_ns;
    return (PyObject *)start((Channel *)object, given, count, SBE_FRAME_REQUEST, &deadline_ns);
}

PyObject *native_channel_sync(PyObject *object, PyObject *const *given, Py_ssize_t count)
{
    uint64_t deadline_ns;
    return (PyObject *)start((Channel *)object, given, count, SBE_FRAME_SYNC, &deadline_ns);
}

PyObject *native_channel_send(PyObject *object, PyObject *const *given, Py_ssize_t count)
{
    uint64_t deadline_ns;
    Call *call = start((Channel *)object, given, count, SBE_FRAME_MESSAGE, &deadline_ns);
    if (call == NULL)
        return NULL;
    native_drop(call); /* nobody answers a message */
    Py_RETURN_NONE;
}

static bool is_finished(Channel *channel, void *what)
{
    (void)channel;
    return ((Call *)what)->state != CALL_OPEN;
}

PyObject *native_channel_call(PyObject *object, PyObject *const *given, Py_ssize_t count)
{
    Channel *self = (Channel *)object;
    uint64_t deadline_ns;
    Call *call = start(self, given, count, SBE_FRAME_REQUEST, &deadline_ns);
    if (call == NULL)
        return NULL;
    enum native_wait how = native_wait(self, is_finished, call, deadline_ns, call->started_ns);
    PyObject *reply = NULL;
    if (how == WAIT_TIMEOUT)
        native_call_abandon(call, SBE_ETIMEDOUT);
    if (how == WAIT_RAISED && PyErr_Occurred() != NULL) {
        PyObject *type, *error, *trace; /* Ctrl-C: the remote may stop, the error stays */
        PyErr_Fetch(&type, &error, &trace);
        native_call_abandon(call, SBE_ECANCELED);
        PyErr_Restore(type, error, trace);
    } else {
        reply = native_call_outcome(call);
    }
    native_drop(call);
    return reply;
}
