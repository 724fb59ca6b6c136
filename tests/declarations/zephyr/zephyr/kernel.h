/* SPDX-License-Identifier: Apache-2.0 */
/* Describes Zephyr 4.3.0: see tests/declarations/README.md. */
#ifndef DECLARED_ZEPHYR_KERNEL_H
#define DECLARED_ZEPHYR_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What Kconfig and the build define. */
#define CONFIG_BOARD_TARGET             "board/soc/cpu"
#define KERNEL_VERSION_STRING           "4.3.0"
#define CONFIG_THREAD_STACK_INFO        1
#define CONFIG_ARMV7_M_ARMV8_M_MAINLINE 1

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define MIN(a, b)         ((a) < (b) ? (a) : (b))

typedef struct {
    int64_t ticks;
} k_timeout_t;
#define K_FOREVER            ((k_timeout_t){-1})
#define K_MSEC(milliseconds) ((k_timeout_t){(milliseconds)*10})
#define K_USEC(microseconds) ((k_timeout_t){(int64_t)(microseconds) / 100})

struct k_sem {
    unsigned int count;
    unsigned int limit;
};
#define K_SEM_DEFINE(name, initial, most) struct k_sem name = {initial, most}

struct k_thread {
    struct {
        uintptr_t start;
        size_t size;
    } stack_info;
};

struct k_thread *k_current_get(void);
int k_sem_take(struct k_sem *sem, k_timeout_t timeout);
void k_sem_give(struct k_sem *sem);
uint32_t k_cycle_get_32(void);
uint64_t k_cyc_to_ns_floor64(uint64_t cycles);
int64_t k_uptime_get(void);
void k_panic(void);

#endif
