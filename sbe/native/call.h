/* SPDX-License-Identifier: Apache-2.0 */
/* Call, one transaction. */
#ifndef SBE_NATIVE_CALL_H
#define SBE_NATIVE_CALL_H

#include "channel.h"
#include "stuck.h"

enum call_state {
    CALL_OPEN,
    CALL_DONE,
    CALL_FAILED
};

struct call {
    PyObject ob_base;
    struct open_call open;
    Channel *channel; /* strong */
    Call *next_ready;
    enum call_state state;
    bool in_flight;   /* the remote has not answered: buffers are held, whatever the state */
    bool remote_said; /* the status is the remote's word */
    uint8_t type;     /* of its frame: REQUEST, SYNC or MESSAGE */
    int status;       /* when failed */
    uint16_t buffer_count;
    uint32_t doorbells;
    uint32_t waited_ns, handled_ns;
    uint64_t transaction;
    uint64_t started_ns, ended_ns;
    uint64_t deadline_ns;     /* NATIVE_FOREVER: none */
    uint64_t copied, synced;  /* bytes */
    struct stuck stuck;       /* when its deadline came first */
    PyObject *error;          /* when failed by the channel's death; strong or NULL */
    PyObject *payload;        /* of the response */
    PyObject *callbacks;      /* list or NULL */
    struct sbe_buffer *asked; /* few_asked or allocated */
    Memory **held;            /* strong and counted, NULL where inline; few_held or allocated */
    Py_buffer *views;         /* of inline buffers, NULL when there are none */
    struct sbe_buffer few_asked[2];
    Memory *few_held[2];
};

extern PyTypeObject *Call_Type;
int native_call_init(PyObject *module);
/* Makes a call from Buffer objects, not yet sent: a frame of this type. NULL raised. */
Call *native_call_new(Channel *channel, uint8_t type, uint16_t service, PyObject *buffers,
                      Py_ssize_t payload);
/*
 * Sends it; 0, SBE_EAGAIN or SBE_ENOMEM: no room now; other statuses are final. now_ns: the clock
 * as just read, or 0.
 */
int native_call_send(Call *call, const void *payload, uint32_t payload_size, uint64_t deadline_ns,
                     uint64_t now_ns);
/* Name of the service, or its number; a new reference, NULL raised. */
PyObject *native_channel_service(const Channel *channel, uint16_t service);
PyObject *native_call_service(const Call *call);
/* The call's outcome as a new Reply, or its exception. */
PyObject *native_call_outcome(Call *call);
/* Gives the call up: the user sees `status`, the buffers stay held until the remote answers. */
void native_call_abandon(Call *call, int status);
void native_run_callbacks(Channel *channel);

#endif
