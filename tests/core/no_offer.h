/* SPDX-License-Identifier: Apache-2.0 */
/* Hooks of a host that offers a remote nothing: it calls, and is never asked for more. */
#ifndef SBE_TESTS_NO_OFFER_H
#define SBE_TESTS_NO_OFFER_H

#include "core/session.h"
#include "core/status.h"

static int no_channel(void *self, const struct sbe_session_channel *place,
                      const struct sbe_channel_open *message, void *send, void *receive)
{
    (void)self, (void)place, (void)message, (void)send, (void)receive;
    return SBE_EPERM;
}

static void no_close(void *self, const struct sbe_session_channel *place)
{
    (void)self, (void)place;
}

static int no_service(void *self, uint32_t context, const char *name, uint32_t index,
                      struct sbe_service_reply *reply)
{
    (void)self, (void)context, (void)name, (void)index, (void)reply;
    return SBE_ENOENT;
}

#endif
