/* SPDX-License-Identifier: Apache-2.0 */
#include "ports/rpmsg/link.h"

#include <string.h>

#include "ports/rpmsg/places.h"
#if RPMSG_LINK_STREAMS
#include "streams/streams.h"
#else
#include "streams/none.h"
#endif

#define CHANNELS RPMSG_LINK_CHANNELS
#define OUTBOX   RPMSG_LINK_OUTBOX

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
#if RPMSG_LINK_PIECES
static uint64_t paused[CHANNELS][SBE_PAUSED_SIZE(RPMSG_LINK_SLOT_SIZE) / sizeof(uint64_t)];
#endif

PLACES(by_host, CHANNELS); /* the host's endpoints */
PLACES(by_id, CHANNELS);

static bool send(const struct rpmsg_link *link, uint32_t source, uint32_t destination,
                 const void *data, uint32_t size)
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

/* -- channels with something to send: a list, because one of a thousand may be active -----------
 */

static uint32_t index_of(const struct sbe_channel *channel)
{
    return (uint32_t)((const struct sbe_engine_channel *)(const void *)channel - channels);
}

static struct sbe_channel *engine_channel(const struct rpmsg_link *link,
                                          const struct rpmsg_link_channel *entry)
{
    return &channels[entry - link->channels].channel;
}

static void list(struct rpmsg_link *link, struct rpmsg_link_channel *entry)
{
    if (entry->listed)
        return;
    entry->listed = true;
    entry->next = entry;
    if (link->last != NULL) {
        entry->next = link->last->next;
        link->last->next = entry;
    }
    link->last = entry;
}

/* -- private rings ------------------------------------------------------------------------- */

/* Nobody shares an area without segments. */
static bool wants_private(const struct rpmsg_link *link, const struct sbe_channel_open *message)
{
    const struct sbe_area *area = sbe_area_find(&link->engine.session.areas, message->ring_area);
    return area != NULL && area->segments == 0;
}

#if RPMSG_LINK_PRIVATE_RINGS
static bool is_private(const struct rpmsg_link_channel *entry)
{
    return entry->private;
}

/* The rings' memory goes with the channel: nothing may look like it is still there. */
static void forget_private(struct rpmsg_link_channel *entry)
{
    entry->private = false;
    entry->mirror = (struct sbe_mirror){.told = 0};
}

static int open_private(struct rpmsg_link *link, struct rpmsg_link_channel *entry,
                        const struct sbe_channel_open *message)
{
    const struct sbe_channel *channel = engine_channel(link, entry);
    struct sbe_ring_geometry geometry = {message->slots, message->slot_size, message->line};
    if (!wants_private(link, message))
        return SBE_OK;
    int status =
        sbe_mirror_open(&entry->mirror, channel->tx.producer, channel->rx.producer, &geometry);
    entry->private = status == SBE_OK;
    return status;
}

static void take_frame(struct rpmsg_link_channel *entry, const void *data, uint32_t size)
{
    (void)sbe_mirror_receive(&entry->mirror, data, size);
}

/*
 * `all`: nothing else is to be done. False: there is more; waits is set if it found no buffer. At
 * the end the own end is asked for a doorbell, which lists the channel again.
 */
static bool send_frames(struct rpmsg_link *link, struct rpmsg_link_channel *entry, bool all)
{
    uint64_t message[SBE_MIRROR_MAX / sizeof(uint64_t)];
    struct sbe_mirror *mirror = &entry->mirror;
    uint32_t size;
    do {
        while ((size = sbe_mirror_next(mirror, message, all)) != 0) {
            if (!send(link, RPMSG_LINK_DOORBELL, entry->host, message, size)) {
                link->waits = true;
                return false;
            }
            sbe_mirror_sent(mirror);
        }
    } while (all && !sbe_mirror_sleep(mirror, all));
    return all;
}
#else
static bool is_private(const struct rpmsg_link_channel *entry)
{
    (void)entry;
    return false;
}

static void forget_private(struct rpmsg_link_channel *entry)
{
    (void)entry;
}

static int open_private(struct rpmsg_link *link, struct rpmsg_link_channel *entry,
                        const struct sbe_channel_open *message)
{
    (void)entry;
    return wants_private(link, message) ? SBE_ENOTSUP : SBE_OK;
}

static void take_frame(struct rpmsg_link_channel *entry, const void *data, uint32_t size)
{
    (void)entry, (void)data, (void)size;
}

static bool send_frames(struct rpmsg_link *link, struct rpmsg_link_channel *entry, bool all)
{
    (void)link, (void)entry, (void)all;
    return true;
}
#endif

/* -- doorbells ----------------------------------------------------------------------------- */

/* False: there is no buffer for it. */
static bool ring(const struct rpmsg_link *link, struct rpmsg_link_channel *entry)
{
    const uint64_t one = 1; /* what an eventfd would take: the host's code is the same for both */
    entry->owed = !send(link, RPMSG_LINK_DOORBELL, entry->host, &one, sizeof one);
    return !entry->owed;
}

static void doorbell(void *self, const struct sbe_channel *channel)
{
    struct rpmsg_link *link = self;
    struct rpmsg_link_channel *entry = &link->channels[index_of(channel)];
    entry->owed = true;
    if (entry->host != 0 && (is_private(entry) || !ring(link, entry)))
        list(link, entry);
}

/* False: there is more to send. `before` the engine's round, or after it. */
static bool send_one(struct rpmsg_link *link, struct rpmsg_link_channel *entry, bool before,
                     bool all)
{
    if (entry->host == 0)
        return true; /* closed meanwhile */
    if (is_private(entry))
        return send_frames(link, entry, all);
    if (entry->owed && before) /* after it, it has just been tried */
        (void)ring(link, entry);
    link->waits = link->waits || entry->owed;
    return !entry->owed;
}

/* Each channel of the list has its turn; those with more to send stay in it. */
static void send_listed(struct rpmsg_link *link, bool before, bool all)
{
    struct rpmsg_link_channel *last = link->last, *entry = last != NULL ? last->next : NULL;
    link->last = NULL;
    link->waits = false;
    while (entry != NULL) {
        struct rpmsg_link_channel *next = entry != last ? entry->next : NULL;
        entry->listed = false;
        if (!send_one(link, entry, before, all))
            list(link, entry);
        entry = next;
    }
}

/* A closed channel stays in the list until its turn, which finds nothing. */
static void reset(struct rpmsg_link_channel *entry, uint32_t index)
{
    places_forget(&by_host, index);
    places_forget(&by_id, index);
    entry->host = 0;
    entry->owed = false;
    forget_private(entry);
}

static int channel_opened(void *self, struct sbe_channel *channel,
                          const struct sbe_channel_open *message)
{
    struct rpmsg_link *link = self;
    uint32_t index = index_of(channel);
    if (message->handles != 0)
        return SBE_EINVAL;
    int status = open_private(link, &link->channels[index], message);
    if (status == SBE_OK)
        places_note(&by_id, index, channel->id);
    return status;
}

static void channel_closed(void *self, struct sbe_channel *channel)
{
    uint32_t index = index_of(channel);
    reset(&((struct rpmsg_link *)self)->channels[index], index);
}

/* The first endpoint to name a channel keeps it: a client can't take another one's doorbell. */
static void take_bind(struct rpmsg_link *link, uint32_t source, const void *data, uint32_t size)
{
    struct bind bind;
    if (size != sizeof bind || source == 0)
        return;
    memcpy(&bind, data, sizeof bind);
    uint32_t index = places_find(&by_id, bind.channel);
    if (bind.magic != RPMSG_LINK_BIND || index == PLACES_NONE || link->channels[index].host != 0)
        return;
    link->channels[index].host = source;
    places_note(&by_host, index, source);
    list(link, &link->channels[index]);
    sbe_engine_doorbell(&link->engine, &channels[index].channel);
}

/* A place without an endpoint, open or closed, matches none: not address 0 either. */
static void take_doorbell(struct rpmsg_link *link, uint32_t source, const void *data, uint32_t size)
{
    uint32_t index = places_find(&by_host, source);
    if (index == PLACES_NONE) {
        take_bind(link, source, data, size);
        return;
    }
    struct rpmsg_link_channel *entry = &link->channels[index];
    if (is_private(entry)) {
        take_frame(entry, data, size);
        list(link, entry);
    }
    sbe_engine_doorbell(&link->engine, &channels[index].channel);
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

uint64_t rpmsg_link_due_ns(void)
{
    return sbe_streams_due_ns();
}

bool rpmsg_link_run(struct rpmsg_link *link)
{
    if (!link->up)
        return false;
    flush_outbox(link);
    send_listed(link, true, false); /* what waited goes before what comes now */
    bool more = sbe_power_run(&link->power);
    /* A request may have started one, and what they tell is sent next. */
    (void)sbe_streams_round(&link->port);
    send_listed(link, false, !more);
    link->waits = link->waits || link->outbox_count > 0;
    return more;
}

static void take_event(void *self, uint32_t event, uint32_t value)
{
    const struct sbe_engine *engine = self;
    sbe_power_event(&((struct rpmsg_link *)engine->port->self)->power, event, value);
}

static void configure_engine(struct rpmsg_link *link)
{
    const struct rpmsg_link_config *config = link->config;
    struct sbe_engine_config *engine = &link->engine_config;
    struct sbe_session_config *session = &engine->session;
    *engine = sbe_engine_defaults(&link->port);
    engine->channels = channels;
    engine->calls = calls;
    engine->calls_per_channel = RPMSG_LINK_CALLS;
    engine->kept_per_context = RPMSG_LINK_KEPT;
    engine->scratch_in = scratch_in;
    engine->scratch_out = scratch_out;
#if RPMSG_LINK_PIECES
    sbe_pieces_use(engine, paused);
#endif
    engine->opened = channel_opened;
    engine->closed = channel_closed;
    session->name = config->name;
    session->coherent = config->coherent;
    session->address_bits = 32; /* an rpmsg device's, also where a process plays the core */
    session->cache_line = RPMSG_LINK_LINE;
    session->limits = (struct sbe_limits){RPMSG_LINK_AREAS, RPMSG_LINK_CONTEXTS,  CHANNELS,
                                          RPMSG_LINK_SLOTS, RPMSG_LINK_SLOT_SIZE, SBE_BUFFERS_MAX};
    session->areas = areas;
    session->contexts = contexts;
    session->channels = session_channels;
    session->pending = pending;
    session->pending_count = RPMSG_LINK_PENDING;
    if (config->version_max != 0) {
        session->version_min = config->version_min;
        session->version_max = config->version_max;
    }
}

int rpmsg_link_init(struct rpmsg_link *link, const struct rpmsg_link_config *config)
{
    *link = (struct rpmsg_link){.config = config, .port = config->port};
    places_clear(&by_host);
    places_clear(&by_id);
    link->port.self = link;
    link->port.control_send = control_send;
    link->port.doorbell = doorbell;
    configure_engine(link);
    int status = sbe_engine_init(&link->engine, &link->engine_config);
    sbe_power_init(&link->power, &link->engine, config->power);
    link->engine.hooks.event = take_event;
    return status;
}
