/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Batch: thousands of calls of one service in one Python call. Descriptors come as an array of the
 * wire's own buffer structs, results go to the caller's arrays.
 */
#include "batch.h"

#include <sched.h>
#include <string.h>

#include "cache.h"
#include "channel.h"
#include "convert.h"
#include "core/status.h"
#include "memory.h"
#include "native.h"
#include "table.h"
#include "wait.h"

#define YIELD_NS 5000000u /* as often as the interpreter switches threads */

struct batch;

struct entry {
    struct open_call open;
    struct batch *batch;
    uint32_t index;
};

/* A buffer that is the remote's until it has answered, as it was asked for. */
struct held {
    Memory *memory; /* strong and counted, or NULL */
    uint64_t offset, size;
    uint8_t direction;
};

struct batch {
    Channel *channel;
    uint16_t service;
    uint32_t count, per_call, payload_size, reply_size;
    uint32_t sent, done;
    bool lost;     /* some ended unanswered, with the channel */
    bool given_up; /* results go nowhere, the arrays may be gone; only the holds remain */
    Py_buffer descriptors, payloads, statuses, written, replies;
    struct entry *entries;
    struct held *held; /* per_call for each entry */
};

/* Releasing may run anything, even complete the last call, which frees the batch. */
static void release_arrays(struct batch *batch)
{
    Py_buffer arrays[] = {batch->descriptors, batch->payloads, batch->statuses, batch->written,
                          batch->replies};
    batch->descriptors.obj = batch->payloads.obj = batch->statuses.obj = NULL;
    batch->written.obj = batch->replies.obj = NULL;
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++)
        PyBuffer_Release(&arrays[i]);
}

/* Its arrays have been released. */
static void free_batch(struct batch *batch)
{
    PyMem_Free(batch->entries);
    PyMem_Free(batch->held);
    PyMem_Free(batch);
}

/* The caller's bytes may lie at any address, and change: each look is a copy. */
static struct sbe_wire_buffer descriptor(const struct batch *batch, uint32_t index, uint32_t i)
{
    struct sbe_wire_buffer wire;
    size_t at = (size_t)index * batch->per_call + i;
    memcpy(&wire, (const uint8_t *)batch->descriptors.buf + at * sizeof wire, sizeof wire);
    return wire;
}

static void put_status(struct batch *batch, uint32_t index, int32_t status)
{
    memcpy((uint8_t *)batch->statuses.buf + (size_t)index * sizeof status, &status, sizeof status);
}

static void drop_holds(struct batch *batch, uint32_t index)
{
    for (uint32_t i = 0; i < batch->per_call; i++) {
        struct held *held = &batch->held[(size_t)index * batch->per_call + i];
        if (held->memory != NULL) {
            held->memory->holds--;
            Py_CLEAR(held->memory);
        }
    }
}

/* All of a call, whatever became of it, as take_back() of a single one. */
static void take_back(const struct batch *batch, uint32_t index)
{
    for (uint32_t i = 0; i < batch->per_call; i++) {
        const struct held *held = &batch->held[(size_t)index * batch->per_call + i];
        if (held->memory == NULL)
            continue;
        const struct sbe_buffer buffer = {
            .direction = held->direction,
            .size = held->size,
            .data = held->memory->base + held->offset,
        };
        native_handover(batch->channel, SBE_TAKE_BACK, &buffer, held->memory);
    }
}

/* Fills and resolves one entry's buffers, holding their areas. A status. */
static int load(struct batch *batch, uint32_t index, struct sbe_frame *frame)
{
    const Table *table = batch->channel->table;
    for (uint32_t i = 0; i < batch->per_call; i++) {
        const struct sbe_wire_buffer wire = descriptor(batch, index, i);
        frame->buffers[i] = (struct sbe_buffer){
            .area = wire.area,
            .direction = wire.direction,
            .offset = wire.offset,
            .size = wire.size,
        };
        int status =
            wire.flags != 0 || wire.reserved != 0
                ? SBE_EINVAL
                : sbe_area_resolve(&table->areas, batch->channel->core.context, &frame->buffers[i]);
        Memory *memory = status < 0 ? NULL : native_table_member(table, wire.area);
        if (memory != NULL && wire.direction != SBE_DIR_IN &&
            !native_stands_alone(memory, wire.offset, wire.size, false)) {
            drop_holds(batch, index);
            return SBE_EINVAL;
        }
        if (memory == NULL) {
            drop_holds(batch, index);
            return status < 0 ? status : SBE_EFAULT;
        }
        native_hold(memory);
        memory->holds++;
        batch->held[(size_t)index * batch->per_call + i] =
            (struct held){memory, wire.offset, wire.size, wire.direction};
        native_handover(batch->channel, SBE_GIVE, &frame->buffers[i], memory);
    }
    int status = native_unsynced(batch->channel);
    if (status < 0)
        drop_holds(batch, index);
    return status;
}

/* A response about other buffers, or about more bytes, than were asked for. */
static bool is_wrong(const struct batch *batch, uint32_t index, const struct sbe_frame *response)
{
    struct sbe_buffer asked[SBE_BUFFERS_MAX];
    for (uint32_t i = 0; i < batch->per_call; i++) {
        const struct sbe_wire_buffer wire = descriptor(batch, index, i);
        asked[i] = (struct sbe_buffer){
            .area = wire.area,
            .direction = wire.direction,
            .offset = wire.offset,
            .size = wire.size,
        };
    }
    return sbe_frame_check_response(response, asked, batch->per_call) < 0;
}

static void take_results(struct batch *batch, uint32_t index, const struct sbe_frame *response)
{
    uint32_t next = 0, size = response->payload_size;
    for (uint32_t i = 0; i < response->buffer_count && batch->written.obj != NULL; i++) {
        while (next < batch->per_call && descriptor(batch, index, next).direction == SBE_DIR_IN)
            next++;
        if (next == batch->per_call ||
            response->buffers[i].size > descriptor(batch, index, next).size)
            break; /* more, or more bytes, than was asked for */
        memcpy((uint8_t *)batch->written.buf +
                   ((size_t)index * batch->per_call + next) * sizeof(uint64_t),
               &response->buffers[i].size, sizeof(uint64_t));
        next++;
    }
    if (batch->replies.obj != NULL && size != 0)
        memcpy((uint8_t *)batch->replies.buf + (size_t)index * batch->reply_size, response->payload,
               size < batch->reply_size ? size : batch->reply_size);
}

static void complete(struct open_call *open, Channel *channel, const struct sbe_frame *response,
                     int status)
{
    struct entry *entry = (struct entry *)(void *)open;
    struct batch *batch = entry->batch;
    channel->in_flight--;
    batch->done++;
    take_back(batch, entry->index);
    bool unsynced = native_unsynced(channel) < 0;
    if (batch->given_up) {
        drop_holds(batch, entry->index);
        if (batch->done == batch->sent)
            free_batch(batch);
        return;
    }
    if (response != NULL && is_wrong(batch, entry->index, response))
        status = SBE_EBADMSG;
    else if (response != NULL) {
        status = response->status;
        take_results(batch, entry->index, response);
        if (unsynced)
            status = SBE_EIO;
    } else {
        batch->lost = true;
    }
    drop_holds(batch, entry->index);
    put_status(batch, entry->index, status);
}

static int visit_entry(struct open_call *open, visitproc visit, void *arg)
{
    const struct entry *entry = (const struct entry *)(const void *)open;
    const struct batch *batch = entry->batch;
    for (uint32_t i = 0; i < batch->per_call; i++)
        Py_VISIT((PyObject *)batch->held[(size_t)entry->index * batch->per_call + i].memory);
    return 0;
}

/* Sends as many as fit. A final status, or 0. */
static int send_some(struct batch *batch, uint64_t deadline_ns)
{
    Channel *channel = batch->channel;
    struct sbe_frame frame;
    memset(&frame, 0, offsetof(struct sbe_frame, buffers));
    frame.type = SBE_FRAME_REQUEST;
    frame.service = batch->service;
    frame.buffer_count = (uint16_t)batch->per_call;
    frame.payload_size = batch->payload_size;
    frame.deadline_us = native_deadline_us(deadline_ns, native_now_ns(NULL));
    while (batch->sent < batch->count && sbe_channel_room(&channel->core) > 0 &&
           channel->core.call_free < channel->core.call_count) {
        uint32_t index = batch->sent;
        struct entry *entry = &batch->entries[index];
        int status = load(batch, index, &frame);
        if (status == SBE_OK) {
            frame.payload =
                (const uint8_t *)batch->payloads.buf + (size_t)index * batch->payload_size;
            *entry = (struct entry){{complete, visit_entry, frame.service}, batch, index};
            status = sbe_channel_request(&channel->core, &frame, &entry->open);
            if (status == SBE_OK)
                channel->in_flight++;
            else
                drop_holds(batch, index);
        }
        if (status == SBE_EPROTO)
            return status; /* the ring is broken: this one is not on its way */
        batch->sent++;
        if (status < 0) { /* this one is wrong; the others go on */
            put_status(batch, index, status);
            batch->done++;
        }
    }
    sbe_channel_flush(&channel->core);
    native_wake_untimed(channel);
    return SBE_OK;
}

static bool can_go_on(Channel *channel, void *what)
{
    struct batch *batch = what;
    if (batch->sent == batch->count)
        return batch->done == batch->count;
    return native_has_room(channel, NULL); /* other threads may have filled the ring */
}

/* A remote that keeps up never lets us sleep: others get their turn, and signals theirs. */
static int yield(uint64_t *last_ns)
{
    uint64_t now_ns = native_now_ns(NULL);
    if (now_ns - *last_ns < YIELD_NS)
        return 0;
    Py_BEGIN_ALLOW_THREADS;
    sched_yield();
    Py_END_ALLOW_THREADS;
    *last_ns = native_now_ns(NULL);
    return PyErr_CheckSignals();
}

/* 0: all done; otherwise a status, or 1 when something raised. */
static int run(struct batch *batch, uint64_t deadline_ns)
{
    uint64_t last_ns = native_now_ns(NULL);
    while (batch->done < batch->count) {
        if (native_channel_check(batch->channel) < 0 || yield(&last_ns) < 0)
            return 1; /* on a dead channel nothing that is sent would ever be completed */
        if (deadline_ns < last_ns)
            return SBE_ETIMEDOUT;
        int status = send_some(batch, deadline_ns);
        if (status < 0)
            return status;
        enum native_wait how = native_wait(batch->channel, can_go_on, batch, deadline_ns, 0);
        if (how == WAIT_TIMEOUT)
            return SBE_ETIMEDOUT;
        if (how == WAIT_RAISED)
            return 1;
    }
    /* What ended with the channel has no answer: the same error as before all were sent. */
    return batch->lost && native_channel_check(batch->channel) < 0;
}

static int check_length(const Py_buffer *buffer, const char *what, uint64_t count, uint64_t each)
{
    if (buffer->obj == NULL || (uint64_t)buffer->len == count * each)
        return 0;
    native_raise(SBE_EINVAL, false, "%s: %zd bytes given, %llu of %llu bytes needed", what,
                 buffer->len, (unsigned long long)count, (unsigned long long)each);
    return -1;
}

static int parse(struct batch *batch, PyObject *arguments, PyObject *keywords,
                 uint64_t *deadline_ns)
{
    static char *names[] = {"service",  "count",        "per_call", "descriptors",
                            "payloads", "payload_size", "statuses", "written",
                            "replies",  "reply_size",   "timeout",  NULL};
    PyObject *timeout = Py_None;
    if (!PyArg_ParseTupleAndKeywords(
            arguments, keywords, "O&O&O&y*y*O&w*w*w*O&|O", names, native_as_u16, &batch->service,
            native_as_u32, &batch->count, native_as_u32, &batch->per_call, &batch->descriptors,
            &batch->payloads, native_as_u32, &batch->payload_size, &batch->statuses,
            &batch->written, &batch->replies, native_as_u32, &batch->reply_size, &timeout))
        return -1;
    if (batch->per_call > batch->channel->core.buffers) {
        native_raise(SBE_EMSGSIZE, false, "%u buffers in each call, this link takes at most %u",
                     batch->per_call, batch->channel->core.buffers);
        return -1;
    }
    if (batch->count > 1u << 24 ||
        batch->payload_size > sbe_channel_payload_room(&batch->channel->core, batch->per_call, 0)) {
        native_raise(SBE_EMSGSIZE, false,
                     "%u buffers and %u bytes of payload each do not fit a frame", batch->per_call,
                     batch->payload_size);
        return -1;
    }
    uint64_t buffers = (uint64_t)batch->count * batch->per_call;
    if (check_length(&batch->descriptors, "descriptors", buffers, sizeof(struct sbe_wire_buffer)) <
            0 ||
        check_length(&batch->payloads, "payloads", batch->count, batch->payload_size) < 0 ||
        check_length(&batch->statuses, "statuses", batch->count, sizeof(int32_t)) < 0 ||
        check_length(&batch->written, "written", buffers, sizeof(uint64_t)) < 0 ||
        check_length(&batch->replies, "replies", batch->count, batch->reply_size) < 0)
        return -1;
    batch->entries = PyMem_Calloc(batch->count + 1u, sizeof *batch->entries);
    batch->held = PyMem_Calloc((size_t)buffers + 1u, sizeof *batch->held);
    if (batch->entries == NULL || batch->held == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    uint64_t now_ns;
    return native_deadline(timeout, deadline_ns, &now_ns);
}

PyObject *native_batch(PyObject *object, PyObject *arguments, PyObject *keywords)
{
    Channel *channel = (Channel *)object;
    uint64_t deadline_ns;
    struct batch *batch = PyMem_Calloc(1, sizeof *batch);
    if (batch == NULL)
        return PyErr_NoMemory();
    batch->channel = channel;
    if (native_channel_check(channel) < 0 || parse(batch, arguments, keywords, &deadline_ns) < 0) {
        release_arrays(batch);
        free_batch(batch);
        return NULL;
    }
    int status = run(batch, deadline_ns);
    uint32_t done = batch->done, sent = batch->sent, count = batch->count;
    if (done < sent) { /* the rest is quarantined until answered, which may be at once */
        batch->given_up = true;
        release_arrays(batch);
    } else {
        release_arrays(batch);
        free_batch(batch);
    }
    if (status == 1)
        return NULL;
    if (status == SBE_EPROTO &&
        (native_channel_drain(channel) < 0 || native_channel_check(channel) < 0))
        return NULL; /* says what is wrong with the ring */
    if (status < 0)
        return native_raise(status, false,
                            "%u of %u calls of the batch have ended; %u were sent and are not "
                            "answered: their buffers stay quarantined until the remote answers "
                            "or is reset",
                            done, count, sent - done);
    Py_RETURN_NONE;
}
