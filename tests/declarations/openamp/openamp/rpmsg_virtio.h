/* SPDX-License-Identifier: Apache-2.0 */
/* Describes OpenAMP 2025.10: see tests/declarations/README.md. */
#ifndef DECLARED_OPENAMP_RPMSG_VIRTIO_H
#define DECLARED_OPENAMP_RPMSG_VIRTIO_H

#include <metal/io.h>
#include <openamp/remoteproc_virtio.h>
#include <openamp/rpmsg.h>

struct rpmsg_virtio_shm_pool;

struct rpmsg_virtio_device {
    struct rpmsg_device rdev;
};

int rpmsg_init_vdev(struct rpmsg_virtio_device *device, struct virtio_device *virtio,
                    rpmsg_ns_bind_cb bind, struct metal_io_region *io,
                    struct rpmsg_virtio_shm_pool *pool);
void rpmsg_deinit_vdev(struct rpmsg_virtio_device *device);
struct rpmsg_device *rpmsg_virtio_get_rpmsg_device(struct rpmsg_virtio_device *device);

#endif
