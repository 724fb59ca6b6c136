/* SPDX-License-Identifier: Apache-2.0 */
/* The embedded remote: the engine as a Linux process. Single-threaded, one host at a time. */
#ifndef SBE_PORTS_HOST_HOST_H
#define SBE_PORTS_HOST_HOST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/engine.h"
#include "patience/bell.h"
#include "patience/patience.h"
#include "pieces/pieces.h"
#include "power/power.h"
#include "streams/streams.h"

#define HOST_INBOX_FDS 16u  /* more than any legal message carries, so that extras are seen */
#define HOST_OUTBOX    256u /* control messages that wait for a slow host */

struct host_options {
    int control_fd;          /* inherited, or -1 */
    const char *socket_path; /* to listen at, or NULL */
    struct sbe_limits limits;
    uint32_t cache_line;
    uint32_t spin_us;
    uint16_t version_min;
    uint16_t version_max;
    bool huge_pages; /* those who hold areas are trusted not to punch holes into them */
    bool die_with_parent;
    pid_t parent; /* expected, 0 any */
};

struct host_message {
    uint32_t size;
    uint8_t bytes[SBE_CONTROL_MAX];
};

struct host_channel {            /* one per channel of the engine, at the same index */
    struct sbe_channel *channel; /* NULL: closed */
    int wait_fd;                 /* our doorbell or a listener over it, in the epoll set */
    int ring_fd;                 /* the host's doorbell */
    struct sbe_bell bell;        /* what it costs us */
    bool owed;                   /* it is to be rung when it may be */
};

struct host {
    struct host_options options;
    int epoll_fd;
    int listen_fd;   /* -1 with --control-fd */
    int control_fd;  /* -1 while no host is connected */
    int signal_fd;   /* -1 with --control-fd */
    int timer_fd;    /* rings when a stream has bytes to move */
    uint64_t due_ns; /* what it is set to, SBE_STREAM_NEVER: nothing */
    bool lost;       /* the host is gone: the loop disconnects, never a hook */
    bool stop;
    bool refusal_told;
    uint32_t served_seen; /* of the engine, when it was looked at last */
    uint64_t traffic_ns;  /* when it had grown */
    uint64_t looked_ns;   /* since then, for nothing so far */
    struct sbe_patience patience;
    /* File descriptors that came with the message at hand; those that a hook takes become -1. */
    int inbox[HOST_INBOX_FDS];
    uint32_t inbox_count;
    struct host_message outbox[HOST_OUTBOX];
    uint32_t outbox_first;
    uint32_t outbox_count;
    uint32_t control_events; /* that control_fd is watched for */
    struct sbe_bells bells;
    uint32_t bells_owed;
    uint32_t bell_at; /* the channel whose bell was rung last of these */
    struct host_channel *channels;
    uint32_t channels_high; /* entries at and after this index were never used */
    struct sbe_port port;
    struct sbe_engine_config config;
    struct sbe_engine engine;
    struct sbe_power power;
};

/* options.c: false: the process ends with *exit_status. */
bool host_parse_options(struct host_options *options, int argc, char **argv, int *exit_status);

/* loop.c */
int host_run(struct host *host); /* until told to stop; an exit status */
bool host_watch(struct host *host, int fd, uint32_t events, void *tag);
void host_unwatch(struct host *host, int fd);

/* control.c */
int host_control_send(void *self, const void *message, uint32_t size);
void host_control_flush(struct host *host);
void host_control_receive(struct host *host);
int host_take_fd(struct host *host, uint32_t index); /* -1: it did not arrive */

/* memory.c */
int host_area_attach(void *self, struct sbe_area *area, const struct sbe_area_map *message);
void host_area_detach(void *self, struct sbe_area *area);

/* doorbell.c */
int host_channel_opened(void *self, struct sbe_channel *channel,
                        const struct sbe_channel_open *message);
void host_channel_closed(void *self, struct sbe_channel *channel);
void host_doorbell(void *self, const struct sbe_channel *channel);
/* Rings one that had to wait, if it may be rung now. How long the next one waits, ms; -1: none. */
int host_owed_bells(struct host *host);
/* There was traffic lately: look at the rings again rather than sleep, for up to --spin-us. */
bool host_look_again(struct host *host);

/* listen.c */
bool host_listen(struct host *host);     /* false: it was logged */
void host_accept(struct host *host);     /* starts the session of a new host */
void host_disconnect(struct host *host); /* ends it */
bool host_start(struct host *host);      /* a new epoch on control_fd */

/* log.c: one line to stderr, limited so that a hostile host cannot fill a disk. */
void host_log(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint64_t host_now_ns(void *self);

#endif
