/* SPDX-License-Identifier: Apache-2.0 */
/* Channel, this process's end of a channel. */
#ifndef SBE_NATIVE_CHANNEL_H
#define SBE_NATIVE_CHANNEL_H

#include "core/channel.h"
#include "memory.h"
#include "native.h"
#include "patience/patience.h"
#include "table.h"

typedef struct channel Channel;
typedef struct request Request;
typedef struct call Call;

/* What the core's `owner` points at: a Call's or a batch entry's. */
struct open_call {
    void (*complete)(struct open_call *open, Channel *channel, const struct sbe_frame *response,
                     int status); /* response NULL: the channel died, status says why */
    /* For the collector: what is held until complete(). */
    int (*visit)(struct open_call *open, visitproc visit, void *arg);
    uint16_t service;
};

struct channel {
    PyObject ob_base;
    struct sbe_channel core;
    struct sbe_port port;
    Table *table;  /* strong */
    Memory *rings; /* strong */
    struct sbe_call *calls;
    uint8_t *scratch; /* slot_size bytes, for the core */
    int ring_fd;      /* the peer's doorbell, written */
    int wake_fd;    /* ours: eventfd, rpmsg endpoint, or a listener, which is an epoll descriptor */
    int sleep_fd;   /* epoll over wake_fd, control_fd and kick_fd: what a thread sleeps on */
    int kick_fd;    /* one thread of this end wakes another one */
    int control_fd; /* borrowed, -1 none */
    PyObject *on_control;
    PyObject *names;         /* dict: service id to name, for messages */
    PyObject *waits;         /* waits() returns who awaits calls elsewhere; NULL nobody */
    PyObject *error;         /* why the channel is dead, NULL alive */
    bool listens;            /* wake_fd is a listener: found out when it is read */
    bool messages;           /* wake_fd is an rpmsg endpoint: each doorbell has to be read */
    uint32_t wakes;          /* by such an endpoint */
    uint32_t forks;          /* of this process when it was made: a child must not touch it */
    bool polling;            /* a thread looks at the ring for all: it spins, or */
    bool unsynced;           /* cache maintenance has failed */
    bool asleep;             /* it sleeps on sleep_fd, */
    bool timed;              /* and looks again by itself, should a doorbell be lost */
    sbe_shared_u32 progress; /* futex: moves whenever a waiting thread should look again */
    uint32_t sleepers;       /* on progress, not yet woken */
    /* How long a thread looks at the ring before it sleeps. */
    struct sbe_patience patience;
    uint64_t turn_ns;   /* since when the request at hand may run: the last answer, or no other */
    uint32_t work_seen; /* at_work of the remote, at the last backstop */
    uint64_t moved_ns;  /* when the same request had made progress between two looks */
    uint32_t backstops; /* waits that the slow timer ended while something was in flight */
    uint32_t in_flight;
    Call *ready, *last_ready;         /* completed, callbacks to be run, in order; strong */
    Request *requests, *last_request; /* waiting for a handler; strong */
    Request *unsent, *last_unsent;    /* answered, waiting for room; strong */
    uint64_t working;                 /* the transaction that a handler of ours was last given */
    uint32_t beats;                   /* so many were */
    uint32_t request_count;           /* taken and not yet answered */
    uint32_t refused;                 /* requests beyond the bound */
    uint32_t lost;                    /* of them, those that no answer told so */
};

extern PyTypeObject *Channel_Type;
int native_channel_init(PyObject *module);
/* Raises the channel's error if it is dead, or another process's. 0 alive, -1 raised. */
int native_channel_check(Channel *channel);
/* Neither dead nor another process's: frames may be sent and taken. */
bool native_channel_usable(const Channel *channel);
/* Kills the channel: every open call and request fails with `error` (borrowed). */
void native_channel_fail(Channel *channel, PyObject *error);
/* Takes what the peer sent, then runs callbacks. -1: a callback or hook raised. */
int native_channel_drain(Channel *channel);

#endif
