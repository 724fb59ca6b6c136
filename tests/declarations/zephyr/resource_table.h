/* SPDX-License-Identifier: Apache-2.0 */
/* Describes Zephyr 4.3.0: see tests/declarations/README.md. */
#ifndef DECLARED_RESOURCE_TABLE_H
#define DECLARED_RESOURCE_TABLE_H

#include <openamp/remoteproc.h>

void rsc_table_get(void **table, int *size);
struct fw_rsc_vdev *rsc_table_to_vdev(void *table);

#endif
