/* SPDX-License-Identifier: Apache-2.0 */
#include "ports/openamp/vdev.h"

#include "core/status.h"

#define ANY_ID 0xffu /* of the device itself, which notifies of nothing */

bool vdev_ready(const struct vdev_config *config)
{
    unsigned long offset = metal_io_virt_to_offset(config->table_io, &config->resource->status);
    uint64_t status = metal_io_read8(config->table_io, offset);
    return (status & VIRTIO_CONFIG_STATUS_DRIVER_OK) != 0;
}

static int init_vring(struct vdev *vdev, const struct vdev_config *config, unsigned int index)
{
    const struct fw_rsc_vdev_vring *vring = &config->resource->vring[index];
    void *memory = metal_io_phys_to_virt(config->shared_io, vring->da);
    if (memory == NULL)
        return SBE_EIO;
    return rproc_virtio_init_vring(vdev->virtio, index, vring->notifyid, memory, config->shared_io,
                                   vring->num, vring->align) == 0
               ? SBE_OK
               : SBE_EIO;
}

int vdev_open(struct vdev *vdev, const struct vdev_config *config)
{
    vdev->virtio = rproc_virtio_create_vdev(VIRTIO_DEV_DEVICE, ANY_ID, config->resource,
                                            config->table_io, config->self, config->notify, NULL);
    if (vdev->virtio == NULL)
        return SBE_ENOMEM;
    int status = init_vring(vdev, config, 0);
    if (status >= 0)
        status = init_vring(vdev, config, 1);
    if (status >= 0 &&
        rpmsg_init_vdev(&vdev->rpmsg, vdev->virtio, NULL, config->shared_io, NULL) != 0)
        status = SBE_EIO;
    if (status < 0)
        rproc_virtio_remove_vdev(vdev->virtio);
    vdev->notify_from_host = config->resource->vring[1].notifyid;
    return status;
}

void vdev_receive(struct vdev *vdev)
{
    (void)rproc_virtio_notified(vdev->virtio, vdev->notify_from_host);
}

void vdev_close(struct vdev *vdev)
{
    rpmsg_deinit_vdev(&vdev->rpmsg);
    rproc_virtio_remove_vdev(vdev->virtio);
}
