/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fault: breaks the firmware in the way that the payload's first byte names, so that the other end
 * can be seen to notice: 'a' fails an assertion, 'h' takes a HardFault, 's' stops answering with
 * interrupts off. In images for tests only (SBE_FAULTS).
 */
#include "core/service.h"
#include "ports/mps2/board.h"

static int fault(struct sbe_request *request)
{
    char how = request->payload_size == 0 ? '\0' : *(const char *)request->payload;
    switch (how) {
    case 'a':
        crash_assert("the fault service was asked to");
    case 'h':
        __asm__ volatile("udf #0");
        return SBE_EIO;
    case 's':
        __asm__ volatile("cpsid i");
        for (;;)
            ;
    default:
        return SBE_EINVAL;
    }
}

SBE_SERVICE(fault, 1, fault);
