/* SPDX-License-Identifier: Apache-2.0 */
/* Firmware over a carve-out: the project's services, and one of its own. */
#include <string.h>
#include <zephyr/kernel.h>
#include <zephyr/sys/printk.h>

#include "core/service.h"
#include "zephyr/src/port.h"

/* Milliseconds since the core's start, as a little-endian number of 8 bytes. */
static int uptime(struct sbe_request *request)
{
    int64_t now_ms = k_uptime_get();
    if (request->reply_room < sizeof now_ms)
        return SBE_ENOSPC;
    memcpy(request->reply, &now_ms, sizeof now_ms);
    request->reply_size = sizeof now_ms;
    return SBE_OK;
}

SBE_SERVICE(uptime, 1, uptime);

int main(void)
{
    printk("sbe: carve-out link on %s\n", CONFIG_BOARD_TARGET);
    int status = sbe_carveout_serve();
    printk("sbe: the link can't be served: %d\n", status);
    return status;
}
