/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process as the core of a remote processor: the kernel module sbe_userproc gives it
 * interrupts, the resource table and the bus.
 */
#ifndef SBE_PORTS_VIRTIO_CORE_H
#define SBE_PORTS_VIRTIO_CORE_H

#include "ports/virtio/rpmsg.h"

#define CORE_WINDOWS 64u /* mappings of single pages and buffers */

struct core_window {
    uint64_t address;
    uint8_t *data;
};

struct core {
    int fd;
    uint32_t notify_to_host; /* ids of the two virtqueues */
    uint32_t notify_from_host;
    struct core_window windows[CORE_WINDOWS];
    uint32_t window_count;
    char *trace; /* what the host shows as trace0, NULL none */
    uint32_t trace_size;
    uint32_t trace_used;
};

bool core_open(struct core *core, const char *path);
/* Looks whether the host's driver has set up the virtqueues, and opens them. */
bool core_bring_up(struct core *core, struct rpmsg *rpmsg);
/* Lets go of all memory of the host. */
void core_let_go(struct core *core, struct rpmsg *rpmsg);
void core_notify(const struct core *core, uint32_t id);
/* Tells the host that nothing of its memory is used any more. */
void core_stopped(const struct core *core);
/* Maps a run of bus addresses over a place in this process. Zero, or a status. */
int core_map(const struct core *core, void *place, uint64_t address, uint64_t size);
void core_trace(struct core *core, const char *line);

#endif
