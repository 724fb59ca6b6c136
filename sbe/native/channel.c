/* SPDX-License-Identifier: Apache-2.0 */
/* Channel: this process's end of a channel, over the core's. */
#include "channel.h"

#include <errno.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "batch.h"
#include "cache.h"
#include "call.h"
#include "channel_call.h"
#include "channel_open.h"
#include "core/status.h"
#include "native.h"
#include "request.h"
#include "wait.h"

PyTypeObject *Channel_Type;

/* Frames taken in one go before other threads and callbacks get a turn. */
#define DRAIN_BUDGET 4096u

/* After a fork both processes have the rings: one of them may go on, or both write the same slots.
 */
static uint32_t forks;

static void count_fork(void)
{
    forks++;
}

static void ring_doorbell(void *self, const struct sbe_channel *core)
{
    const Channel *channel = self;
    uint64_t one = 1;
    (void)core;
    /*
     * Non-blocking, and nobody whom we do not trust can change that (ADR 0010): EAGAIN means that
     * 2^64 - 2 rings are pending, which will do.
     */
    ssize_t written = write(channel->ring_fd, &one, sizeof one);
    (void)written;
}

/* -- life ---------------------------------------------------------------------------------- */

static PyObject *channel_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    struct channel_settings given;
    if (!native_channel_parse(arguments, keywords, &given))
        return NULL;
    Channel *self = (Channel *)PyType_GenericAlloc(type, 0);
    if (self == NULL)
        return NULL;
    native_hold(given.table);
    self->table = given.table;
    native_hold(given.rings);
    self->rings = given.rings;
    self->port =
        (struct sbe_port){.self = self, .now_ns = native_now_ns, .doorbell = ring_doorbell};
    native_cache_hooks(&self->port);
    self->ring_fd = self->wake_fd = self->kick_fd = self->sleep_fd = -1;
    self->forks = forks;
    self->names = PyDict_New();
    if (self->names == NULL || !native_channel_open(self, &given)) {
        native_drop(self);
        return NULL;
    }
    return (PyObject *)self;
}

bool native_channel_usable(const Channel *channel)
{
    return channel->error == NULL && channel->forks == forks;
}

int native_channel_check(Channel *channel)
{
    if (native_channel_usable(channel))
        return 0;
    if (channel->error != NULL)
        native_raise_again(channel->error);
    else
        native_raise(SBE_ENOTCONN, false,
                     "channel %u belongs to the process that forked this one: connect again here",
                     channel->core.id);
    return -1;
}

static void fail_one(void *self, void *owner)
{
    struct open_call *open = owner;
    open->complete(open, self, NULL, SBE_ECONNRESET);
}

void native_channel_fail(Channel *channel, PyObject *error)
{
    if (channel->error != NULL)
        return;
    Py_INCREF(error);
    channel->error = error;
    sbe_channel_abort(&channel->core, fail_one, channel);
    native_requests_drop(channel);
    native_wake(channel);
}

/* The exception that is set becomes why the channel is dead. */
static void fail_with_raised(Channel *channel)
{
    PyObject *type, *error, *trace;
    PyErr_Fetch(&type, &error, &trace);
    PyErr_NormalizeException(&type, &error, &trace);
    if (error != NULL)
        native_channel_fail(channel, error);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(trace);
}

static int channel_traverse(PyObject *object, visitproc visit, void *arg)
{
    const Channel *self = (const Channel *)object;
    Py_VISIT((PyObject *)Py_TYPE(object));
    Py_VISIT((PyObject *)self->table);
    Py_VISIT((PyObject *)self->rings);
    Py_VISIT(self->on_control);
    Py_VISIT(self->names);
    Py_VISIT(self->waits);
    Py_VISIT(self->error);
    for (uint32_t i = 0; self->in_flight > 0 && i < self->core.call_count; i++) {
        struct open_call *open = self->calls[i].owner;
        int status = open == NULL ? 0 : open->visit(open, visit, arg);
        if (status != 0)
            return status;
    }
    for (Call *call = self->ready; call != NULL; call = call->next_ready)
        Py_VISIT((PyObject *)call);
    return native_requests_visit(self, visit, arg);
}

/* Only garbage reaches this with calls in flight: their callbacks are to hear of it. */
static void channel_finalize(PyObject *object)
{
    Channel *self = (Channel *)object;
    PyObject *type, *error, *trace;
    if (self->error != NULL || self->in_flight == 0)
        return;
    PyErr_Fetch(&type, &error, &trace);
    native_raise(SBE_ESHUTDOWN, false, "channel %u was dropped with calls in flight",
                 self->core.id);
    fail_with_raised(self);
    native_run_callbacks(self);
    PyErr_Restore(type, error, trace);
}

static int channel_clear(PyObject *object)
{
    Channel *self = (Channel *)object;
    Py_CLEAR(self->on_control);
    Py_CLEAR(self->waits);
    sbe_channel_abort(&self->core, fail_one, self); /* batches given up, too */
    while (self->ready != NULL) {
        Call *call = self->ready;
        self->ready = call->next_ready;
        native_drop(call);
    }
    native_requests_drop(self);
    return 0;
}

static void close_all(Channel *self)
{
    int *fds[] = {&self->ring_fd, &self->wake_fd, &self->sleep_fd, &self->kick_fd};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
}

static void channel_dealloc(PyObject *object)
{
    Channel *self = (Channel *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    (void)channel_clear(object);
    close_all(self);
    PyMem_Free(self->calls);
    PyMem_Free(self->scratch);
    Py_XDECREF(self->names);
    Py_XDECREF(self->error);
    native_drop(self->rings);
    native_drop(self->table);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* A forked child has no use for what it inherited; the parent's stays open. */
static PyObject *channel_let_go_in_child(PyObject *object, PyObject *unused)
{
    Channel *self = (Channel *)object;
    (void)unused;
    if (self->forks != forks)
        close_all(self);
    Py_RETURN_NONE;
}

/* -- taking frames ------------------------------------------------------------------------- */

/* True while there may be more. */
static bool take_one(Channel *channel, struct sbe_frame *frame, uint8_t *scratch)
{
    int status = sbe_channel_receive(&channel->core, frame, scratch);
    if (status == 0 || status == SBE_EPROTO)
        return false;
    if (status < 0)
        return true; /* a malformed frame was dropped and counted */
    if (frame->type == SBE_FRAME_RESPONSE) {
        struct open_call *open = frame->owner;
        open->complete(open, channel, frame, SBE_OK);
    } else if (frame->type == SBE_FRAME_CANCEL) {
        native_request_cancel(channel, frame->transaction);
    } else {
        native_request_take(channel, frame);
    }
    return true;
}

static void break_down(Channel *channel)
{
    native_raise(SBE_EPROTO, false,
                 "the remote published a ring index that can't be; channel %u is shut",
                 channel->core.id);
    fail_with_raised(channel);
}

/*
 * Completing a call drops what it held, which may run anything: another thread, or this one once
 * more. Each drain has a scratch of its own, so it may.
 */
int native_channel_drain(Channel *channel)
{
    struct sbe_frame frame;
    if (!native_channel_usable(channel))
        return 0;
    uint8_t *scratch = channel->scratch;
    channel->scratch = NULL;
    if (scratch == NULL)
        scratch = PyMem_Malloc(channel->core.rx.slot_size);
    if (scratch == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    uint32_t left = DRAIN_BUDGET;
    while (left > 0 && channel->error == NULL && take_one(channel, &frame, scratch))
        left--;
    if (channel->scratch == NULL)
        channel->scratch = scratch;
    else
        PyMem_Free(scratch);
    if (channel->error == NULL)
        native_request_flush(channel);
    if (left != DRAIN_BUDGET)
        native_wake(channel);
    if (channel->core.rx.broken || channel->core.tx.broken)
        break_down(channel);
    native_run_callbacks(channel);
    return 0;
}

/* -- for event loops ----------------------------------------------------------------------- */

/* Takes what our doorbell has rung: 1 if it had, 0 if not, -1: errno says why. */
static int quiet_doorbell(Channel *channel)
{
    struct epoll_event event;
    uint64_t rung;
    if (!channel->listens) {
        if (read(channel->wake_fd, &rung, sizeof rung) >= 0)
            return 1;
        if (errno == EAGAIN)
            return 0;
        if (errno != EINVAL)
            return -1;
        channel->listens = true; /* or nothing that can be waited for: the next call says so */
    }
    return epoll_wait(channel->wake_fd, &event, 1, 0);
}

static PyObject *channel_poll(PyObject *object, PyObject *unused)
{
    Channel *self = (Channel *)object;
    (void)unused;
    if (native_channel_check(self) < 0)
        return NULL;
    int rung = quiet_doorbell(self);
    if (rung < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    if (rung > 0)
        native_wake(self); /* a thread that sleeps on the doorbell may have been meant */
    if (native_channel_drain(self) < 0 || native_channel_check(self) < 0)
        return NULL;
    return PyBool_FromLong(sbe_channel_idle(&self->core));
}

static PyObject *channel_nudge(PyObject *object, PyObject *unused)
{
    Channel *self = (Channel *)object;
    (void)unused;
    if (native_channel_check(self) < 0)
        return NULL;
    self->backstops++;
    ring_doorbell(self, &self->core);
    Py_RETURN_NONE;
}

static PyObject *channel_has_room(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(native_has_room((Channel *)object, NULL));
}

/* The question before every call, which costs a third of what asking for `error` does. */
static PyObject *channel_failed(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(((Channel *)object)->error != NULL);
}

static PyObject *channel_fileno(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(((Channel *)object)->wake_fd);
}

static PyObject *channel_fail(PyObject *object, PyObject *error)
{
    Channel *self = (Channel *)object;
    if (!PyExceptionInstance_Check(error)) {
        PyErr_SetString(PyExc_TypeError, "an exception instance");
        return NULL;
    }
    native_channel_fail(self, error);
    native_run_callbacks(self);
    Py_CLEAR(self->on_control); /* ends the cycle through the owner */
    Py_RETURN_NONE;
}

/* -- serving ------------------------------------------------------------------------------- */

static bool has_request(Channel *channel, void *unused)
{
    (void)unused;
    return channel->requests != NULL;
}

static PyObject *channel_next_request(PyObject *object, PyObject *arguments)
{
    Channel *self = (Channel *)object;
    PyObject *timeout = Py_None;
    uint64_t deadline_ns, now_ns;
    if (!PyArg_ParseTuple(arguments, "|O", &timeout) ||
        native_deadline(timeout, &deadline_ns, &now_ns) < 0)
        return NULL;
    enum native_wait how = native_wait(self, has_request, NULL, deadline_ns, 0);
    if (how == WAIT_RAISED)
        return NULL;
    if (how == WAIT_TIMEOUT)
        Py_RETURN_NONE;
    return (PyObject *)native_request_next(self);
}

/* -- facts --------------------------------------------------------------------------------- */

static PyObject *channel_counters(PyObject *object, PyObject *unused)
{
    const Channel *self = (const Channel *)object;
    const struct sbe_channel_counters *core = &self->core.counters;
    (void)unused;
    return Py_BuildValue("{s:I,s:I,s:I,s:I,s:I,s:I,s:K,s:I,s:I,s:I,s:I,s:I}", "sent", core->sent,
                         "received", core->received, "doorbells", core->doorbells, "bad", core->bad,
                         "late", core->late, "full", core->full, "synced_bytes",
                         (unsigned long long)core->synced, "in_flight", self->in_flight,
                         "backstops", self->backstops, "requests", self->request_count, "refused",
                         self->refused, "lost", self->lost);
}

static PyObject *channel_get(PyObject *object, void *which)
{
    const Channel *self = (const Channel *)object;
    switch (*(const char *)which) {
    case 'n':
        Py_INCREF(self->names);
        return self->names;
    case 'e':
        Py_INCREF(self->error == NULL ? Py_None : self->error);
        return self->error == NULL ? Py_None : self->error;
    case 'f':
        return PyLong_FromUnsignedLong(self->in_flight);
    case 's':
        return PyLong_FromUnsignedLong(self->core.tx.slot_size);
    case 'c':
        return PyLong_FromUnsignedLong(self->core.context);
    default:
        return PyLong_FromUnsignedLong(self->core.id);
    }
}

static PyObject *channel_get_waits(PyObject *object, void *unused)
{
    PyObject *waits = ((Channel *)object)->waits;
    (void)unused;
    waits = waits == NULL ? Py_None : waits;
    Py_INCREF(waits);
    return waits;
}

static int channel_set_waits(PyObject *object, PyObject *value, void *unused)
{
    Channel *self = (Channel *)object;
    PyObject *former = self->waits;
    (void)unused;
    self->waits = value == Py_None ? NULL : value;
    Py_XINCREF(self->waits);
    Py_XDECREF(former);
    return 0;
}

static int channel_set_spin(PyObject *object, PyObject *value, void *unused)
{
    Channel *self = (Channel *)object;
    (void)unused;
    double seconds = value == NULL ? -1.0 : PyFloat_AsDouble(value);
    if (PyErr_Occurred() != NULL)
        return -1;
    if (!(seconds >= 0 && seconds <= 1)) {
        native_raise(SBE_EINVAL, false, "spinning takes 0 to 1 second");
        return -1;
    }
    self->patience = (struct sbe_patience){.longest_ns = (uint64_t)(seconds * 1e9)};
    return 0;
}

static PyObject *channel_get_spin(PyObject *object, void *unused)
{
    (void)unused;
    return PyFloat_FromDouble((double)((Channel *)object)->patience.longest_ns / 1e9);
}

static PyMethodDef CHANNEL_METHODS[] = {
    NATIVE_NOT_COPIED,
    {"submit", (PyCFunction)(void (*)(void))native_channel_submit, METH_FASTCALL,
     "submit(service, buffers=(), payload=b'', timeout=None, wait=True): sends, returns the Call."},
    {"call", (PyCFunction)(void (*)(void))native_channel_call, METH_FASTCALL,
     "call(...): as submit, then waits for the Reply."},
    {"sync", (PyCFunction)(void (*)(void))native_channel_sync, METH_FASTCALL,
     "sync(0, buffers): hands buffers over and back without calling a service."},
    {"send", (PyCFunction)(void (*)(void))native_channel_send, METH_FASTCALL,
     "send(...): a message that nobody answers."},
    {"batch", (PyCFunction)(void (*)(void))native_batch, METH_VARARGS | METH_KEYWORDS,
     "batch(service, descriptors, payloads=None, timeout=None): many calls at once."},
    {"poll", channel_poll, METH_NOARGS,
     "poll(): takes what came. True: nothing is left and the next frame rings the doorbell."},
    {"nudge", channel_nudge, METH_NOARGS, "nudge(): rings the peer in case a doorbell was lost."},
    {"has_room", channel_has_room, METH_NOARGS,
     "has_room(): a call can be sent; if False, the doorbell rings when it can."},
    {"failed", channel_failed, METH_NOARGS, "failed(): it is dead; `error` says why."},
    {"fileno", channel_fileno, METH_NOARGS, "fileno(): this end's doorbell, for select and poll."},
    {"fail", channel_fail, METH_O, "fail(error): kills the channel; all that is open fails."},
    {"next_request", channel_next_request, METH_VARARGS,
     "next_request(timeout=None): waits for a Request of the peer; None at the timeout."},
    {"let_go_in_child", channel_let_go_in_child, METH_NOARGS,
     "let_go_in_child(): in a forked child, closes what it inherited; the parent's goes on."},
    {"counters", channel_counters, METH_NOARGS, "counters(): what happened so far, a dict."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef CHANNEL_GETSET[] = {
    {"id", channel_get, NULL, "channel id", "i"},
    {"context", channel_get, NULL, "the context that owns it", "c"},
    {"names", channel_get, NULL, "service names by id, for messages; fill it", "n"},
    {"error", channel_get, NULL, "why it is dead, or None", "e"},
    {"in_flight", channel_get, NULL, "calls the remote has not answered", "f"},
    {"waits", channel_get_waits, channel_set_waits,
     "waits() returns what has wait(call), a coroutine, and future(call); None: nothing does",
     NULL},
    {"spin_s", channel_get_spin, channel_set_spin,
     "look at the ring for so many seconds before sleeping; adapts", NULL},
    {"slot_size", channel_get, NULL, "bytes of a frame at most", "s"},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot CHANNEL_SLOTS[] = {
    {Py_tp_doc, "This process's end of a channel. Any thread may use it at any time."},
    {Py_tp_new, channel_new},
    {Py_tp_dealloc, channel_dealloc},
    {Py_tp_traverse, channel_traverse},
    {Py_tp_clear, channel_clear},
    {Py_tp_finalize, channel_finalize},
    {Py_tp_methods, CHANNEL_METHODS},
    {Py_tp_getset, CHANNEL_GETSET},
    {0, NULL},
};

static PyType_Spec CHANNEL_SPEC = {
    .name = "sbe._native.Channel",
    .basicsize = sizeof(Channel),
    .flags = NATIVE_COLLECTED,
    .slots = CHANNEL_SLOTS,
};

int native_channel_init(PyObject *module)
{
    if (Channel_Type == NULL && pthread_atfork(NULL, NULL, count_fork) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    return native_add_type(module, &CHANNEL_SPEC, &Channel_Type);
}
