/* SPDX-License-Identifier: Apache-2.0 */
/* Describes Zephyr 4.3.0: see tests/declarations/README.md. */
#ifndef DECLARED_ZEPHYR_FATAL_H
#define DECLARED_ZEPHYR_FATAL_H

#include <stdint.h>

enum k_fatal_error_reason {
    K_ERR_CPU_EXCEPTION,
    K_ERR_SPURIOUS_IRQ,
    K_ERR_STACK_CHK_FAIL,
    K_ERR_KERNEL_OOPS,
    K_ERR_KERNEL_PANIC,
    K_ERR_ARCH_START = 16,
};

enum k_fatal_error_reason_arch { /* Arm's */
    K_ERR_ARM_MEM_GENERIC = K_ERR_ARCH_START,
    K_ERR_ARM_MEM_STACKING,
    K_ERR_ARM_MEM_UNSTACKING,
    K_ERR_ARM_MEM_DATA_ACCESS,
    K_ERR_ARM_MEM_INSTRUCTION_ACCESS,
    K_ERR_ARM_MEM_FP_LAZY_STATE_PRESERVATION,
    K_ERR_ARM_BUS_GENERIC,
    K_ERR_ARM_BUS_STACKING,
    K_ERR_ARM_BUS_UNSTACKING,
    K_ERR_ARM_BUS_PRECISE_DATA_BUS,
    K_ERR_ARM_BUS_IMPRECISE_DATA_BUS,
    K_ERR_ARM_BUS_INSTRUCTION_BUS,
    K_ERR_ARM_BUS_FP_LAZY_STATE_PRESERVATION,
    K_ERR_ARM_USAGE_GENERIC,
    K_ERR_ARM_USAGE_DIV_0,
    K_ERR_ARM_USAGE_UNALIGNED_ACCESS,
    K_ERR_ARM_USAGE_STACK_OVERFLOW,
    K_ERR_ARM_USAGE_NO_COPROCESSOR,
    K_ERR_ARM_USAGE_ILLEGAL_EXC_RETURN,
    K_ERR_ARM_USAGE_ILLEGAL_EPSR,
    K_ERR_ARM_USAGE_UNDEFINED_INSTRUCTION,
};

struct arch_esf { /* Cortex-M */
    struct {
        uint32_t a1, a2, a3, a4, ip, lr, pc, xpsr;
    } basic;
};

void k_sys_fatal_error_handler(unsigned int reason, const struct arch_esf *esf);
void k_fatal_halt(unsigned int reason) __attribute__((noreturn));

#endif
