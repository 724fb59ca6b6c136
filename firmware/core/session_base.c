/* SPDX-License-Identifier: Apache-2.0 */
#include "core/session_base.h"

#include <string.h>

int sbe_session_transmit(struct sbe_session *session, uint32_t type, struct sbe_control *message,
                         uint32_t size)
{
    const struct sbe_port *port = session->config->port;
    message->type = (uint16_t)type;
    message->size = (uint16_t)size;
    message->epoch = session->epoch;
    SBE_STEP("before a control message is sent");
    int status = port->control_send(port->self, message, size);
    SBE_STEP("after a control message is sent");
    return status;
}

void sbe_session_reply(struct sbe_session *session, enum sbe_control_type type, uint32_t id,
                       int status)
{
    struct sbe_plain_reply reply;
    if (session->peer_epoch == 0)
        return; /* who asked is gone */
    reply.control.id = id;
    reply.control.status = status;
    (void)sbe_session_transmit(session, type | SBE_CONTROL_REPLY, &reply.control, sizeof reply);
}

void sbe_table_clear(void *table, uint32_t count, size_t entry_size)
{
    memset(table, 0, count * entry_size);
}
