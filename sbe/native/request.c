/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Request: a call from the other end, answered at once or later, from any thread. The channel's end
 * always takes requests, even when its own ring is full, and keeps answers until there is room:
 * two ends that both wait for the other to read would wait for ever. There is a bound to what is
 * kept, so beyond it a request is refused, and lost when there is no room to say so.
 */
#include "request.h"

#include <string.h>

#include "buffer.h"
#include "cache.h"
#include "channel.h"
#include "convert.h"
#include "core/status.h"
#include "memory.h"
#include "native.h"
#include "table.h"
#include "wait.h"

PyTypeObject *Request_Type;

/* Open requests per channel. */
#define OPEN_REQUESTS_MAX 4096u /* as many as an honest peer, one of ours, has calls open */

static void send_answer(Channel *channel, Request *request, int status, const void *payload,
                        Py_ssize_t size);

/* Once, whatever became of it: a line that stayed dirty would be written over later ones. */
static void give_back(Request *request)
{
    if (request->given_back)
        return;
    request->given_back = true;
    for (uint32_t i = 0; i < request->buffer_count; i++)
        native_handover(request->channel, SBE_GIVE_BACK, &request->buffers[i], request->held[i]);
    request->unsynced = native_unsynced(request->channel) < 0;
}

static void release_buffers(Request *request)
{
    give_back(request);
    for (uint32_t i = 0; i < request->buffer_count; i++) {
        if (request->held[i] != NULL) {
            request->held[i]->holds--;
            Py_CLEAR(request->held[i]);
        }
        PyBuffer_Release(&request->copies[i]);
    }
}

/* A private copy of inline bytes. The handler may release its view, or come by the bytearray. */
static PyObject *copy_inline(Request *request, uint32_t i, const struct sbe_buffer *buffer)
{
    const char *bytes = (buffer->direction & SBE_DIR_IN) != 0 ? buffer->data : NULL;
    PyObject *base = PyByteArray_FromStringAndSize(bytes, (Py_ssize_t)buffer->size);
    if (base == NULL)
        return NULL;
    if (bytes == NULL)
        memset(PyByteArray_AsString(base), 0, (size_t)buffer->size);
    if (PyObject_GetBuffer(base, &request->copies[i], PyBUF_WRITABLE) < 0)
        Py_CLEAR(base);
    else
        request->buffers[i].data = request->copies[i].buf;
    return base;
}

/* The memory of buffer i: an area's range, or a copy of inline bytes. */
static PyObject *view_of(Request *request, uint32_t i, const struct sbe_buffer *buffer)
{
    PyObject *base, *view;
    if ((buffer->flags & SBE_BUFFER_INLINE) != 0) {
        base = copy_inline(request, i, buffer);
    } else {
        Memory *memory = native_table_member(request->channel->table, buffer->area);
        if (memory == NULL)
            return NULL;
        native_hold(memory);
        memory->holds++;
        request->held[i] = memory;
        base = native_slice_new(memory, buffer->offset, buffer->size);
    }
    if (base == NULL)
        return NULL;
    view = PyMemoryView_FromObject(base); /* keeps base alive */
    Py_DECREF(base);
    if (view == NULL || buffer->direction != SBE_DIR_IN)
        return view;
    base = PyObject_CallMethod(view, "toreadonly", NULL); /* the other end's input stays as it is */
    Py_DECREF(view);
    return base;
}

/* What the remote may write inline comes back in one frame: more is not even made room for. */
static bool can_return_inline(const Channel *channel, const struct sbe_frame *frame)
{
    uint64_t left = sbe_channel_payload_room(&channel->core, 0, 0);
    for (uint32_t i = 0; i < frame->buffer_count; i++) {
        const struct sbe_buffer *buffer = &frame->buffers[i];
        if ((buffer->flags & SBE_BUFFER_INLINE) == 0 || (buffer->direction & SBE_DIR_OUT) == 0)
            continue;
        if (buffer->size > left)
            return false;
        left -= buffer->size;
    }
    return true;
}

static int fill(Request *request, const struct sbe_frame *frame)
{
    uint32_t count = frame->buffer_count;
    request->buffers = PyMem_Calloc(count + 1u, sizeof *request->buffers);
    request->held = PyMem_Calloc(count + 1u, sizeof(Memory *));
    request->copies = PyMem_Calloc(count + 1u, sizeof *request->copies);
    request->written = PyMem_Calloc(count + 1u, sizeof *request->written);
    request->views = PyTuple_New((Py_ssize_t)count);
    request->payload = PyBytes_FromStringAndSize(frame->payload, (Py_ssize_t)frame->payload_size);
    if (request->buffers == NULL || request->held == NULL || request->copies == NULL ||
        request->written == NULL || request->views == NULL || request->payload == NULL)
        return -1;
    request->buffer_count = (uint16_t)count;
    for (uint32_t i = 0; i < count; i++) {
        request->buffers[i] = frame->buffers[i];
        bool full = frame->buffers[i].direction != SBE_DIR_IN;
        request->written[i] = full ? frame->buffers[i].size : 0;
        PyObject *view = view_of(request, i, &frame->buffers[i]);
        if (view == NULL || PyTuple_SetItem(request->views, (Py_ssize_t)i, view) < 0)
            return -1;
        native_handover(request->channel, SBE_TAKE, &frame->buffers[i], request->held[i]);
    }
    if (native_unsynced(request->channel) < 0) {
        native_raise(SBE_EIO, false, "cache maintenance of a request's buffers has failed");
        return -1;
    }
    return 0;
}

static void append(Request **first, Request **last, Request *request)
{
    request->next = NULL;
    if (*first == NULL)
        *first = request;
    else
        (*last)->next = request;
    *last = request;
}

static Request *pop(Request **first)
{
    Request *request = *first;
    if (request != NULL) {
        *first = request->next;
        request->next = NULL;
    }
    return request;
}

/* Keeps nothing, whatever the peer does: an answer that finds no room is not sent. */
static void refuse(Channel *channel, const struct sbe_frame *frame, int status)
{
    const struct sbe_frame answer = {
        .type = SBE_FRAME_RESPONSE,
        .transaction = frame->transaction,
        .status = status,
    };
    channel->refused++;
    if (frame->transaction == 0 || sbe_channel_send(&channel->core, &answer) < 0)
        channel->lost++;
    else
        sbe_channel_flush(&channel->core);
}

/* Somebody waits for an answer to it. */
static bool answerable(const Request *request)
{
    return request->transaction != 0 && request->type != SBE_FRAME_CANCEL;
}

static void take(Channel *channel, const struct sbe_frame *frame)
{
    if (channel->request_count >= OPEN_REQUESTS_MAX) {
        refuse(channel, frame, SBE_EBUSY);
        return;
    }
    Request *request = (Request *)PyType_GenericAlloc(Request_Type, 0);
    if (request == NULL) {
        PyErr_Clear();
        refuse(channel, frame, SBE_ENOMEM);
        return;
    }
    native_hold(channel);
    request->channel = channel;
    request->type = frame->type;
    request->service = frame->service;
    request->transaction = frame->transaction;
    request->seen_ns = frame->seen_ns;
    request->begun_ns = native_now_ns(NULL);
    uint64_t waited_ns = request->begun_ns - request->seen_ns;
    request->waited_ns = waited_ns > UINT32_MAX ? UINT32_MAX : (uint32_t)waited_ns;
    channel->request_count++;
    int status = frame->status;
    if (status == SBE_OK && !can_return_inline(channel, frame))
        status = SBE_EMSGSIZE;
    if (status == SBE_OK && fill(request, frame) < 0) {
        PyErr_Clear();
        status = SBE_ENOMEM;
    }
    bool late = frame->deadline_us != 0 &&
                request->begun_ns - request->seen_ns > (uint64_t)frame->deadline_us * 1000u;
    if (status == SBE_OK && late)
        status = SBE_ETIMEDOUT;
    if (status == SBE_OK && frame->type != SBE_FRAME_SYNC) {
        append(&channel->requests, &channel->last_request, request);
        return;
    }
    if (answerable(request))
        send_answer(channel, request, status, NULL, 0);
    native_drop(request);
}

/*
 * The collector may run at any allocation (until Python 3.11), and finalizers with it: they could
 * free areas that the frame names, or let another thread take the frames after this one first.
 */
void native_request_take(Channel *channel, const struct sbe_frame *frame)
{
    bool collecting = PyGC_Disable() != 0;
    take(channel, frame);
    if (collecting)
        PyGC_Enable();
}

/* For whoever has taken the request, or it has been answered. */
static void pass_on_cancel(Channel *channel, uint64_t transaction)
{
    if (channel->request_count >= OPEN_REQUESTS_MAX)
        return;
    Request *news = (Request *)PyType_GenericAlloc(Request_Type, 0);
    if (news != NULL) { /* no memory: the handler goes on */
        native_hold(channel);
        news->channel = channel;
        news->type = SBE_FRAME_CANCEL;
        news->transaction = transaction;
        channel->request_count++;
        news->views = PyTuple_New(0);
        news->payload = PyBytes_FromStringAndSize(NULL, 0);
        if (news->views != NULL && news->payload != NULL) {
            append(&channel->requests, &channel->last_request, news);
            return;
        }
        native_drop(news);
    }
    PyErr_Clear();
}

void native_request_cancel(Channel *channel, uint64_t transaction)
{
    for (Request *request = channel->requests; request != NULL; request = request->next) {
        if (request->transaction == transaction) {
            request->cancelled = true; /* its handler has not begun: it will not */
            return;
        }
    }
    pass_on_cancel(channel, transaction);
}

/*
 * All that it may have written, for the peer to look at anew: in full after a failure, which says
 * of no buffer how far it came. Nothing of it comes inline then.
 */
static void tell_written(const Request *request, struct sbe_frame *frame)
{
    frame->buffer_count = 0;
    for (uint32_t i = 0; i < request->buffer_count; i++) {
        if (request->buffers[i].direction == SBE_DIR_IN)
            continue;
        struct sbe_buffer *buffer = &frame->buffers[frame->buffer_count++];
        *buffer = request->buffers[i];
        uint64_t written = frame->status == SBE_OK ? request->written[i] : buffer->size;
        if (frame->status != SBE_OK && (buffer->flags & SBE_BUFFER_INLINE) != 0)
            written = 0;
        buffer->size = written < buffer->size ? written : buffer->size;
    }
}

/* True: sent, or never will be. */
static bool try_answer(Channel *channel, Request *request, int status, const void *payload,
                       Py_ssize_t size)
{
    struct sbe_frame frame = {.type = SBE_FRAME_RESPONSE};
    uint64_t now_ns = native_now_ns(NULL);
    frame.transaction = request->transaction;
    frame.status = status;
    frame.payload = payload;
    frame.payload_size = size > UINT32_MAX ? UINT32_MAX : (uint32_t)size; /* fits no frame */
    frame.waited_ns = request->waited_ns;
    uint64_t handled_ns = now_ns - request->begun_ns;
    frame.handled_ns = handled_ns > UINT32_MAX ? UINT32_MAX : (uint32_t)handled_ns;
    give_back(request);
    if (request->unsynced)
        frame.status = SBE_EIO;
    tell_written(request, &frame);
    int sent = sbe_channel_send(&channel->core, &frame);
    if (sent == SBE_EMSGSIZE) {
        frame.status = SBE_ENOSPC; /* the answer does not fit a frame */
        frame.payload_size = 0;
        tell_written(request, &frame);
        sent = sbe_channel_send(&channel->core, &frame);
    }
    if (sent == SBE_EAGAIN)
        return false;
    sbe_channel_flush(&channel->core);
    return true;
}

static void send_answer(Channel *channel, Request *request, int status, const void *payload,
                        Py_ssize_t size)
{
    bool sent = channel->unsent == NULL && try_answer(channel, request, status, payload, size);
    if (channel->working == request->transaction)
        sbe_ring_show_rest(&channel->core.rx);
    request->answered = true;
    if (sent) {
        channel->request_count--;
        release_buffers(request);
        return;
    }
    request->reply_status = status;
    request->reply = PyBytes_FromStringAndSize(payload, size);
    if (request->reply == NULL) {
        PyErr_Clear();
        request->reply_status = SBE_ENOMEM;
    }
    native_hold(request);
    append(&channel->unsent, &channel->last_unsent, request);
    native_request_flush(channel); /* asks for a doorbell, which ends the sleep of any thread */
    native_wake_untimed(channel);
}

void native_request_flush(Channel *channel)
{
    while (channel->unsent != NULL) {
        Request *request = channel->unsent;
        const char *payload = request->reply == NULL ? NULL : PyBytes_AsString(request->reply);
        Py_ssize_t size = request->reply == NULL ? 0 : PyBytes_Size(request->reply);
        if (!try_answer(channel, request, request->reply_status, payload, size)) {
            if (sbe_ring_wait_space(&channel->core.tx, 1))
                return; /* the doorbell rings when the peer has taken some */
            continue;   /* it took some while we asked */
        }
        if (channel->core.tx.broken)
            return;
        pop(&channel->unsent);
        channel->request_count--;
        release_buffers(request);
        native_drop(request);
    }
}

void native_requests_drop(Channel *channel)
{
    Request *request;
    while ((request = pop(&channel->requests)) != NULL) {
        release_buffers(request);
        native_drop(request);
    }
    while ((request = pop(&channel->unsent)) != NULL) {
        release_buffers(request);
        native_drop(request);
    }
}

Request *native_request_next(Channel *channel)
{
    Request *request = pop(&channel->requests);
    if (request != NULL && answerable(request)) {
        channel->working = request->transaction;
        sbe_ring_show_work(&channel->core.rx, channel->beats++, request->transaction);
    }
    return request;
}

/* -- the handler's view -------------------------------------------------------------------- */

/* The sizes really written, one for each buffer or fewer. -1: raised. */
static Py_ssize_t take_sizes(const Request *self, PyObject *given, uint64_t *sizes)
{
    Py_ssize_t count = given == Py_None ? 0 : PySequence_Size(given);
    if (count < 0)
        return -1;
    if (count > (Py_ssize_t)self->buffer_count) {
        native_raise(SBE_EINVAL, false, "%zd sizes written for %u buffers", count,
                     (unsigned)self->buffer_count);
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *size = PySequence_GetItem(given, i);
        int taken = size != NULL && native_as_u64(size, &sizes[i]);
        Py_XDECREF(size);
        if (!taken)
            return -1;
    }
    return count;
}

/* Whether the answer fits one frame, with what is written inline. False: raised. */
static bool fits(const Request *self, const uint64_t *sizes, Py_ssize_t count, Py_ssize_t payload)
{
    uint32_t buffers = 0;
    uint64_t bytes = 0;
    for (Py_ssize_t i = 0; i < (Py_ssize_t)self->buffer_count; i++) {
        const struct sbe_buffer *buffer = &self->buffers[i];
        if (buffer->direction == SBE_DIR_IN)
            continue;
        uint64_t size = i < count ? sizes[i] : self->written[i];
        buffers++;
        if ((buffer->flags & SBE_BUFFER_INLINE) != 0)
            bytes += size < buffer->size ? size : buffer->size;
    }
    uint32_t room = sbe_channel_payload_room(&self->channel->core, buffers, bytes);
    if (payload == 0 || self->transaction == 0 || (uint64_t)payload <= room)
        return true;
    native_raise(SBE_EMSGSIZE, false,
                 "an answer of %zd bytes; one frame holds %u here: write large results into a "
                 "buffer of the caller's",
                 payload, room);
    return false;
}

static void respond(Request *self, int status, const Py_buffer *payload)
{
    Channel *channel = self->channel;
    if (answerable(self) && native_channel_usable(channel)) {
        send_answer(channel, self, status, payload->buf, payload->len);
        return;
    }
    self->answered = true;
    channel->request_count--;
    release_buffers(self);
}

static PyObject *request_respond(PyObject *object, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"payload", "status", "written", NULL};
    Request *self = (Request *)object;
    Py_buffer payload = {.buf = NULL};
    PyObject *given = NULL, *written = Py_None, *result = NULL;
    uint64_t sizes[SBE_BUFFERS_MAX];
    int status = 0;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "|OiO", names, &given, &status,
                                     &written) ||
        (given != NULL && native_show_bytes(given, &payload, false) != SHOWN))
        return NULL;
    Py_ssize_t count = take_sizes(self, written, sizes);
    if (count >= 0 && status > 0)
        native_raise(SBE_EINVAL, false, "a response's status is 0 or a negative errno, not %d",
                     status);
    if (count >= 0 && status <= 0 &&
        (self->answered || status != 0 || fits(self, sizes, count, payload.len))) {
        if (!self->answered) { /* asked last: taking the sizes may have run anything */
            memcpy(self->written, sizes, (size_t)count * sizeof *sizes);
            respond(self, status, &payload);
        }
        Py_INCREF(Py_None);
        result = Py_None;
    }
    PyBuffer_Release(&payload);
    return result;
}

static PyObject *request_get(PyObject *object, void *which)
{
    Request *self = (Request *)object;
    switch (*(const char *)which) {
    case 'p':
        Py_INCREF(self->payload);
        return self->payload;
    case 'b':
        Py_INCREF(self->views);
        return self->views;
    case 's':
        return PyLong_FromLong(self->service);
    case 't':
        return PyLong_FromUnsignedLongLong(self->transaction);
    case 'c':
        return PyBool_FromLong(self->cancelled);
    default:
        return PyLong_FromLong(self->type);
    }
}

/* Dropped by its handler: the peer learns that nobody will answer, from another one if it must
 * wait for room. */
static void answer_dropped(Request *self)
{
    Channel *channel = self->channel;
    Request *other = NULL;
    channel->request_count--;
    if (!answerable(self) ||
        (channel->unsent == NULL && try_answer(channel, self, SBE_EIO, NULL, 0)))
        return;
    PyObject *type, *error, *trace; /* one may be set where it is dropped */
    PyErr_Fetch(&type, &error, &trace);
    other = (Request *)PyType_GenericAlloc(Request_Type, 0);
    if (other != NULL) {
        native_hold(channel);
        other->channel = channel;
        other->transaction = self->transaction;
        other->begun_ns = self->begun_ns;
        other->waited_ns = self->waited_ns;
        channel->request_count++;
        send_answer(channel, other, SBE_EIO, NULL, 0);
        native_drop(other);
    }
    PyErr_Restore(type, error, trace);
}

int native_requests_visit(const Channel *channel, visitproc visit, void *arg)
{
    for (Request *request = channel->requests; request != NULL; request = request->next)
        Py_VISIT((PyObject *)request);
    for (Request *request = channel->unsent; request != NULL; request = request->next)
        Py_VISIT((PyObject *)request);
    return 0;
}

static int request_traverse(PyObject *object, visitproc visit, void *arg)
{
    const Request *self = (const Request *)object;
    Py_VISIT((PyObject *)Py_TYPE(object));
    Py_VISIT((PyObject *)self->channel);
    Py_VISIT(self->views);
    for (uint32_t i = 0; i < self->buffer_count; i++) {
        Py_VISIT((PyObject *)self->held[i]);
        Py_VISIT(self->copies[i].obj);
    }
    return 0;
}

static void request_dealloc(PyObject *object)
{
    Request *self = (Request *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (!self->answered && native_channel_usable(self->channel))
        answer_dropped(self);
    release_buffers(self);
    PyMem_Free(self->buffers);
    PyMem_Free(self->held);
    PyMem_Free(self->copies);
    PyMem_Free(self->written);
    Py_XDECREF(self->payload);
    Py_XDECREF(self->views);
    Py_XDECREF(self->reply);
    native_drop(self->channel);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyMethodDef REQUEST_METHODS[] = {
    NATIVE_NOT_COPIED,
    {"respond", (PyCFunction)(void (*)(void))request_respond, METH_VARARGS | METH_KEYWORDS,
     "respond(payload=b'', status=0, written=None): answers it, once; later ones do nothing."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef REQUEST_GETSET[] = {
    {"payload", request_get, NULL, "bytes", "p"},
    {"buffers", request_get, NULL, "memoryviews, one per buffer; In ones are read-only", "b"},
    {"service", request_get, NULL, "id of the service called", "s"},
    {"transaction", request_get, NULL, "0: a message, nobody waits", "t"},
    {"cancelled", request_get, NULL, "the requester gave it up", "c"},
    {"type", request_get, NULL,
     "FRAME_REQUEST, FRAME_MESSAGE or FRAME_EVENT; FRAME_CANCEL: that transaction, of a request "
     "that was taken, is not wanted any more, and nothing is to be answered",
     "y"},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot REQUEST_SLOTS[] = {
    {Py_tp_doc, "A call from the other end."},
    {Py_tp_dealloc, request_dealloc},
    {Py_tp_traverse, request_traverse}, /* its channel breaks the cycles: it has the lists */
    {Py_tp_methods, REQUEST_METHODS},
    {Py_tp_getset, REQUEST_GETSET},
    {0, NULL},
};

static PyType_Spec REQUEST_SPEC = {
    .name = "sbe._native.Request",
    .basicsize = sizeof(Request),
    .flags = NATIVE_COLLECTED | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = REQUEST_SLOTS,
};

int native_request_init(PyObject *module)
{
    return native_add_type(module, &REQUEST_SPEC, &Request_Type);
}
