/* SPDX-License-Identifier: Apache-2.0 */
/* Firmware for Linux' remoteproc and rpmsg: the project's services. */
#include <zephyr/kernel.h>
#include <zephyr/sys/printk.h>

#include "zephyr/src/port.h"

int main(void)
{
    printk("sbe: rpmsg link on %s\n", CONFIG_BOARD_TARGET);
    int status = sbe_rpmsg_serve();
    printk("sbe: the link can't be served: %d\n", status);
    return status;
}
