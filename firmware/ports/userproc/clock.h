/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The core's clock: a register, as it is in a co-processor. In a guest kernel each reading of the
 * kernel's clock is a system call, three of which would be half of a call's time. Where there is no
 * such register, or it does not run steadily, the kernel's clock it is.
 */
#ifndef SBE_PORTS_USERPROC_CLOCK_H
#define SBE_PORTS_USERPROC_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

/* Once, before the first reading. Takes 10 ms. */
void clock_open(void);
/* Monotonic, within some per mille. One thread only. */
uint64_t clock_now_ns(void);

#endif
