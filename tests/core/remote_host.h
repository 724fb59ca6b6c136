/* SPDX-License-Identifier: Apache-2.0 */
/* The host's end of a link to a real sbe-remote, made of the core's session and channel. */
#ifndef SBE_TESTS_REMOTE_HOST_H
#define SBE_TESTS_REMOTE_HOST_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>

#include "check.h"
#include "core/channel.h"
#include "core/session.h"
#include "core/status.h"

#define AREAS    64u
#define CHANNELS 4u
#define CALLS    64u
#define SLOTS    16u
#define SLOT     1024u

struct reply { /* to a control request */
    bool here;
    int status;
    uint16_t service;
};

struct host {
    pid_t pid;
    int control;
    int fds[16]; /* travel with the next control message */
    uint32_t fd_count;
    struct sbe_port port;
    struct sbe_session_hooks hooks;
    struct sbe_session_config config;
    struct sbe_session session;
    struct sbe_area areas[AREAS];
    struct sbe_session_context contexts[4];
    struct sbe_session_channel session_channels[CHANNELS];
    struct sbe_session_pending pending[16];
    uint32_t finds_seen; /* SERVICE_FIND that came from the remote */
    enum sbe_refusal refusal;
    /* one channel, opened by open_channel() */
    struct sbe_channel channel;
    struct sbe_call calls[CALLS];
    uint64_t scratch[SLOT / 8];
    int bell_in;
    int bell_out;
    uint8_t *ring_memory;
    uint32_t slots;            /* of its rings, 0: SLOTS */
    int (*listener)(int bell); /* what the remote gets instead of its doorbell, NULL: that itself */
};

#define SERVICE_AT_HOST 7u /* what the host's end calls "double" */

/* A child with these arguments after --control-fd N. */
void spawn_remote(struct host *host, const char *const *arguments);
/* A child that listens at path, and (again, too) a connection to it. */
pid_t spawn_listener(const char *path);
void connect_to(struct host *host, const char *path);
/* The session only, over a socket that is connected already. */
void begin_session(struct host *host);
/* Takes one control message; fails the test when none comes. */
void pump(struct host *host);
void pump_until_connected(struct host *host);
/* Closes the socket; the exit status of the remote. */
int end_remote(struct host *host);

struct reply request(struct host *host, enum sbe_control_type type, struct sbe_control *message,
                     size_t size);
int memfd(size_t size, unsigned int seals);
int map_area(struct host *host, uint32_t id, uint32_t context, uint32_t flags, int fd,
             uint64_t size);
/* Maps memory of this size as area id in the global context and here; NULL when refused. */
void *new_area(struct host *host, uint32_t id, size_t size);
void open_channel(struct host *host, uint32_t id);
uint16_t find_service(struct host *host, const char *name);

/* One frame from the remote, waiting at the doorbell. */
void next_frame(struct host *host, struct sbe_frame *frame);
/* A call with its response; returns the status. */
int call(struct host *host, struct sbe_frame *frame, struct sbe_frame *response);
/* Of the remote, once it is done with all messages before. */
uint32_t open_fds(struct host *host);

#endif
