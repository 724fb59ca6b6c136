/* SPDX-License-Identifier: Apache-2.0 */
/* Services that hold the engine: beside the usual ones in a sbe-remote of the tests. */
#include <string.h>

#include "core/engine.h"

static volatile uint32_t forever = 1;

/* Never ends, and shows nothing of it. */
static int spin(struct sbe_request *request)
{
    (void)request;
    while (forever != 0)
        ;
    return SBE_OK;
}
SBE_SERVICE(spin, 1, spin);

/* Works in one piece for so many milliseconds (uint32_t), and says so. */
static int toil(struct sbe_request *request)
{
    const struct sbe_port *port = request->engine->port;
    uint32_t milliseconds;
    if (request->payload_size != sizeof milliseconds)
        return SBE_EINVAL;
    memcpy(&milliseconds, request->payload, sizeof milliseconds);
    uint64_t begun_ns = port->now_ns(port->self);
    while (port->now_ns(port->self) - begun_ns < milliseconds * (uint64_t)1000000)
        sbe_request_alive(request);
    return SBE_OK;
}
SBE_SERVICE(toil, 1, toil);

/* The same in pieces of a millisecond. */
static int plod(struct sbe_request *request)
{
    uint32_t milliseconds;
    if (request->payload_size != sizeof milliseconds)
        return SBE_EINVAL;
    memcpy(&milliseconds, request->payload, sizeof milliseconds);
    const struct sbe_port *port = request->engine->port;
    uint64_t begun_ns = port->now_ns(port->self);
    while (port->now_ns(port->self) - begun_ns < 1000000)
        ;
    return ++request->progress < milliseconds ? SBE_MORE : SBE_OK;
}
SBE_SERVICE(plod, 1, plod);
