/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The link over any rpmsg device of OpenAMP: two endpoints, by the public rpmsg API only. Messages
 * are taken in whatever context the device delivers them, which must be the link's.
 */
#ifndef SBE_PORTS_OPENAMP_OPENAMP_H
#define SBE_PORTS_OPENAMP_OPENAMP_H

#include <openamp/rpmsg.h>

#include "ports/rpmsg/link.h"

struct openamp {
    struct rpmsg_link *link;
    struct rpmsg_endpoint control;
    struct rpmsg_endpoint doorbell;
};

/* Announces the endpoints, unless quiet. A status; on failure there is nothing to close. */
int openamp_open(struct openamp *end, struct rpmsg_device *device, struct rpmsg_link *link,
                 bool quiet);
/* The device may be gone already: nothing is sent. */
void openamp_close(struct openamp *end);
/* As struct rpmsg_link_config has it; self is the struct openamp. */
bool openamp_send(void *self, uint32_t source, uint32_t destination, const void *data,
                  uint32_t size);

#endif
