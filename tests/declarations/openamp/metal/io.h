/* SPDX-License-Identifier: Apache-2.0 */
/* Describes libmetal 2025.10: see tests/declarations/README.md. */
#ifndef DECLARED_METAL_IO_H
#define DECLARED_METAL_IO_H

#include <stddef.h>
#include <stdint.h>

typedef unsigned long metal_phys_addr_t;

#define METAL_BAD_OFFSET (~0ul)
#define METAL_BAD_PHYS   (~0ul)

struct metal_io_region;

struct metal_io_ops {
    metal_phys_addr_t (*offset_to_phys)(struct metal_io_region *io, unsigned long offset);
    unsigned long (*phys_to_offset)(struct metal_io_region *io, metal_phys_addr_t address);
};

struct metal_io_region {
    void *virt;
    struct metal_io_ops ops;
};

void metal_io_init(struct metal_io_region *io, void *place, const metal_phys_addr_t *physical,
                   size_t size, unsigned int page_shift, unsigned int flags,
                   const struct metal_io_ops *ops);
void *metal_io_phys_to_virt(struct metal_io_region *io, metal_phys_addr_t address);
unsigned long metal_io_virt_to_offset(struct metal_io_region *io, void *place);
uint64_t metal_io_read8(struct metal_io_region *io, unsigned long offset);

#endif
