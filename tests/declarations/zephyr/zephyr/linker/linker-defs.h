/* SPDX-License-Identifier: Apache-2.0 */
/* Describes Zephyr 4.3.0: see tests/declarations/README.md. */
#ifndef DECLARED_ZEPHYR_LINKER_DEFS_H
#define DECLARED_ZEPHYR_LINKER_DEFS_H

extern char __text_region_start[];
extern char __text_region_end[];

#endif
