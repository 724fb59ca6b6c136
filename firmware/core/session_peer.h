/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The half of a session that keeps what the peer has made here: contexts, areas, channels. The
 * other half, session.c, negotiates, takes messages apart and asks; nobody else includes this.
 */
#ifndef SBE_CORE_SESSION_PEER_H
#define SBE_CORE_SESSION_PEER_H

#include "core/session.h"

#define SBE_REPLIED 1 /* a handler has replied itself, or will */

/* Ends everything. */
void sbe_peer_drop(struct sbe_session *session);

/* Requests whose size and reserved fields are checked: a status for the reply, or SBE_REPLIED. */
int sbe_peer_context_create(struct sbe_session *session, const struct sbe_control *message);
int sbe_peer_context_destroy(struct sbe_session *session, const struct sbe_control *message);
int sbe_peer_area_map(struct sbe_session *session, const struct sbe_control *message);
int sbe_peer_area_unmap(struct sbe_session *session, const struct sbe_control *message);
int sbe_peer_channel_open(struct sbe_session *session, const struct sbe_control *message);
int sbe_peer_channel_close(struct sbe_session *session, const struct sbe_control *message);

#endif
