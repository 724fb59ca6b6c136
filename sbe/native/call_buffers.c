/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A call's buffers: ranges of areas, which it holds, and other memory, which rides inline. What is
 * too large for that raises NeedsStaging.
 */
#include "call_buffers.h"

#include "buffer.h"
#include "call.h"
#include "channel.h"
#include "core/status.h"
#include "memory.h"
#include "native.h"
#include "table.h"

static PyObject *NeedsStaging;

/* Larger foreign buffers are staged in an area: a quarter of a slot leaves room for others. */
static uint64_t inline_limit(const Channel *channel)
{
    return channel->core.tx.slot_size / 4;
}

/*
 * The remote would write its neighbours as well, as it last saw them: the range goes by copy, if
 * there is somebody who copies it back. 1, or -1 raised.
 */
static int refuse_place(const Call *call, uint32_t i, const Memory *memory)
{
    const struct sbe_buffer *buffer = &call->asked[i];
    if (call->type == SBE_FRAME_REQUEST)
        return 1;
    native_raise(SBE_EINVAL, false,
                 "buffer %u (%llu bytes at %llu of area %u) shares a cache line with its "
                 "neighbours: without an answer, what the remote writes must begin and end at "
                 "multiples of %u bytes",
                 i, (unsigned long long)buffer->size, (unsigned long long)buffer->offset,
                 memory->id, native_line_of(memory));
    return -1;
}

/* 0, or 1 when the remote can't write it where it lies; -1 raised. */
static int use_area(Call *call, uint32_t i, Memory *memory, uint64_t offset, uint64_t size,
                    bool padded)
{
    Channel *channel = call->channel;
    struct sbe_buffer *buffer = &call->asked[i];
    if (memory->freed) {
        native_raise(SBE_EFAULT, false, "buffer %u lies in area %u, which was freed", i,
                     memory->id);
        return -1;
    }
    if (memory->table == NULL) {
        native_raise(SBE_EFAULT, false, "buffer %u is memory that is not registered as an area", i);
        return -1;
    }
    if (memory->table != channel->table) {
        native_raise(SBE_EINVAL, false,
                     "buffer %u lies in an area of another link; allocate it from this one", i);
        return -1;
    }
    buffer->area = memory->id;
    buffer->offset = offset;
    buffer->size = size;
    int status = sbe_area_resolve(&channel->table->areas, channel->core.context, buffer);
    if (status == SBE_ENOTSUP) {
        native_raise(status, false,
                     "buffer %u is Shared, but the memory of area %u is not coherent: allocate it "
                     "from a coherent heap, or hand it over as InOut",
                     i, memory->id);
        return -1;
    }
    if (status < 0) {
        native_raise(status, false, "buffer %u (%llu bytes at %llu of area %u)", i,
                     (unsigned long long)size, (unsigned long long)offset, memory->id);
        return -1;
    }
    if (buffer->direction != SBE_DIR_IN && !native_stands_alone(memory, offset, size, padded))
        return refuse_place(call, i, memory);
    native_hold(memory);
    memory->holds++;
    call->held[i] = memory;
    return 0;
}

/* 0, or 1 when the buffer is too large to ride inline; -1 raised. */
static int use_inline(Call *call, uint32_t i, Py_buffer *view)
{
    struct sbe_buffer *buffer = &call->asked[i];
    if (buffer->direction == SBE_DIR_SHARED) {
        native_raise(SBE_EINVAL, false, "buffer %u: Shared memory must be an area of the link", i);
        return -1;
    }
    if ((uint64_t)view->len > inline_limit(call->channel))
        return 1;
    if (call->views == NULL) {
        call->views = PyMem_Calloc(call->buffer_count, sizeof *call->views);
        if (call->views == NULL) {
            PyErr_NoMemory();
            return -1;
        }
    }
    buffer->flags = SBE_BUFFER_INLINE;
    buffer->area = 0;
    buffer->offset = 0;
    buffer->size = (uint64_t)view->len;
    buffer->data = view->buf;
    if ((buffer->direction & SBE_DIR_IN) != 0)
        call->copied += (uint64_t)view->len;
    call->views[i] = *view; /* the view's reference moves here */
    return 0;
}

static int refuse_object(uint32_t i, PyObject *target, bool writes)
{
    Py_buffer view = {.obj = NULL};
    PyObject *type, *why, *trace;
    if (!PyErr_ExceptionMatches(PyExc_BufferError) && !PyErr_ExceptionMatches(PyExc_ValueError) &&
        !PyErr_ExceptionMatches(PyExc_TypeError))
        return -1; /* not about its shape: out of memory, an interrupt, the exporter's own */
    PyErr_Fetch(&type, &why, &trace);
    if (PyObject_GetBuffer(target, &view, PyBUF_FULL_RO) < 0) {
        PyErr_Clear();
        native_raise(SBE_EINVAL, false, "buffer %u can't be shown as bytes: %S", i,
                     why == NULL ? Py_None : why);
    } else if (writes && view.readonly) {
        native_raise(SBE_EINVAL, false, "buffer %u is not writable, and the remote is to write it",
                     i);
    } else {
        native_raise(SBE_EINVAL, false,
                     "buffer %u is not contiguous; copy it with numpy.ascontiguousarray() or slice "
                     "whole rows",
                     i);
    }
    if (view.obj != NULL)
        PyBuffer_Release(&view);
    Py_XDECREF(type);
    Py_XDECREF(why);
    Py_XDECREF(trace);
    return -1;
}

/*
 * A numpy slice of an area is found by its address; other memory rides inline (0) or must be
 * staged (1). -1 raised.
 */
static int use_object(Call *call, uint32_t i, PyObject *target)
{
    Py_buffer view;
    bool writes = call->asked[i].direction != SBE_DIR_IN;
    if (call->asked[i].direction == SBE_DIR_SHARED)
        writes = false; /* memory of an area can be written, and other memory is refused */
    enum native_shown shown = native_show_bytes(target, &view, writes);
    if (shown != SHOWN)
        return shown == SHOWN_NOT ? refuse_object(i, target, writes) : -1;
    Memory *memory = native_table_find(call->channel->table, view.buf);
    if (memory == NULL)
        memory = native_any_table_find(view.buf);
    if (memory == NULL || view.len == 0) {
        int how = use_inline(call, i, &view);
        if (how != 0)
            PyBuffer_Release(&view);
        return how;
    }
    uint64_t offset = (uint64_t)((uint8_t *)view.buf - memory->base);
    int status = use_area(call, i, memory, offset, (uint64_t)view.len, false);
    if (status == 1 && (status = use_inline(call, i, &view)) == 0)
        return 0;
    PyBuffer_Release(&view);
    return status;
}

static int use_slice(Call *call, uint32_t i, Slice *slice)
{
    Py_buffer view;
    int status = use_area(call, i, slice->memory, slice->offset, slice->size, slice->padded);
    if (status != 1)
        return status;
    if (PyObject_GetBuffer((PyObject *)slice, &view, PyBUF_WRITABLE) < 0)
        return -1;
    status = use_inline(call, i, &view);
    if (status != 0)
        PyBuffer_Release(&view);
    return status;
}

int native_call_use(Call *call, uint32_t i, PyObject *item)
{
    if (!PyObject_TypeCheck(item, Buffer_Type)) {
        PyErr_Format(PyExc_TypeError,
                     "buffer %u: say sbe.In(x), sbe.Out(x), sbe.InOut(x) or sbe.Shared(x), not %R",
                     i, (PyObject *)Py_TYPE(item));
        return -1;
    }
    Buffer *buffer = (Buffer *)item;
    call->asked[i].direction = buffer->direction;
    if (PyObject_TypeCheck(buffer->target, Memory_Type)) {
        Memory *memory = (Memory *)buffer->target;
        return use_area(call, i, memory, 0, memory->size, false);
    }
    if (PyObject_TypeCheck(buffer->target, Slice_Type))
        return use_slice(call, i, (Slice *)buffer->target);
    return use_object(call, i, buffer->target);
}

/* Releasing may run anything: each pointer is ours alone before. */
void native_call_release_views(Call *call)
{
    Py_buffer *views = call->views;
    call->views = NULL;
    for (uint32_t i = 0; views != NULL && i < call->buffer_count; i++)
        PyBuffer_Release(&views[i]);
    PyMem_Free(views);
}

void native_call_release(Call *call)
{
    for (uint32_t i = 0; i < call->buffer_count; i++) {
        if (call->held[i] != NULL) {
            call->held[i]->holds--;
            Py_CLEAR(call->held[i]);
        }
    }
    native_call_release_views(call);
}

int native_call_check_room(const Call *call, Py_ssize_t payload)
{
    const struct sbe_channel *core = &call->channel->core;
    uint64_t in = 0, out = 0;
    for (uint32_t i = 0; i < call->buffer_count; i++) {
        if ((call->asked[i].flags & SBE_BUFFER_INLINE) == 0)
            continue;
        in += (call->asked[i].direction & SBE_DIR_IN) != 0 ? call->asked[i].size : 0;
        out += (call->asked[i].direction & SBE_DIR_OUT) != 0 ? call->asked[i].size : 0;
    }
    uint32_t bare = sbe_channel_payload_room(core, call->buffer_count, 0);
    if ((uint64_t)payload > bare) {
        native_raise(SBE_EMSGSIZE, false,
                     "a payload of %zd bytes with %u buffers; one frame holds %u bytes: pass large "
                     "data as a buffer, sbe.In(data)",
                     payload, (unsigned)call->buffer_count, bare);
        return -1;
    }
    return in + (uint64_t)payload > bare || out > bare;
}

void native_call_need_staging(void)
{
    PyErr_SetNone(NeedsStaging);
}

int native_call_buffers_init(PyObject *module)
{
    NeedsStaging = PyErr_NewException("sbe._native.NeedsStaging", NULL, NULL);
    if (NeedsStaging == NULL)
        return -1;
    return PyModule_AddObjectRef(module, "NeedsStaging", NeedsStaging);
}
