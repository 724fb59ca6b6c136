/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AsgClient, AsgServer: firmware/asg over memory that Python has. Nothing here waits: what would
 * have to says so, and sbe.asg waits. Copies of many bytes are made without the GIL, so sbe.asg has
 * a lock for each end.
 */
#define PY_SSIZE_T_CLEAN
#include "asg.h"

#include "asg/client.h"
#include "asg/server.h"
#include "buffer.h"
#include "convert.h"
#include "core/status.h"

#define WITHOUT_GIL 32768 /* bytes: a copy that lasts longer than taking the GIL back */

typedef struct {
    PyObject ob_base;
    Py_buffer region; /* held for as long as this end lives */
    union {
        struct sbe_asg_client client;
        struct sbe_asg_server server;
    };
} End;

static PyTypeObject *AsgClient_Type, *AsgServer_Type;

static PyObject *end_new(PyTypeObject *type, PyObject *region)
{
    End *self = (End *)PyType_GenericAlloc(type, 0);
    if (self == NULL)
        return NULL;
    if (PyObject_GetBuffer(region, &self->region, PyBUF_WRITABLE) < 0 ||
        self->region.len <= (Py_ssize_t)SBE_ASG_STORAGE) {
        if (!PyErr_Occurred())
            native_raise(SBE_EINVAL, false, "a region of %zd bytes: the rings alone have %u",
                         self->region.len, SBE_ASG_STORAGE);
        native_drop(self);
        return NULL;
    }
    return (PyObject *)self;
}

static bool fits(const End *self, uint32_t size)
{
    if (size <= (uint64_t)self->region.len - SBE_ASG_STORAGE)
        return true;
    native_raise(SBE_EINVAL, false, "a region of %zd bytes has no buffer of %u behind its rings",
                 self->region.len, size);
    return false;
}

static void end_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    if (((End *)object)->region.obj != NULL)
        PyBuffer_Release(&((End *)object)->region);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyObject *refuse_region(int status, uint32_t size, uint32_t step)
{
    if (status == SBE_EPROTO)
        return native_raise(status, false, "the region was laid out for another size than %u",
                            size);
    return native_raise(status, false,
                        "a buffer of %u bytes in steps of %u: a step is a power of two, below half "
                        "of the buffer, which is whole steps; the region is aligned to a word",
                        size, step);
}

static PyObject *client_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"region", "size", "step", NULL};
    PyObject *region;
    uint32_t size, step = 0;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OO&|O&", names, &region, native_as_u32,
                                     &size, native_as_u32, &step))
        return NULL;
    End *self = (End *)end_new(type, region);
    if (self == NULL)
        return NULL;
    struct sbe_asg_region place;
    int status = fits(self, size) ? sbe_asg_attach(&place, self->region.buf, size) : 1;
    if (status == SBE_OK && step != 0)
        status = sbe_asg_lay_out(&place, step);
    if (status == SBE_OK) {
        if (step == 0)
            step = sbe_load_relaxed(&place.storage->to_host.config.flush_interval);
        status = sbe_asg_client_attach(&self->client, self->region.buf, size);
    }
    if (status < 0)
        refuse_region(status, size, step);
    if (status != SBE_OK)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static PyObject *server_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"region", "size", NULL};
    PyObject *region;
    uint32_t size;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OO&", names, &region, native_as_u32,
                                     &size))
        return NULL;
    End *self = (End *)end_new(type, region);
    if (self == NULL)
        return NULL;
    int status =
        fits(self, size) ? sbe_asg_server_attach(&self->server, self->region.buf, size) : 1;
    if (status < 0)
        native_raise(status, false, "a buffer of %u bytes, or a region that is not aligned", size);
    if (status != SBE_OK)
        Py_CLEAR(self);
    return (PyObject *)self;
}

/* What an operation came to: its number, 0 for one that has to wait, or an exception. */
static PyObject *outcome(int64_t status, bool is_server)
{
    switch (status) {
    case SBE_EAGAIN:
        return PyLong_FromLong(0);
    case SBE_EBUSY:
        return native_raise(SBE_EBUSY, false,
                            is_server ? "the client's bytes are in the buffer: read them first"
                                      : "a reply is in the buffer: read it first");
    case SBE_EPROTO:
        return native_raise(SBE_EPROTO, false,
                            is_server ? "the client wrote what no client writes"
                                      : "the server or this end has given the stream up");
    case SBE_ENOTCONN:
        return native_raise(SBE_ENOTCONN, false, "the server has left the stream");
    case SBE_ESHUTDOWN:
        return native_raise(SBE_ESHUTDOWN, false, "the stream is closed at this end");
    default:
        return status < 0 ? native_raise((int)status, false, "of an ASG stream")
                          : PyLong_FromLongLong(status);
    }
}

static PyObject *client_alloc(PyObject *object, PyObject *argument)
{
    struct sbe_asg_client *client = &((End *)object)->client;
    uint32_t size;
    void *place;
    if (!native_as_u32(argument, &size))
        return NULL;
    int status = sbe_asg_client_alloc(client, size, &place);
    if (status == SBE_EINVAL)
        return native_raise(status, false, "%u bytes are more than a step of %u", size,
                            client->step);
    if (status != SBE_OK)
        return outcome(status, false);
    return PyLong_FromLong((long)((uint8_t *)place - (uint8_t *)((End *)object)->region.buf));
}

static PyObject *client_give_back(PyObject *object, PyObject *argument)
{
    uint32_t size;
    if (!native_as_u32(argument, &size))
        return NULL;
    if (sbe_asg_client_give_back(&((End *)object)->client, size) != SBE_OK)
        return native_raise(SBE_EINVAL, false, "%u bytes were not allocated", size);
    Py_RETURN_NONE;
}

static PyObject *client_flush(PyObject *object, PyObject *unused)
{
    (void)unused;
    int status = sbe_asg_client_flush(&((End *)object)->client);
    return status == SBE_OK ? PyBool_FromLong(1) : outcome(status, false);
}

static PyObject *client_send(PyObject *object, PyObject *arguments)
{
    struct sbe_asg_client *client = &((End *)object)->client;
    PyObject *source;
    Py_buffer data;
    uint32_t sent;
    int wait, status = SBE_EINVAL;
    if (!PyArg_ParseTuple(arguments, "OO&p", &source, native_as_u32, &sent, &wait) ||
        native_show_bytes(source, &data, false) != SHOWN)
        return NULL;
    if (data.len <= UINT32_MAX && sent <= data.len) {
        Py_BEGIN_ALLOW_THREADS status =
            sbe_asg_client_send(client, data.buf, (uint32_t)data.len, &sent, wait != 0);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&data);
    if (status != SBE_OK && status != SBE_EAGAIN)
        return outcome(status, false);
    return Py_BuildValue("(IO)", sent, status == SBE_OK ? Py_True : Py_False);
}

static PyObject *client_step(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLong(((End *)object)->client.step);
}

static PyObject *client_unread(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLong(sbe_asg_client_unread(&((End *)object)->client));
}

static PyObject *client_idle(PyObject *object, void *unused)
{
    (void)unused;
    return PyBool_FromLong(sbe_asg_client_is_idle(&((End *)object)->client));
}

static PyObject *client_doorbell(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(sbe_asg_client_doorbell(&((End *)object)->client));
}

static PyObject *client_remind(PyObject *object, PyObject *unused)
{
    (void)unused;
    sbe_asg_client_remind(&((End *)object)->client);
    Py_RETURN_NONE;
}

typedef int64_t mover(End *self, void *data, uint32_t size);

static int64_t read_replies(End *self, void *data, uint32_t size)
{
    return sbe_asg_client_read(&self->client, data, size);
}

static int64_t read_bytes(End *self, void *data, uint32_t size)
{
    return sbe_asg_server_read(&self->server, data, size);
}

static int64_t write_replies(End *self, void *data, uint32_t size)
{
    return sbe_asg_server_reply(&self->server, data, size);
}

static PyObject *move(PyObject *object, PyObject *memory, mover *function, bool writes)
{
    Py_buffer data;
    int64_t status;
    if (native_show_bytes(memory, &data, writes) != SHOWN)
        return NULL;
    uint32_t size = data.len > UINT32_MAX ? UINT32_MAX : (uint32_t)data.len;
    if (size < WITHOUT_GIL) {
        status = function((End *)object, data.buf, size);
    } else {
        Py_BEGIN_ALLOW_THREADS status = function((End *)object, data.buf, size);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&data);
    return outcome(status, function != read_replies);
}

static PyObject *client_read(PyObject *object, PyObject *target)
{
    return move(object, target, read_replies, true);
}

static PyObject *server_read(PyObject *object, PyObject *target)
{
    return move(object, target, read_bytes, true);
}

static PyObject *server_reply(PyObject *object, PyObject *source)
{
    return move(object, source, write_replies, false);
}

static PyObject *server_available(PyObject *object, PyObject *unused)
{
    (void)unused;
    return outcome(sbe_asg_server_available(&((End *)object)->server), true);
}

static PyObject *server_may_sleep(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(sbe_asg_server_may_sleep(&((End *)object)->server));
}

static PyObject *server_close(PyObject *object, PyObject *argument)
{
    int failed = PyObject_IsTrue(argument);
    if (failed < 0)
        return NULL;
    sbe_asg_server_close(&((End *)object)->server, failed != 0);
    Py_RETURN_NONE;
}

static PyMethodDef CLIENT_METHODS[] = {
    NATIVE_NOT_COPIED,
    {"alloc", client_alloc, METH_O, "alloc(size): offset in the region; 0: wait."},
    {"give_back", client_give_back, METH_O, "give_back(size): that many of it are not sent."},
    {"flush", client_flush, METH_NOARGS, "flush(): whether all is out; False: wait."},
    {"send", client_send, METH_VARARGS,
     "send(data, sent, wait): bytes sent of data so far, and whether that was all of it."},
    {"read", client_read, METH_O, "read(target): bytes of a reply; 0: wait."},
    {"doorbell", client_doorbell, METH_NOARGS, "doorbell(): whether to ring it."},
    {"remind", client_remind, METH_NOARGS, "remind(): the doorbell, again, for who has waited."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef CLIENT_MEMBERS[] = {
    {"step", client_step, NULL, "Bytes that fit one record.", NULL},
    {"unread", client_unread, NULL, "Bytes of replies.", NULL},
    {"idle", client_idle, NULL, "The server has read all.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef SERVER_METHODS[] = {
    NATIVE_NOT_COPIED,
    {"read", server_read, METH_O, "read(target): bytes that the client sent; 0: wait."},
    {"available", server_available, METH_NOARGS, "available(): bytes for the next read."},
    {"may_sleep", server_may_sleep, METH_NOARGS, "may_sleep(): False: there is something."},
    {"reply", server_reply, METH_O, "reply(data): bytes of it that found room; 0: wait."},
    {"close", server_close, METH_O, "close(failed): tells the client."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot CLIENT_SLOTS[] = {
    {Py_tp_doc, "The client of an Address Space Graphics stream. Not thread-safe."},
    {Py_tp_new, client_new},
    {Py_tp_dealloc, end_dealloc},
    {Py_tp_methods, CLIENT_METHODS},
    {Py_tp_getset, CLIENT_MEMBERS},
    {0, NULL},
};

static PyType_Slot SERVER_SLOTS[] = {
    {Py_tp_doc, "The server of an Address Space Graphics stream. Not thread-safe."},
    {Py_tp_new, server_new},
    {Py_tp_dealloc, end_dealloc},
    {Py_tp_methods, SERVER_METHODS},
    {0, NULL},
};

static PyType_Spec CLIENT_SPEC = {
    .name = "sbe._native.AsgClient",
    .basicsize = sizeof(End),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = CLIENT_SLOTS,
};

static PyType_Spec SERVER_SPEC = {
    .name = "sbe._native.AsgServer",
    .basicsize = sizeof(End),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = SERVER_SLOTS,
};

int native_asg_init(PyObject *module)
{
    if (native_add_type(module, &CLIENT_SPEC, &AsgClient_Type) < 0)
        return -1;
    return native_add_type(module, &SERVER_SPEC, &AsgServer_Type);
}
