/* SPDX-License-Identifier: Apache-2.0 */
/* The host: a session, two channels, and how they hear of the remote. */
#include <string.h>

#include "carveout/token.h"
#include "host.h"

struct host host;
static struct sbe_token_reader reader;

/* -- what was asked ---------------------------------------------------------------------------- */

struct host_call *host_new_call(enum kind kind)
{
    for (uint32_t i = 0; i < 2 * CALLS; i++)
        if (!host.calls[i].open) {
            host.calls[i] = (struct host_call){.open = true, .record = world_asked(kind)};
            return &host.calls[i];
        }
    world_fail("more calls than the script may have open", 0);
}

uint32_t host_open_calls(bool control)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < 2 * CALLS; i++)
        count += host.calls[i].open && host.calls[i].control == control;
    return count;
}

bool host_ask(enum sbe_control_type type, struct sbe_control *message, uint32_t size, uint8_t area)
{
    if (host.binding == CARVED && sbe_bootstrap_room(&host.bootstrap, 1) == 0)
        return false;
    struct host_call *call = host_new_call(CONTROL);
    call->control = true;
    call->service = (uint8_t)type;
    call->area = area;
    int status = sbe_session_request(&host.session, type, message, size, call);
    if (status == SBE_OK)
        return true;
    world_fail("a control request is refused", status);
}

bool host_send(uint32_t channel, struct sbe_frame *frame, struct host_call *call)
{
    int status = sbe_channel_room(&host.channels[channel]) == 0
                     ? SBE_EAGAIN
                     : sbe_channel_request(&host.channels[channel], frame, call);
    HOLDS(status == SBE_OK || status == SBE_EAGAIN);
    call->channel = (uint8_t)channel;
    call->transaction = frame->transaction;
    return status == SBE_OK;
}

static void fail_call(void *self, void *owner)
{
    struct host_call *call = owner;
    HOLDS(call->open && !call->control);
    call->open = false;
    world_answered(call->record, *(const int *)self, false);
}

void host_end_calls(uint32_t channel, int status)
{
    if (!host.open[channel])
        return;
    host.open[channel] = false;
    sbe_channel_abort(&host.channels[channel], fail_call, &status);
}

/* -- hooks of the session ---------------------------------------------------------------------- */

static void send_token(uint32_t token)
{
    uint8_t bytes[SBE_TOKEN_MAX];
    uint32_t count = sbe_token_write(token, bytes);
    for (uint32_t i = 0; i < count; i++)
        world_send_byte(REMOTE, bytes[i]);
}

static int control_send(void *self, const void *message, uint32_t size)
{
    (void)self;
    if (host.binding != CARVED) {
        world_send(REMOTE, message, size);
        return SBE_OK;
    }
    int status = sbe_bootstrap_send(&host.bootstrap, message, size);
    if (status == 1)
        send_token(SBE_TOKEN_EVENT(SBE_TOKEN_CONTROL));
    return status < 0 ? status : SBE_OK;
}

static int area_attach(void *self, struct sbe_area *area, const struct sbe_area_map *message)
{
    (void)self, (void)area, (void)message;
    return SBE_ENOTSUP;
}

static void area_detach(void *self, struct sbe_area *area)
{
    (void)self, (void)area;
}

static void doorbell(void *self, const struct sbe_channel *channel)
{
    (void)self;
    if (host.binding != CARVED)
        world_ring(REMOTE, channel->id);
    else
        send_token(SBE_TOKEN_CHANNEL(channel->id));
}

static int channel_open(void *self, const struct sbe_session_channel *place,
                        const struct sbe_channel_open *message, void *send, void *receive)
{
    (void)self, (void)place, (void)message, (void)send, (void)receive;
    return SBE_ENOTSUP;
}

static void channel_close(void *self, const struct sbe_session_channel *place)
{
    (void)self, (void)place;
}

static int service(void *self, uint32_t context, const char *name, uint32_t index,
                   struct sbe_service_reply *reply)
{
    (void)self, (void)context, (void)index;
    reply->service = DOUBLE;
    reply->version = 1;
    return name != NULL && strcmp(name, "double") == 0 ? SBE_OK : SBE_ENOENT;
}

static void state_changed(void *self, enum sbe_session_state state)
{
    (void)self;
    if (state == SBE_SESSION_CONNECTED) {
        host.met = true;
        world_met();
        world_take_orphans();
        host_peer_met();
    } else if (host.met && state != SBE_SESSION_CLOSING) {
        host.met = false;
        host_peer_lost();
    }
}

static void replied(void *self, void *token, int status, const struct sbe_control *message)
{
    struct host_call *call = token;
    (void)self;
    HOLDS(call->open && call->control);
    call->open = false;
    world_answered(call->record, status, status == SBE_OK);
    host_replied(call, status, message);
}

static void event(void *self, uint32_t kind, uint32_t value)
{
    (void)self;
    HOLDS(kind == SBE_EVENT_ANSWERED && (value & 0xffffu) == 0 && host.power_answers > 0);
    host.power_answers--;
}

/* -- hearing of the remote --------------------------------------------------------------------- */

static void start_session(void)
{
    int status = sbe_session_start(&host.session, world_epoch());
    HOLDS(status == SBE_OK || status == SBE_EAGAIN);
}

static void begin(enum binding binding)
{
    host.binding = binding;
    host.port = (struct sbe_port){
        .now_ns = world_now_ns,
        .control_send = control_send,
        .area_attach = area_attach,
        .area_detach = area_detach,
        .doorbell = doorbell,
    };
    host.hooks = (struct sbe_session_hooks){
        .channel_open = channel_open,
        .channel_close = channel_close,
        .service = service,
        .state_changed = state_changed,
        .replied = replied,
        .event = event,
    };
    host.config = (struct sbe_session_config){
        .port = &host.port,
        .hooks = &host.hooks,
        .name = "host",
        .role = SBE_ROLE_HOST,
        .coherent = 1,
        .address_bits = 64,
        .version_min = SBE_VERSION_MIN,
        .version_max = SBE_VERSION_MAX,
        .cache_line = LINE,
        .limits = {4, 2, 2, SLOTS, SLOT_SIZE, SBE_BUFFERS_MAX},
        .areas = host.areas_of_peer,
        .contexts = host.contexts_of_peer,
        .channels = host.channels_of_peer,
        .pending = host.pending,
        .pending_count = PENDING,
    };
    HOLDS(sbe_session_init(&host.session, &host.config) == SBE_OK);
    host.look = binding == CARVED;
    if (binding == CARVED)
        HOLDS(sbe_bootstrap_start(&host.bootstrap, world_window(), SBE_ROLE_HOST, world_epoch()) ==
              SBE_OK);
}

static void lost(void)
{
    sbe_session_lost(&host.session);
}

static void take_message(const void *message, uint32_t size)
{
    int status = sbe_session_receive(&host.session, message, size, 0);
    HOLDS(status == SBE_OK || status == SBE_ENOTCONN);
}

static void take_bell(uint32_t id)
{
    for (uint32_t i = 0; i < CHANNELS; i++)
        if (host.channel_ids[i] == id)
            host.rung[i] = true;
}

static void take_byte(uint8_t byte)
{
    uint32_t token;
    if (!sbe_token_read(&reader, byte, &token))
        return;
    if (SBE_TOKEN_IS_EVENT(token))
        host.look = true;
    else
        take_bell(SBE_TOKEN_VALUE(token));
}

/* As much of the control side as there is. */
static void look(void)
{
    uint64_t message[SBE_CONTROL_MAX / sizeof(uint64_t)];
    bool ring_peer;
    int status;
    host.look = false;
    status = sbe_bootstrap_look(&host.bootstrap);
    if (status == SBE_ECONNRESET) {
        lost();
        status = sbe_bootstrap_look(&host.bootstrap);
    }
    if (status == 1)
        start_session();
    while ((status = sbe_bootstrap_receive(&host.bootstrap, message, &ring_peer)) > 0) {
        if (ring_peer)
            send_token(SBE_TOKEN_EVENT(SBE_TOKEN_CONTROL));
        take_message(message, (uint32_t)status);
    }
    HOLDS(status == 0);
    if (host.bootstrap.changed) {
        host.bootstrap.changed = false;
        send_token(SBE_TOKEN_EVENT(SBE_TOKEN_BLOCK));
    }
}

/* -- channels ---------------------------------------------------------------------------------- */

void host_open(uint32_t channel, const struct host_area *rings)
{
    const struct sbe_ring_geometry geometry = {SLOTS, SLOT_SIZE, LINE};
    const struct sbe_channel_config config = {
        .id = host.channel_ids[channel],
        .context = rings->context,
        .geometry = geometry,
        .send = rings->block,
        .receive = rings->block + RING,
        .port = &host.port,
        .areas = &host.session.areas,
        .calls = host.calls_of[channel],
        .call_count = CALLS,
    };
    sbe_ring_clear(rings->block, &geometry, UINT32_MAX - 2); /* wraps soon */
    sbe_ring_clear(rings->block + RING, &geometry, UINT32_MAX - 2);
    HOLDS(sbe_channel_open(&host.channels[channel], &config) == SBE_OK);
    host.open[channel] = host.rung[channel] = true;
}

/* The one service of this end: the payload's bytes, each plus one. */
static void serve(struct sbe_channel *channel, struct sbe_frame *request)
{
    uint8_t reply[SLOT_SIZE];
    const uint8_t *payload = request->payload;
    HOLDS(request->service == DOUBLE && request->status == SBE_OK && request->buffer_count == 0);
    for (uint32_t i = 0; i < request->payload_size; i++)
        reply[i] = (uint8_t)(payload[i] + 1);
    struct sbe_frame response = {
        .type = SBE_FRAME_RESPONSE,
        .transaction = request->transaction,
        .payload = reply,
        .payload_size = request->payload_size,
    };
    HOLDS(sbe_channel_send(channel, &response) == SBE_OK);
}

/* False: nothing to do before the next doorbell. */
static bool serve_channel(uint32_t which)
{
    struct sbe_channel *channel = &host.channels[which];
    host.rung[which] = false;
    for (uint32_t i = 0; i < 4; i++) {
        if (sbe_channel_room(channel) == 0)
            return !sbe_channel_wait_room(channel);
        int status = sbe_channel_receive(channel, &host.frame, host.scratch);
        HOLDS(status == 0 || status == 1); /* no frame is malformed, none answers nothing */
        if (status == 0)
            return !sbe_channel_idle(channel);
        if (host.frame.type == SBE_FRAME_RESPONSE) {
            struct host_call *call = host.frame.owner;
            HOLDS(call->open && !call->control);
            call->open = false;
            host_answered(call, host.frame.status, &host.frame);
        } else if (host.frame.type == SBE_FRAME_REQUEST) {
            serve(channel, &host.frame);
            sbe_channel_flush(channel);
        } else {
            HOLDS(host.frame.type == SBE_FRAME_CANCEL);
        }
    }
    return true;
}

static bool run(void)
{
    bool more = false;
    if (host.binding == CARVED && host.look)
        look();
    for (uint32_t i = 0; i < CHANNELS; i++)
        if (host.open[i] && host.rung[i] && serve_channel(i))
            more = host.rung[i] = true;
    more = host_go_on() || more || host.look;
    for (uint32_t i = 0; i < CHANNELS; i++)
        if (host.open[i])
            sbe_channel_flush(&host.channels[i]);
    return more;
}

static uint32_t holds(void)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < PENDING; i++)
        count += host.pending[i].id != 0;
    for (uint32_t i = 0; i < AREAS; i++)
        count += host.areas[i].block != NULL;
    return count + host_open_calls(false) + host_open_calls(true);
}

const struct end end = {
    .begin = begin,
    .connected = start_session,
    .lost = lost,
    .take_message = take_message,
    .take_bell = take_bell,
    .take_byte = take_byte,
    .run = run,
    .finished = host_at_end,
    .holds = holds,
};
