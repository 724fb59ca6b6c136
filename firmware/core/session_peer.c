/* SPDX-License-Identifier: Apache-2.0 */
#include "core/session_peer.h"

#include "core/session_base.h"
#include "core/status.h"

static struct sbe_session_context *find_context(struct sbe_session *session, uint32_t id)
{
    const struct sbe_session_config *config = session->config;
    return sbe_table_find(config->contexts, config->limits.contexts, sizeof *config->contexts, id);
}

static struct sbe_session_channel *find_channel(struct sbe_session *session, uint32_t id)
{
    const struct sbe_session_config *config = session->config;
    return sbe_table_find(config->channels, config->limits.channels, sizeof *config->channels, id);
}

/* -- their ends ---------------------------------------------------------------------------- */

/* Where the list of a context's areas begins, NULL if there is no such context. */
SBE_OUT_OF_LINE static struct sbe_area **areas_of(struct sbe_session *session, uint32_t id)
{
    if (id == SBE_CONTEXT_GLOBAL)
        return &session->global;
    struct sbe_session_context *context = find_context(session, id);
    return context != NULL && !context->dying ? &context->areas : NULL;
}

static void settle_context(struct sbe_session *session, uint32_t id)
{
    struct sbe_session_context *context = find_context(session, id);
    if (context == NULL || !context->dying || context->areas != NULL)
        return; /* also the global one, whose id finds a free entry */
    sbe_session_reply(session, SBE_CONTROL_CONTEXT_DESTROY, context->destroy_id, SBE_OK);
    *context = (struct sbe_session_context){0};
}

/* A dying area goes with the last request that holds it. */
static void settle_area(struct sbe_session *session, struct sbe_area *area)
{
    const struct sbe_port *port = session->config->port;
    uint32_t context = area->context, unmap_id = area->unmap_id;
    if (!area->dying || area->pins != 0)
        return;
    port->area_detach(port->self, area);
    if (*area->before == area) { /* else its context has gone, with the peer that was */
        *area->before = area->next;
        if (area->next != NULL)
            area->next->before = area->before;
    }
    sbe_area_remove(area);
    if (unmap_id != 0)
        sbe_session_reply(session, SBE_CONTROL_AREA_UNMAP, unmap_id, SBE_OK);
    settle_context(session, context);
}

SBE_OUT_OF_LINE static void kill_area(struct sbe_session *session, struct sbe_area *area)
{
    area->dying = true;
    settle_area(session, area);
}

void sbe_session_unpin(struct sbe_session *session, struct sbe_area *area)
{
    area->pins--;
    settle_area(session, area);
}

static void close_channel(struct sbe_session *session, struct sbe_session_channel *channel)
{
    const struct sbe_session_hooks *hooks = session->config->hooks;
    struct sbe_area *ring = sbe_area_find(&session->areas, channel->ring_area);
    hooks->channel_close(hooks->self, channel);
    *channel = (struct sbe_session_channel){0};
    if (ring != NULL)
        sbe_session_unpin(session, ring);
}

/* Ends the channels of a context, or those of all. */
static void close_channels(struct sbe_session *session, uint32_t context)
{
    const struct sbe_session_config *config = session->config;
    struct sbe_session_channel *channel = config->channels;
    for (uint32_t left = config->limits.channels; left > 0; left--, channel++)
        if (channel->id != 0 && (context == SBE_CONTEXT_ALL || channel->context == context))
            close_channel(session, channel);
}

/* A hook may end the session meanwhile, and with it those that are still to come. */
static void kill_areas(struct sbe_session *session, struct sbe_area *area)
{
    for (struct sbe_area *next; area != NULL && area->id != 0; area = next) {
        next = area->next;
        kill_area(session, area);
    }
}

/* Closes channels first: that ends the open requests which hold areas. */
void sbe_peer_drop(struct sbe_session *session)
{
    const struct sbe_session_config *config = session->config;
    close_channels(session, SBE_CONTEXT_ALL);
    kill_areas(session, session->global);
    struct sbe_session_context *context = config->contexts;
    for (uint32_t left = config->limits.contexts; left > 0; left--, context++) {
        kill_areas(session, context->areas);
        *context = (struct sbe_session_context){0};
    }
}

/* -- requests about them ------------------------------------------------------------------- */

int sbe_peer_context_create(struct sbe_session *session, const struct sbe_control *message)
{
    const struct sbe_context_message *body = (const void *)message;
    if (body->context == SBE_CONTEXT_GLOBAL || body->context == SBE_CONTEXT_ALL)
        return SBE_EINVAL;
    if (find_context(session, body->context) != NULL)
        return SBE_EEXIST;
    struct sbe_session_context *context = find_context(session, 0);
    if (context == NULL)
        return SBE_ENOMEM;
    *context = (struct sbe_session_context){.id = body->context};
    return SBE_OK;
}

int sbe_peer_context_destroy(struct sbe_session *session, const struct sbe_control *message)
{
    const struct sbe_context_message *body = (const void *)message;
    struct sbe_session_context *context =
        body->context == SBE_CONTEXT_GLOBAL ? NULL : find_context(session, body->context);
    if (context == NULL || context->dying)
        return SBE_ENOENT;
    /* Not dying yet: areas that go while we walk the list must not answer for the whole. */
    close_channels(session, body->context);
    kill_areas(session, context->areas);
    context->dying = true;
    context->destroy_id = message->id;
    settle_context(session, body->context);
    return SBE_REPLIED;
}

/*
 * Takes what the segments describe off the missing bytes. All but the first and the last cover a
 * page at least: a list costs its receiver something for each entry, so it is bounded.
 */
SBE_OUT_OF_LINE static int check_segments(const struct sbe_session *session,
                                          const struct sbe_area_map *map, uint32_t former,
                                          size_t *missing)
{
    const struct sbe_segment *segment = (const void *)(map + 1),
                             *end = segment + map->segment_count;
    uint64_t last = UINT64_MAX >> (64 - session->config->address_bits);
    size_t left = *missing;
    for (; segment != end; segment++) {
        if (segment->size - 1 >= left) /* also when it is 0 */
            return SBE_EINVAL;
        uint64_t segment_last = segment->address + (segment->size - 1);
        if (segment_last > last || segment_last < segment->address)
            return SBE_ERANGE; /* would be truncated to this end's width */
        left -= (size_t)segment->size;
    }
    *missing = left;
    /* Neither is more than 16 bits wide, and the size fits this end's width. */
    uint32_t count = former + map->segment_count;
    if (count > UINT16_MAX || count > (size_t)map->size / SBE_SEGMENT_MIN + 2)
        return SBE_EINVAL;
    if (left != 0 && session->config->port->area_extend == NULL)
        return SBE_EINVAL;
    return SBE_OK;
}

static int extend_area(struct sbe_session *session, const struct sbe_area_map *map)
{
    const struct sbe_port *port = session->config->port;
    struct sbe_area *area = sbe_area_find(&session->areas, map->area);
    if (area == NULL || area->dying)
        return SBE_EFAULT;
    size_t left = area->missing;
    if (left == 0 || area->segments != map->segment_first || area->size != map->size ||
        area->context != map->context || area->flags != map->flags || map->segment_count == 0)
        return SBE_EINVAL;
    int status = check_segments(session, map, area->segments, &left);
    if (status == SBE_OK)
        status = port->area_extend(port->self, area, map);
    if (status < 0) {
        kill_area(session, area); /* half an area is of no use */
        return status;
    }
    area->segments = (uint16_t)(area->segments + map->segment_count);
    area->missing = left;
    return SBE_OK;
}

int sbe_peer_area_map(struct sbe_session *session, const struct sbe_control *message)
{
    const struct sbe_area_map *map = (const void *)message;
    const struct sbe_port *port = session->config->port;
    uint32_t tail = message->size - (uint32_t)sizeof *map;
    if (map->segment_count != tail / sizeof(struct sbe_segment) ||
        tail % sizeof(struct sbe_segment) != 0 ||
        map->handles > (map->segment_first == 0 ? 1u : 0u))
        return SBE_EBADMSG;
    struct sbe_area **first = areas_of(session, map->context);
    if (first == NULL)
        return SBE_ENOENT;
    if (map->segment_first != 0)
        return extend_area(session, map);
    if (map->size > SIZE_MAX)
        return SBE_ERANGE;
    size_t left = (size_t)map->size;
    int status = SBE_OK;
    if (map->segment_count == 0)
        left = 0;
    else
        status = check_segments(session, map, 0, &left);
    if (status < 0)
        return status;
    struct sbe_area *area;
    status = sbe_area_add(&session->areas, map->area, map->context, map->flags, (size_t)map->size,
                          &area);
    if (status < 0)
        return status;
    area->missing = left;
    status = port->area_attach(port->self, area, map);
    if (status < 0) {
        sbe_area_remove(area);
        return status;
    }
    area->segments = (uint16_t)map->segment_count;
    area->before = first;
    area->next = *first;
    if (area->next != NULL)
        area->next->before = &area->next;
    *first = area;
    return SBE_OK;
}

int sbe_peer_area_unmap(struct sbe_session *session, const struct sbe_control *message)
{
    const struct sbe_area_unmap *body = (const void *)message;
    struct sbe_area *area = sbe_area_find(&session->areas, body->area);
    if (area == NULL || area->dying)
        return SBE_EFAULT;
    area->unmap_id = message->id;
    kill_area(session, area);
    return SBE_REPLIED;
}

/* A message has the geometry in one piece. */
#define SAME_PLACE(field)                                              \
    _Static_assert(offsetof(struct sbe_channel_open, field) -          \
                           offsetof(struct sbe_channel_open, slots) == \
                       offsetof(struct sbe_ring_geometry, field),      \
                   #field)
SAME_PLACE(slots);
SAME_PLACE(slot_size);
SAME_PLACE(line);

/* Both rings inside the area, aligned, and apart from each other. */
static int check_rings(const struct sbe_session *session, const struct sbe_channel_open *open,
                       const struct sbe_area *area)
{
    int64_t size = sbe_ring_size((const void *)&open->slots);
    if (size < 0 || open->line < session->line || open->slots > session->limits.slots ||
        open->slot_size > session->limits.slot_size)
        return SBE_EINVAL;
    size_t room = area->size;
    if ((uint64_t)size > room)
        return SBE_ERANGE;
    room -= (size_t)size;
    if (open->send_offset > room || open->receive_offset > room)
        return SBE_ERANGE;
    size_t send = (size_t)open->send_offset, receive = (size_t)open->receive_offset;
    if (((send | receive) & (open->line - 1)) != 0 ||
        (send < receive ? receive - send : send - receive) < (size_t)size)
        return SBE_EINVAL;
    return SBE_OK;
}

int sbe_peer_channel_open(struct sbe_session *session, const struct sbe_control *message)
{
    const struct sbe_channel_open *open = (const void *)message;
    const struct sbe_session_hooks *hooks = session->config->hooks;
    if (open->channel == 0 || open->priority > 3 || (open->handles != 0 && open->handles != 2))
        return SBE_EINVAL;
    if (areas_of(session, open->context) == NULL)
        return SBE_ENOENT;
    struct sbe_area *ring = sbe_area_find(&session->areas, open->ring_area);
    if (ring == NULL || ring->dying || ring->missing != 0)
        return SBE_EFAULT;
    if (ring->context != open->context || ring->base == NULL ||
        (ring->flags & (SBE_AREA_RING | SBE_AREA_READONLY)) != SBE_AREA_RING)
        return SBE_EACCES;
    int status = check_rings(session, open, ring);
    if (status < 0)
        return status;
    if (find_channel(session, open->channel) != NULL)
        return SBE_EEXIST;
    struct sbe_session_channel *channel = find_channel(session, 0);
    if (channel == NULL)
        return SBE_ENOMEM;
    uint8_t *base = ring->base;
    status = hooks->channel_open(hooks->self, channel, open, base + (size_t)open->receive_offset,
                                 base + (size_t)open->send_offset);
    if (status < 0)
        return status;
    ring->pins++;
    *channel = (struct sbe_session_channel){open->channel, open->context, open->ring_area};
    return SBE_OK;
}

int sbe_peer_channel_close(struct sbe_session *session, const struct sbe_control *message)
{
    const struct sbe_channel_close *body = (const void *)message;
    struct sbe_session_channel *channel =
        body->channel == 0 ? NULL : find_channel(session, body->channel);
    if (channel == NULL)
        return SBE_ENOENT;
    close_channel(session, channel);
    return SBE_OK;
}
