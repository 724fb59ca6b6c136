/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Zephyr's end of a link. An application registers services with SBE_SERVICE() (core/service.h)
 * and gives a thread to the link, usually main(). The node in the devicetree says the rest.
 */
#ifndef SBE_ZEPHYR_SRC_PORT_H
#define SBE_ZEPHYR_SRC_PORT_H

#include <stdint.h>
#include <zephyr/kernel.h>

/* Serves a node "sbe,carveout" for as long as the system runs. Returns only a negative status. */
int sbe_carveout_serve(void);
/* Serves a node "sbe,rpmsg", for as long. */
int sbe_rpmsg_serve(void);

/* For the glue itself. */
uint64_t sbe_zephyr_now_ns(void *self);
k_timeout_t sbe_until(uint64_t due_ns); /* by that clock; UINT64_MAX for ever */
struct sbe_crash_record;
void sbe_carveout_last_words(struct sbe_crash_record *record);

#endif
