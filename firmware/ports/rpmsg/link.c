/* SPDX-License-Identifier: Apache-2.0 */
#include "ports/rpmsg/link.h"

#include <string.h>

#define CHANNELS   RPMSG_LINK_CHANNELS
#define OUTBOX     RPMSG_LINK_OUTBOX
#define BIND_MAGIC 0x42454253u /* "SBEB" */

struct bind { /* the first message of a doorbell's endpoint */
    uint32_t magic;
    uint32_t channel;
};

static struct sbe_area areas[RPMSG_LINK_AREAS];
static struct sbe_session_context contexts[RPMSG_LINK_CONTEXTS];
static struct sbe_session_channel session_channels[CHANNELS];
static struct sbe_session_pending pending[RPMSG_LINK_PENDING];
static struct sbe_engine_channel channels[CHANNELS];
static struct sbe_call calls[CHANNELS * RPMSG_LINK_CALLS];
static uint64_t scratch_in[RPMSG_LINK_SLOT_SIZE / sizeof(uint64_t)];
static uint64_t scratch_out[RPMSG_LINK_SLOT_SIZE / sizeof(uint64_t)];

static bool send(struct rpmsg_link *link, uint32_t source, uint32_t destination, const void *data,
                 uint32_t size)
{
    return link->config->send(link->config->self, source, destination, data, size);
}

/* -- control messages ---------------------------------------------------------------------- */

static bool send_control(struct rpmsg_link *link, const void *message, uint32_t size)
{
    return send(link, RPMSG_LINK_CONTROL, link->host_address, message, size);
}

static int control_send(void *self, const void *message, uint32_t size)
{
    struct rpmsg_link *link = self;
    if (link->host_address == 0)
        return SBE_OK; /* nobody has spoken yet: the first HELLO is the host's */
    if (link->outbox_count == 0 && send_control(link, message, size))
        return SBE_OK;
    if (link->outbox_count == OUTBOX)
        return SBE_EAGAIN;
    struct rpmsg_link_waiting *slot =
        &link->outbox[(link->outbox_first + link->outbox_count++) % OUTBOX];
    slot->size = size;
    memcpy(slot->bytes, message, size);
    return SBE_OK;
}

static void flush_outbox(struct rpmsg_link *link)
{
    while (link->outbox_count > 0) {
        const struct rpmsg_link_waiting *slot = &link->outbox[link->outbox_first];
        if (!send_control(link, slot->bytes, slot->size))
            return;
        link->outbox_first = (link->outbox_first + 1u) % OUTBOX;
        link->outbox_count--;
    }
}

/* -- doorbells ----------------------------------------------------------------------------- */

static uint32_t index_of(const struct sbe_channel *channel)
{
    return (uint32_t)((const struct sbe_engine_channel *)(const void *)channel - channels);
}

/* -- private rings ------------------------------------------------------------------------- */

/* Nobody shares an area without segments. */
static bool wants_private(const struct rpmsg_link *link, const struct sbe_channel_open *message)
{
    const struct sbe_area *area = sbe_area_find(&link->engine.session.areas, message->ring_area);
    return area != NULL && area->segments == 0;
}

#if RPMSG_LINK_PRIVATE_RINGS
static bool is_private(const struct rpmsg_link *link, uint32_t index)
{
    return link->private[index];
}

static int open_private(struct rpmsg_link *link, const struct sbe_channel *channel,
                        const struct sbe_channel_open *message)
{
    uint32_t index = index_of(channel);
    struct sbe_ring_geometry geometry = {message->slots, message->slot_size, message->line};
    link->private[index] = wants_private(link, message);
    if (!link->private[index])
        return SBE_OK;
    return sbe_mirror_open(&link->mirror[index], channel->tx.producer, channel->rx.producer,
                           &geometry);
}

static void take_frame(struct rpmsg_link *link, uint32_t index, const void *data, uint32_t size)
{
    (void)sbe_mirror_receive(&link->mirror[index], data, size);
}

/* `all`: nothing else is to be done. False: no buffer was free. */
static bool send_frames(struct rpmsg_link *link, uint32_t index, bool all)
{
    uint64_t message[SBE_MIRROR_MAX / sizeof(uint64_t)];
    struct sbe_mirror *mirror = &link->mirror[index];
    uint32_t size;
    while (link->doorbell[index] != 0 && (size = sbe_mirror_next(mirror, message, all)) != 0) {
        if (!send(link, RPMSG_LINK_DOORBELL, link->doorbell[index], message, size))
            return false;
        sbe_mirror_sent(mirror);
    }
    return true;
}
#else
static bool is_private(const struct rpmsg_link *link, uint32_t index)
{
    (void)link, (void)index;
    return false;
}

static int open_private(struct rpmsg_link *link, const struct sbe_channel *channel,
                        const struct sbe_channel_open *message)
{
    (void)channel;
    return wants_private(link, message) ? SBE_ENOTSUP : SBE_OK;
}

static void take_frame(struct rpmsg_link *link, uint32_t index, const void *data, uint32_t size)
{
    (void)link, (void)index, (void)data, (void)size;
}

static bool send_frames(struct rpmsg_link *link, uint32_t index, bool all)
{
    (void)link, (void)index, (void)all;
    return true;
}
#endif

static void ring(struct rpmsg_link *link, uint32_t index)
{
    if (is_private(link, index))
        return;             /* rpmsg_link_run() looks */
    const uint64_t one = 1; /* what an eventfd would take: the host's code is the same for both */
    link->owed[index] = link->doorbell[index] == 0 ||
                        !send(link, RPMSG_LINK_DOORBELL, link->doorbell[index], &one, sizeof one);
}

static void doorbell(void *self, const struct sbe_channel *channel)
{
    ring(self, index_of(channel));
}

static int channel_opened(void *self, struct sbe_channel *channel,
                          const struct sbe_channel_open *message)
{
    struct rpmsg_link *link = self;
    if (message->handles != 0)
        return SBE_EINVAL;
    link->doorbell[index_of(channel)] = 0;
    link->owed[index_of(channel)] = false;
    return open_private(link, channel, message);
}

static void channel_closed(void *self, struct sbe_channel *channel)
{
    ((struct rpmsg_link *)self)->doorbell[index_of(channel)] = 0;
}

/* The first endpoint to name a channel keeps it: a client can't take another one's doorbell. */
static void take_bind(struct rpmsg_link *link, uint32_t source, const void *data, uint32_t size)
{
    struct bind bind;
    if (size != sizeof bind)
        return;
    memcpy(&bind, data, sizeof bind);
    if (bind.magic != BIND_MAGIC || bind.channel == 0)
        return;
    for (uint32_t i = 0; i < CHANNELS; i++) {
        struct sbe_channel *channel = &channels[i].channel;
        if (channel->id != bind.channel || link->doorbell[i] != 0)
            continue;
        link->doorbell[i] = source;
        sbe_engine_doorbell(&link->engine, channel);
        if (link->owed[i])
            ring(link, i);
    }
}

static void take_doorbell(struct rpmsg_link *link, uint32_t source, const void *data, uint32_t size)
{
    for (uint32_t i = 0; i < CHANNELS; i++) {
        if (link->doorbell[i] == source) {
            if (is_private(link, i))
                take_frame(link, i, data, size);
            sbe_engine_doorbell(&link->engine, &channels[i].channel);
            return;
        }
    }
    take_bind(link, source, data, size);
}

void rpmsg_link_receive(struct rpmsg_link *link, uint32_t source, uint32_t destination,
                        const void *data, uint32_t size)
{
    uint64_t message[SBE_CONTROL_MAX / sizeof(uint64_t)]; /* private, aligned */
    if (!link->up || size > sizeof message)
        return;
    memcpy(message, data, size);
    if (destination == RPMSG_LINK_DOORBELL)
        take_doorbell(link, source, message, size);
    if (destination != RPMSG_LINK_CONTROL)
        return;
    if (source != link->host_address) { /* another process, or a new one, speaks for the host */
        link->host_address = source;
        link->outbox_count = 0;
    }
    (void)sbe_session_receive(&link->engine.session, message, size, 0);
}

/* -- life ---------------------------------------------------------------------------------- */

void rpmsg_link_up(struct rpmsg_link *link, uint32_t epoch)
{
    uint32_t former = link->engine.session.epoch;
    if (epoch == 0 || epoch == former)
        epoch = former + 1u != 0 ? former + 1u : 1u;
    link->up = true;
    (void)sbe_session_start(&link->engine.session, epoch);
}

void rpmsg_link_down(struct rpmsg_link *link)
{
    sbe_session_lost(&link->engine.session);
    link->up = link->waits = false;
    link->host_address = 0;
    link->outbox_count = 0;
}

bool rpmsg_link_run(struct rpmsg_link *link)
{
    if (!link->up)
        return false;
    flush_outbox(link);
    for (uint32_t i = 0; i < CHANNELS; i++)
        if (link->owed[i] && link->doorbell[i] != 0)
            ring(link, i);
    bool more = sbe_power_run(&link->power);
    link->waits = link->outbox_count > 0;
    for (uint32_t i = 0; i < CHANNELS; i++) {
        bool stuck = is_private(link, i) ? !send_frames(link, i, !more) : link->owed[i];
        link->waits = link->waits || (stuck && link->doorbell[i] != 0);
    }
    return more;
}

static void take_event(void *self, uint32_t event, uint32_t value)
{
    const struct sbe_engine *engine = self;
    sbe_power_event(&((struct rpmsg_link *)engine->port->self)->power, event, value);
}

int rpmsg_link_init(struct rpmsg_link *link, const struct rpmsg_link_config *config)
{
    *link = (struct rpmsg_link){.config = config, .port = config->port};
    link->port.self = link;
    link->port.control_send = control_send;
    link->port.doorbell = doorbell;
    link->engine_config = (struct sbe_engine_config){
        .services = __start_sbe_services,
        .service_count = (uint32_t)(__stop_sbe_services - __start_sbe_services),
        .channels = channels,
        .calls = calls,
        .calls_per_channel = RPMSG_LINK_CALLS,
        .scratch_in = scratch_in,
        .scratch_out = scratch_out,
        .port = &link->port,
        .opened = channel_opened,
        .closed = channel_closed,
        .session =
            {
                .name = config->name,
                .role = SBE_ROLE_REMOTE,
                .coherent = config->coherent,
                .address_bits = 32,
                .version_min = config->version_min,
                .version_max = config->version_max,
                .cache_line = RPMSG_LINK_LINE,
                .limits = {RPMSG_LINK_AREAS, RPMSG_LINK_CONTEXTS, CHANNELS, RPMSG_LINK_SLOTS,
                           RPMSG_LINK_SLOT_SIZE, SBE_BUFFERS_MAX},
                .areas = areas,
                .contexts = contexts,
                .channels = session_channels,
                .pending = pending,
                .pending_count = RPMSG_LINK_PENDING,
            },
    };
    int status = sbe_engine_init(&link->engine, &link->engine_config);
    sbe_power_init(&link->power, &link->engine, config->power);
    link->engine.hooks.event = take_event;
    return status;
}
