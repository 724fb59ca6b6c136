/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sleeping on a channel. Of all threads that wait, one sleeps on the doorbell and takes frames for
 * everyone; the others sleep on a futex that moves whenever one of them should look again. All
 * state is guarded by the GIL, which is released only while a thread sleeps.
 */
#include "wait.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "channel.h"
#include "core/status.h"
#include "native.h"
#include "stuck.h"

#ifndef SYS_futex /* 32-bit machines younger than the year 2038's problem */
#define SYS_futex SYS_futex_time64
#endif

/*
 * A doorbell that never came must not hang a caller: while something is in flight the sleeper looks
 * again this often, and rings the peer once more. An idle process sets no timer.
 */
#define BACKSTOP_NS 250000000u

#define LONGEST_NS 86400000000000u /* a day: a longer deadline just looks again */

#define MESSAGES_KEPT    64u   /* doorbells until all messages are read */
#define MESSAGES_AT_ONCE 1024u /* the GIL is held meanwhile */

#define CONTROL_EVENT                                                      \
    (struct epoll_event)                                                   \
    {                                                                      \
        .events = EPOLLIN | EPOLLRDHUP | EPOLLONESHOT, .data.u32 = CONTROL \
    }

enum {
    DOORBELL,
    CONTROL,
    KICK
};

int native_deadline(PyObject *timeout, uint64_t *deadline_ns, uint64_t *now_ns)
{
    *deadline_ns = NATIVE_FOREVER;
    *now_ns = 0;
    if (timeout == NULL || timeout == Py_None)
        return 0;
    double seconds = PyFloat_AsDouble(timeout);
    if (seconds == -1.0 && PyErr_ExceptionMatches(PyExc_OverflowError)) { /* a large integer */
        PyErr_Clear();
        PyObject *zero = PyLong_FromLong(0);
        int negative = zero == NULL ? -1 : PyObject_RichCompareBool(timeout, zero, Py_LT);
        Py_XDECREF(zero);
        if (negative < 0)
            return -1;
        seconds = negative != 0 ? -1.0 : 1e9;
    } else if (seconds == -1.0 && PyErr_Occurred() != NULL) {
        if (PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Format(PyExc_TypeError, "timeout: a number of seconds or None, not %R", timeout);
        return -1;
    }
    if (!(seconds >= 0)) {
        native_raise(SBE_EINVAL, false, "a timeout of %R seconds", timeout);
        return -1;
    }
    if (seconds >= 1e9) /* thirty years: longer is forever */
        return 0;
    *now_ns = native_now_ns(NULL);
    *deadline_ns = *now_ns + (uint64_t)(seconds * 1e9);
    return 0;
}

uint32_t native_deadline_us(uint64_t deadline_ns, uint64_t now_ns)
{
    if (deadline_ns == NATIVE_FOREVER)
        return 0;
    uint64_t left_us = deadline_ns <= now_ns ? 1 : (deadline_ns - now_ns + 999) / 1000;
    return left_us > UINT32_MAX ? 0 : (uint32_t)left_us; /* the wire can't say more than an hour */
}

/* recent_ns, a reading of the clock of just now, will do where the limit comes first; 0: none. */
static struct timespec until(uint64_t deadline_ns, uint64_t limit_ns, uint64_t recent_ns)
{
    bool far = recent_ns != 0 && deadline_ns > recent_ns && deadline_ns - recent_ns > 2 * limit_ns;
    uint64_t now = far ? recent_ns : native_now_ns(NULL);
    uint64_t left = deadline_ns == NATIVE_FOREVER ? limit_ns
                    : deadline_ns <= now          ? 0
                                                  : deadline_ns - now;
    if (left > limit_ns)
        left = limit_ns;
    return (struct timespec){(time_t)(left / 1000000000u), (long)(left % 1000000000u)};
}

/* Of the threads that wait, those that do not look at the ring themselves. */
static void wake_followers(Channel *channel)
{
    sbe_store_relaxed(&channel->progress, sbe_load_relaxed(&channel->progress) + 1);
    if (channel->sleepers == 0)
        return;
    channel->sleepers = 0;
    (void)syscall(SYS_futex, &channel->progress, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

static void kick_sleeper(Channel *channel)
{
    uint64_t one = 1;
    if (!channel->asleep)
        return; /* a thread that spins sees progress move */
    ssize_t written = write(channel->kick_fd, &one, sizeof one); /* not the peer's to fill up */
    (void)written;
}

void native_wake(Channel *channel)
{
    wake_followers(channel);
    kick_sleeper(channel);
}

void native_wake_untimed(Channel *channel)
{
    if (!channel->timed)
        kick_sleeper(channel);
}

/* On 32-bit machines whose time_t has 64 bits, the old call would misread the timespec. */
static long futex_wait(sbe_shared_u32 *word, uint32_t seen, const struct timespec *time_left)
{
#ifdef SYS_futex_time64
    if (sizeof(time_t) > sizeof(long))
        return syscall(SYS_futex_time64, word, FUTEX_WAIT_PRIVATE, seen, time_left, NULL, 0);
#endif
    return syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, time_left, NULL, 0);
}

static bool is_working(const Channel *channel)
{
    return channel->in_flight > 0 || channel->unsent != NULL;
}

/* Sleeps until progress moves. -1: a signal handler raised. */
static int sleep_on_progress(Channel *channel, uint64_t deadline_ns)
{
    uint32_t seen = sbe_load_relaxed(&channel->progress);
    bool working = is_working(channel); /* then it also looks for signals now and then */
    struct timespec time_left = until(deadline_ns, working ? BACKSTOP_NS : LONGEST_NS, 0);
    bool forever = deadline_ns == NATIVE_FOREVER && !working;
    channel->sleepers++;
    long status;
    int error;
    Py_BEGIN_ALLOW_THREADS;
    status = futex_wait(&channel->progress, seen, forever ? NULL : &time_left);
    error = errno;
    Py_END_ALLOW_THREADS;
    if (sbe_load_relaxed(&channel->progress) == seen)
        channel->sleepers--; /* not woken by wake_followers(), which counts us out */
    return status < 0 && (error == EINTR || error == ETIMEDOUT) ? PyErr_CheckSignals() : 0;
}

/*
 * It may take long (the owner's lock), so the control fd fires once and is armed again here: in the
 * meantime another thread sleeps on the doorbell.
 */
static int run_control(Channel *channel)
{
    struct epoll_event control = CONTROL_EVENT;
    PyObject *on_control = channel->on_control;
    if (on_control == NULL || channel->error != NULL)
        return 0; /* nobody would take what makes it readable: it stays unarmed */
    wake_followers(channel);
    Py_INCREF(on_control); /* it may end in fail(), which drops it */
    PyObject *result = PyObject_CallNoArgs(on_control);
    Py_DECREF(on_control);
    (void)epoll_ctl(channel->sleep_fd, EPOLL_CTL_MOD, channel->control_fd, &control);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static int watch(const Channel *channel, int fd, struct epoll_event event)
{
    return epoll_ctl(channel->sleep_fd, EPOLL_CTL_ADD, fd, &event);
}

int native_watch(Channel *channel, int control_fd)
{
    /*
     * Edge-triggered: every ring of the doorbell is an event of its own, so an eventfd's counter
     * need not be read back, which would cost a system call for each wake-up.
     */
    struct epoll_event doorbell = {.events = EPOLLIN | EPOLLET, .data.u32 = DOORBELL};
    struct epoll_event kick = {.events = EPOLLIN | EPOLLET, .data.u32 = KICK};
    struct stat doorbell_is;
    channel->messages = fstat(channel->wake_fd, &doorbell_is) == 0 &&
                        S_ISCHR(doorbell_is.st_mode) &&
                        (fcntl(channel->wake_fd, F_GETFL) & O_NONBLOCK) != 0;
    channel->control_fd = control_fd;
    channel->sleep_fd = epoll_create1(EPOLL_CLOEXEC);
    channel->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (channel->sleep_fd >= 0 && channel->kick_fd >= 0 &&
        watch(channel, channel->wake_fd, doorbell) == 0 &&
        watch(channel, channel->kick_fd, kick) == 0 &&
        (control_fd < 0 || watch(channel, control_fd, CONTROL_EVENT) == 0))
        return 0;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

/*
 * rpmsg_char keeps each doorbell as a message, as many as come, until somebody reads it. So one
 * wake-up reads one, and now and then all: several may have come as one event, or with no sleep.
 */
static void take_messages(Channel *channel, uint32_t left)
{
    uint64_t rung;
    if (!channel->messages)
        return;
    if (++channel->wakes % MESSAGES_KEPT == 0)
        left = MESSAGES_AT_ONCE;
    while (left > 0 && read(channel->wake_fd, &rung, sizeof rung) >= 0)
        left--;
}

/*
 * epoll_wait() without the GIL; -1 and errno. A signal that comes after the last look for signals,
 * but before the kernel has us asleep, interrupts nothing. A sleep of a backstop is followed by a
 * look; one that may last lets signals in only while it sleeps.
 */
static int sleep_interruptibly(Channel *channel, struct epoll_event events[3], int limit_ms)
{
    bool lasting = !channel->timed;
    uint32_t seen = sbe_load_relaxed(&channel->progress);
    sigset_t all, usual;
    if (lasting) {
        (void)sigfillset(&all);
        (void)pthread_sigmask(SIG_SETMASK, &all, &usual);
    }
    int count = lasting ? PyErr_CheckSignals() : 0, error = EINTR;
    if (count == 0 && sbe_load_relaxed(&channel->progress) == seen) { /* or a handler used us */
        channel->polling = channel->asleep = true;
        Py_BEGIN_ALLOW_THREADS;
        /* step: sleep. What was rung since the last time ends it at once. */
        count = epoll_pwait(channel->sleep_fd, events, 3, limit_ms, lasting ? &usual : NULL);
        error = errno;
        Py_END_ALLOW_THREADS;
        channel->polling = channel->asleep = false;
    }
    if (lasting)
        (void)pthread_sigmask(SIG_SETMASK, &usual, NULL);
    errno = error;
    return count;
}

/* Sleeps on the doorbell and the control fd for all threads. -1: something raised. */
static int sleep_on_doorbell(Channel *channel, uint64_t deadline_ns, uint64_t recent_ns)
{
    struct epoll_event events[3];
    bool working = is_working(channel);
    bool forever = deadline_ns == NATIVE_FOREVER && !working;
    struct timespec time_left = until(deadline_ns, working ? BACKSTOP_NS : LONGEST_NS, recent_ns);
    /* Rounded up: an early wake-up would find the deadline not yet passed, and spin. */
    int time_left_ms = (int)(time_left.tv_sec * 1000 + (time_left.tv_nsec + 999999) / 1000000);
    channel->timed = working;
    int count = sleep_interruptibly(channel, events, forever ? -1 : time_left_ms);
    if (count < 0 && PyErr_Occurred() == NULL && errno != EINTR)
        PyErr_SetFromErrno(PyExc_OSError);
    if (count <= 0 && (PyErr_Occurred() != NULL || PyErr_CheckSignals() < 0))
        return -1;
    if (count == 0 && working && channel->error == NULL &&
        (deadline_ns == NATIVE_FOREVER || native_now_ns(NULL) < deadline_ns)) {
        channel->backstops++;
        native_stuck_look(channel);
        channel->port.doorbell(channel->port.self, &channel->core);
    }
    bool control = false;
    for (int i = 0; i < count; i++) {
        control = control || events[i].data.u32 == CONTROL;
        if (events[i].data.u32 == DOORBELL)
            take_messages(channel, 1);
    }
    return control ? run_control(channel) : 0;
}

/* Without the GIL: the peer published, or another thread has news. */
static bool has_news(const Channel *channel, uint32_t head, uint32_t progress)
{
    return sbe_load_relaxed(&channel->core.rx.producer->head) != head ||
           sbe_load_relaxed(&channel->progress) != progress;
}

/*
 * Looks at the ring without a system call, for as long as that has paid off lately. True: there is
 * news, or the deadline has come; else *looked_ns was in vain.
 */
static bool spin(Channel *channel, uint64_t deadline_ns, uint64_t *looked_ns)
{
    if (channel->patience.window_ns == 0)
        return false;
    /* As of now: once the GIL is gone, other threads may take frames and move what we know. */
    uint32_t head = channel->core.rx.theirs, progress = sbe_load_relaxed(&channel->progress);
    uint64_t start_ns = native_now_ns(NULL), now_ns = start_ns;
    uint64_t end_ns = start_ns + channel->patience.window_ns;
    bool found = false;
    channel->polling = true;
    Py_BEGIN_ALLOW_THREADS;
    while (!(found = has_news(channel, head, progress)) && now_ns < end_ns &&
           now_ns < deadline_ns) {
        for (int i = 0; i < 16 && !has_news(channel, head, progress); i++)
            sbe_relax();
        now_ns = native_now_ns(NULL);
    }
    Py_END_ALLOW_THREADS;
    channel->polling = false;
    /* Between the last look and having the GIL back, another thread may have done all of it. */
    found = found || has_news(channel, head, progress);
    if (found)
        sbe_patience_paid(&channel->patience);
    *looked_ns = now_ns - start_ns;
    return found || now_ns >= deadline_ns;
}

static int sleep_measured(Channel *channel, uint64_t deadline_ns, uint64_t recent_ns,
                          uint64_t looked_ns)
{
    if (channel->patience.longest_ns == 0)
        return sleep_on_doorbell(channel, deadline_ns, recent_ns);
    uint64_t start_ns = native_now_ns(NULL);
    int status = sleep_on_doorbell(channel, deadline_ns, start_ns);
    sbe_patience_slept(&channel->patience, looked_ns, native_now_ns(NULL) - start_ns);
    return status;
}

/* One turn of a thread that is not ready: sleeps, or finds that it need not. -1: raised. */
static int wait_turn(Channel *channel, uint64_t deadline_ns, uint64_t recent_ns, bool *led)
{
    if (channel->polling)
        return sleep_on_progress(channel, deadline_ns);
    if (*led) /* the doorbell may have told of room, which is for all; frames told by themselves */
        wake_followers(channel);
    *led = true;
    uint64_t looked_ns = 0;
    if (spin(channel, deadline_ns, &looked_ns))
        return 0;
    if (!sbe_channel_idle(&channel->core)) { /* step: wait-turn; or the ring is broken */
        take_messages(channel, 0);           /* frames came while we said that we sleep: it rang */
        return 0;
    }
    return sleep_measured(channel, deadline_ns, recent_ns, looked_ns);
}

enum native_wait native_wait(Channel *channel, native_ready ready, void *what, uint64_t deadline_ns,
                             uint64_t recent_ns)
{
    enum native_wait how;
    bool led = false;
    for (;;) {
        how = WAIT_RAISED;
        if (native_channel_drain(channel) < 0)
            break;
        how = WAIT_READY;
        if (ready(channel, what))
            break;
        how = WAIT_RAISED;
        if (native_channel_check(channel) < 0)
            break;
        how = WAIT_TIMEOUT;
        if (deadline_ns != NATIVE_FOREVER &&
            deadline_ns <= (recent_ns ? recent_ns : native_now_ns(NULL)))
            break;
        how = WAIT_RAISED;
        if (wait_turn(channel, deadline_ns, recent_ns, &led) < 0)
            break;
        recent_ns = 0;
    }
    if (led)
        wake_followers(channel); /* one of them takes the place at the ring */
    return how;
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
    return native_wait(channel, native_has_room, NULL, deadline_ns, 0);
}
