/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process as the core of a remote processor: the kernel module sbe_userproc gives it
 * interrupts, the resource table and the bus.
 */
#ifndef SBE_PORTS_USERPROC_CORE_H
#define SBE_PORTS_USERPROC_CORE_H

#include <stdbool.h>
#include <stdint.h>

#define CORE_TABLE_MAX 4096u

struct core {
    int fd;
    uint8_t *bus; /* where a 32-bit bus address 0 would be; mapped as it is reached */
    uint8_t reached[8192];
    uint64_t table[CORE_TABLE_MAX / sizeof(uint64_t)]; /* the resource table, at bring-up */
    void *vdev;                                        /* the rpmsg device in it */
    char *trace; /* what the host shows as trace0, NULL none */
    uint32_t trace_size;
    uint32_t trace_used;
};

struct core_queue { /* as the host's driver has set it up */
    uint8_t *memory;
    uint32_t count;
    uint32_t align;
    uint32_t notify;
};

bool core_open(struct core *core, const char *path);
/* Looks whether the host's driver has set up the virtqueues: to the host, and from it. */
bool core_bring_up(struct core *core, struct core_queue queues[2]);
/* Lets go of all memory of the host. */
void core_let_go(struct core *core);
void core_notify(const struct core *core, uint32_t id);
/* Tells the host that nothing of its memory is used any more. */
void core_stopped(const struct core *core);
/* Maps a run of bus addresses over a place in this process. Zero, or a status. */
int core_map(const struct core *core, void *place, uint64_t address, uint64_t size);
/* Makes bus addresses reachable, bus + address. NULL if they are not. */
void *core_reach(struct core *core, uint64_t address, uint64_t size);
void core_trace(struct core *core, const char *line);

#endif
