/* SPDX-License-Identifier: Apache-2.0 */
#include <metal/io.h>

#include "ports/openamp/openamp.h"
#include "ports/openamp/vdev.h"
#include "ports/userproc/bus.h"

static struct {
    struct core *core;
    struct vdev vdev;
    struct openamp end;
    struct metal_io_region table_io, shared_io;
} bus;

static const metal_phys_addr_t NOWHERE = METAL_BAD_PHYS;
static const metal_phys_addr_t ZERO = 0;

/* Memory of the host appears here when OpenAMP asks for it. */
static unsigned long reach(struct metal_io_region *io, metal_phys_addr_t address)
{
    (void)io;
    return core_reach(bus.core, address, 1) != NULL ? (unsigned long)address : METAL_BAD_OFFSET;
}

static metal_phys_addr_t to_bus(struct metal_io_region *io, unsigned long offset)
{
    (void)io;
    return offset;
}

static int notify(void *self, uint32_t id)
{
    core_notify(self, id);
    return 0;
}

/*
 * metal_init() is not called: on Linux it fails where there are no UIO or VFIO drivers, and what it
 * prepares, libmetal's devices and log, is not used.
 */
bool bus_open(struct core *core, const struct core_queue queues[2], struct rpmsg_link *link,
              bool quiet)
{
    static const struct metal_io_ops ops = {.phys_to_offset = reach, .offset_to_phys = to_bus};
    (void)queues; /* OpenAMP reads the table itself */
    bus.core = core;
    metal_io_init(&bus.table_io, core->table, &NOWHERE, sizeof core->table, ~0u, 0, NULL);
    metal_io_init(&bus.shared_io, core->bus, &ZERO, (size_t)1 << 32, ~0u, 0, &ops);
    const struct vdev_config config = {core, core->vdev, &bus.table_io, &bus.shared_io, notify};
    if (vdev_open(&bus.vdev, &config) < 0)
        return false;
    struct rpmsg_device *device = rpmsg_virtio_get_rpmsg_device(&bus.vdev.rpmsg);
    if (openamp_open(&bus.end, device, link, quiet) == SBE_OK)
        return true;
    vdev_close(&bus.vdev);
    return false;
}

void bus_close(void)
{
    openamp_close(&bus.end);
    vdev_close(&bus.vdev);
}

bool bus_send(void *self, uint32_t source, uint32_t destination, const void *data, uint32_t size)
{
    (void)self;
    return openamp_send(&bus.end, source, destination, data, size);
}

bool bus_receive(void)
{
    vdev_receive(&bus.vdev);
    return false; /* until there was nothing more */
}

void bus_notify(void)
{
} /* OpenAMP has, for each message */
