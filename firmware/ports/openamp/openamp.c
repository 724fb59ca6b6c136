/* SPDX-License-Identifier: Apache-2.0 */
#include "ports/openamp/openamp.h"

#include <string.h>

/* The link copies what it keeps, and the device gives the buffer back when this returns. */
static int received(struct rpmsg_endpoint *endpoint, void *data, size_t size, uint32_t source,
                    void *self)
{
    struct openamp *end = self;
    if (size <= SBE_CONTROL_MAX)
        rpmsg_link_receive(end->link, source, endpoint->addr, data, (uint32_t)size);
    return RPMSG_SUCCESS;
}

static int create(struct openamp *end, struct rpmsg_endpoint *endpoint, struct rpmsg_device *device,
                  const char *name, uint32_t address)
{
    memset(endpoint, 0, sizeof *endpoint);
    endpoint->priv = end;
    int status = rpmsg_create_ept(endpoint, device, name, address, RPMSG_ADDR_ANY, received, NULL);
    return status == RPMSG_SUCCESS ? SBE_OK : status == RPMSG_ERR_NO_BUFF ? SBE_EAGAIN : SBE_EIO;
}

int openamp_open(struct openamp *end, struct rpmsg_device *device, struct rpmsg_link *link,
                 bool quiet)
{
    end->link = link;
    int status = create(end, &end->control, device, quiet ? "" : RPMSG_LINK_CONTROL_NAME,
                        RPMSG_LINK_CONTROL);
    if (status < 0)
        return status;
    status = create(end, &end->doorbell, device, quiet ? "" : RPMSG_LINK_DOORBELL_NAME,
                    RPMSG_LINK_DOORBELL);
    if (status < 0)
        rpmsg_destroy_ept(&end->control);
    return status;
}

static void destroy(struct rpmsg_endpoint *endpoint)
{
    endpoint->name[0] = '\0'; /* whose destruction OpenAMP does not announce */
    rpmsg_destroy_ept(endpoint);
}

void openamp_close(struct openamp *end)
{
    destroy(&end->control);
    destroy(&end->doorbell);
}

bool openamp_send(void *self, uint32_t source, uint32_t destination, const void *data,
                  uint32_t size)
{
    struct openamp *end = self;
    struct rpmsg_endpoint *endpoint = source == RPMSG_LINK_CONTROL ? &end->control : &end->doorbell;
    return rpmsg_trysendto(endpoint, data, (int)size, destination) >= 0;
}
