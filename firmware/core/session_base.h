/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What both halves of a session stand on: how it sends, and its tables. Nobody but session.c and
 * session_peer.c includes this.
 */
#ifndef SBE_CORE_SESSION_BASE_H
#define SBE_CORE_SESSION_BASE_H

#include <stddef.h>

#include "core/session.h"

/* Sends a message whose id and status are set. */
int sbe_session_transmit(struct sbe_session *session, uint32_t type, struct sbe_control *message,
                         uint32_t size);

/* A reply that can't be sent is lost as on any wire; the requester's deadline covers it. */
void sbe_session_reply(struct sbe_session *session, enum sbe_control_type type, uint32_t id,
                       int status);

void sbe_table_clear(void *table, uint32_t count, size_t entry_size);

/* The entry with this id (0: a free one) in a table whose entries begin with their id. */
static inline void *sbe_table_find(void *table, uint32_t count, size_t entry_size, uint32_t id)
{
    for (uint8_t *at = table; count > 0; count--, at += entry_size)
        if (*(const uint32_t *)(const void *)at == id)
            return at;
    return NULL;
}

#endif
