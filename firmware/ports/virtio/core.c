/* SPDX-License-Identifier: Apache-2.0 */
#include "ports/virtio/core.h"

#include <errno.h>
#include <fcntl.h>
#include <sbe_userproc.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/status.h"

#define PAGE       4096u
#define WINDOW     65536u /* bytes; no rpmsg buffer of 512 bytes crosses a border */
#define TABLE_MAX  4096u
#define UNSET      UINT32_MAX /* an address that the host has not filled in */
#define DRIVER_OK  4u
#define VDEV_RPMSG 7u

enum { /* types of resources, include/linux/remoteproc.h */
    RESOURCE_CARVEOUT = 0,
    RESOURCE_TRACE = 2,
    RESOURCE_VDEV = 3
};

struct table {
    uint32_t version;
    uint32_t count;
    uint32_t reserved[2];
};

struct carveout {
    uint32_t address; /* as the firmware was linked */
    uint32_t physical;
    uint32_t size;
    uint32_t flags;
};

struct trace {
    uint32_t address;
    uint32_t size;
};

struct vdev {
    uint32_t id, notify, offered, accepted, config_size;
    uint8_t status, vrings, reserved[2];
};

struct vdev_vring {
    uint32_t address, align, count, notify, reserved;
};

bool core_open(struct core *core, const char *path)
{
    *core = (struct core){.fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK)};
    return core->fd >= 0;
}

void core_notify(const struct core *core, uint32_t id)
{
    (void)ioctl(core->fd, SBE_USERPROC_NOTIFY, (unsigned long)id);
}

void core_stopped(const struct core *core)
{
    (void)ioctl(core->fd, SBE_USERPROC_STOPPED, 0ul);
}

int core_map(const struct core *core, void *place, uint64_t address, uint64_t size)
{
    if (address % PAGE != 0 || size % PAGE != 0)
        return SBE_EINVAL;
    void *data = mmap(place, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, core->fd,
                      (off_t)address);
    return data != MAP_FAILED ? SBE_OK : errno == ENOMEM ? SBE_ENOMEM : SBE_EFAULT;
}

static uint8_t *map_new(const struct core *core, uint64_t address, size_t size)
{
    void *data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, core->fd, (off_t)address);
    return data == MAP_FAILED ? NULL : data;
}

/* A pool of buffers is a few windows; they stay until the host stops this core. */
static void *reach(void *self, uint64_t address, uint32_t size)
{
    struct core *core = self;
    uint64_t start = address & ~(uint64_t)(WINDOW - 1u);
    if (size > WINDOW || address - start > WINDOW - size)
        return NULL;
    for (uint32_t i = 0; i < core->window_count; i++)
        if (core->windows[i].address == start)
            return core->windows[i].data + (address - start);
    if (core->window_count == CORE_WINDOWS)
        return NULL;
    uint8_t *data = map_new(core, start, WINDOW);
    if (data == NULL)
        return NULL;
    core->windows[core->window_count++] = (struct core_window){start, data};
    return data + (address - start);
}

/* The payload of a resource of this type, NULL if there is none of at least this size. */
static const void *find(const uint8_t *table, uint32_t size, uint32_t type, uint32_t least)
{
    struct table header;
    memcpy(&header, table, sizeof header);
    for (uint32_t i = 0; i < header.count && sizeof header + 4u * (i + 1u) <= size; i++) {
        uint32_t offset, found;
        memcpy(&offset, table + sizeof header + 4u * i, sizeof offset);
        if (offset > size || size - offset < sizeof found + least)
            continue;
        memcpy(&found, table + offset, sizeof found);
        if (found == type)
            return table + offset + sizeof found;
    }
    return NULL;
}

static void open_trace(struct core *core, const struct carveout *memory, const struct trace *trace)
{
    if (core->trace != NULL || memory == NULL || trace == NULL ||
        trace->address < memory->address || trace->address % PAGE != 0 || trace->size % PAGE != 0)
        return;
    uint64_t address = (uint64_t)memory->physical + (trace->address - memory->address);
    core->trace = (char *)map_new(core, address, trace->size);
    core->trace_size = trace->size;
    core->trace_used = 0;
}

static bool open_queue(struct core *core, struct vring *ring, const struct vdev_vring *vring)
{
    if (vring->address == UNSET || vring->address % PAGE != 0 || vring->align < 4 ||
        (vring->align & (vring->align - 1u)) != 0 || vring->align > PAGE || vring->count > 32768u)
        return false;
    size_t size = (vring_size(vring->count, vring->align) + PAGE - 1u) & ~(size_t)(PAGE - 1u);
    uint8_t *memory = map_new(core, vring->address, size);
    if (memory == NULL || !vring_open(ring, memory, vring->count, vring->align))
        return false;
    ring->reach = reach;
    ring->self = core;
    return true;
}

bool core_bring_up(struct core *core, struct rpmsg *rpmsg)
{
    uint64_t bytes[TABLE_MAX / sizeof(uint64_t)];
    struct sbe_userproc_table wanted = {.address = (uintptr_t)bytes, .size = sizeof bytes};
    if (ioctl(core->fd, SBE_USERPROC_GET_TABLE, &wanted) < 0 || wanted.size < sizeof(struct table))
        return false;
    const uint8_t *table = (const uint8_t *)bytes;
    struct vdev_vring vrings[2];
    const struct vdev *vdev = find(table, wanted.size, RESOURCE_VDEV, sizeof *vdev + sizeof vrings);
    open_trace(core, find(table, wanted.size, RESOURCE_CARVEOUT, sizeof(struct carveout)),
               find(table, wanted.size, RESOURCE_TRACE, sizeof(struct trace)));
    if (vdev == NULL || vdev->id != VDEV_RPMSG || vdev->vrings != 2 ||
        (vdev->status & DRIVER_OK) == 0)
        return false;
    memcpy(vrings, vdev + 1, sizeof vrings);
    core->notify_to_host = vrings[0].notify;
    core->notify_from_host = vrings[1].notify;
    return open_queue(core, &rpmsg->to_host, &vrings[0]) &&
           open_queue(core, &rpmsg->from_host, &vrings[1]);
}

static void unmap_queue(struct vring *ring)
{
    if (ring->count != 0) /* whole pages, from the descriptors to the end of the used ring */
        (void)munmap((void *)(uintptr_t)ring->descriptors,
                     (size_t)(ring->used - ring->descriptors) + 6u + 8u * ring->count);
    *ring = (struct vring){0};
}

void core_let_go(struct core *core, struct rpmsg *rpmsg)
{
    unmap_queue(&rpmsg->to_host);
    unmap_queue(&rpmsg->from_host);
    for (uint32_t i = 0; i < core->window_count; i++)
        (void)munmap(core->windows[i].data, WINDOW);
    core->window_count = 0;
    if (core->trace != NULL)
        (void)munmap(core->trace, core->trace_size);
    core->trace = NULL;
}

void core_trace(struct core *core, const char *line)
{
    size_t size = strlen(line);
    if (core->trace == NULL || size + 2 > core->trace_size - core->trace_used)
        return; /* the first lines tell most */
    memcpy(core->trace + core->trace_used, line, size);
    core->trace[core->trace_used + size] = '\n';
    core->trace_used += (uint32_t)size + 1u;
}
