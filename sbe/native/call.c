/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Call: one transaction of this end, a future.
 *
 * While a call is in flight it holds its areas. Giving it up (timeout, cancel) changes what the
 * user sees; the hold ends only when the remote answers or is reset, because until then it may
 * still write.
 */
#include "call.h"

#include <string.h>

#include "cache.h"
#include "call_buffers.h"
#include "channel.h"
#include "core/status.h"
#include "memory.h"
#include "native.h"
#include "reply.h"
#include "wait.h"

PyTypeObject *Call_Type;

static void complete(struct open_call *open, Channel *channel, const struct sbe_frame *response,
                     int status);
static int visit_open(struct open_call *open, visitproc visit, void *arg);

Call *native_call_new(Channel *channel, uint8_t type, uint16_t service, PyObject *buffers,
                      Py_ssize_t payload)
{
    Py_ssize_t count = buffers == NULL ? 0 : PyTuple_Size(buffers);
    if (count < 0)
        return NULL;
    if (count > (Py_ssize_t)channel->core.buffers) {
        native_raise(SBE_EMSGSIZE, false, "%zd buffers in one message, this link takes at most %u",
                     count, channel->core.buffers);
        return NULL;
    }
    Call *call = (Call *)PyType_GenericAlloc(Call_Type, 0);
    if (call == NULL)
        return NULL;
    native_hold(channel);
    call->channel = channel;
    call->open = (struct open_call){complete, visit_open, service};
    call->type = type;
    call->asked = call->few_asked;
    call->held = call->few_held;
    if (count > 2) {
        call->asked = PyMem_Calloc((size_t)count, sizeof *call->asked);
        call->held = PyMem_Calloc((size_t)count, sizeof(Memory *));
    }
    if (call->asked == NULL || call->held == NULL) {
        PyErr_NoMemory();
        goto fail;
    }
    call->buffer_count = (uint16_t)count;
    int staging = 0; /* asked for only when nothing else is wrong */
    for (Py_ssize_t i = 0; i < count; i++) {
        int how = native_call_use(call, (uint32_t)i, PyTuple_GetItem(buffers, i));
        if (how < 0)
            goto fail;
        staging |= how;
    }
    int how = native_call_check_room(call, payload);
    if (how < 0)
        goto fail;
    if ((staging | how) == 0)
        return call;
    native_call_need_staging();
fail:
    native_drop(call);
    return NULL;
}

int native_call_send(Call *call, const void *payload, uint32_t payload_size, uint64_t deadline_ns,
                     uint64_t now_ns)
{
    Channel *channel = call->channel;
    struct sbe_frame frame;
    if (sbe_channel_room(&channel->core) == 0)
        return channel->core.tx.broken ? SBE_EPROTO : SBE_EAGAIN;
    call->started_ns = now_ns != 0 ? now_ns : native_now_ns(NULL);
    call->deadline_ns = deadline_ns;
    frame.type = call->type;
    frame.service = call->open.service;
    frame.buffer_count = call->buffer_count;
    frame.status = 0;
    frame.payload = payload;
    frame.payload_size = payload_size;
    frame.deadline_us = native_deadline_us(deadline_ns, call->started_ns);
    frame.waited_ns = frame.handled_ns = 0;
    frame.transaction = 0;
    call->synced = 0;
    for (uint32_t i = 0; i < call->buffer_count; i++) {
        frame.buffers[i] = call->asked[i];
        call->synced += native_handover(channel, SBE_GIVE, &call->asked[i], call->held[i]);
    }
    int synced = native_unsynced(channel);
    if (synced < 0)
        return synced;
    if (call->type == SBE_FRAME_MESSAGE)
        return sbe_channel_send(&channel->core, &frame);
    int status = sbe_channel_request(&channel->core, &frame, &call->open);
    if (status < 0)
        return status;
    call->transaction = frame.transaction;
    call->in_flight = true;
    if (channel->in_flight++ == 0)
        channel->turn_ns = call->started_ns;
    native_hold(call); /* the core's table holds it until it is answered */
    return SBE_OK;
}

/* -- completion ---------------------------------------------------------------------------- */

static Call *call_of(struct open_call *open)
{
    return (Call *)(void *)((char *)open - offsetof(Call, open));
}

static int visit_open(struct open_call *open, visitproc visit, void *arg)
{
    return visit((PyObject *)call_of(open), arg);
}

/*
 * What the remote may have written is this end's again, whatever became of the call: it failed or
 * was given up, or the channel died, and the memory lives on.
 */
static void take_back(Call *call)
{
    for (uint32_t i = 0; i < call->buffer_count; i++)
        call->synced +=
            native_handover(call->channel, SBE_TAKE_BACK, &call->asked[i], call->held[i]);
}

/* Copies inline results home and notes what was written where. */
static void take_buffers(Call *call, const struct sbe_frame *response)
{
    uint32_t next = 0;
    for (uint32_t i = 0; i < response->buffer_count; i++) {
        const struct sbe_buffer *got = &response->buffers[i];
        while (call->asked[next].direction == SBE_DIR_IN)
            next++; /* sbe_frame_check_response() has seen that there is one */
        struct sbe_buffer *asked = &call->asked[next++];
        if ((asked->flags & SBE_BUFFER_INLINE) != 0 && got->size != 0) {
            memcpy(asked->data, got->data, (size_t)got->size);
            call->copied += got->size;
        }
        asked->size = got->size;
    }
}

static void finish(Call *call, int status, bool remote_said)
{
    if (call->state != CALL_OPEN)
        return;
    call->ended_ns = native_now_ns(NULL);
    call->state = status < 0 ? CALL_FAILED : CALL_DONE;
    call->status = status;
    call->remote_said = remote_said;
    if (call->callbacks == NULL)
        return;
    Channel *channel = call->channel;
    native_hold(call);
    if (channel->ready == NULL)
        channel->ready = call;
    else
        channel->last_ready->next_ready = call;
    channel->last_ready = call;
}

/* Called by the drain, or when the channel dies; takes over the core's reference. */
static void complete(struct open_call *open, Channel *channel, const struct sbe_frame *response,
                     int status)
{
    Call *call = call_of(open);
    bool remote_said = response != NULL && response->status < 0;
    take_back(call);
    bool unsynced = native_unsynced(channel) < 0;
    if (response != NULL) {
        status = response->status;
        /* A response that is malformed in itself comes with SBE_EBADMSG from the core. */
        if (status == SBE_EBADMSG ||
            sbe_frame_check_response(response, call->asked, call->buffer_count) < 0)
            status = SBE_EBADMSG, remote_said = false;
    }
    if (response != NULL && status != SBE_EBADMSG && call->state == CALL_OPEN) {
        take_buffers(call, response);
        if (unsynced)
            status = SBE_EIO, remote_said = false; /* what lies in the buffers is not known */
        call->waited_ns = response->waited_ns;
        call->handled_ns = response->handled_ns;
        call->payload =
            PyBytes_FromStringAndSize(response->payload, (Py_ssize_t)response->payload_size);
        if (call->payload == NULL) {
            PyErr_Clear();
            status = SBE_ENOMEM, remote_said = false;
        }
    }
    if (response == NULL && call->state == CALL_OPEN) {
        Py_XINCREF(channel->error);
        call->error = channel->error;
    }
    call->in_flight = false;
    channel->in_flight--;
    native_call_release(call);
    bool awaited = call->state == CALL_OPEN;
    finish(call, status, remote_said);
    channel->turn_ns = awaited ? call->ended_ns : native_now_ns(NULL);
    native_drop(call);
}

void native_call_abandon(Call *call, int status)
{
    struct sbe_frame cancel = {.type = SBE_FRAME_CANCEL, .transaction = call->transaction};
    if (call->state != CALL_OPEN)
        return;
    if (status == SBE_ETIMEDOUT)
        native_stuck_find(&call->stuck, call);
    finish(call, status, false);
    /* A full ring only means that the remote learns of it by our silence. */
    if (call->in_flight && native_channel_usable(call->channel) &&
        sbe_channel_room(&call->channel->core) > 0 &&
        sbe_channel_send(&call->channel->core, &cancel) == SBE_OK)
        sbe_channel_flush(&call->channel->core);
    native_call_release_views(
        call); /* the remote never had them, and its answer will not be copied home */
}

/* What it raises is shown: whoever happens to run it, perhaps a thread of ours, goes on. */
static void run_callback(Call *call, PyObject *callback)
{
    PyObject *result = PyObject_CallFunctionObjArgs(callback, (PyObject *)call, NULL);
    if (result == NULL)
        PyErr_WriteUnraisable(callback);
    Py_XDECREF(result);
}

static void run_list(Call *call, PyObject *callbacks)
{
    Py_ssize_t count = PyList_Size(callbacks);
    for (Py_ssize_t i = 0; i < count; i++)
        run_callback(call, PyList_GetItem(callbacks, i));
}

void native_run_callbacks(Channel *channel)
{
    while (channel->ready != NULL) {
        Call *call = channel->ready;
        PyObject *callbacks = call->callbacks;
        channel->ready = call->next_ready;
        call->next_ready = NULL;
        call->callbacks = NULL;
        run_list(call, callbacks);
        Py_DECREF(callbacks);
        native_drop(call);
    }
}

/* Given up by this end: what it was, and what that means for the buffers. */
static PyObject *raise_given_up(const Call *call, PyObject *name)
{
    unsigned held = 0;
    for (uint32_t i = 0; i < call->buffer_count; i++)
        held += call->held[i] != NULL;
    PyObject *message = call->status == SBE_ECANCELED
                            ? PyUnicode_FromFormat("the call of service %R was cancelled", name)
                            : native_stuck_say(&call->stuck, call, name);
    if (message != NULL && held > 0)
        native_raise(call->status, false,
                     "%U; its %u buffer%s quarantined until the remote answers or is reset",
                     message, held, held == 1 ? " stays" : "s stay");
    else if (message != NULL)
        native_raise(call->status, false, "%U", message);
    Py_XDECREF(message);
    return NULL;
}

PyObject *native_channel_service(const Channel *channel, uint16_t service)
{
    PyObject *id = PyLong_FromUnsignedLong(service), *name = NULL;
    if (id != NULL && channel != NULL)
        name = PyDict_GetItemWithError(channel->names, id);
    if (name == NULL)
        return PyErr_Occurred() == NULL ? id : NULL;
    Py_INCREF(name); /* its repr may be anything */
    Py_DECREF(id);
    return name;
}

PyObject *native_call_service(const Call *call)
{
    return native_channel_service(call->channel, call->open.service);
}

static PyObject *raise_failure(const Call *call)
{
    PyObject *name = native_call_service(call);
    if (name == NULL)
        return NULL;
    bool ours =
        !call->remote_said && (call->status == SBE_ETIMEDOUT || call->status == SBE_ECANCELED);
    if (ours)
        raise_given_up(call, name);
    else if (call->status == SBE_EBADMSG && !call->remote_said)
        native_raise(SBE_EBADMSG, false,
                     "the remote's answer of service %R was malformed and dropped", name);
    else
        native_raise(call->status, call->remote_said, "service %R", name);
    Py_DECREF(name);
    return NULL;
}

PyObject *native_call_outcome(Call *call)
{
    if (call->state == CALL_FAILED && call->error != NULL)
        return native_raise_again(call->error);
    if (call->state == CALL_FAILED)
        return raise_failure(call);
    return native_reply_new(call);
}

/* -- the future's methods ------------------------------------------------------------------ */

static bool is_finished(Channel *channel, void *what)
{
    (void)channel;
    return ((Call *)what)->state != CALL_OPEN;
}

/* Waits for the end, at most `timeout`; the call's own deadline ends it. */
static int wait_for(Call *call, PyObject *timeout)
{
    uint64_t until_ns, now_ns;
    if (native_deadline(timeout, &until_ns, &now_ns) < 0)
        return -1;
    uint64_t sooner_ns = until_ns < call->deadline_ns ? until_ns : call->deadline_ns;
    enum native_wait how = native_wait(call->channel, is_finished, call, sooner_ns, 0);
    if (how == WAIT_TIMEOUT && sooner_ns == call->deadline_ns) {
        native_call_abandon(call, SBE_ETIMEDOUT);
        native_run_callbacks(call->channel);
        return 0;
    }
    if (how == WAIT_TIMEOUT)
        native_raise(SBE_ETIMEDOUT, false, "the call goes on: no answer yet");
    return how == WAIT_READY ? 0 : -1;
}

static char *TIMEOUT[] = {"timeout", NULL};

static PyObject *call_result(PyObject *object, PyObject *arguments, PyObject *keywords)
{
    PyObject *timeout = Py_None;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "|O", TIMEOUT, &timeout) ||
        wait_for((Call *)object, timeout) < 0)
        return NULL;
    return native_call_outcome((Call *)object);
}

static PyObject *call_exception(PyObject *object, PyObject *arguments, PyObject *keywords)
{
    Call *call = (Call *)object;
    PyObject *timeout = Py_None, *type, *error, *trace;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "|O", TIMEOUT, &timeout) ||
        wait_for(call, timeout) < 0)
        return NULL;
    if (call->state == CALL_DONE)
        Py_RETURN_NONE;
    native_call_outcome(call);
    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    Py_XDECREF(type);
    Py_XDECREF(trace);
    return error;
}

static PyObject *call_done(PyObject *object, PyObject *unused)
{
    (void)unused;
    /* Takes what came, so that asking again and again gets somewhere. */
    if (native_channel_drain(((Call *)object)->channel) < 0)
        return NULL;
    return PyBool_FromLong(((Call *)object)->state != CALL_OPEN);
}

static PyObject *call_cancel(PyObject *object, PyObject *unused)
{
    Call *call = (Call *)object;
    (void)unused;
    if (call->state != CALL_OPEN)
        Py_RETURN_FALSE;
    native_call_abandon(call, SBE_ECANCELED);
    native_wake(call->channel);
    native_run_callbacks(call->channel);
    Py_RETURN_TRUE;
}

static PyObject *call_expire(PyObject *object, PyObject *unused)
{
    Call *call = (Call *)object;
    (void)unused;
    native_call_abandon(call, SBE_ETIMEDOUT);
    native_wake(call->channel);
    native_run_callbacks(call->channel);
    Py_RETURN_NONE;
}

static PyObject *call_charge(PyObject *object, PyObject *copied)
{
    unsigned long long bytes = PyLong_AsUnsignedLongLong(copied);
    if (PyErr_Occurred() != NULL)
        return NULL;
    ((Call *)object)->copied += bytes;
    Py_RETURN_NONE;
}

static PyObject *call_add_done_callback(PyObject *object, PyObject *callback)
{
    Call *call = (Call *)object;
    if (!PyCallable_Check(callback))
        return native_raise(SBE_EINVAL, false, "%R can't be called at the end of a call", callback);
    if (call->state != CALL_OPEN) {
        run_callback(call, callback);
        Py_RETURN_NONE;
    }
    if (call->callbacks == NULL)
        call->callbacks = PyList_New(0);
    if (call->callbacks == NULL || PyList_Append(call->callbacks, callback) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* What waits elsewhere than in result(), asked to do so. NULL raised. */
static PyObject *wait_elsewhere(Call *call, const char *how)
{
    PyObject *waits = call->channel->waits;
    if (waits == NULL)
        return native_raise(SBE_EINVAL, false, "calls of this channel have only result()");
    Py_INCREF(waits);
    PyObject *found = PyObject_CallFunctionObjArgs(waits, NULL);
    Py_DECREF(waits);
    if (found == Py_None)
        native_raise(SBE_ESHUTDOWN, false, "the connection is gone, and with it who would wait");
    PyObject *result =
        found == NULL || found == Py_None ? NULL : PyObject_CallMethod(found, how, "O", call);
    Py_XDECREF(found);
    return result;
}

static PyObject *call_await(PyObject *object)
{
    PyObject *coroutine = wait_elsewhere((Call *)object, "wait");
    PyObject *steps = coroutine == NULL ? NULL : PyObject_CallMethod(coroutine, "__await__", NULL);
    Py_XDECREF(coroutine);
    return steps;
}

static PyObject *call_future(PyObject *object, PyObject *unused)
{
    (void)unused;
    return wait_elsewhere((Call *)object, "future");
}

static PyObject *call_repr(PyObject *object)
{
    const Call *call = (const Call *)object;
    PyObject *name = native_call_service(call), *text;
    if (name == NULL)
        return NULL;
    const char *state = call->state == CALL_OPEN   ? "unanswered"
                        : call->state == CALL_DONE ? "answered"
                                                   : "failed";
    const char *held = call->state != CALL_OPEN && call->in_flight ? ", not yet answered" : "";
    text = PyUnicode_FromFormat("<sbe.Call %llu of service %R: %s%s>",
                                (unsigned long long)call->transaction, name, state, held);
    Py_DECREF(name);
    return text;
}

static PyObject *call_get(PyObject *object, void *which)
{
    Call *call = (Call *)object;
    if (*(const char *)which == 'd' && call->deadline_ns == NATIVE_FOREVER)
        Py_RETURN_NONE;
    if (*(const char *)which == 'd')
        return PyFloat_FromDouble((double)call->deadline_ns / 1e9);
    if (*(const char *)which == 't')
        return PyLong_FromUnsignedLongLong(call->transaction);
    return PyBool_FromLong(call->in_flight);
}

static int call_traverse(PyObject *object, visitproc visit, void *arg)
{
    const Call *call = (const Call *)object;
    Py_VISIT((PyObject *)Py_TYPE(object));
    Py_VISIT((PyObject *)call->channel);
    Py_VISIT(call->callbacks);
    Py_VISIT(call->error);
    for (uint32_t i = 0; i < call->buffer_count; i++) {
        Py_VISIT((PyObject *)call->held[i]);
        if (call->views != NULL)
            Py_VISIT(call->views[i].obj);
    }
    return 0;
}

static void call_dealloc(PyObject *object)
{
    Call *call = (Call *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    native_call_release(call);
    if (call->asked != call->few_asked)
        PyMem_Free(call->asked);
    if (call->held != call->few_held)
        PyMem_Free(call->held);
    Py_XDECREF(call->callbacks);
    Py_XDECREF(call->payload);
    Py_XDECREF(call->error);
    native_drop(call->channel);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyMethodDef CALL_METHODS[] = {
    NATIVE_NOT_COPIED,
    {"result", (PyCFunction)(void (*)(void))call_result, METH_VARARGS | METH_KEYWORDS,
     "result(timeout=None): waits for the reply, seconds; raises what went wrong."},
    {"exception", (PyCFunction)(void (*)(void))call_exception, METH_VARARGS | METH_KEYWORDS,
     "exception(timeout=None): waits; what went wrong, or None."},
    {"done", call_done, METH_NOARGS, "True when it has ended, well or not."},
    {"future", call_future, METH_NOARGS,
     "future(): the same as a future of concurrent.futures; cancelling that one cancels the call."},
    {"cancel", call_cancel, METH_NOARGS,
     "cancel(): gives it up; its buffers stay held until the remote answers. False if ended."},
    {"_expire", call_expire, METH_NOARGS, "_expire(): its deadline has passed."},
    {"_charge", call_charge, METH_O,
     "_charge(bytes): adds bytes copied on its behalf to its cost."},
    {"add_done_callback", call_add_done_callback, METH_O,
     "add_done_callback(fn): fn(call) once ended, in the thread that noticed."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef CALL_GETSET[] = {
    {"transaction", call_get, NULL, "its id, 0 before it is sent", "t"},
    {"deadline", call_get, NULL, "when it is given up, by time.monotonic(); None never", "d"},
    {"in_flight", call_get, NULL, "the remote has not answered: its buffers are held", "f"},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot CALL_SLOTS[] = {
    {Py_tp_doc, "One transaction in flight, a future. Any thread may wait for it."},
    {Py_tp_dealloc, call_dealloc},
    {Py_tp_traverse, call_traverse}, /* its channel breaks the cycles: it holds what is open */
    {Py_tp_methods, CALL_METHODS},
    {Py_tp_getset, CALL_GETSET},
    {Py_tp_repr, call_repr},
    {Py_am_await, call_await},
    {0, NULL},
};

static PyType_Spec CALL_SPEC = {
    .name = "sbe._native.Call",
    .basicsize = sizeof(Call),
    .flags = NATIVE_COLLECTED | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = CALL_SLOTS,
};

int native_call_init(PyObject *module)
{
    if (native_call_buffers_init(module) < 0)
        return -1;
    return native_add_type(module, &CALL_SPEC, &Call_Type);
}
