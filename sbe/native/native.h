/* SPDX-License-Identifier: Apache-2.0 */
/* What the extension's objects share. One file per object; limited API, floor 3.11. */
#ifndef SBE_NATIVE_H
#define SBE_NATIVE_H

#include <Python.h>

#include <stdbool.h>
#include <stdint.h>

#include "core/cache.h"
#include "core/channel.h"
#include "core/session.h"
#include "core/status.h"
#include "patience/patience.h"

/* -- module.c -- */

/* The limited API wants PyObject pointers; NULL may be dropped. */
#define native_hold(object) Py_INCREF((PyObject *)(object))
#define native_drop(object) Py_XDECREF((PyObject *)(object))

/*
 * What the collector sees: Channel, Call, Reply, Request and Session, among which and the user's
 * callbacks cycles are likely. Memory, Slice and Table name nothing that leads back (a subclass in
 * Python is seen by itself), a Buffer is gone when its call has been sent.
 */
#define NATIVE_COLLECTED (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC)

PyMODINIT_FUNC PyInit__native(void);

/* Raises the sbe.errors exception for a negative status; `remote`: a service answered it. NULL. */
PyObject *native_raise(int status, bool remote, const char *format, ...);
/* Raises a copy of an exception that is kept, see sbe.errors.again(). NULL. */
PyObject *native_raise_again(PyObject *error);
/* Monotonic time, ns. */
uint64_t native_now_ns(void *unused);
/* Creates a heap type from a spec and adds it to the module. 0 or -1. */
int native_add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type);

/* __reduce__() of what belongs to this process: raises. For a table of methods. */
PyObject *native_not_copied(PyObject *object, PyObject *unused);
#define NATIVE_NOT_COPIED                                                                  \
    {                                                                                      \
        "__reduce__", native_not_copied, METH_NOARGS, "Raises: it belongs to its process." \
    }

/* -- convert.c: checked integers for PyArg_Parse*'s O& -- */

int native_as_u16(PyObject *object, void *out);
int native_as_u32(PyObject *object, void *out);
int native_as_u64(PyObject *object, void *out);

/* -- memory.c: Memory, a shared mapping; Slice, a range of it -- */

typedef struct table Table;

typedef struct {
    PyObject ob_base;
    uint8_t *base;
    uint64_t size;  /* bytes */
    uint32_t id;    /* area id, 0: not in a table */
    uint32_t holds; /* open or quarantined transactions that name it */
    int sync_fd;    /* maintains caches for a range of it; -1: coherent */
    bool readonly;
    bool freed;   /* out of the table; the mapping lives on while views of it do */
    Table *table; /* strong, once added */
} Memory;

typedef struct {
    PyObject ob_base;
    Memory *memory; /* strong */
    uint64_t offset;
    uint64_t size;
} Slice;

extern PyTypeObject *Memory_Type, *Slice_Type;
int native_memory_init(PyObject *module);
void native_memory_let_go(Memory *memory); /* of what maintains its caches */
PyObject *native_slice_new(Memory *memory, uint64_t offset, uint64_t size);

/* -- table.c: Table, the areas that channels may name -- */

struct table {
    PyObject ob_base;
    struct sbe_area_table areas;
    Memory **members;    /* by area index, borrowed: a Memory leaves before it dies */
    Memory **by_address; /* sorted by base, borrowed, freed ones included */
    uint32_t address_count;
    uint32_t address_room;
    struct table *next_table; /* all tables of the process, to tell whose a pointer is */
};

extern PyTypeObject *Table_Type;
int native_table_init(PyObject *module);
/* The area of this table that the address lies in, NULL none. What begins there may leave it. */
Memory *native_table_find(const Table *table, const void *start);
/* The same over every table of the process. */
Memory *native_any_table_find(const void *start);
void native_table_forget(Memory *memory); /* at its death */
/* The member of this id, which has been resolved; NULL if it is about to die. */
Memory *native_table_member(const Table *table, uint32_t id);

/* -- buffer.c: In, Out, InOut, Shared -- */

typedef struct {
    PyObject ob_base;
    PyObject *target; /* strong: Memory, Slice or anything with the buffer protocol */
    uint8_t direction;
} Buffer;

extern PyTypeObject *Buffer_Type;
int native_buffer_init(PyObject *module);

enum native_shown {
    SHOWN = 0,
    SHOWN_NOT,    /* the exporter's own error was raised */
    SHOWN_REFUSED /* BadArgument was raised: its bytes are pointers of this process */
};
/* The target's memory as plain bytes, to be read or written by the other end. */
enum native_shown native_show_bytes(PyObject *target, Py_buffer *view, bool writes);

/* -- channel.c: Channel, this process's end of a channel -- */

typedef struct channel Channel;
typedef struct request Request;
typedef struct call Call;

/* What the core's `owner` points at: a Call's or a batch entry's. */
struct open_call {
    void (*complete)(struct open_call *open, Channel *channel, const struct sbe_frame *response,
                     int status); /* response NULL: the channel died, status says why */
    /* For the collector: what is held until complete(). */
    int (*visit)(struct open_call *open, visitproc visit, void *arg);
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
    uint32_t backstops; /* waits that the slow timer ended while something was in flight */
    uint32_t in_flight;
    Call *ready, *last_ready;         /* completed, callbacks to be run, in order; strong */
    Request *requests, *last_request; /* waiting for a handler; strong */
    Request *unsent, *last_unsent;    /* answered, waiting for room; strong */
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

/* -- channel_call.c: methods of Channel -- */

PyObject *native_channel_submit(PyObject *object, PyObject *const *given, Py_ssize_t count);
PyObject *native_channel_call(PyObject *object, PyObject *const *given, Py_ssize_t count);
PyObject *native_channel_sync(PyObject *object, PyObject *const *given, Py_ssize_t count);
PyObject *native_channel_send(PyObject *object, PyObject *const *given, Py_ssize_t count);

/* -- cache.c: maintenance where memory is not coherent -- */

void native_cache_hooks(struct sbe_port *port);
/* sbe_cache_handover() of a buffer in this area, NULL inline. Bytes maintained. */
static inline uint64_t native_handover(Channel *channel, enum sbe_handover step,
                                       const struct sbe_buffer *buffer, const Memory *memory)
{
    if (memory == NULL || memory->sync_fd < 0)
        return 0;
    return sbe_cache_handover(&channel->port, step, buffer);
}

/* Whether one has failed since the last look: SBE_EIO, else 0. */
static inline int native_unsynced(Channel *channel)
{
    bool failed = channel->unsynced;
    channel->unsynced = false;
    return failed ? SBE_EIO : SBE_OK;
}

/* -- wait.c: sleeping on a channel -- */

#define NATIVE_FOREVER UINT64_MAX
enum native_wait {
    WAIT_READY,
    WAIT_TIMEOUT,
    WAIT_RAISED
};
typedef bool (*native_ready)(Channel *channel, void *what);
/*
 * Sleeps until ready(what), the deadline (native_now_ns) or an exception, GIL released. recent_ns:
 * the clock as read just now, or 0.
 */
enum native_wait native_wait(Channel *channel, native_ready ready, void *what, uint64_t deadline_ns,
                             uint64_t recent_ns);
/* Makes sleep_fd; control_fd is borrowed, -1 none. -1 raised. */
int native_watch(Channel *channel, int control_fd);
/* Something changed that another thread may wait for. */
void native_wake(Channel *channel);
/* Something is in flight from now on: whoever sleeps for ever shall look again now and then. */
void native_wake_untimed(Channel *channel);
/*
 * A timeout as Python gives it (None: forever) to a deadline. now_ns is the clock if it had to be
 * read, else 0: there are machines where that is a system call. -1 raised.
 */
int native_deadline(PyObject *timeout, uint64_t *deadline_ns, uint64_t *now_ns);
/* What is left of it, as frames say it: 0 none. */
uint32_t native_deadline_us(uint64_t deadline_ns, uint64_t now_ns);
/* True when a request can be sent; if not, the doorbell will ring when it can. */
bool native_has_room(Channel *channel, void *unused);
/* Waits until a request can be sent; WAIT_TIMEOUT at the deadline. */
enum native_wait native_wait_room(Channel *channel, uint64_t deadline_ns);

/* -- call.c: Call, one transaction -- */

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
    int status;       /* when failed */
    uint16_t service;
    uint16_t buffer_count;
    uint32_t doorbells;
    uint32_t waited_ns, handled_ns;
    uint64_t transaction;
    uint64_t started_ns, ended_ns;
    uint64_t deadline_ns;     /* NATIVE_FOREVER: none */
    uint64_t copied, synced;  /* bytes */
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
/* Makes a call from Buffer objects, not yet sent. NULL raised. */
Call *native_call_new(Channel *channel, uint16_t service, PyObject *buffers, Py_ssize_t payload);
/*
 * Sends it; 0, SBE_EAGAIN or SBE_ENOMEM: no room now; other statuses are final. now_ns: the clock
 * as just read, or 0.
 */
int native_call_send(Call *call, uint8_t type, const void *payload, uint32_t payload_size,
                     uint64_t deadline_ns, uint64_t now_ns);
/* The call's outcome as a new Reply, or its exception. */
PyObject *native_call_outcome(Call *call);
/* Gives the call up: the user sees `status`, the buffers stay held until the remote answers. */
void native_call_abandon(Call *call, int status);
void native_run_callbacks(Channel *channel);

/* -- call_buffers.c -- */

int native_call_buffers_init(PyObject *module);
/* Takes a Buffer object as buffer i. 0, 1 if it must be staged, -1 raised. */
int native_call_use(Call *call, uint32_t i, PyObject *item);
/* 0: room in one frame for everything, there and back; 1: not unless staged; -1 raised. */
int native_call_check_room(const Call *call, Py_ssize_t payload);
void native_call_need_staging(void); /* raises */
void native_call_release(Call *call);
/* The inline ones only, which the remote never had. */
void native_call_release_views(Call *call);

/* -- reply.c: Reply, what a call came to -- */

int native_reply_init(PyObject *module);
PyObject *native_reply_new(Call *call); /* of a call that is done */
PyObject *native_restore_reply(PyObject *module, PyObject *arguments);

/* -- batch.c -- */

PyObject *native_batch(PyObject *channel, PyObject *arguments, PyObject *keywords);

/* -- request.c: Request, a call from the other end -- */

struct request {
    PyObject ob_base;
    Channel *channel; /* strong */
    Request *next;
    uint8_t type;
    bool answered;
    bool cancelled;
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

/* -- bootstrap.c, doorbells.c: carve-out links -- */

int native_bootstrap_init(PyObject *module);
int native_doorbells_init(PyObject *module);
int native_signals_init(PyObject *module);
/* The crash record of the remote's life that is there now, or None. */
PyObject *native_read_crash(PyObject *module, PyObject *window);

/* -- session.c -- */

int native_session_init(PyObject *module);

#endif
