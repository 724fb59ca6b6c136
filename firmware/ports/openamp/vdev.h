/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An rpmsg device of OpenAMP behind the virtio device in a resource table, once the host's driver
 * has set it up: what every platform with remoteproc at the other end has in common.
 */
#ifndef SBE_PORTS_OPENAMP_VDEV_H
#define SBE_PORTS_OPENAMP_VDEV_H

#include <metal/io.h>
#include <openamp/remoteproc.h>
#include <openamp/remoteproc_virtio.h>
#include <openamp/rpmsg_virtio.h>

struct vdev_config {
    void *self;
    struct fw_rsc_vdev *resource;      /* followed by its two vrings */
    struct metal_io_region *table_io;  /* where it lies */
    struct metal_io_region *shared_io; /* vrings and buffers */
    /* Interrupts the host for the virtqueue with this id. Zero. */
    int (*notify)(void *self, uint32_t id);
};

struct vdev {
    struct virtio_device *virtio;
    struct rpmsg_virtio_device rpmsg;
    uint32_t notify_from_host;
};

/* The host's driver has set up the device. */
bool vdev_ready(const struct vdev_config *config);
/* A status, SBE_ENOMEM, SBE_EIO. The device is rpmsg_virtio_get_rpmsg_device(&vdev->rpmsg). */
int vdev_open(struct vdev *vdev, const struct vdev_config *config);
/* Delivers what has come. */
void vdev_receive(struct vdev *vdev);
void vdev_close(struct vdev *vdev);

#endif
