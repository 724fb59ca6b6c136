/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fault: breaks the firmware in the way that the payload's first byte names, so that the other end
 * can be seen to notice: 'a' fails an assertion, 'h' takes a HardFault, 's' stops answering with
 * interrupts off. In images for tests only (SBE_FAULTS).
 *
 * ask_power: asks the host as the payload says (event, value; two words) and answers with its
 * status.
 */
#include <string.h>

#include "core/service.h"
#include "ports/carveout/carveout.h"
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

static struct sbe_kept asking;
static bool answered;

static void asked(void *self, int status)
{
    (void)self;
    if (!answered)
        (void)sbe_kept_answer(&asking, status, NULL, 0);
    answered = true;
}

static int ask_power(struct sbe_request *request)
{
    static uint64_t scratch[2];
    uint32_t words[2];
    if (request->payload_size != sizeof words || request->buffer_count != 0)
        return SBE_EINVAL;
    memcpy(words, request->payload, sizeof words);
    if (board_link.power.asked != 0)
        return SBE_EBUSY; /* `asking` is in use */
    int status = sbe_request_keep(request, &asking, scratch, sizeof scratch);
    if (status < 0)
        return status;
    answered = false;
    status = sbe_power_ask(&board_link.power, (enum sbe_event)words[0], words[1], asked, NULL);
    if (status < 0)
        asked(NULL, status);
    return SBE_KEPT;
}

static void ask_power_cancel(struct sbe_kept *kept)
{
    if (!answered)
        (void)sbe_kept_answer(kept, SBE_ECANCELED, NULL, 0);
    answered = true;
}

SBE_SERVICE_WITH_CANCEL(ask_power, 1, ask_power, ask_power_cancel);
