/* SPDX-License-Identifier: Apache-2.0 */
/* Sleeping on a channel. */
#ifndef SBE_NATIVE_WAIT_H
#define SBE_NATIVE_WAIT_H

#include "channel.h"

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

#endif
