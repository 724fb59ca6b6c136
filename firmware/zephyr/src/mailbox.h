/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SBE_ZEPHYR_SRC_MAILBOX_H
#define SBE_ZEPHYR_SRC_MAILBOX_H

#include <zephyr/drivers/ipm.h>
#include <zephyr/kernel.h>

/* Rings, with the id as data where the mailbox has room. A mailbox that is full rings already. */
static inline void mailbox_ring(const struct device *mailbox, uint32_t id)
{
    (void)ipm_send(mailbox, 0, id, &id, MIN(ipm_max_data_size_get(mailbox), (int)sizeof id));
}

static inline int mailbox_start(const struct device *mailbox, ipm_callback_t callback)
{
    ipm_register_callback(mailbox, callback, NULL);
    return ipm_set_enabled(mailbox, 1);
}

#endif
