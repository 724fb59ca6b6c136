/* SPDX-License-Identifier: Apache-2.0 */
/* Describes OpenAMP 2025.10: see tests/declarations/README.md. */
#ifndef DECLARED_OPENAMP_REMOTEPROC_VIRTIO_H
#define DECLARED_OPENAMP_REMOTEPROC_VIRTIO_H

#include <metal/io.h>
#include <stdint.h>

#define VIRTIO_DEV_DEVICE                1u
#define VIRTIO_CONFIG_STATUS_DRIVER_OK   0x04
#define VIRTIO_CONFIG_STATUS_NEEDS_RESET 0x40

struct virtio_device;

typedef int (*rpvdev_notify_func)(void *user, uint32_t id);
typedef void (*virtio_dev_reset_cb)(struct virtio_device *device);

struct virtio_device *rproc_virtio_create_vdev(unsigned int role, unsigned int id, void *resource,
                                               struct metal_io_region *io, void *user,
                                               rpvdev_notify_func notify,
                                               virtio_dev_reset_cb reset);
void rproc_virtio_remove_vdev(struct virtio_device *device);
int rproc_virtio_init_vring(struct virtio_device *device, unsigned int index, unsigned int id,
                            void *memory, struct metal_io_region *io, unsigned int count,
                            unsigned int align);
int rproc_virtio_notified(struct virtio_device *device, uint32_t id);

#endif
