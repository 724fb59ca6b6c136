/* SPDX-License-Identifier: Apache-2.0 */
/* Describes OpenAMP 2025.10: see tests/declarations/README.md. */
#ifndef DECLARED_OPENAMP_REMOTEPROC_H
#define DECLARED_OPENAMP_REMOTEPROC_H

#include <stdint.h>

struct __attribute__((packed)) fw_rsc_vdev_vring {
    uint32_t da, align, num, notifyid, reserved;
};

struct __attribute__((packed)) fw_rsc_vdev {
    uint32_t type, id, notifyid, dfeatures, gfeatures, config_len;
    uint8_t status;
    uint8_t num_of_vrings;
    uint8_t reserved[2];
    struct fw_rsc_vdev_vring vring[];
};

#endif
