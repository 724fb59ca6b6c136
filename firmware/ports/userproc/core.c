/* SPDX-License-Identifier: Apache-2.0 */
#include "ports/userproc/core.h"

#include <errno.h>
#include <fcntl.h>
#include <sbe_userproc.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/status.h"

#define PAGE       4096u
#define WINDOW     65536u       /* bytes that are mapped at a time */
#define BUS_SIZE   (1ull << 32) /* address space that is reserved */
#define UNSET      UINT32_MAX   /* an address that the host has not filled in */
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

/* Address space without memory, over whatever was there. */
static void *reserve(void *place, size_t size)
{
    void *data =
        mmap(place, size, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (place != NULL ? MAP_FIXED : 0), -1, 0);
    return data == MAP_FAILED ? NULL : data;
}

bool core_open(struct core *core, const char *path)
{
    *core = (struct core){.fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK)};
    if (core->fd >= 0)
        core->bus = reserve(NULL, BUS_SIZE);
    return core->bus != NULL;
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

static bool reach_window(struct core *core, uint32_t window)
{
    uint8_t *flags = &core->reached[window / 8], flag = (uint8_t)(1u << window % 8);
    uint64_t address = (uint64_t)window * WINDOW;
    if ((*flags & flag) == 0 && core_map(core, core->bus + address, address, WINDOW) == SBE_OK)
        *flags |= flag;
    return (*flags & flag) != 0;
}

/* A pool of buffers is a few windows; they stay until the host stops this core. */
void *core_reach(struct core *core, uint64_t address, uint64_t size)
{
    if (size == 0 || address >= BUS_SIZE || size > BUS_SIZE - address)
        return NULL;
    for (uint64_t i = address / WINDOW; i <= (address + size - 1) / WINDOW; i++)
        if (!reach_window(core, (uint32_t)i))
            return NULL;
    return core->bus + address;
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
    if (core->trace != NULL || memory == NULL || trace == NULL || trace->address < memory->address)
        return;
    uint64_t address = (uint64_t)memory->physical + (trace->address - memory->address);
    core->trace = core_reach(core, address, trace->size);
    core->trace_size = trace->size;
    core->trace_used = 0;
}

/* 2.6 of Virtual I/O Device 1.1: descriptors, available ring; aligned, used ring. */
static uint64_t queue_size(const struct vdev_vring *vring)
{
    uint64_t first = 16ull * vring->count + 2ull * (3 + vring->count);
    return ((first + vring->align - 1) & ~(uint64_t)(vring->align - 1)) + 6 + 8ull * vring->count;
}

static bool open_queue(struct core *core, const struct vdev_vring *vring, struct core_queue *queue)
{
    if (vring->address == UNSET || vring->address % PAGE != 0 || vring->align < 4 ||
        (vring->align & (vring->align - 1u)) != 0 || vring->align > PAGE || vring->count == 0 ||
        vring->count > 32768u || (vring->count & (vring->count - 1u)) != 0)
        return false;
    uint8_t *memory = core_reach(core, vring->address, queue_size(vring));
    *queue = (struct core_queue){memory, vring->count, vring->align, vring->notify};
    return memory != NULL;
}

bool core_bring_up(struct core *core, struct core_queue queues[2])
{
    struct sbe_userproc_table wanted = {.address = (uintptr_t)core->table,
                                        .size = sizeof core->table};
    if (ioctl(core->fd, SBE_USERPROC_GET_TABLE, &wanted) < 0 || wanted.size < sizeof(struct table))
        return false;
    const uint8_t *table = (const uint8_t *)core->table;
    struct vdev_vring vrings[2];
    const struct vdev *vdev = find(table, wanted.size, RESOURCE_VDEV, sizeof *vdev + sizeof vrings);
    open_trace(core, find(table, wanted.size, RESOURCE_CARVEOUT, sizeof(struct carveout)),
               find(table, wanted.size, RESOURCE_TRACE, sizeof(struct trace)));
    if (vdev == NULL || vdev->id != VDEV_RPMSG || vdev->vrings != 2 ||
        (vdev->status & DRIVER_OK) == 0)
        return false;
    core->vdev = (uint8_t *)core->table + ((const uint8_t *)vdev - table) - 4; /* with its type */
    memcpy(vrings, vdev + 1, sizeof vrings);
    return open_queue(core, &vrings[0], &queues[0]) && open_queue(core, &vrings[1], &queues[1]);
}

void core_let_go(struct core *core)
{
    for (uint32_t i = 0; i < sizeof core->reached; i++) /* half a MiB each */
        if (core->reached[i] != 0)
            (void)reserve(core->bus + 8ull * WINDOW * i, 8ull * WINDOW);
    memset(core->reached, 0, sizeof core->reached);
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
