/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rpmsg over the two virtqueues that the host has set up. Two files implement it, of which a
 * program links one: bus_virtio.c with the project's own virtqueues, bus_openamp.c with OpenAMP.
 */
#ifndef SBE_PORTS_USERPROC_BUS_H
#define SBE_PORTS_USERPROC_BUS_H

#include "ports/rpmsg/link.h"
#include "ports/userproc/core.h"

/* Opens the queues and announces the link's endpoints, unless it is to be quiet. False: it can't.
 */
bool bus_open(struct core *core, const struct core_queue queues[2], struct rpmsg_link *link,
              bool quiet);
void bus_close(void);
/* As struct rpmsg_link_config has it. */
bool bus_send(void *self, uint32_t source, uint32_t destination, const void *data, uint32_t size);
/* Hands messages to the link. True: there may be more. */
bool bus_receive(void);
/* Interrupts the host, if something was sent or taken and it wants to know. */
void bus_notify(void);

#endif
