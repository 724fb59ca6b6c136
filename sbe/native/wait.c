/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sleeping on a channel. Of all threads that wait, one sleeps on the doorbell and takes frames for
 * everyone; the others sleep on a futex that moves whenever one of them should look again. All
 * state is guarded by the GIL, which is released only while a thread sleeps.
 */
#include "native.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/status.h"

/*
 * A doorbell that never came must not hang a caller: while something is in flight the sleeper looks
 * again this often, and rings the peer once more. An idle process sets no timer.
 */
#define BACKSTOP_NS 250000000u

#define LONGEST_NS 86400000000000u /* a day: a longer deadline just looks again */

enum {
    DOORBELL,
    KICK,
    CONTROL
};

int native_deadline(PyObject *timeout, uint64_t *deadline_ns)
{
    *deadline_ns = NATIVE_FOREVER;
    if (timeout == NULL || timeout == Py_None)
        return 0;
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_Occurred() != NULL)
        return -1;
    if (!(seconds >= 0)) {
        native_raise(SBE_EINVAL, false, "a timeout of %R seconds", timeout);
        return -1;
    }
    if (seconds < 1e9) /* thirty years: longer is forever */
        *deadline_ns = native_now_ns(NULL) + (uint64_t)(seconds * 1e9);
    return 0;
}

static struct timespec until(uint64_t deadline_ns, uint64_t limit_ns)
{
    uint64_t now = native_now_ns(NULL);
    uint64_t left = deadline_ns == NATIVE_FOREVER ? limit_ns
                    : deadline_ns <= now          ? 0
                                                  : deadline_ns - now;
    if (left > limit_ns)
        left = limit_ns;
    return (struct timespec){(time_t)(left / 1000000000u), (long)(left % 1000000000u)};
}

void native_kick(Channel *channel)
{
    uint64_t one = 1;
    if (!channel->polling)
        return;
    ssize_t written = write(channel->kick_fd, &one, sizeof one);
    (void)written;
}

void native_wake_sleepers(Channel *channel)
{
    if (channel->sleepers == 0)
        return;
    channel->progress++;
    (void)syscall(SYS_futex, &channel->progress, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

/* Sleeps until progress moves. -1: a signal handler raised. */
static int sleep_on_progress(Channel *channel, uint64_t deadline_ns)
{
    uint32_t seen = channel->progress;
    struct timespec time_left = until(deadline_ns, LONGEST_NS);
    bool forever = deadline_ns == NATIVE_FOREVER;
    channel->sleepers++;
    long status;
    int error;
    Py_BEGIN_ALLOW_THREADS;
    status = syscall(SYS_futex, &channel->progress, FUTEX_WAIT_PRIVATE, seen,
                     forever ? NULL : &time_left, NULL, 0);
    error = errno;
    Py_END_ALLOW_THREADS;
    channel->sleepers--;
    return status < 0 && error == EINTR ? PyErr_CheckSignals() : 0;
}

static int run_control(Channel *channel)
{
    if (channel->on_control == NULL || channel->error != NULL)
        return 0;
    PyObject *result = PyObject_CallNoArgs(channel->on_control);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int native_watch(Channel *channel, int control_fd)
{
    /*
     * Edge-triggered: every ring of the doorbell is an event of its own, so the counter need not
     * be read back, which would cost a system call for each wake-up.
     */
    struct epoll_event doorbell = {.events = EPOLLIN | EPOLLET, .data.u32 = DOORBELL};
    struct epoll_event kick = {.events = EPOLLIN | EPOLLET, .data.u32 = KICK};
    struct epoll_event control = {.events = EPOLLIN | EPOLLRDHUP, .data.u32 = CONTROL};
    channel->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    channel->sleep_fd = epoll_create1(EPOLL_CLOEXEC);
    if (channel->sleep_fd >= 0 && channel->kick_fd >= 0 &&
        epoll_ctl(channel->sleep_fd, EPOLL_CTL_ADD, channel->wake_fd, &doorbell) == 0 &&
        epoll_ctl(channel->sleep_fd, EPOLL_CTL_ADD, channel->kick_fd, &kick) == 0 &&
        (control_fd < 0 || epoll_ctl(channel->sleep_fd, EPOLL_CTL_ADD, control_fd, &control) == 0))
        return 0;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

/* Sleeps on the doorbell and the control fd for all threads. -1: something raised. */
static int sleep_on_doorbell(Channel *channel, uint64_t deadline_ns)
{
    struct epoll_event events[3];
    bool working = channel->in_flight > 0 || channel->unsent != NULL;
    bool forever = deadline_ns == NATIVE_FOREVER && !working;
    struct timespec time_left = until(deadline_ns, working ? BACKSTOP_NS : LONGEST_NS);
    /* Rounded up: an early wake-up would find the deadline not yet passed, and spin. */
    int time_left_ms = (int)(time_left.tv_sec * 1000 + (time_left.tv_nsec + 999999) / 1000000);
    int count, error;
    channel->polling = true;
    Py_BEGIN_ALLOW_THREADS;
    count = epoll_wait(channel->sleep_fd, events, 3, forever ? -1 : time_left_ms);
    error = errno;
    Py_END_ALLOW_THREADS;
    channel->polling = false;
    if (count < 0)
        return error == EINTR ? PyErr_CheckSignals() : (PyErr_SetFromErrno(PyExc_OSError), -1);
    if (count == 0 && working && channel->error == NULL &&
        (deadline_ns == NATIVE_FOREVER || native_now_ns(NULL) < deadline_ns)) {
        channel->backstops++;
        channel->port.doorbell(channel->port.self, &channel->core);
    }
    for (int i = 0; i < count; i++)
        if (events[i].data.u32 == CONTROL)
            return run_control(channel);
    return 0;
}

/*
 * Looks at the ring without a system call, for as long as that has paid off lately: a window that
 * ends for nothing is halved, a sleep that was shorter than the longest window opens it again.
 */
static bool spin(Channel *channel, uint64_t deadline_ns)
{
    if (channel->spin_ns < 1000)
        return false;
    const struct sbe_ring *rx = &channel->core.rx;
    uint64_t start_ns = native_now_ns(NULL), now_ns = start_ns;
    uint64_t end_ns = start_ns + channel->spin_ns;
    bool found = false;
    channel->polling = true;
    Py_BEGIN_ALLOW_THREADS;
    while (!(found = sbe_ring_peer_moved(rx)) && now_ns < end_ns && now_ns < deadline_ns) {
        for (int i = 0; i < 16 && !sbe_ring_peer_moved(rx); i++)
            sbe_relax();
        now_ns = native_now_ns(NULL);
    }
    Py_END_ALLOW_THREADS;
    channel->polling = false;
    if (!found)
        channel->spin_ns /= 2;
    return found;
}

static int sleep_measured(Channel *channel, uint64_t deadline_ns)
{
    if (channel->spin_max_ns == 0)
        return sleep_on_doorbell(channel, deadline_ns);
    uint64_t start_ns = native_now_ns(NULL);
    int status = sleep_on_doorbell(channel, deadline_ns);
    if (native_now_ns(NULL) - start_ns < channel->spin_max_ns)
        channel->spin_ns = channel->spin_max_ns;
    return status;
}

enum native_wait native_wait(Channel *channel, native_ready ready, void *what, uint64_t deadline_ns)
{
    for (;;) {
        if (native_channel_drain(channel) < 0)
            return WAIT_RAISED;
        if (ready(channel, what))
            return WAIT_READY;
        if (native_channel_check(channel) < 0)
            return WAIT_RAISED;
        if (deadline_ns != NATIVE_FOREVER && native_now_ns(NULL) >= deadline_ns)
            return WAIT_TIMEOUT;
        int status;
        if (channel->polling || channel->draining) {
            status = sleep_on_progress(channel, deadline_ns);
        } else if (spin(channel, deadline_ns)) {
            continue;
        } else if (!sbe_channel_idle(&channel->core) && !channel->core.rx.broken) {
            continue; /* frames came while we said that we sleep */
        } else {
            status = sleep_measured(channel, deadline_ns);
            if (status == 0)
                status = native_channel_drain(channel);
            native_wake_sleepers(channel); /* results for them, or their turn at the doorbell */
        }
        if (status < 0)
            return WAIT_RAISED;
    }
}

bool native_has_room(Channel *channel, void *unused)
{
    struct sbe_channel *core = &channel->core;
    (void)unused;
    if (core->tx.broken)
        return true; /* sending will tell */
    if (core->call_free >= core->call_count)
        return false; /* a response frees one, and wakes us */
    return sbe_channel_room(core) > 0 || !sbe_ring_wait_space(&core->tx, core->promised + 1);
}

enum native_wait native_wait_room(Channel *channel, uint64_t deadline_ns)
{
    sbe_channel_flush(&channel->core); /* the peer can only make room for what it sees */
    return native_wait(channel, native_has_room, NULL, deadline_ns);
}
