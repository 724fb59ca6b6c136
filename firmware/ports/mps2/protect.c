/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the core may touch: its code to read and execute, its RAM, the window and the devices to
 * read and write, and nothing else, the null page included. The system's own space is always open.
 * Handlers of hard faults and NMI run with none of it: they must be able to tell.
 */
#include "ports/mps2/board.h"

#define MPU       ((volatile uint32_t *)0xe000ed90u)
#define MPU_TYPE  MPU[0] /* 15..8: regions there are */
#define MPU_CTRL  MPU[1]
#define MPU_RNR   MPU[2]
#define MPU_RBAR  MPU[3]
#define MPU_SIZE  MPU[4] /* RASR, on ARMv8-M RLAR */
#define MPU_MAIR0 MPU[12]
#define SCB_CCR   (*(volatile uint32_t *)0xe000ed14u)
#define SCB_SHCSR (*(volatile uint32_t *)0xe000ed24u)

#define CTRL_ENABLE   1u /* without the bit that opens to us what no region covers */
#define CCR_DIV_0_TRP (1u << 4)
/* MemManage, BusFault, UsageFault; SecureFault is one of ARMv8-M's. */
#define SHCSR_FAULTS (1u << 16 | 1u << 17 | 1u << 18 | 1u << 19)

#define NULL_PAGE  0x400u
#define DEVICES_AT (BOARD_TIMER)
#define DEVICES    (BOARD_UART1 + 0x1000u - BOARD_TIMER)

struct region {
    uint32_t begin;
    uint32_t size;
    uint32_t kind;
};

#if defined(__ARM_ARCH_8M_MAIN__)
/* SH, AP and XN of RBAR; MAIR's attribute as RLAR names it, in bits that RBAR has not. */
#define ATTRIBUTE(n) ((uint32_t)(n) << 9)
#define CODE         (2u << 1 | ATTRIBUTE(0))
#define DATA         (1u | ATTRIBUTE(1))
#define SHARED       (3u << 3 | 1u | ATTRIBUTE(2))
#define DEVICE       (3u << 3 | 1u | ATTRIBUTE(3))
/* Write-through, write-back, non-cacheable, device nGnRE. */
#define ATTRIBUTES 0x0444ffaau

static void set_region(const struct region *region)
{
    MPU_RBAR = region->begin | (region->kind & 0x1fu);
    MPU_SIZE = ((region->begin + region->size - 1) & ~0x1fu) | region->kind >> 9 << 1 | 1u;
}
#else
/* RASR: XN 28, AP 24, TEX 19, S 18, C 17, B 16. */
#define CODE    (5u << 24 | 1u << 17)
#define DATA    (1u << 28 | 1u << 24 | 1u << 19 | 1u << 17 | 1u << 16)
#define SHARED  (1u << 28 | 1u << 24 | 1u << 19 | 1u << 18)
#define DEVICE  (1u << 28 | 1u << 24 | 1u << 18 | 1u << 16)
#define NOTHING (1u << 28)

/* A size is a power of two, which the address is a multiple of. */
static void set_region(const struct region *region)
{
    MPU_RBAR = region->begin;
    MPU_SIZE = region->kind | (30u - (uint32_t)__builtin_clz(region->size)) << 1 | 1u;
}
#endif

/* On ARMv7-M the last one that covers an address counts, on ARMv8-M only one may. */
static const struct region REGIONS[] = {
    {BOARD_CODE, BOARD_CODE_SIZE, CODE},
    {BOARD_DATA, BOARD_DATA_SIZE, DATA},
    /* Shared and uncached, as the link says of its memory; no device: copies may be of any size. */
    {BOARD_WINDOW, BOARD_WINDOW_SIZE, SHARED},
#if defined(__ARM_ARCH_8M_MAIN__)
    {DEVICES_AT, DEVICES, DEVICE},
#else
    {DEVICES_AT, 0x8000u, DEVICE},
    {0, NULL_PAGE, NOTHING},
#endif
};
#define REGION_COUNT (sizeof REGIONS / sizeof *REGIONS)

bool protect_start(void)
{
    uint32_t there = MPU_TYPE >> 8 & 0xffu;
    if (there < REGION_COUNT)
        return false;
    /* Not every unaligned word traps: the C library's memcpy() is made of such. LDRD, LDM do. */
    SCB_CCR |= CCR_DIV_0_TRP;
    SCB_SHCSR |= SHCSR_FAULTS;
#if defined(__ARM_ARCH_8M_MAIN__)
    MPU_MAIR0 = ATTRIBUTES;
#endif
    for (uint32_t i = 0; i < there; i++) {
        MPU_RNR = i;
        MPU_SIZE = 0; /* whatever a reset leaves there */
        if (i < REGION_COUNT)
            set_region(&REGIONS[i]);
    }
    MPU_CTRL = CTRL_ENABLE;
    __asm__ volatile("dsb\n\tisb" ::: "memory");
    return true;
}
