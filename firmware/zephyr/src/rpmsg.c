/* SPDX-License-Identifier: Apache-2.0 */
/* The link over rpmsg on Zephyr: OpenAMP behind the image's own resource table. */
#include <metal/sys.h>
#include <resource_table.h>
#include <string.h>
#include <zephyr/device.h>
#include <zephyr/devicetree.h>
#include <zephyr/kernel.h>
#include <zephyr/version.h>

#include "ports/openamp/openamp.h"
#include "ports/openamp/vdev.h"
#include "zephyr/src/mailbox.h"
#include "zephyr/src/port.h"

#define LINK   DT_COMPAT_GET_ANY_STATUS_OKAY(sbe_rpmsg)
#define SHARED DT_PHANDLE(LINK, shared_memory)
#define AREA(node, property, index)                         \
    {DT_REG_ADDR(DT_PHANDLE_BY_IDX(node, property, index)), \
     DT_REG_SIZE(DT_PHANDLE_BY_IDX(node, property, index))},

static const struct {
    uint64_t start;
    uint64_t size;
} AREAS[] = {DT_FOREACH_PROP_ELEM(LINK, areas, AREA)};

static const struct device *const wire = DEVICE_DT_GET(DT_PHANDLE(LINK, ipm));
static const metal_phys_addr_t shared_address = DT_REG_ADDR(SHARED);
static metal_phys_addr_t table_address;
static struct metal_io_region shared_io, table_io;
static struct vdev vdev;
static struct openamp end;
static struct rpmsg_link link;
static K_SEM_DEFINE(rung, 0, 1);

static void ipm_event(const struct device *device, void *self, uint32_t id, volatile void *data)
{
    (void)device, (void)self, (void)id, (void)data;
    k_sem_give(&rung);
}

static int notify(void *self, uint32_t id)
{
    (void)self;
    mailbox_ring(wire, id);
    return 0;
}

/* Without an MMU an area is one run, at the address that Linux gives, in memory meant for it. */
static int area_attach(void *self, struct sbe_area *area, const struct sbe_area_map *message)
{
    struct sbe_segment segment;
    (void)self;
    if (message->handles != 0 || message->segment_count != 1)
        return SBE_ENOTSUP;
    memcpy(&segment, message + 1, sizeof segment);
    for (size_t i = 0; i < ARRAY_SIZE(AREAS); i++) {
        uint64_t offset = segment.address - AREAS[i].start;
        if (segment.address < AREAS[i].start || offset > AREAS[i].size ||
            segment.size > AREAS[i].size - offset)
            continue;
        area->base = (void *)(uintptr_t)segment.address;
        return SBE_OK;
    }
    return SBE_ERANGE;
}

static void area_detach(void *self, struct sbe_area *area)
{
    (void)self, (void)area;
}

static const struct rpmsg_link_config config = {
    .self = &end,
    .name = "sbe-zephyr " KERNEL_VERSION_STRING,
    .coherent = true,
    .port = {.now_ns = sbe_zephyr_now_ns, .area_attach = area_attach, .area_detach = area_detach},
    .send = openamp_send,
};

static int open_bus(void)
{
    const struct metal_init_params params = METAL_INIT_DEFAULTS;
    void *table;
    int size;
    if (metal_init(&params) != 0)
        return SBE_ENOMEM;
    rsc_table_get(&table, &size);
    table_address = (uintptr_t)table;
    metal_io_init(&table_io, table, &table_address, (size_t)size, ~0u, 0, NULL);
    metal_io_init(&shared_io, (void *)DT_REG_ADDR(SHARED), &shared_address, DT_REG_SIZE(SHARED),
                  ~0u, 0, NULL);
    const struct vdev_config device = {NULL, rsc_table_to_vdev(table), &table_io, &shared_io,
                                       notify};
    while (!vdev_ready(&device)) /* the host's driver rings then, but perhaps before we listened */
        (void)k_sem_take(&rung, K_MSEC(10));
    int status = vdev_open(&vdev, &device);
    if (status < 0)
        return status;
    return openamp_open(&end, rpmsg_virtio_get_rpmsg_device(&vdev.rpmsg), &link, false);
}

int sbe_rpmsg_serve(void)
{
    if (!device_is_ready(wire))
        return SBE_ENOTCONN;
    int status = rpmsg_link_init(&link, &config);
    if (status >= 0)
        status = mailbox_start(wire, ipm_event);
    if (status >= 0)
        status = open_bus();
    if (status < 0)
        return status;
    rpmsg_link_up(&link, k_cycle_get_32());
    for (;;) {
        vdev_receive(&vdev);
        if (!rpmsg_link_run(&link)) /* nobody tells of buffers that are free again */
            (void)k_sem_take(&rung,
                             rpmsg_link_waits(&link) ? K_MSEC(1) : sbe_until(rpmsg_link_due_ns()));
    }
}
