/* SPDX-License-Identifier: Apache-2.0 */
/* Request, a call from the other end. */
#ifndef SBE_NATIVE_REQUEST_H
#define SBE_NATIVE_REQUEST_H

#include "channel.h"

struct request {
    PyObject ob_base;
    Channel *channel; /* strong */
    Request *next;
    uint8_t type;
    bool answered;
    bool cancelled;
    bool given_back; /* its buffers are the peer's again */
    bool unsynced;   /* but what it sees of them is not known */
    uint16_t service;
    uint16_t buffer_count;
    uint32_t waited_ns;
    uint64_t transaction;
    uint64_t seen_ns, begun_ns;
    PyObject *payload;
    PyObject *views; /* tuple of memoryview, one per buffer */
    PyObject *reply; /* bytes, while unsent */
    int reply_status;
    struct sbe_buffer *buffers;
    Memory **held;     /* strong and counted, NULL where inline */
    Py_buffer *copies; /* of inline bytes: what the answer is taken from */
    uint64_t *written;
};

extern PyTypeObject *Request_Type;
int native_request_init(PyObject *module);
/* For the collector: those in the channel's lists. */
int native_requests_visit(const Channel *channel, visitproc visit, void *arg);
/* Takes a REQUEST, SYNC, MESSAGE or EVENT frame. */
void native_request_take(Channel *channel, const struct sbe_frame *frame);
void native_request_cancel(Channel *channel, uint64_t transaction);
/* Sends answers that waited for room. */
void native_request_flush(Channel *channel);
/* The channel is dead: nothing is answered any more. */
void native_requests_drop(Channel *channel);
/* The next one waiting for a handler, new reference, or NULL. */
Request *native_request_next(Channel *channel);

#endif
