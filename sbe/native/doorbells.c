/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Doorbells: the eventfds of many channels over one byte stream, an interrupt, or an endpoint each.
 * A thread of our own, which never takes the GIL, turns what is rung here into tokens or messages
 * and what comes into eventfd writes, so that a channel looks to its user as it does beside a
 * process. Doorbells coalesce: a stream or endpoint that takes nothing costs one bit per channel.
 */
#include "doorbells.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "carveout/token.h"
#include "convert.h"
#include "core/status.h"
#include "doorbell_table.h"
#include "endpoint.h"
#include "interrupt.h"
#include "native.h"

#define BATCH              64
#define INTERRUPT_RETRY_NS 1000000u

typedef struct {
    PyObject ob_base;
    pthread_t thread;
    bool running;
    bool closing; /* once: the thread uses the descriptors until it has been joined */
    pid_t owner;  /* a forked child has neither the thread nor a say */
    int stream_fd, epoll_fd, stop_fd;
    bool is_socket;             /* stream_fd: writing must not raise SIGPIPE */
    struct interrupt interrupt; /* stream_fd is no stream: any token is one ring */
    int happened_fd;            /* readable: events, a tick, or the end of the stream */
    pthread_mutex_t lock;
    /* Guarded by the lock: */
    struct doorbell_table table;
    uint32_t events_owed; /* a bit per event to send */
    uint32_t events;      /* a bit per event that came */
    uint64_t tick_ns;     /* when to tick, 0 never */
    uint64_t now_ns;      /* of this turn, 0: not read */
    uint64_t retry_ns;    /* when to look at endpoints again, 0 never */
    uint8_t partial[SBE_TOKEN_MAX];
    uint32_t partial_at, partial_size;
    bool closed;  /* the stream has ended */
    bool blocked; /* the stream takes nothing: wait for EPOLLOUT */
    bool ring;    /* the interrupt is owed, by the thread */
    uint32_t sent, received, strange;
    struct sbe_token_reader reader; /* the thread's own */
} Doorbells;

/* -- under the lock ------------------------------------------------------------------------ */

static void end_stream(Doorbells *self)
{
    self->closed = true;
    (void)epoll_ctl(self->epoll_fd, EPOLL_CTL_DEL, self->stream_fd, NULL);
    (void)eventfd_write(self->happened_fd, 1);
}

/* True: the stream took it, or there is none any more. False: it is full. */
static bool write_partial(Doorbells *self)
{
    while (self->partial_at < self->partial_size && !self->closed) {
        const uint8_t *rest = self->partial + self->partial_at;
        size_t size = self->partial_size - self->partial_at;
        ssize_t written = self->is_socket ? send(self->stream_fd, rest, size, MSG_NOSIGNAL)
                                          : write(self->stream_fd, rest, size);
        if (written > 0)
            self->partial_at += (uint32_t)written;
        else if (written < 0 && errno == EINTR)
            continue;
        else if (written < 0 && errno == EAGAIN)
            return false;
        else
            end_stream(self);
    }
    return true;
}

static bool write_token(Doorbells *self, uint32_t token)
{
    if (!write_partial(self))
        return false;
    if (self->interrupt.used) {
        self->ring = true;
        return true;
    }
    self->partial_at = 0;
    self->partial_size = sbe_token_write(token, self->partial);
    self->sent++;
    (void)write_partial(self); /* what it leaves goes first next time */
    return true;
}

static void look_again(Doorbells *self, uint64_t when_ns)
{
    if (self->retry_ns == 0 || when_ns < self->retry_ns)
        self->retry_ns = when_ns;
}

/* The clock is a system call on some machines: it is read once a turn, if at all. */
static uint64_t now_of(Doorbells *self)
{
    if (self->now_ns == 0)
        self->now_ns = native_now_ns(NULL);
    return self->now_ns;
}

static void wake(Doorbells *self, struct doorbell *doorbell)
{
    if (native_doorbell_wake(&self->table, doorbell))
        look_again(self, self->table.bells.next_ns);
}

static void send_owed(Doorbells *self, struct doorbell *doorbell)
{
    const struct frames *frames = doorbell->frames;
    bool late = frames != NULL && frames->tell_ns != 0 && now_of(self) >= frames->tell_ns;
    uint64_t pause = doorbell->owed || late ? native_endpoint_send(doorbell, late) : 0;
    doorbell->owed = pause != 0;
    if (pause != 0)
        look_again(self, now_of(self) + pause);
    else if (frames != NULL && frames->tell_ns != 0)
        look_again(self, frames->tell_ns);
}

/* What came may let us send, and has to be told of. */
static void take_messages(Doorbells *self, struct doorbell *doorbell, uint32_t events)
{
    struct frames *frames = doorbell->frames;
    bool gone = !native_endpoint_read(doorbell) || (events & (uint32_t)(EPOLLERR | EPOLLHUP)) != 0;
    wake(self, doorbell);
    if (gone && doorbell->endpoint_fd >= 0)
        (void)epoll_ctl(self->epoll_fd, EPOLL_CTL_DEL, doorbell->endpoint_fd, NULL);
    if (frames != NULL)
        native_doorbell_owe(&self->table, doorbell);
    if (frames != NULL && sbe_mirror_owes(&frames->mirror)) {
        frames->tell = false;
        frames->tell_ns = now_of(self) + FRAMES_TELL_NS;
    }
}

static void write_owed(Doorbells *self)
{
    bool room = write_partial(self);
    for (uint32_t event = 0; room && event < 32; event++)
        if ((self->events_owed & 1u << event) != 0 &&
            (room = write_token(self, SBE_TOKEN_EVENT(event))))
            self->events_owed &= ~(1u << event);
    self->retry_ns = 0;
    for (struct doorbell *each = native_doorbell_take_busy(&self->table), *next; each != NULL;
         each = next) {
        next = each->busy_next;
        each->busy = false;
        wake(self, each);
        if (each->endpoint_fd >= 0)
            send_owed(self, each);
        else if (each->owed && room && (room = write_token(self, SBE_TOKEN_CHANNEL(each->channel))))
            each->owed = false;
        if (each->owed || (each->frames != NULL && each->frames->tell_ns != 0))
            native_doorbell_busy(&self->table, each);
    }
    room = room && self->partial_at == self->partial_size;
    if (room == self->blocked && !self->closed) {
        struct epoll_event event = {.events = EPOLLIN | (room ? 0u : (uint32_t)EPOLLOUT)};
        (void)epoll_ctl(self->epoll_fd, EPOLL_CTL_MOD, self->stream_fd, &event);
        self->blocked = !room;
    }
}

static void take_token(Doorbells *self, uint32_t token)
{
    self->received++;
    if (SBE_TOKEN_IS_EVENT(token)) {
        self->events |= 1u << (SBE_TOKEN_VALUE(token) & 31u);
        (void)eventfd_write(self->happened_fd, 1);
        return;
    }
    struct doorbell *doorbell = *native_doorbell_find(&self->table, SBE_TOKEN_VALUE(token));
    if (doorbell == NULL) {
        self->strange++;
        return;
    }
    doorbell->wake_owed = true;
    wake(self, doorbell);
}

/* It may be for any channel, and for the control side. */
static void take_interrupt(Doorbells *self)
{
    int status = native_interrupt_take(&self->interrupt, self->stream_fd);
    if (status < 0)
        end_stream(self);
    if (status <= 0)
        return;
    for (uint32_t i = 0; i < DOORBELL_BUCKETS; i++)
        for (struct doorbell *each = self->table.all[i]; each != NULL; each = each->next) {
            each->wake_owed = true;
            wake(self, each);
        }
    take_token(self, SBE_TOKEN_EVENT(SBE_TOKEN_CONTROL));
    self->events |= 1u << SBE_TOKEN_BLOCK;
}

/* -- the thread ---------------------------------------------------------------------------- */

static void read_stream(Doorbells *self)
{
    uint8_t bytes[256];
    uint32_t token;
    ssize_t count = read(self->stream_fd, bytes, sizeof bytes);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count <= 0) {
        end_stream(self);
        return;
    }
    for (ssize_t i = 0; i < count; i++)
        if (sbe_token_read(&self->reader, bytes[i], &token))
            take_token(self, token);
}

static int timeout_ms(Doorbells *self)
{
    uint64_t next = self->tick_ns;
    if (self->retry_ns != 0 && (next == 0 || self->retry_ns < next))
        next = self->retry_ns;
    if (next == 0)
        return -1;
    uint64_t now = now_of(self);
    return now >= next ? 0 : (int)((next - now + 999999u) / 1000000u);
}

static void take_event(Doorbells *self, const struct epoll_event *event)
{
    struct doorbell *doorbell = (void *)((uintptr_t)event->data.ptr & ~TAG_MESSAGE);
    if (event->data.ptr == self) { /* stop_fd: told something, or to stop */
        eventfd_t value;
        (void)eventfd_read(self->stop_fd, &value);
    } else if (event->data.ptr != doorbell) {
        take_messages(self, doorbell, event->events);
    } else if (doorbell != NULL) {
        native_doorbell_owe(&self->table, doorbell);
    } else if ((event->events & ~(uint32_t)EPOLLOUT) != 0 && !self->closed) {
        if (self->interrupt.used)
            take_interrupt(self);
        else
            read_stream(self);
    }
}

/*
 * One for all that was owed, without the lock: a mailbox takes up to half a second to say that the
 * other end does not take it. Then it is tried again.
 */
static void ring_interrupt(Doorbells *self)
{
    bool rung = native_interrupt_ring(&self->interrupt, self->stream_fd);
    pthread_mutex_lock(&self->lock);
    if (rung) {
        self->sent++;
    } else {
        self->ring = true;
        look_again(self, native_now_ns(NULL) + INTERRUPT_RETRY_NS);
    }
    pthread_mutex_unlock(&self->lock);
}

static void *run(void *opaque)
{
    Doorbells *self = opaque;
    struct epoll_event events[BATCH];
    for (;;) {
        pthread_mutex_lock(&self->lock);
        native_doorbell_free_dead(&self->table);
        int timeout = timeout_ms(self);
        pthread_mutex_unlock(&self->lock);
        int count = epoll_wait(self->epoll_fd, events, BATCH, timeout);
        pthread_mutex_lock(&self->lock);
        self->now_ns = 0;
        for (int i = 0; i < count; i++)
            take_event(self, &events[i]);
        if (self->tick_ns != 0 && now_of(self) >= self->tick_ns) {
            self->tick_ns = 0;
            (void)eventfd_write(self->happened_fd, 1);
        }
        write_owed(self);
        bool running = self->running, ring = self->ring && !self->closed;
        self->ring = false;
        pthread_mutex_unlock(&self->lock);
        if (ring)
            ring_interrupt(self);
        if (!running)
            return NULL;
    }
}

/* -- life ---------------------------------------------------------------------------------- */

static PyObject *doorbells_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"stream_fd", "register", "value", NULL};
    int stream_fd = -1;
    uint32_t value = 0;
    PyObject *place = NULL;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "|iOO&", names, &stream_fd, &place,
                                     native_as_u32, &value))
        return NULL;
    bool none = stream_fd == -1;
    Doorbells *self = (Doorbells *)PyType_GenericAlloc(type, 0);
    if (self == NULL)
        return NULL;
    self->table.busy_end = &self->table.busy;
    (void)pthread_mutex_init(&self->lock, NULL);
    self->epoll_fd = self->stop_fd = self->happened_fd = self->stream_fd = -1;
    if (!native_interrupt_parse(&self->interrupt, place, value)) {
        native_drop(self);
        return NULL;
    }
    self->stream_fd = none ? -1 : fcntl(stream_fd, F_DUPFD_CLOEXEC, 3);
    self->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    self->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    self->happened_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct stat stream_is;
    self->is_socket = !none && fstat(stream_fd, &stream_is) == 0 && S_ISSOCK(stream_is.st_mode);
    int flags = none ? 0 : self->stream_fd < 0 ? -1 : fcntl(self->stream_fd, F_GETFL);
    self->running = true;
    self->owner = getpid();
    errno = flags < 0 ? EBADF : errno;
    if (flags < 0 || self->epoll_fd < 0 || self->stop_fd < 0 || self->happened_fd < 0 ||
        (!none && (fcntl(self->stream_fd, F_SETFL, flags | O_NONBLOCK) < 0 ||
                   !native_doorbell_watch(self->epoll_fd, self->stream_fd, EPOLLIN, NULL))) ||
        !native_doorbell_watch(self->epoll_fd, self->stop_fd, EPOLLIN, self) ||
        (errno = pthread_create(&self->thread, NULL, run, self)) != 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        self->running = false;
        native_drop(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void stop(Doorbells *self)
{
    if (!self->running)
        return;
    pthread_mutex_lock(&self->lock);
    self->running = false;
    pthread_mutex_unlock(&self->lock);
    (void)eventfd_write(self->stop_fd, 1);
    Py_BEGIN_ALLOW_THREADS;
    (void)pthread_join(self->thread, NULL);
    Py_END_ALLOW_THREADS;
    for (struct doorbell *each = native_doorbell_take_busy(&self->table); each != NULL;
         each = each->busy_next)
        each->busy = false;
    native_doorbell_free_dead(&self->table);
    if (self->is_socket) /* a forked child's copy would keep it open */
        (void)shutdown(self->stream_fd, SHUT_RDWR);
    for (uint32_t i = 0; i < DOORBELL_BUCKETS; i++) {
        for (struct doorbell *each = self->table.all[i], *next; each != NULL; each = next) {
            next = each->next;
            native_doorbell_release(each);
            free(each);
        }
        self->table.all[i] = NULL;
    }
    self->closed = true;
}

static PyObject *doorbells_close(PyObject *object, PyObject *unused)
{
    Doorbells *self = (Doorbells *)object;
    (void)unused;
    if (self->closing)
        Py_RETURN_NONE;
    self->closing = true;
    if (self->owner == getpid())
        stop(self);
    self->running = false;
    for (uint32_t i = 0; i < DOORBELL_BUCKETS; i++)
        for (struct doorbell *each = self->table.all[i]; each != NULL; each = each->next)
            native_doorbell_release(each); /* in a forked child: copies */
    native_close_fd(&self->stream_fd);
    native_close_fd(&self->epoll_fd);
    native_close_fd(&self->stop_fd);
    native_close_fd(&self->happened_fd);
    Py_RETURN_NONE;
}

static void doorbells_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    Py_XDECREF(doorbells_close(object, NULL));
    native_interrupt_free(&((Doorbells *)object)->interrupt);
    (void)pthread_mutex_destroy(&((Doorbells *)object)->lock);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* -- methods ------------------------------------------------------------------------------- */

static PyObject *doorbells_add(PyObject *object, PyObject *arguments)
{
    Doorbells *self = (Doorbells *)object;
    uint32_t channel;
    int ring_fd, wake_fd, endpoint_fd = -1;
    PyObject *rings = Py_None;
    if (!PyArg_ParseTuple(arguments, "O&ii|iO", native_as_u32, &channel, &ring_fd, &wake_fd,
                          &endpoint_fd, &rings))
        return NULL;
    if (endpoint_fd < 0 &&
        (channel > SBE_TOKEN_CHANNEL_MAX || self->stream_fd < 0 || rings != Py_None))
        return native_raise(SBE_EINVAL, false, "channel %u has no token", channel);
    if (!self->running || self->owner != getpid())
        return native_raise(SBE_ENOTCONN, false, "the doorbells are closed");
    struct doorbell *doorbell = calloc(1, sizeof *doorbell);
    if (doorbell == NULL)
        return PyErr_NoMemory();
    if (!native_frames_parse(rings, &doorbell->frames)) {
        free(doorbell);
        return NULL;
    }
    doorbell->channel = channel;
    pthread_mutex_lock(&self->lock); /* the thread may hear of it at once */
    bool adopted = native_doorbell_adopt(doorbell, self->epoll_fd, ring_fd, wake_fd, endpoint_fd);
    int error = errno;
    if (adopted) {
        native_doorbell_note(&self->table, doorbell);
        if (doorbell->frames != NULL)
            native_doorbell_owe(&self->table, doorbell); /* it asks for doorbells then */
    }
    pthread_mutex_unlock(&self->lock);
    if (!adopted) {
        native_doorbell_release(doorbell);
        free(doorbell);
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    (void)eventfd_write(self->stop_fd, 1);
    Py_RETURN_NONE;
}

static PyObject *doorbells_remove(PyObject *object, PyObject *number)
{
    Doorbells *self = (Doorbells *)object;
    unsigned long channel = PyLong_AsUnsignedLong(number);
    if (PyErr_Occurred() != NULL)
        return NULL;
    if (!self->running || self->owner != getpid())
        Py_RETURN_NONE;
    pthread_mutex_lock(&self->lock);
    struct doorbell **link = native_doorbell_find(&self->table, channel), *found = *link;
    if (found != NULL) {
        *link = found->next;
        (void)epoll_ctl(self->epoll_fd, EPOLL_CTL_DEL, found->ring_fd, NULL);
        if (found->endpoint_fd >= 0)
            (void)epoll_ctl(self->epoll_fd, EPOLL_CTL_DEL, found->endpoint_fd, NULL);
        found->owed = false;
        native_doorbell_release(found);
        found->next = self->table.dead;
        self->table.dead = found;
    }
    pthread_mutex_unlock(&self->lock);
    Py_RETURN_NONE;
}

/* Sends an event: from this thread if the stream takes it, else from the other. */
static PyObject *doorbells_send(PyObject *object, PyObject *number)
{
    Doorbells *self = (Doorbells *)object;
    unsigned long token = PyLong_AsUnsignedLong(number);
    if (PyErr_Occurred() != NULL)
        return NULL;
    if (!SBE_TOKEN_IS_EVENT(token) || SBE_TOKEN_VALUE(token) > 31)
        return native_raise(SBE_EINVAL, false, "token %lu is no event", token);
    if (!self->running || self->owner != getpid())
        Py_RETURN_NONE;
    pthread_mutex_lock(&self->lock);
    self->events_owed |= 1u << SBE_TOKEN_VALUE(token);
    if (self->interrupt.used)
        (void)eventfd_write(self->stop_fd, 1);
    else if (!self->blocked && !self->closed)
        write_owed(self);
    pthread_mutex_unlock(&self->lock);
    Py_RETURN_NONE;
}

/* The events that came since the last call, a bit each. */
static PyObject *doorbells_take(PyObject *object, PyObject *unused)
{
    Doorbells *self = (Doorbells *)object;
    eventfd_t value;
    (void)unused;
    if (!self->running)
        return PyLong_FromLong(0);
    (void)eventfd_read(self->happened_fd, &value);
    pthread_mutex_lock(&self->lock);
    uint32_t events = self->events;
    self->events = 0;
    if (self->closed) /* the descriptor stays readable: the owner has to notice */
        (void)eventfd_write(self->happened_fd, 1);
    pthread_mutex_unlock(&self->lock);
    return PyLong_FromUnsignedLong(events);
}

static PyObject *doorbells_tick(PyObject *object, PyObject *after)
{
    Doorbells *self = (Doorbells *)object;
    double seconds = PyFloat_AsDouble(after);
    if (PyErr_Occurred() != NULL)
        return NULL;
    if (!self->running || self->owner != getpid())
        Py_RETURN_NONE;
    uint64_t at = seconds <= 0 ? 0 : native_now_ns(NULL) + (uint64_t)(seconds * 1e9);
    pthread_mutex_lock(&self->lock);
    bool sooner = at != 0 && (self->tick_ns == 0 || at < self->tick_ns);
    self->tick_ns = at;
    pthread_mutex_unlock(&self->lock);
    if (sooner)
        (void)eventfd_write(self->stop_fd, 1);
    Py_RETURN_NONE;
}

static PyObject *doorbells_fileno(PyObject *object, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLong(((Doorbells *)object)->happened_fd);
}

static PyObject *doorbells_counters(PyObject *object, PyObject *unused)
{
    Doorbells *self = (Doorbells *)object;
    (void)unused;
    pthread_mutex_lock(&self->lock);
    uint32_t sent = self->sent, received = self->received, strange = self->strange,
             lost = self->reader.lost;
    pthread_mutex_unlock(&self->lock);
    return Py_BuildValue("{s:I,s:I,s:I,s:I}", "tokens_sent", sent, "tokens_received", received,
                         "tokens_strange", strange, "bytes_lost", lost);
}

static PyObject *doorbells_get_closed(PyObject *object, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((Doorbells *)object)->closed);
}

static PyMethodDef DOORBELLS_METHODS[] = {
    {"add", doorbells_add, METH_VARARGS,
     "add(channel, ring_fd, wake_fd, endpoint_fd=-1, rings=None): the descriptors stay the "
     "caller's."},
    {"remove", doorbells_remove, METH_O, "The channel is closed."},
    {"send", doorbells_send, METH_O, "Sends an event token."},
    {"take", doorbells_take, METH_NOARGS, "Events that came, a bit each."},
    {"tick", doorbells_tick, METH_O, "Makes fileno() readable after so many seconds; 0 never."},
    {"fileno", doorbells_fileno, METH_NOARGS, "Readable: events, a tick, or the stream's end."},
    {"counters", doorbells_counters, METH_NOARGS, "What happened so far."},
    {"close", doorbells_close, METH_NOARGS, "Stops the thread."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef DOORBELLS_GETSET[] = {
    {"closed", doorbells_get_closed, NULL, "the stream has ended", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot DOORBELLS_SLOTS[] = {
    {Py_tp_doc, "Doorbells(stream_fd=-1, register=..., value=0)\n--\n\n"
                "The eventfds of many channels over one byte stream, or over an endpoint each. "
                "With a register stream_fd is an open UIO device, whose interrupt is every "
                "doorbell's; the value written to the register is, to the other end. A register "
                "of None: stream_fd is a mailbox, whose messages are."},
    {Py_tp_new, doorbells_new},
    {Py_tp_dealloc, doorbells_dealloc},
    {Py_tp_methods, DOORBELLS_METHODS},
    {Py_tp_getset, DOORBELLS_GETSET},
    {0, NULL},
};

static PyType_Spec DOORBELLS_SPEC = {
    .name = "sbe._native.Doorbells",
    .basicsize = sizeof(Doorbells),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = DOORBELLS_SLOTS,
};

static PyTypeObject *Doorbells_Type;

int native_doorbells_init(PyObject *module)
{
    return native_add_type(module, &DOORBELLS_SPEC, &Doorbells_Type);
}
