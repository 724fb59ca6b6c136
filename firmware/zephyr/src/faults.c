/* SPDX-License-Identifier: Apache-2.0 */
/* fault: as firmware/ports/mps2/faults.c, for tests only. */
#include <zephyr/irq.h>
#include <zephyr/kernel.h>

#include "core/service.h"

static int fault(struct sbe_request *request)
{
    char how = request->payload_size == 0 ? '\0' : *(const char *)request->payload;
    switch (how) {
    case 'a':
        k_panic();
        return SBE_EIO;
    case 'h':
        __builtin_trap(); /* an undefined instruction */
        return SBE_EIO;
    case 's':
        (void)irq_lock();
        for (;;)
            ;
    default:
        return SBE_EINVAL;
    }
}

SBE_SERVICE(fault, 1, fault);
