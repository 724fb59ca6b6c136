/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "ports/host/host.h"

#define EVENTS_AT_ONCE    64
#define BETWEEN_EVENTS_NS 100000u

bool host_watch(struct host *host, int fd, uint32_t events, void *tag)
{
    struct epoll_event event = {.events = events, .data.ptr = tag};
    return epoll_ctl(host->epoll_fd, EPOLL_CTL_MOD, fd, &event) == 0 ||
           (errno == ENOENT && epoll_ctl(host->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0);
}

/* Needed before a close: the host may hold the same open file, which would stay in the set. */
void host_unwatch(struct host *host, int fd)
{
    (void)epoll_ctl(host->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

/* Streams move when their time has come, whatever else there is to do. */
static void run_streams(struct host *host)
{
    uint64_t due_ns = sbe_streams_round(&host->port);
    if (due_ns == host->due_ns)
        return;
    host->due_ns = due_ns;
    struct itimerspec at = {.it_value = {0}};
    if (due_ns != SBE_STREAM_NEVER) {
        at.it_value.tv_sec = (time_t)(due_ns / 1000000000u);
        at.it_value.tv_nsec = (long)(due_ns % 1000000000u);
    }
    if (timerfd_settime(host->timer_fd, TFD_TIMER_ABSTIME, &at, NULL) < 0)
        host_log("timerfd_settime: %s", strerror(errno));
}

static void take_event(struct host *host, const struct epoll_event *event)
{
    if (event->data.ptr == &host->signal_fd) {
        host->stop = true;
    } else if (event->data.ptr == &host->timer_fd) {
        uint64_t times;
        (void)!read(host->timer_fd, &times, sizeof times); /* the clock says what is due */
        host->due_ns = 0;                                  /* it may have come early: set it anew */
    } else if (event->data.ptr == &host->listen_fd) {
        if (host->control_fd < 0)
            host_accept(host);
    } else if (event->data.ptr == &host->control_fd) {
        if (host->control_fd < 0 || host->lost)
            return;
        if ((event->events & EPOLLOUT) != 0)
            host_control_flush(host);
        if (!host->lost && (event->events & ~(uint32_t)EPOLLOUT) != 0)
            host_control_receive(host);
    } else {
        /* The entry may have been closed, even taken anew, within this batch: a spurious look. */
        const struct host_channel *entry = event->data.ptr;
        if (entry->channel != NULL)
            sbe_engine_doorbell(&host->engine, entry->channel);
    }
}

int host_run(struct host *host)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    uint64_t looked_ns = 0;
    while (!host->stop) {
        bool more = sbe_power_run(&host->power);
        run_streams(host); /* last: a request may have started one */
        if (host->lost) {
            host_disconnect(host);
            continue;
        }
        /* While busy the rings are looked at without system calls; control waits a little. */
        if (host_look_again(host) && more) {
            uint64_t now_ns = host_now_ns(NULL);
            if (now_ns - looked_ns < BETWEEN_EVENTS_NS)
                continue;
            looked_ns = now_ns;
        }
        int owed_ms = host_owed_bells(host);
        int count = /* step: sleep */
            epoll_wait(host->epoll_fd, events, EVENTS_AT_ONCE,
                       more || host->engine.busy ? 0 : owed_ms);
        if (count < 0 && errno != EINTR) {
            host_log("epoll_wait: %s", strerror(errno));
            return 1;
        }
        for (int i = 0; i < count; i++)
            take_event(host, &events[i]);
    }
    return 0;
}
