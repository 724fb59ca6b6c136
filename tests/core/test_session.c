/* SPDX-License-Identifier: Apache-2.0 */
/* The control session: two of them wired in memory, and one against a scripted peer. */
#include "core/session.h"

#include <string.h>

#include "check.h"
#include "core/status.h"

#define AREAS     4u
#define CONTEXTS  3u
#define CHANNELS  2u
#define PENDING   4u
#define AREA_SIZE 8192u
#define QUEUE     64u
#define NOTES     64u

#define ID(generation, index) ((uint32_t)(generation) << 16 | (index))

struct mail {
    _Alignas(8) uint8_t bytes[SBE_CONTROL_MAX];
    uint32_t size;
};

struct end {
    struct sbe_session session;
    struct sbe_session_config config;
    struct sbe_session_hooks hooks;
    struct sbe_port port;
    struct sbe_area areas[AREAS];
    struct sbe_session_context contexts[CONTEXTS];
    struct sbe_session_channel channels[CHANNELS];
    struct sbe_session_pending pending[PENDING];

    struct mail queue[QUEUE]; /* sent, not delivered yet */
    uint32_t queued;
    uint32_t sent; /* in total */
    int send_status;

    enum sbe_session_state states[NOTES];
    uint32_t state_count;
    uint32_t attached, detached, opened, closed, events;
    int attach_status, open_status;
    struct sbe_channel_open open;
    void *send, *receive;
    uint32_t closed_id;

    uint32_t replied;
    void *token;
    int status;
    struct mail reply; /* size 0: none came */
    bool ask_again;    /* in `replied`: try another request */
    uint32_t start;    /* in `replied`: start with this epoch */
    int asked_again;

    uint32_t refused;
    enum sbe_refusal why;
    bool theirs;
    uint16_t peer_min, peer_max;
};

static _Alignas(64) uint8_t memory[AREAS][AREA_SIZE];
static struct end host, remote;
static int token_a, token_b;

/* -- one end's port and hooks -------------------------------------------------------------- */

static int control_send(void *self, const void *message, uint32_t size)
{
    struct end *end = self;
    if (end->send_status < 0)
        return end->send_status;
    CHECK(size <= SBE_CONTROL_MAX && size >= sizeof(struct sbe_control));
    CHECK(end->queued < QUEUE);
    memcpy(end->queue[end->queued].bytes, message, size);
    end->queue[end->queued++].size = size;
    end->sent++;
    return SBE_OK;
}

static int area_attach(void *self, struct sbe_area *area, const struct sbe_area_map *message)
{
    struct end *end = self;
    CHECK_EQ(area->id, message->area);
    if (end->attach_status < 0)
        return end->attach_status;
    area->base = memory[SBE_AREA_INDEX(area->id)];
    end->attached++;
    return SBE_OK;
}

static int area_extend(void *self, struct sbe_area *area, const struct sbe_area_map *message)
{
    struct end *end = self;
    CHECK_EQ(area->segments, message->segment_first);
    CHECK(area->missing > 0);
    return end->attach_status;
}

static void area_detach(void *self, struct sbe_area *area)
{
    CHECK_EQ(area->pins, 0);
    ((struct end *)self)->detached++;
}

static int channel_open(void *self, const struct sbe_session_channel *place,
                        const struct sbe_channel_open *message, void *send, void *receive)
{
    struct end *end = self;
    CHECK_EQ(place->id, 0); /* not before it is open */
    if (end->open_status < 0)
        return end->open_status;
    end->open = *message;
    end->send = send;
    end->receive = receive;
    end->opened++;
    return SBE_OK;
}

static void channel_close(void *self, const struct sbe_session_channel *place)
{
    struct end *end = self;
    end->closed++;
    end->closed_id = place->id;
}

static int service(void *self, uint32_t context, const char *name, uint32_t index,
                   struct sbe_service_reply *reply)
{
    (void)self;
    (void)context;
    if (name != NULL ? strcmp(name, "echo") != 0 : index != 0)
        return SBE_ENOENT;
    reply->service = 1;
    reply->version = 3;
    memcpy(reply->name, "echo", 4);
    return SBE_OK;
}

static void state_changed(void *self, enum sbe_session_state state)
{
    struct end *end = self;
    CHECK_EQ(end->session.state, state);
    CHECK(end->state_count < NOTES);
    end->states[end->state_count++] = state;
}

static void refused(void *self, enum sbe_refusal why, bool theirs, uint16_t peer_min,
                    uint16_t peer_max)
{
    struct end *end = self;
    end->refused++;
    end->why = why;
    end->theirs = theirs;
    end->peer_min = peer_min;
    end->peer_max = peer_max;
}

static void replied(void *self, void *token, int status, const struct sbe_control *message)
{
    struct end *end = self;
    end->replied++;
    end->token = token;
    end->status = status;
    end->reply.size = message == NULL ? 0 : message->size;
    if (message != NULL)
        memcpy(end->reply.bytes, message, message->size);
    if (end->ask_again) {
        struct sbe_ping ping = {.cookie = 1};
        end->asked_again = sbe_session_request(&end->session, SBE_CONTROL_PING, &ping.control,
                                               sizeof ping, &token_b);
    }
    uint32_t start = end->start;
    end->start = 0;
    if (start != 0)
        CHECK_EQ(sbe_session_start(&end->session, start), SBE_OK);
}

static void event(void *self, uint32_t what, uint32_t value)
{
    CHECK_EQ(what, SBE_EVENT_CHANNEL_BROKEN);
    CHECK_EQ(value, 77);
    ((struct end *)self)->events++;
}

static void prepare(struct end *end, uint8_t role)
{
    memset(end, 0, sizeof *end);
    end->port = (struct sbe_port){.self = end,
                                  .control_send = control_send,
                                  .area_attach = area_attach,
                                  .area_detach = area_detach};
    end->hooks = (struct sbe_session_hooks){.self = end,
                                            .channel_open = channel_open,
                                            .channel_close = channel_close,
                                            .service = service,
                                            .state_changed = state_changed,
                                            .refused = refused,
                                            .replied = replied,
                                            .event = event};
    end->config = (struct sbe_session_config){
        .port = &end->port,
        .hooks = &end->hooks,
        .name = "test",
        .role = role,
        .coherent = 1,
        .address_bits = 32,
        .version_min = SBE_VERSION_MIN,
        .version_max = SBE_VERSION_MAX,
        .cache_line = 64,
        .limits = {AREAS, CONTEXTS, CHANNELS, 16, 256, 8},
        .areas = end->areas,
        .contexts = end->contexts,
        .channels = end->channels,
        .pending = end->pending,
        .pending_count = PENDING,
    };
}

static void initialise(struct end *end)
{
    CHECK_EQ(sbe_session_init(&end->session, &end->config), SBE_OK);
}

static void prepare_both(void)
{
    prepare(&host, SBE_ROLE_HOST);
    prepare(&remote, SBE_ROLE_REMOTE);
}

/* -- delivery ------------------------------------------------------------------------------ */

static uint32_t handles_of(const struct mail *mail)
{
    const struct sbe_control *control = (const void *)mail->bytes;
    if (control->type == SBE_CONTROL_AREA_MAP)
        return ((const struct sbe_area_map *)(const void *)mail->bytes)->handles;
    if (control->type == SBE_CONTROL_CHANNEL_OPEN)
        return ((const struct sbe_channel_open *)(const void *)mail->bytes)->handles;
    return 0;
}

static struct mail take_mail(struct end *end)
{
    CHECK(end->queued > 0);
    struct mail mail = end->queue[0];
    memmove(end->queue, end->queue + 1, sizeof mail * --end->queued);
    return mail;
}

/* So that what a function leaves unset is not zero by chance. */
static void fill_stack(void)
{
    volatile uint8_t below[2048];
    for (uint32_t i = 0; i < sizeof below; i++)
        below[i] = 0xee;
}

static int deliver_one(struct end *from, struct end *to)
{
    struct mail mail = take_mail(from);
    fill_stack();
    return sbe_session_receive(&to->session, mail.bytes, mail.size, handles_of(&mail));
}

/* Until nothing is under way; a storm of messages fails. */
static void pump(void)
{
    uint32_t limit = 100;
    while (host.queued + remote.queued > 0) {
        CHECK(limit-- > 0);
        if (host.queued > 0)
            deliver_one(&host, &remote);
        if (remote.queued > 0)
            deliver_one(&remote, &host);
    }
}

static void connect_both(void)
{
    prepare_both();
    initialise(&host);
    initialise(&remote);
    CHECK_EQ(sbe_session_start(&host.session, 100), SBE_OK);
    CHECK_EQ(sbe_session_start(&remote.session, 200), SBE_OK);
    pump();
    CHECK_EQ(host.session.state, SBE_SESSION_CONNECTED);
    CHECK_EQ(remote.session.state, SBE_SESSION_CONNECTED);
}

/* -- start, restart, refusal --------------------------------------------------------------- */

static void check_connected(void)
{
    CHECK_EQ(host.session.state, SBE_SESSION_CONNECTED);
    CHECK_EQ(remote.session.state, SBE_SESSION_CONNECTED);
    CHECK_EQ(host.session.peer_epoch, remote.session.epoch);
    CHECK_EQ(remote.session.peer_epoch, host.session.epoch);
    CHECK_EQ(host.session.confirmed_epoch, remote.session.epoch);
    CHECK_EQ(remote.session.confirmed_epoch, host.session.epoch);
    CHECK_EQ(host.session.version, 1);
    CHECK_EQ(host.refused + remote.refused, 0);
}

static void test_start_orders(void)
{
    struct end *ends[] = {&host, &remote};
    for (uint32_t first = 0; first < 2; first++) {
        struct end *early = ends[first], *late = ends[1 - first];
        for (uint32_t lost = 0; lost < 3; lost++) {
            prepare_both();
            initialise(early);
            CHECK_EQ(sbe_session_start(&early->session, 11), SBE_OK);
            if (lost == 0) {
                take_mail(early); /* sent before the other end existed */
            } else if (lost == 1) {
                initialise(late);
                CHECK_EQ(deliver_one(early, late), SBE_ENOTCONN); /* before it started */
            } else {
                initialise(late);
            }
            if (lost == 0)
                initialise(late);
            CHECK_EQ(sbe_session_start(&late->session, 22), SBE_OK);
            pump();
            check_connected();
        }
    }
}

/* Both HELLOs cross; then every interleaving of the deliveries that follow. */
static void test_interleavings(void)
{
    for (uint32_t choices = 0; choices < 1u << 10; choices++) {
        prepare_both();
        initialise(&host);
        initialise(&remote);
        CHECK_EQ(sbe_session_start(&host.session, 11), SBE_OK);
        CHECK_EQ(sbe_session_start(&remote.session, 22), SBE_OK);
        for (uint32_t i = 0; host.queued + remote.queued > 0; i++) {
            CHECK(i < 20);
            bool from_host = (choices >> i & 1) != 0 ? host.queued > 0 : remote.queued == 0;
            if (from_host)
                deliver_one(&host, &remote);
            else
                deliver_one(&remote, &host);
        }
        check_connected();
        CHECK(host.sent + remote.sent <= 8);
    }
}

static void test_agreement(void)
{
    prepare_both();
    host.config.limits = (struct sbe_limits){AREAS, 2, CHANNELS, 16, 256, 4};
    remote.config.limits = (struct sbe_limits){3, CONTEXTS, 1, 8, 512, 8};
    host.config.cache_line = 128;
    host.config.coherent = 0;
    remote.config.address_bits = 40;
    initialise(&host);
    initialise(&remote);
    CHECK_EQ(sbe_session_start(&host.session, 1), SBE_OK);
    CHECK_EQ(sbe_session_start(&remote.session, 2), SBE_OK);
    pump();
    check_connected();
    const struct sbe_limits expected = {3, 2, 1, 8, 256, 4};
    CHECK(memcmp(&host.session.limits, &expected, sizeof expected) == 0);
    CHECK(memcmp(&remote.session.limits, &expected, sizeof expected) == 0);
    CHECK_EQ(host.session.line, 128);
    CHECK_EQ(remote.session.line, 128);
    CHECK(!host.session.areas.coherent && !remote.session.areas.coherent);
    CHECK_EQ(host.session.peer_address_bits, 40);
    CHECK_EQ(remote.session.peer_address_bits, 32);
}

/* A HELLO of a peer that is known changes nothing: channels stand on what was agreed. */
static void test_agreed_once(void)
{
    prepare_both();
    initialise(&host);
    initialise(&remote);
    CHECK_EQ(sbe_session_start(&host.session, 1), SBE_OK);
    struct mail again = host.queue[0];
    CHECK_EQ(sbe_session_start(&remote.session, 2), SBE_OK);
    pump();
    check_connected();
    const struct sbe_session before = remote.session;
    struct sbe_hello *hello = (void *)again.bytes;
    hello->limits = (struct sbe_limits){1, 1, 1, 2, 64, 1};
    hello->cache_line = 1024;
    hello->coherent = 0;
    hello->address_bits = 16;
    CHECK_EQ(sbe_session_receive(&remote.session, again.bytes, again.size, 0), SBE_OK);
    pump();
    check_connected();
    CHECK(memcmp(&remote.session.limits, &before.limits, sizeof before.limits) == 0);
    CHECK_EQ(remote.session.line, before.line);
    CHECK_EQ(remote.session.peer_address_bits, before.peer_address_bits);
    CHECK(remote.session.areas.coherent);
}

static void test_version_agreed(void)
{
    prepare_both();
    host.config.version_min = 1;
    host.config.version_max = 5;
    remote.config.version_min = 2;
    remote.config.version_max = 3;
    initialise(&host);
    initialise(&remote);
    CHECK_EQ(sbe_session_start(&host.session, 1), SBE_OK);
    CHECK_EQ(sbe_session_start(&remote.session, 2), SBE_OK);
    pump();
    CHECK_EQ(host.session.state, SBE_SESSION_CONNECTED);
    CHECK_EQ(host.session.version, 3);
    CHECK_EQ(remote.session.version, 3);
}

/* Versions that do not meet: both ends say so, each with the other's range, and it ends there. */
static void test_version_refused(void)
{
    struct end *ends[] = {&host, &remote};
    for (uint32_t newer = 0; newer < 2; newer++) {
        for (uint32_t first = 0; first < 3; first++) {
            prepare_both();
            ends[newer]->config.version_min = 2;
            ends[newer]->config.version_max = 4;
            initialise(&host);
            initialise(&remote);
            if (first < 2) {
                CHECK_EQ(sbe_session_start(&ends[first]->session, 1), SBE_OK);
                take_mail(ends[first]); /* before the other end listened */
                CHECK_EQ(sbe_session_start(&ends[1 - first]->session, 2), SBE_OK);
            } else {
                CHECK_EQ(sbe_session_start(&host.session, 1), SBE_OK);
                CHECK_EQ(sbe_session_start(&remote.session, 2), SBE_OK);
            }
            pump();
            for (uint32_t i = 0; i < 2; i++) {
                CHECK_EQ(ends[i]->session.state, SBE_SESSION_WAITING);
                CHECK_EQ(ends[i]->why, SBE_REFUSED_VERSION);
                CHECK_EQ(ends[i]->refused, first == 2 ? 2 : 1);
                CHECK_EQ(ends[i]->peer_min, i == newer ? 1 : 2);
                CHECK_EQ(ends[i]->peer_max, i == newer ? 1 : 4);
                if (first < 2)
                    CHECK_EQ(ends[i]->theirs, i != first);
            }
            /* an update of one end, then it works */
            ends[newer]->config.version_min = 1;
            host.refused = remote.refused = 0;
            CHECK_EQ(sbe_session_start(&ends[newer]->session, 3), SBE_OK);
            pump();
            check_connected();
        }
    }
}

static void test_new_epoch(void)
{
    static const enum sbe_session_state RESTARTED[] = {SBE_SESSION_WAITING, SBE_SESSION_INITIALISED,
                                                       SBE_SESSION_CONNECTED};
    connect_both();
    CHECK_EQ(sbe_session_start(&host.session, 100), SBE_EINVAL); /* epochs are not used twice */
    CHECK_EQ(sbe_session_start(&host.session, 0), SBE_EINVAL);
    for (uint32_t epoch = 1000; epoch < 1010; epoch++) {
        remote.state_count = 0;
        CHECK_EQ(sbe_session_start(&host.session, epoch), SBE_OK);
        CHECK_EQ(host.session.state, SBE_SESSION_WAITING);
        pump();
        check_connected();
        CHECK_EQ(remote.state_count, 3);
        CHECK(memcmp(remote.states, RESTARTED, sizeof RESTARTED) == 0);
    }
    /* both at once */
    CHECK_EQ(sbe_session_start(&host.session, 5), SBE_OK);
    CHECK_EQ(sbe_session_start(&remote.session, 6), SBE_OK);
    pump();
    check_connected();
    /* a process that died and came back with no memory of the link */
    initialise(&host);
    host.queued = 0;
    CHECK_EQ(sbe_session_start(&host.session, 7), SBE_OK);
    pump();
    check_connected();
}

static void test_bad_init(void)
{
    prepare_both();
    struct sbe_session session;
    struct sbe_session_config config = host.config;
    config.limits.areas = UINT16_MAX + 1u;
    CHECK_EQ(sbe_session_init(&session, &config), SBE_EINVAL);
    config = host.config;
    config.limits.buffers = SBE_BUFFERS_MAX + 1;
    CHECK_EQ(sbe_session_init(&session, &config), SBE_EINVAL);
    config = host.config;
    config.address_bits = 65;
    CHECK_EQ(sbe_session_init(&session, &config), SBE_EINVAL);
    config.address_bits = 0;
    CHECK_EQ(sbe_session_init(&session, &config), SBE_EINVAL);
}

static void test_lost(void)
{
    connect_both();
    struct sbe_ping ping = {.cookie = 1};
    CHECK_EQ(
        sbe_session_request(&host.session, SBE_CONTROL_PING, &ping.control, sizeof ping, &token_a),
        SBE_OK);
    host.queued = 0; /* the remote died first */
    sbe_session_lost(&host.session);
    CHECK_EQ(host.session.state, SBE_SESSION_WAITING);
    CHECK_EQ(host.replied, 1);
    CHECK(host.token == &token_a);
    CHECK_EQ(host.status, SBE_ECONNRESET);
    CHECK_EQ(host.reply.size, 0);
    initialise(&remote);
    CHECK_EQ(sbe_session_start(&remote.session, 201), SBE_OK);
    pump();
    check_connected();
}

/* -- requests and replies ------------------------------------------------------------------ */

static void test_ping(void)
{
    connect_both();
    struct sbe_ping ping = {.cookie = 0x1122334455667788u};
    CHECK_EQ(
        sbe_session_request(&host.session, SBE_CONTROL_PING, &ping.control, sizeof ping, &token_a),
        SBE_OK);
    pump();
    CHECK_EQ(host.replied, 1);
    CHECK(host.token == &token_a);
    CHECK_EQ(host.status, SBE_OK);
    CHECK_EQ(host.reply.size, sizeof ping);
    CHECK(((struct sbe_ping *)(void *)host.reply.bytes)->cookie == ping.cookie);
}

static void test_pending_full(void)
{
    connect_both();
    struct sbe_ping ping = {.cookie = 1};
    for (uint32_t i = 0; i < PENDING; i++)
        CHECK_EQ(sbe_session_request(&host.session, SBE_CONTROL_PING, &ping.control, sizeof ping,
                                     &token_a),
                 SBE_OK);
    CHECK_EQ(
        sbe_session_request(&host.session, SBE_CONTROL_PING, &ping.control, sizeof ping, &token_a),
        SBE_ENOMEM);
    pump();
    CHECK_EQ(host.replied, PENDING);
    host.send_status = SBE_EAGAIN; /* what could not be sent waits for nothing */
    for (uint32_t i = 0; i < 2 * PENDING; i++)
        CHECK_EQ(sbe_session_request(&host.session, SBE_CONTROL_PING, &ping.control, sizeof ping,
                                     &token_a),
                 SBE_EAGAIN);
    CHECK_EQ(host.replied, PENDING);
}

/* Sends a request of the host and returns the status it was answered with. */
static int request(enum sbe_control_type type, void *message, uint32_t size)
{
    uint32_t before = host.replied;
    CHECK_EQ(sbe_session_request(&host.session, type, message, size, &token_a), SBE_OK);
    pump();
    CHECK_EQ(host.replied, before + 1);
    CHECK(host.token == &token_a);
    return host.status;
}

static int create_context(uint32_t id)
{
    struct sbe_context_message message = {.context = id};
    return request(SBE_CONTROL_CONTEXT_CREATE, &message, sizeof message);
}

static int destroy_context(uint32_t id)
{
    struct sbe_context_message message = {.context = id};
    return request(SBE_CONTROL_CONTEXT_DESTROY, &message, sizeof message);
}

static int map(uint32_t id, uint32_t context, uint32_t flags)
{
    struct sbe_area_map message = {
        .area = id, .context = context, .flags = flags, .size = AREA_SIZE};
    return request(SBE_CONTROL_AREA_MAP, &message, sizeof message);
}

static int unmap(uint32_t id)
{
    struct sbe_area_unmap message = {.area = id};
    return request(SBE_CONTROL_AREA_UNMAP, &message, sizeof message);
}

static struct sbe_channel_open open_message(uint32_t id, uint32_t context, uint32_t area)
{
    return (struct sbe_channel_open){.channel = id,
                                     .context = context,
                                     .ring_area = area,
                                     .slots = 8,
                                     .slot_size = 128,
                                     .line = 64,
                                     .send_offset = 0,
                                     .receive_offset = 4096};
}

static int open_with(struct sbe_channel_open message)
{
    return request(SBE_CONTROL_CHANNEL_OPEN, &message, sizeof message);
}

static int open_channel(uint32_t id, uint32_t context, uint32_t area)
{
    return open_with(open_message(id, context, area));
}

static int close_channel(uint32_t id)
{
    struct sbe_channel_close message = {.channel = id};
    return request(SBE_CONTROL_CHANNEL_CLOSE, &message, sizeof message);
}

static void test_contexts(void)
{
    connect_both();
    CHECK_EQ(create_context(SBE_CONTEXT_GLOBAL), SBE_EINVAL);
    CHECK_EQ(create_context(SBE_CONTEXT_ALL), SBE_EINVAL);
    for (uint32_t i = 1; i <= CONTEXTS; i++)
        CHECK_EQ(create_context(i), SBE_OK);
    CHECK_EQ(create_context(1), SBE_EEXIST);
    CHECK_EQ(create_context(9), SBE_ENOMEM);
    CHECK_EQ(destroy_context(9), SBE_ENOENT);
    CHECK_EQ(destroy_context(SBE_CONTEXT_GLOBAL), SBE_ENOENT);
    CHECK_EQ(destroy_context(SBE_CONTEXT_ALL), SBE_ENOENT);
    CHECK_EQ(destroy_context(2), SBE_OK);
    CHECK_EQ(destroy_context(2), SBE_ENOENT);
    CHECK_EQ(create_context(9), SBE_OK);
}

static void test_areas(void)
{
    connect_both();
    CHECK_EQ(create_context(1), SBE_OK);
    CHECK_EQ(map(ID(1, 0), 1, 0), SBE_OK);
    CHECK_EQ(map(ID(2, 0), 1, 0), SBE_EEXIST);
    CHECK_EQ(map(ID(0, 1), 1, 0), SBE_EINVAL);
    CHECK_EQ(map(ID(1, AREAS), 1, 0), SBE_EINVAL);
    CHECK_EQ(map(ID(1, 1), 2, 0), SBE_ENOENT); /* no such context */
    CHECK_EQ(map(ID(1, 1), 1, SBE_AREA_FLAGS + 1), SBE_EINVAL);
    remote.attach_status = SBE_EPERM;
    CHECK_EQ(map(ID(1, 1), 1, 0), SBE_EPERM);
    remote.attach_status = SBE_OK;
    CHECK_EQ(map(ID(1, 1), SBE_CONTEXT_GLOBAL, 0), SBE_OK);
    CHECK_EQ(remote.attached, 2);
    CHECK_EQ(unmap(ID(2, 0)), SBE_EFAULT);
    CHECK_EQ(unmap(ID(1, 0)), SBE_OK);
    CHECK_EQ(unmap(ID(1, 0)), SBE_EFAULT);
    CHECK_EQ(unmap(0), SBE_EFAULT);
    CHECK_EQ(remote.detached, 1);
}

struct mapped {
    struct sbe_area_map map;
    struct sbe_segment segments[28];
};
_Static_assert(sizeof(struct mapped) == SBE_CONTROL_MAX, "as many segments as a message holds");

static int map_segments(uint32_t count, struct sbe_segment first, struct sbe_segment second)
{
    struct mapped message = {
        .map = {.area = ID(1, 0), .size = AREA_SIZE, .segment_count = count},
        .segments = {first, second},
    };
    uint32_t size = (uint32_t)(sizeof message.map + count * sizeof(struct sbe_segment));
    int status = request(SBE_CONTROL_AREA_MAP, &message, size);
    if (status == SBE_OK)
        CHECK_EQ(unmap(ID(1, 0)), SBE_OK);
    return status;
}

/* Device addresses: all of the area, none twice in the sum, none beyond this end's width. */
static void test_segments(void)
{
    connect_both();
    const uint64_t top = 1ull << 32; /* one past what 32 bits reach */
    const struct sbe_segment none = {0, 0};
#define SEGMENT(address, size) ((struct sbe_segment){address, size})
    CHECK_EQ(map_segments(1, SEGMENT(0, AREA_SIZE), none), SBE_OK);
    CHECK_EQ(map_segments(1, SEGMENT(top - AREA_SIZE, AREA_SIZE), none), SBE_OK);
    CHECK_EQ(map_segments(2, SEGMENT(0, 4096), SEGMENT(top - 4096, 4096)), SBE_OK);
    CHECK_EQ(map_segments(1, SEGMENT(top - AREA_SIZE + 1, AREA_SIZE), none), SBE_ERANGE);
    CHECK_EQ(map_segments(1, SEGMENT(top, AREA_SIZE), none), SBE_ERANGE);
    CHECK_EQ(map_segments(1, SEGMENT(top + 4096, AREA_SIZE), none), SBE_ERANGE);
    CHECK_EQ(map_segments(1, SEGMENT(UINT64_MAX, AREA_SIZE), none), SBE_ERANGE);
    CHECK_EQ(map_segments(2, SEGMENT(0, 4096), SEGMENT(top, 4096)), SBE_ERANGE);
    CHECK_EQ(map_segments(1, SEGMENT(0, 4096), none), SBE_EINVAL); /* too little */
    CHECK_EQ(map_segments(1, SEGMENT(0, AREA_SIZE + 1), none), SBE_EINVAL);
    CHECK_EQ(map_segments(1, SEGMENT(0, UINT64_MAX), none), SBE_EINVAL);
    CHECK_EQ(map_segments(2, SEGMENT(0, AREA_SIZE), SEGMENT(0, 0)), SBE_EINVAL);
    CHECK_EQ(map_segments(2, SEGMENT(0, 4096), SEGMENT(0, UINT64_MAX - 4095)), SBE_EINVAL);
    remote.config.address_bits = 64;
    CHECK_EQ(map_segments(1, SEGMENT(UINT64_MAX - AREA_SIZE + 1, AREA_SIZE), none), SBE_OK);
    CHECK_EQ(map_segments(1, SEGMENT(UINT64_MAX - AREA_SIZE + 2, AREA_SIZE), none), SBE_ERANGE);
    remote.config.address_bits = 1;
    CHECK_EQ(map_segments(1, SEGMENT(0, AREA_SIZE), none), SBE_ERANGE);

    /* the count against the size of the message */
    remote.config.address_bits = 32;
    struct mapped message = {.map = {.area = ID(1, 0), .size = AREA_SIZE}};
    static const uint32_t COUNTS[] = {0, 1, 3, 29, 0x10000002u, UINT32_MAX};
    for (uint32_t i = 0; i < sizeof COUNTS / sizeof COUNTS[0]; i++) {
        message.map.segment_count = COUNTS[i];
        CHECK_EQ(request(SBE_CONTROL_AREA_MAP, &message, sizeof message.map + 32), SBE_EBADMSG);
    }
    message.map.segment_count = 0;
    message.map.segment_first = 1;
    CHECK_EQ(request(SBE_CONTROL_AREA_MAP, &message, sizeof message.map), SBE_EFAULT);
    CHECK_EQ(remote.attached, remote.detached);
}

#define PAGE  4096u
#define PAGES 256u /* of an area whose every page lies elsewhere: 1 MiB */

/* Segments first to first + count of such an area. */
static int map_part(uint32_t first, uint32_t count, uint64_t size)
{
    struct mapped message = {
        .map = {.area = ID(1, 0), .size = size, .segment_first = first, .segment_count = count},
    };
    for (uint32_t i = 0; i < count; i++)
        message.segments[i] = (struct sbe_segment){(first + i) * 2ull * PAGE, PAGE};
    uint32_t bytes = (uint32_t)(sizeof message.map + count * sizeof(struct sbe_segment));
    return request(SBE_CONTROL_AREA_MAP, &message, bytes);
}

static int resolve_first_page(void)
{
    struct sbe_buffer buffer = {.area = ID(1, 0), .direction = SBE_DIR_IN, .size = PAGE};
    return sbe_area_resolve(&remote.session.areas, 1, &buffer);
}

/* A list that takes ten messages: the area is of no use before the last one. */
static void test_map_in_parts(void)
{
    const uint64_t size = PAGES * PAGE;
    connect_both();
    CHECK_EQ(map_part(0, 28, size), SBE_EINVAL); /* a port that takes whole lists only */
    remote.port.area_extend = area_extend;
    for (uint32_t first = 0; first < PAGES; first += 28) {
        CHECK_EQ(map_part(first, PAGES - first < 28 ? PAGES - first : 28, size), SBE_OK);
        CHECK_EQ(resolve_first_page(), first + 28 < PAGES ? SBE_EFAULT : SBE_OK);
    }
    CHECK_EQ(map_part(PAGES, 1, size), SBE_EINVAL); /* complete */
    CHECK_EQ(unmap(ID(1, 0)), SBE_OK);
    CHECK_EQ(map_part(28, 28, size), SBE_EFAULT); /* a part of nothing */

    /* Parts that do not fit together leave what there is as it is. */
    CHECK_EQ(map_part(0, 28, size), SBE_OK);
    CHECK_EQ(map_part(0, 28, size), SBE_EEXIST);
    CHECK_EQ(map_part(27, 28, size), SBE_EINVAL);
    CHECK_EQ(map_part(29, 28, size), SBE_EINVAL);
    CHECK_EQ(map_part(28, 0, size), SBE_EINVAL);
    CHECK_EQ(map_part(28, 28, size + PAGE), SBE_EINVAL);
    CHECK_EQ(map_part(28, 28, size), SBE_OK);
    struct sbe_channel_open open = open_message(1, SBE_CONTEXT_GLOBAL, ID(1, 0));
    CHECK_EQ(open_with(open), SBE_EFAULT); /* no rings in half an area */
    CHECK_EQ(unmap(ID(1, 0)), SBE_OK);     /* a host that thought better of it */
    CHECK_EQ(remote.attached, remote.detached);

    /* A part that is wrong in itself, or that the port refuses, ends the area. */
    CHECK_EQ(map_part(0, 4, 7 * PAGE), SBE_OK);
    CHECK_EQ(map_part(4, 4, 7 * PAGE), SBE_EINVAL); /* more than the area */
    CHECK_EQ(unmap(ID(1, 0)), SBE_EFAULT);
    CHECK_EQ(map_part(0, 4, 7 * PAGE), SBE_OK);
    remote.attach_status = SBE_ENOMEM;
    CHECK_EQ(map_part(4, 3, 7 * PAGE), SBE_ENOMEM);
    remote.attach_status = SBE_OK;
    CHECK_EQ(unmap(ID(1, 0)), SBE_EFAULT);
    CHECK_EQ(remote.attached, remote.detached);

    /* An endless list of crumbs. */
    struct mapped crumbs = {.map = {.area = ID(1, 0), .size = 4 * PAGE, .segment_count = 7}};
    for (uint32_t i = 0; i < 7; i++)
        crumbs.segments[i] = (struct sbe_segment){i * PAGE, 1};
    CHECK_EQ(request(SBE_CONTROL_AREA_MAP, &crumbs, sizeof crumbs.map + 7 * 16), SBE_EINVAL);

    /* A handle comes with the first part or not at all. */
    CHECK_EQ(map_part(0, 28, size), SBE_OK);
    struct mapped late = {.map = {.area = ID(1, 0), .size = size, .segment_first = 28}};
    late.map.segment_count = 1;
    late.map.handles = 1;
    CHECK_EQ(request(SBE_CONTROL_AREA_MAP, &late, sizeof late.map + 16), SBE_EBADMSG);

    /* The peer restarts within a list. */
    prepare(&host, SBE_ROLE_HOST);
    CHECK_EQ(sbe_session_init(&host.session, &host.config), SBE_OK);
    CHECK_EQ(sbe_session_start(&host.session, 77), SBE_OK);
    pump();
    CHECK_EQ(remote.attached, remote.detached);
}

/* Unmap and context destroy are answered when nothing holds the memory any more. */
static void test_pins(void)
{
    connect_both();
    CHECK_EQ(create_context(1), SBE_OK);
    CHECK_EQ(map(ID(1, 0), 1, 0), SBE_OK);
    CHECK_EQ(map(ID(1, 1), 1, 0), SBE_OK);
    struct sbe_area *area = sbe_area_find(&remote.session.areas, ID(1, 0));
    area->pins = 2;

    struct sbe_area_unmap message = {.area = ID(1, 0)};
    CHECK_EQ(sbe_session_request(&host.session, SBE_CONTROL_AREA_UNMAP, &message.control,
                                 sizeof message, &token_b),
             SBE_OK);
    host.replied = 0;
    pump();
    CHECK_EQ(host.replied, 0);
    CHECK(area->dying);
    CHECK_EQ(unmap(ID(1, 0)), SBE_EFAULT);     /* once is enough */
    CHECK_EQ(map(ID(2, 0), 1, 0), SBE_EEXIST); /* its place is not free yet */
    sbe_session_unpin(&remote.session, area);
    pump();
    CHECK(host.token != &token_b);

    struct sbe_context_message destroy = {.context = 1};
    CHECK_EQ(sbe_session_request(&host.session, SBE_CONTROL_CONTEXT_DESTROY, &destroy.control,
                                 sizeof destroy, &token_a),
             SBE_OK);
    host.replied = 0;
    pump();
    CHECK_EQ(host.replied, 0);
    CHECK_EQ(remote.detached, 1);              /* the other area went at once */
    CHECK_EQ(map(ID(1, 2), 1, 0), SBE_ENOENT); /* a dying context takes nothing new */
    CHECK_EQ(create_context(1), SBE_EEXIST);
    CHECK_EQ(destroy_context(1), SBE_ENOENT);

    host.replied = 0;
    sbe_session_unpin(&remote.session, area);
    CHECK_EQ(remote.queued, 2); /* first the unmap, then the destroy */
    CHECK_EQ(deliver_one(&remote, &host), SBE_OK);
    CHECK(host.token == &token_b);
    CHECK_EQ(host.status, SBE_OK);
    CHECK_EQ(deliver_one(&remote, &host), SBE_OK);
    CHECK(host.token == &token_a);
    CHECK_EQ(host.status, SBE_OK);
    CHECK_EQ(remote.detached, 2);
    CHECK_EQ(create_context(1), SBE_OK);
}

static void test_destroy_one_of_two(void)
{
    connect_both();
    for (uint32_t context = 1; context <= 2; context++) {
        CHECK_EQ(create_context(context), SBE_OK);
        CHECK_EQ(map(ID(1, context), context, SBE_AREA_RING), SBE_OK);
        CHECK_EQ(open_channel(context, context, ID(1, context)), SBE_OK);
    }
    CHECK_EQ(map(ID(1, 0), SBE_CONTEXT_GLOBAL, 0), SBE_OK);
    CHECK_EQ(destroy_context(1), SBE_OK);
    CHECK_EQ(remote.closed, 1);
    CHECK_EQ(remote.closed_id, 1);
    CHECK_EQ(remote.detached, 1);
    CHECK_EQ(close_channel(1), SBE_ENOENT);
    CHECK_EQ(unmap(ID(1, 1)), SBE_EFAULT);
    CHECK_EQ(close_channel(2), SBE_OK); /* the bystander kept everything */
    CHECK_EQ(unmap(ID(1, 2)), SBE_OK);
    CHECK_EQ(unmap(ID(1, 0)), SBE_OK);
}

/* Areas come and go in any order, and a context takes its own with it and no others. */
static void test_areas_of_contexts(void)
{
    uint32_t state = 1, owner[AREAS] = {0}, generation = 1;
    bool mapped[AREAS] = {false}, lives[CONTEXTS] = {true}; /* the first is the global one */
    connect_both();
    for (uint32_t step = 0; step < 4000; step++) {
        state = state * 1664525u + 1013904223u;
        uint32_t area = state >> 30, context = (state >> 20) % CONTEXTS, kind = state >> 28 & 3;
        if (kind == 0 && context != 0) {
            CHECK_EQ(lives[context] ? destroy_context(context) : create_context(context), SBE_OK);
            lives[context] = !lives[context];
            for (uint32_t i = 0; i < AREAS; i++)
                mapped[i] = mapped[i] && (owner[i] != context || lives[context]);
        } else if (mapped[area]) {
            const struct sbe_area *found = &remote.session.areas.areas[area];
            CHECK_EQ(found->context, owner[area]);
            CHECK_EQ(unmap(found->id), SBE_OK);
            mapped[area] = false;
        } else if (lives[context]) {
            generation = generation % 0xffff + 1;
            CHECK_EQ(map(ID(generation, area), context, 0), SBE_OK);
            mapped[area] = true;
            owner[area] = context;
        }
        for (uint32_t i = 0; i < AREAS; i++)
            CHECK_EQ(remote.session.areas.areas[i].id != 0, mapped[i]);
    }
    sbe_session_lost(&remote.session);
    CHECK_EQ(remote.attached, remote.detached);
}

/* What is held still when the peer has gone means nothing to the next one's contexts. */
static void test_pins_of_a_former_life(void)
{
    connect_both();
    CHECK_EQ(create_context(1), SBE_OK);
    CHECK_EQ(map(ID(1, 0), 1, 0), SBE_OK);
    CHECK_EQ(map(ID(1, 1), 1, 0), SBE_OK);
    struct sbe_area *one = sbe_area_find(&remote.session.areas, ID(1, 0));
    struct sbe_area *other = sbe_area_find(&remote.session.areas, ID(1, 1));
    one->pins = other->pins = 1;
    struct sbe_context_message destroy = {.context = 1};
    CHECK_EQ(sbe_session_request(&host.session, SBE_CONTROL_CONTEXT_DESTROY, &destroy.control,
                                 sizeof destroy, &token_a),
             SBE_OK);
    pump();
    prepare(&host, SBE_ROLE_HOST);
    initialise(&host);
    CHECK_EQ(sbe_session_start(&host.session, 77), SBE_OK);
    pump();
    CHECK_EQ(map(ID(1, 3), SBE_CONTEXT_GLOBAL, 0), SBE_OK);
    uint32_t sent = remote.sent;
    CHECK_EQ(unmap(ID(1, 3)), SBE_OK);
    CHECK_EQ(remote.sent, sent + 1); /* nothing but that answer */
    CHECK_EQ(create_context(1), SBE_OK);
    CHECK_EQ(map(ID(1, 2), 1, 0), SBE_OK);
    sbe_session_unpin(&remote.session, one);
    sbe_session_unpin(&remote.session, other);
    CHECK_EQ(destroy_context(1), SBE_OK);
    CHECK_EQ(remote.attached, remote.detached);
}

static void test_channels(void)
{
    connect_both();
    CHECK_EQ(create_context(1), SBE_OK);
    CHECK_EQ(map(ID(1, 0), 1, SBE_AREA_RING), SBE_OK);
    CHECK_EQ(map(ID(1, 1), 1, 0), SBE_OK);
    CHECK_EQ(map(ID(1, 2), SBE_CONTEXT_GLOBAL, SBE_AREA_RING), SBE_OK);

    CHECK_EQ(open_channel(0, 1, ID(1, 0)), SBE_EINVAL);
    CHECK_EQ(open_channel(1, 2, ID(1, 0)), SBE_ENOENT);
    CHECK_EQ(open_channel(1, 1, ID(2, 0)), SBE_EFAULT);
    CHECK_EQ(open_channel(1, 1, ID(1, 1)), SBE_EACCES); /* not for rings */
    CHECK_EQ(open_channel(1, 1, ID(1, 2)), SBE_EACCES); /* another context's */
    CHECK_EQ(open_channel(1, SBE_CONTEXT_GLOBAL, ID(1, 0)), SBE_EACCES);
    struct sbe_area *ring = sbe_area_find(&remote.session.areas, ID(1, 0));
    void *base = ring->base;
    ring->base = NULL;
    CHECK_EQ(open_channel(1, 1, ID(1, 0)), SBE_EACCES); /* not reachable here */
    ring->base = base;

    ring->flags |= SBE_AREA_READONLY; /* publishing would fault */
    CHECK_EQ(open_channel(1, 1, ID(1, 0)), SBE_EACCES);
    ring->flags &= ~SBE_AREA_READONLY;

    const uint64_t ring_size = 2 * 64 + 8 * 128;
    for (uint32_t i = 0; i < 16; i++) {
        struct sbe_channel_open open = open_message(1, 1, ID(1, 0));
        int expected = SBE_EINVAL;
        switch (i) {
        case 0:
            open.slots = 7;
            break;
        case 1:
            open.slots = 32;
            break; /* above the agreed limit */
        case 2:
            open.slot_size = 100;
            break;
        case 3:
            open.slot_size = 512;
            break;
        case 4:
            open.line = 32;
            break; /* below the agreed line */
        case 5:
            open.line = 96;
            break;
        case 6:
            open.priority = 4;
            break;
        case 7:
            open.send_offset = 32;
            break;
        case 8:
            open.receive_offset = 4096 + 1;
            break;
        case 9:
            open.receive_offset = 0;
            break; /* one on top of the other */
        case 10:
            open.receive_offset = ring_size - 64;
            break;
        case 11:
            open.slots = 0;
            break;
        case 12:
            open.receive_offset = AREA_SIZE - ring_size + 64;
            expected = SBE_ERANGE;
            break;
        case 13:
            open.send_offset = AREA_SIZE;
            expected = SBE_ERANGE;
            break;
        case 14:
            open.send_offset = 0u - (uint64_t)64;
            expected = SBE_ERANGE;
            break;
        default:
            open.receive_offset = UINT64_MAX & ~63ull;
            expected = SBE_ERANGE;
            break;
        }
        int status = open_with(open);
        if (status != expected)
            fprintf(stderr, "case %u\n", i);
        CHECK_EQ(status, expected);
    }
    CHECK_EQ(remote.opened, 0);
    CHECK_EQ(ring->pins, 0);

    remote.open_status = SBE_ENOMEM;
    CHECK_EQ(open_channel(1, 1, ID(1, 0)), SBE_ENOMEM);
    CHECK_EQ(ring->pins, 0);
    remote.open_status = SBE_OK;
    struct sbe_channel_open open = open_message(1, 1, ID(1, 0));
    open.receive_offset = ring_size; /* back to back, up to the last byte */
    CHECK_EQ(open_with(open), SBE_OK);
    CHECK_EQ(remote.opened, 1);
    CHECK(remote.receive == memory[0]); /* what the opener sends, we receive */
    CHECK(remote.send == memory[0] + ring_size);
    CHECK_EQ(open_with(open), SBE_EEXIST);
    open.channel = 2;
    open.send_offset = AREA_SIZE - ring_size;
    open.receive_offset = AREA_SIZE - 2 * ring_size;
    CHECK_EQ(open_with(open), SBE_OK);
    open.channel = 3;
    CHECK_EQ(open_with(open), SBE_ENOMEM);

    /* a ring holds its area */
    CHECK_EQ(ring->pins, 2);
    CHECK_EQ(close_channel(9), SBE_ENOENT);
    CHECK_EQ(close_channel(0), SBE_ENOENT);
    CHECK_EQ(close_channel(2), SBE_OK);
    struct sbe_area_unmap message = {.area = ID(1, 0)};
    CHECK_EQ(sbe_session_request(&host.session, SBE_CONTROL_AREA_UNMAP, &message.control,
                                 sizeof message, &token_b),
             SBE_OK);
    pump();
    CHECK_EQ(remote.detached, 0);
    open.channel = 4;
    CHECK_EQ(open_with(open), SBE_EFAULT); /* dying */
    struct sbe_channel_close close = {.channel = 1};
    CHECK_EQ(sbe_session_request(&host.session, SBE_CONTROL_CHANNEL_CLOSE, &close.control,
                                 sizeof close, &token_a),
             SBE_OK);
    host.replied = 0;
    pump();
    CHECK_EQ(host.replied, 2); /* the unmap too */
    CHECK_EQ(host.status, SBE_OK);
    CHECK_EQ(remote.detached, 1);
}

static struct sbe_service_reply *service_reply(void)
{
    CHECK_EQ(host.reply.size, sizeof(struct sbe_service_reply));
    return (void *)host.reply.bytes;
}

static int find_service(const char *name, uint32_t context, uint16_t version)
{
    struct sbe_service_find find = {.context = context, .version = version};
    memcpy(find.name, name, strlen(name));
    return request(SBE_CONTROL_SERVICE_FIND, &find, sizeof find);
}

static void test_services(void)
{
    connect_both();
    CHECK_EQ(find_service("echo", SBE_CONTEXT_GLOBAL, 0), SBE_OK);
    CHECK_EQ(service_reply()->service, 1);
    CHECK_EQ(service_reply()->version, 3);
    CHECK(strcmp(service_reply()->name, "echo") == 0);
    CHECK_EQ(find_service("echo", SBE_CONTEXT_GLOBAL, 3), SBE_OK);
    CHECK_EQ(find_service("echo", SBE_CONTEXT_GLOBAL, 4), SBE_ENOTSUP);
    CHECK_EQ(service_reply()->version, 3); /* so that the user can be told */
    CHECK_EQ(find_service("echo", SBE_CONTEXT_GLOBAL, UINT16_MAX), SBE_ENOTSUP);
    CHECK_EQ(find_service("ech", SBE_CONTEXT_GLOBAL, 0), SBE_ENOENT);
    CHECK_EQ(find_service("echo", 9, 0), SBE_OK); /* the hook knows its own contexts */
    CHECK_EQ(find_service("0123456789012345678901234567890", SBE_CONTEXT_GLOBAL, 0), SBE_ENOENT);
    struct sbe_service_list list = {.index = 0};
    CHECK_EQ(request(SBE_CONTROL_SERVICE_LIST, &list, sizeof list), SBE_OK);
    CHECK_EQ(service_reply()->service, 1);
    list.index = 1;
    CHECK_EQ(request(SBE_CONTROL_SERVICE_LIST, &list, sizeof list), SBE_ENOENT);
    list.index = UINT32_MAX;
    CHECK_EQ(request(SBE_CONTROL_SERVICE_LIST, &list, sizeof list), SBE_ENOENT);
}

/* An answer without a service has nothing of the answering end's memory in it. */
static void test_empty_answers(void)
{
    static const struct sbe_service_reply EMPTY;
    const uint32_t begin = sizeof(struct sbe_control);
    struct sbe_service_list list = {.index = 7};
    connect_both();
    CHECK_EQ(request(SBE_CONTROL_SERVICE_LIST, &list, sizeof list), SBE_ENOENT);
    CHECK(memcmp(host.reply.bytes + begin, (const uint8_t *)&EMPTY + begin, sizeof EMPTY - begin) ==
          0);
}

static void test_event(void)
{
    connect_both();
    CHECK_EQ(sbe_session_event(&remote.session, SBE_EVENT_CHANNEL_BROKEN, 77), SBE_OK);
    pump();
    CHECK_EQ(host.events, 1);
    CHECK_EQ(remote.replied + host.replied, 0);
}

/* -- goodbye ------------------------------------------------------------------------------- */

static void fill_remote(void)
{
    CHECK_EQ(create_context(1), SBE_OK);
    CHECK_EQ(map(ID(1, 0), 1, SBE_AREA_RING), SBE_OK);
    CHECK_EQ(map(ID(1, 1), SBE_CONTEXT_GLOBAL, 0), SBE_OK);
    CHECK_EQ(open_channel(5, 1, ID(1, 0)), SBE_OK);
}

static void check_remote_empty(void)
{
    CHECK_EQ(remote.attached, 2);
    CHECK_EQ(remote.detached, 2);
    CHECK_EQ(remote.closed, 1);
    for (uint32_t i = 0; i < AREAS; i++)
        CHECK_EQ(remote.areas[i].id, 0);
    for (uint32_t i = 0; i < CONTEXTS; i++)
        CHECK_EQ(remote.contexts[i].id, 0);
    for (uint32_t i = 0; i < CHANNELS; i++)
        CHECK_EQ(remote.channels[i].id, 0);
}

static void test_bye(void)
{
    connect_both();
    fill_remote();
    host.replied = 0;
    CHECK_EQ(sbe_session_bye(&host.session, &token_b), SBE_OK);
    CHECK_EQ(host.session.state, SBE_SESSION_CLOSING);
    CHECK_EQ(sbe_session_bye(&host.session, &token_b), SBE_ENOTCONN);
    pump();
    CHECK_EQ(host.session.state, SBE_SESSION_CLOSED);
    CHECK_EQ(remote.session.state, SBE_SESSION_CLOSED);
    CHECK_EQ(host.replied, 1);
    CHECK(host.token == &token_b);
    CHECK_EQ(host.status, SBE_OK);
    check_remote_empty();
    CHECK_EQ(sbe_session_start(&host.session, 101), SBE_OK);
    pump();
    check_connected();
}

/* Both say goodbye at once. */
static void test_bye_crossing(void)
{
    connect_both();
    CHECK_EQ(sbe_session_bye(&host.session, &token_a), SBE_OK);
    CHECK_EQ(sbe_session_bye(&remote.session, &token_a), SBE_OK);
    pump();
    CHECK_EQ(host.session.state, SBE_SESSION_CLOSED);
    CHECK_EQ(remote.session.state, SBE_SESSION_CLOSED);
    CHECK_EQ(host.replied, 1);
    CHECK_EQ(remote.replied, 1);
}

/* Who is told that the peer has gone may ask again at once: refused, not lost. */
static void test_ask_while_it_goes(void)
{
    for (uint32_t way = 0; way < 4; way++) {
        connect_both();
        struct sbe_ping ping = {.cookie = 1};
        CHECK_EQ(sbe_session_request(&remote.session, SBE_CONTROL_PING, &ping.control, sizeof ping,
                                     &token_a),
                 SBE_OK);
        remote.queued = 0;
        remote.ask_again = true;
        remote.asked_again = SBE_OK;
        if (way == 0)
            sbe_session_lost(&remote.session);
        else if (way == 1)
            CHECK_EQ(sbe_session_start(&remote.session, 201), SBE_OK);
        else if (way == 2)
            CHECK_EQ(sbe_session_start(&host.session, 101), SBE_OK);
        else
            CHECK_EQ(sbe_session_bye(&host.session, NULL), SBE_OK);
        pump();
        CHECK_EQ(remote.asked_again, SBE_ENOTCONN);
        CHECK_EQ(remote.replied, 1);
        for (uint32_t i = 0; i < PENDING; i++)
            CHECK_EQ(remote.pending[i].id, 0);
    }
}

/* Who is told that the peer has gone may start the next life at once: it stays. */
static void test_start_while_it_goes(void)
{
    for (uint32_t way = 0; way < 4; way++) {
        connect_both();
        struct sbe_ping ping = {.cookie = 1};
        CHECK_EQ(sbe_session_request(&remote.session, SBE_CONTROL_PING, &ping.control, sizeof ping,
                                     &token_a),
                 SBE_OK);
        remote.queued = 0;
        remote.start = 210;
        if (way == 0)
            sbe_session_lost(&remote.session);
        else if (way == 1)
            CHECK_EQ(sbe_session_start(&host.session, 101), SBE_OK);
        else if (way == 2)
            CHECK_EQ(sbe_session_bye(&host.session, NULL), SBE_OK);
        else
            CHECK_EQ(sbe_session_bye(&remote.session, &token_b), SBE_OK);
        pump();
        CHECK_EQ(remote.session.epoch, 210);
        CHECK_EQ(remote.replied, way == 3 ? 2 : 1);
        check_connected();
    }
}

/* The answer to BYE comes last, so that a new life begun in it stays. */
static void test_start_in_bye(void)
{
    connect_both();
    host.start = 101;
    CHECK_EQ(sbe_session_bye(&host.session, &token_a), SBE_OK);
    pump();
    check_connected();
    CHECK_EQ(host.session.epoch, 101);
}

/* An unmap that waited for a pin is not answered to the peer's next life. */
static void test_no_stale_replies(void)
{
    for (uint32_t way = 0; way < 2; way++) {
        connect_both();
        CHECK_EQ(map(ID(1, 0), SBE_CONTEXT_GLOBAL, SBE_AREA_RING), SBE_OK);
        CHECK_EQ(open_channel(5, SBE_CONTEXT_GLOBAL, ID(1, 0)), SBE_OK);
        struct sbe_area_unmap message = {.area = ID(1, 0)};
        CHECK_EQ(sbe_session_request(&host.session, SBE_CONTROL_AREA_UNMAP, &message.control,
                                     sizeof message, &token_b),
                 SBE_OK);
        pump();
        uint32_t sent = remote.sent;
        if (way == 0) {
            sbe_session_lost(&remote.session);
            CHECK_EQ(remote.sent, sent);
        } else {
            CHECK_EQ(sbe_session_start(&remote.session, 201), SBE_OK);
            CHECK_EQ(remote.sent, sent + 1); /* HELLO */
        }
        CHECK_EQ(remote.detached, 1);
    }
}

static void test_lost_before_start(void)
{
    prepare_both();
    initialise(&remote);
    sbe_session_lost(&remote.session);
    CHECK_EQ(remote.session.state, SBE_SESSION_INITIALISING);
}

/* The peer's things go with its epoch, however it ends; twice over changes nothing. */
static void test_everything_goes(void)
{
    for (uint32_t way = 0; way < 4; way++) {
        connect_both();
        fill_remote();
        if (way == 0) {
            sbe_session_lost(&remote.session);
            sbe_session_lost(&remote.session);
        } else if (way == 1) {
            CHECK_EQ(sbe_session_start(&remote.session, 201), SBE_OK);
        } else if (way == 2) {
            CHECK_EQ(sbe_session_start(&host.session, 101), SBE_OK);
            pump();
        } else {
            CHECK_EQ(sbe_session_bye(&host.session, NULL), SBE_OK);
            pump();
        }
        check_remote_empty();
    }
}

/* -- one end against a scripted peer -------------------------------------------------------- */

#define PEER 300u

static struct mail mail_of(uint16_t type, uint32_t size)
{
    struct mail mail = {.size = size};
    struct sbe_control *control = (void *)mail.bytes;
    *control =
        (struct sbe_control){.type = type, .size = (uint16_t)size, .epoch = PEER, .id = 0x4711};
    return mail;
}

static struct mail hello_mail(void)
{
    struct mail mail = mail_of(SBE_CONTROL_HELLO, sizeof(struct sbe_hello));
    struct sbe_hello *hello = (void *)mail.bytes;
    hello->magic = SBE_MAGIC;
    hello->version_min = hello->version_max = 1;
    hello->peer_epoch = 200;
    hello->role = SBE_ROLE_HOST;
    hello->coherent = 1;
    hello->address_bits = 48;
    hello->cache_line = 64;
    hello->limits = (struct sbe_limits){4, 4, 4, 8, 256, 8};
    return mail;
}

static struct mail hello_reply_mail(void)
{
    struct mail mail =
        mail_of(SBE_CONTROL_HELLO | SBE_CONTROL_REPLY, sizeof(struct sbe_hello_reply));
    struct sbe_hello_reply *reply = (void *)mail.bytes;
    reply->magic = SBE_MAGIC;
    reply->version = reply->version_min = reply->version_max = 1;
    reply->peer_epoch = 200;
    return mail;
}

/* A legal message of every type, or its legal reply. */
static struct mail message_of(uint32_t type, bool reply)
{
    static const uint32_t SIZES[][2] = {
        [SBE_CONTROL_BYE] = {16, 16},
        [SBE_CONTROL_PING] = {24, 24},
        [SBE_CONTROL_CONTEXT_CREATE] = {24, 16},
        [SBE_CONTROL_CONTEXT_DESTROY] = {24, 16},
        [SBE_CONTROL_AREA_MAP] = {48, 16},
        [SBE_CONTROL_AREA_UNMAP] = {24, 16},
        [SBE_CONTROL_CHANNEL_OPEN] = {64, 16},
        [SBE_CONTROL_CHANNEL_CLOSE] = {24, 16},
        [SBE_CONTROL_SERVICE_FIND] = {56, 56},
        [SBE_CONTROL_SERVICE_LIST] = {24, 56},
        [SBE_CONTROL_EVENT] = {24, 0},
    };
    if (type == SBE_CONTROL_HELLO)
        return reply ? hello_reply_mail() : hello_mail();
    struct mail mail =
        mail_of((uint16_t)(type | (reply ? SBE_CONTROL_REPLY : 0)), SIZES[type][reply ? 1 : 0]);
    struct sbe_event_message *body = (void *)mail.bytes;
    if (type == SBE_CONTROL_EVENT) {
        body->event = SBE_EVENT_CHANNEL_BROKEN;
        body->value = 77;
    }
    return mail;
}

static int give(const struct mail *mail)
{
    return sbe_session_receive(&remote.session, mail->bytes, mail->size, handles_of(mail));
}

static void reach(enum sbe_session_state state)
{
    struct mail hello = hello_mail(), reply = hello_reply_mail();
    prepare(&remote, SBE_ROLE_REMOTE);
    initialise(&remote);
    if (state >= SBE_SESSION_WAITING)
        CHECK_EQ(sbe_session_start(&remote.session, 200), SBE_OK);
    if (state >= SBE_SESSION_INITIALISED)
        CHECK_EQ(give(&hello), SBE_OK);
    if (state >= SBE_SESSION_CONNECTED)
        CHECK_EQ(give(&reply), SBE_OK);
    if (state >= SBE_SESSION_CLOSING)
        CHECK_EQ(sbe_session_bye(&remote.session, &token_a), SBE_OK);
    if (state == SBE_SESSION_CLOSED) {
        struct mail bye = message_of(SBE_CONTROL_BYE, true);
        ((struct sbe_control *)(void *)bye.bytes)->id = remote.session.next_id;
        CHECK_EQ(give(&bye), SBE_OK);
    }
    CHECK_EQ(remote.session.state, state);
    remote.queued = remote.sent = remote.replied = remote.state_count = 0;
}

struct outcome {
    int status;
    enum sbe_session_state state;
    uint32_t sent; /* messages in answer */
};

/* What message `type` (or its reply, to nothing that was asked) does in each state. */
static struct outcome expected(uint32_t type, bool reply, enum sbe_session_state state)
{
    bool busy = state == SBE_SESSION_CONNECTED || state == SBE_SESSION_CLOSING;
    if (type == SBE_CONTROL_HELLO && !reply) {
        if (state == SBE_SESSION_INITIALISING)
            return (struct outcome){SBE_ENOTCONN, state, 0};
        bool meets = state == SBE_SESSION_WAITING || state == SBE_SESSION_CLOSED;
        return (struct outcome){SBE_OK, meets ? SBE_SESSION_INITIALISED : state, 1};
    }
    if (type == SBE_CONTROL_HELLO) {
        if (state < SBE_SESSION_WAITING || state > SBE_SESSION_CONNECTED)
            return (struct outcome){SBE_ENOTCONN, state, 0};
        return (struct outcome){
            SBE_OK, state == SBE_SESSION_INITIALISED ? SBE_SESSION_CONNECTED : state, 0};
    }
    if (reply && type == SBE_CONTROL_EVENT)
        return (struct outcome){SBE_EBADMSG, state, 0}; /* there is no such thing */
    if (reply || !busy)
        return (struct outcome){SBE_ENOTCONN, state, 0};
    if (type == SBE_CONTROL_BYE)
        return (struct outcome){SBE_OK, SBE_SESSION_CLOSED, 1};
    return (struct outcome){SBE_OK, state, type == SBE_CONTROL_EVENT ? 0 : 1};
}

static void test_all_in_all_states(void)
{
    for (uint32_t state = SBE_SESSION_INITIALISING; state <= SBE_SESSION_CLOSED; state++) {
        for (uint32_t type = SBE_CONTROL_HELLO; type <= SBE_CONTROL_EVENT; type++) {
            for (uint32_t reply = 0; reply < 2; reply++) {
                reach((enum sbe_session_state)state);
                struct mail mail = message_of(type, reply == 1);
                struct outcome outcome = expected(type, reply == 1, (enum sbe_session_state)state);
                int status = give(&mail);
                if (status != outcome.status || remote.session.state != outcome.state)
                    fprintf(stderr, "type %u reply %u in state %u\n", type, reply, state);
                CHECK_EQ(status, outcome.status);
                CHECK_EQ(remote.session.state, outcome.state);
                CHECK_EQ(remote.sent, outcome.sent);
                CHECK_EQ(remote.refused, 0);
            }
        }
    }
}

/* A HELLO with a new epoch in every state: nothing of the old one is left, and it begins anew. */
static void test_new_epoch_in_all_states(void)
{
    for (uint32_t state = SBE_SESSION_WAITING; state <= SBE_SESSION_CLOSED; state++) {
        reach((enum sbe_session_state)state);
        struct mail hello = hello_mail(), reply = hello_reply_mail();
        ((struct sbe_control *)(void *)hello.bytes)->epoch = PEER + 1;
        CHECK_EQ(give(&hello), SBE_OK);
        CHECK_EQ(remote.session.state, SBE_SESSION_INITIALISED);
        CHECK_EQ(remote.session.peer_epoch, PEER + 1);
        CHECK_EQ(remote.replied, state == SBE_SESSION_CLOSING ? 1 : 0); /* our BYE */
        /* the old life may still be on the wire */
        struct mail ping = message_of(SBE_CONTROL_PING, false);
        CHECK_EQ(give(&ping), SBE_ENOTCONN);
        ((struct sbe_control *)(void *)reply.bytes)->epoch = PEER + 1;
        CHECK_EQ(give(&reply), SBE_OK);
        CHECK_EQ(remote.session.state, SBE_SESSION_CONNECTED);
        CHECK_EQ(give(&ping), SBE_ENOTCONN);
        ((struct sbe_control *)(void *)ping.bytes)->epoch = PEER + 1;
        CHECK_EQ(give(&ping), SBE_OK);
    }
}

/* A reply counts only with the id and the type that were asked. */
static void test_wrong_replies(void)
{
    reach(SBE_SESSION_CONNECTED);
    struct sbe_ping ping = {.cookie = 1};
    CHECK_EQ(sbe_session_request(&remote.session, SBE_CONTROL_PING, &ping.control, sizeof ping,
                                 &token_a),
             SBE_OK);
    uint32_t id = remote.session.next_id, dropped = remote.session.dropped;
    for (uint32_t type = SBE_CONTROL_BYE; type <= SBE_CONTROL_EVENT; type++) {
        for (uint32_t wrong = 0; wrong < 4; wrong++) {
            struct mail mail = message_of(type, true);
            struct sbe_control *control = (void *)mail.bytes;
            control->id = wrong == 1 ? id + 1 : wrong == 2 ? 0 : id;
            control->epoch = wrong == 3 ? PEER + 1 : PEER;
            if (type == SBE_CONTROL_EVENT || (type == SBE_CONTROL_PING && wrong == 0))
                continue;
            CHECK_EQ(give(&mail), SBE_ENOTCONN);
            CHECK_EQ(remote.replied, 0);
            CHECK_EQ(remote.session.dropped, ++dropped);
        }
    }
    CHECK_EQ(remote.session.state, SBE_SESSION_CONNECTED);
    struct mail mail = message_of(SBE_CONTROL_PING, true);
    ((struct sbe_control *)(void *)mail.bytes)->id = id;
    CHECK_EQ(give(&mail), SBE_OK);
    CHECK_EQ(remote.replied, 1);
    CHECK_EQ(give(&mail), SBE_ENOTCONN); /* once */

    /* a failure may come without its body */
    CHECK_EQ(sbe_session_request(&remote.session, SBE_CONTROL_PING, &ping.control, sizeof ping,
                                 &token_a),
             SBE_OK);
    mail = mail_of(SBE_CONTROL_PING | SBE_CONTROL_REPLY, sizeof(struct sbe_plain_reply));
    ((struct sbe_control *)(void *)mail.bytes)->id = remote.session.next_id;
    CHECK_EQ(give(&mail), SBE_EBADMSG); /* a success may not */
    ((struct sbe_control *)(void *)mail.bytes)->status = SBE_EPERM;
    CHECK_EQ(give(&mail), SBE_OK);
    CHECK_EQ(remote.status, SBE_EPERM);
}

/* Every message at every size but its own. */
static void test_sizes(void)
{
    reach(SBE_SESSION_CONNECTED);
    for (uint32_t type = 0; type <= SBE_CONTROL_EVENT + 3; type++) {
        for (uint32_t reply = 0; reply < 2; reply++) {
            bool known = type >= SBE_CONTROL_HELLO && type <= SBE_CONTROL_EVENT;
            struct mail legal = known ? message_of(type, reply == 1) : mail_of((uint16_t)type, 16);
            for (uint32_t size = 0; size <= SBE_CONTROL_MAX; size++) {
                struct mail mail = legal;
                struct sbe_control *control = (void *)mail.bytes;
                control->size = (uint16_t)size;
                if (reply == 1)
                    control->type |= SBE_CONTROL_REPLY;
                if ((known && size == legal.size) ||
                    (type == SBE_CONTROL_AREA_MAP && reply == 0 && size >= legal.size))
                    continue;
                CHECK_EQ(sbe_session_receive(&remote.session, mail.bytes, size, 0), SBE_EBADMSG);
            }
            CHECK_EQ(sbe_session_receive(&remote.session, legal.bytes, legal.size + 8, 0),
                     SBE_EBADMSG);
        }
    }
    CHECK_EQ(remote.sent, 0);
    CHECK_EQ(remote.session.state, SBE_SESSION_CONNECTED);
}

static int last_sent_status(void)
{
    CHECK(remote.queued > 0);
    return ((const struct sbe_control *)(const void *)remote.queue[remote.queued - 1].bytes)
        ->status;
}

static void test_handles(void)
{
    reach(SBE_SESSION_CONNECTED);
    for (uint32_t type = SBE_CONTROL_HELLO; type <= SBE_CONTROL_EVENT; type++) {
        struct mail mail = message_of(type, false);
        CHECK_EQ(sbe_session_receive(&remote.session, mail.bytes, mail.size, 1), SBE_EBADMSG);
        CHECK_EQ(sbe_session_receive(&remote.session, mail.bytes, mail.size, UINT32_MAX),
                 SBE_EBADMSG);
    }
    struct mail mail = message_of(SBE_CONTROL_AREA_MAP, false);
    ((struct sbe_area_map *)(void *)mail.bytes)->handles = 1;
    CHECK_EQ(sbe_session_receive(&remote.session, mail.bytes, mail.size, 0), SBE_EBADMSG);
    CHECK_EQ(sbe_session_receive(&remote.session, mail.bytes, mail.size, 2), SBE_EBADMSG);
    CHECK_EQ(sbe_session_receive(&remote.session, mail.bytes, mail.size, 1), SBE_OK);
    CHECK_EQ(remote.attached, 0); /* an area of size 0, answered as such */

    /* more than any such message has, said and sent */
    ((struct sbe_area_map *)(void *)mail.bytes)->handles = 2;
    CHECK_EQ(sbe_session_receive(&remote.session, mail.bytes, mail.size, 2), SBE_OK);
    CHECK_EQ(last_sent_status(), SBE_EBADMSG);
    mail = message_of(SBE_CONTROL_CHANNEL_OPEN, false);
    ((struct sbe_channel_open *)(void *)mail.bytes)->channel = 1;
    static const uint32_t COUNTS[] = {1, 3, 253};
    for (uint32_t i = 0; i < sizeof COUNTS / sizeof COUNTS[0]; i++) {
        ((struct sbe_channel_open *)(void *)mail.bytes)->handles = COUNTS[i];
        CHECK_EQ(sbe_session_receive(&remote.session, mail.bytes, mail.size, COUNTS[i]), SBE_OK);
        CHECK_EQ(last_sent_status(), SBE_EINVAL);
    }
    ((struct sbe_channel_open *)(void *)mail.bytes)->handles = 2;
    CHECK_EQ(sbe_session_receive(&remote.session, mail.bytes, mail.size, 2), SBE_OK);
    CHECK_EQ(last_sent_status(), SBE_EFAULT); /* what is wrong next: no such area */
}

/* Strict from the first version, or what is reserved can never be used. */
static void test_reserved(void)
{
    static const struct {
        uint32_t type;
        bool reply;
        uint32_t from, to;
    } RESERVED[] = {
        {SBE_CONTROL_HELLO, false, 31, 32},
        {SBE_CONTROL_CONTEXT_CREATE, false, 20, 24},
        {SBE_CONTROL_CONTEXT_DESTROY, false, 20, 24},
        {SBE_CONTROL_AREA_UNMAP, false, 20, 24},
        {SBE_CONTROL_CHANNEL_CLOSE, false, 20, 24},
        {SBE_CONTROL_SERVICE_FIND, false, 22, 24},
        {SBE_CONTROL_SERVICE_LIST, false, 20, 24},
        {SBE_CONTROL_SERVICE_FIND, true, 20, 24},
        {SBE_CONTROL_SERVICE_LIST, true, 20, 24},
        /* no end of the name */
        {SBE_CONTROL_SERVICE_FIND, false, 55, 56},
        {SBE_CONTROL_SERVICE_FIND, true, 55, 56},
        {SBE_CONTROL_SERVICE_LIST, true, 55, 56},
    };
    reach(SBE_SESSION_CONNECTED);
    for (uint32_t i = 0; i < sizeof RESERVED / sizeof RESERVED[0]; i++) {
        for (uint32_t at = RESERVED[i].from; at < RESERVED[i].to; at++) {
            struct mail mail = message_of(RESERVED[i].type, RESERVED[i].reply);
            mail.bytes[at] = 0x80;
            CHECK_EQ(give(&mail), SBE_EBADMSG);
        }
    }
    for (uint32_t type = SBE_CONTROL_HELLO; type <= SBE_CONTROL_EVENT; type++) {
        struct mail mail = message_of(type, false);
        struct sbe_control *control = (void *)mail.bytes;
        control->status = -1; /* only replies have a status */
        CHECK_EQ(give(&mail), SBE_EBADMSG);
        control->status = 1;
        CHECK_EQ(give(&mail), SBE_EBADMSG);
        control->type |= SBE_CONTROL_REPLY;
        CHECK_EQ(give(&mail), SBE_EBADMSG);
    }
    CHECK_EQ(remote.sent, 0);
    CHECK_EQ(remote.session.state, SBE_SESSION_CONNECTED);
}

static void refuse_hello(struct mail mail, enum sbe_refusal why)
{
    reach(SBE_SESSION_WAITING);
    CHECK_EQ(give(&mail), SBE_OK);
    CHECK_EQ(remote.session.state, SBE_SESSION_WAITING);
    CHECK_EQ(remote.refused, 1);
    CHECK_EQ(remote.why, why);
    CHECK(!remote.theirs);
    const struct sbe_hello_reply *reply = (const void *)remote.queue[0].bytes;
    CHECK_EQ(remote.queue[0].size, sizeof *reply);
    CHECK_EQ(reply->control.status, SBE_EPROTO);
    CHECK_EQ(reply->version, 0);
    CHECK_EQ(reply->refusal, why);
    CHECK_EQ(reply->version_min, SBE_VERSION_MIN);
    CHECK_EQ(reply->version_max, SBE_VERSION_MAX);
    CHECK_EQ(reply->peer_epoch, PEER);
}

static void test_hello_replies(void)
{
#define WITH(field, value) ((struct sbe_hello_reply *)(void *)mail.bytes)->field = (value)
    for (uint32_t i = 0; i < 8; i++) {
        struct mail mail = hello_reply_mail();
        int status = SBE_EBADMSG;
        switch (i) {
        case 0:
            WITH(magic, 0);
            status = SBE_ENOTCONN;
            break;
        case 1:
            WITH(peer_epoch, 199);
            status = SBE_ENOTCONN;
            break;
        case 2:
            WITH(version, 0);
            break;
        case 3:
            WITH(version, 2);
            break;
        case 4:
            WITH(control.status, SBE_EPROTO);
            break; /* without a reason */
        case 5:
            WITH(refusal, SBE_REFUSED_ROLE), WITH(version_max, 9);
            status = SBE_OK;
            break;
        case 6:
            WITH(refusal, 0x7777);
            status = SBE_OK;
            break; /* of a later version */
        default:
            WITH(control.epoch, PEER + 1);
            status = SBE_OK;
            break; /* not whom we met */
        }
        reach(SBE_SESSION_INITIALISED);
        CHECK_EQ(give(&mail), status);
        CHECK_EQ(remote.session.state, SBE_SESSION_INITIALISED);
        CHECK_EQ(remote.refused, i == 5 || i == 6);
        if (i == 5)
            CHECK_EQ(remote.why, SBE_REFUSED_ROLE);
        if (i == 5)
            CHECK_EQ(remote.peer_max, 9);
        if (i == 6)
            CHECK_EQ(remote.why, SBE_REFUSED_LIMITS);
        mail = hello_reply_mail();
        CHECK_EQ(give(&mail), SBE_OK);
        CHECK_EQ(remote.session.state, SBE_SESSION_CONNECTED);
    }
    /* once connected, no answer to a HELLO takes that back */
    struct mail mail = hello_reply_mail();
    WITH(control.epoch, PEER + 1);
    CHECK_EQ(give(&mail), SBE_OK);
    WITH(refusal, SBE_REFUSED_VERSION);
    CHECK_EQ(give(&mail), SBE_OK);
    CHECK_EQ(remote.refused, 0);
    CHECK_EQ(remote.session.state, SBE_SESSION_CONNECTED);
#undef WITH
}

static void test_refusals(void)
{
#define WITH(field, value) ((struct sbe_hello *)(void *)mail.bytes)->field = (value)
    for (uint32_t i = 0; i < 20; i++) {
        struct mail mail = hello_mail();
        enum sbe_refusal why = SBE_REFUSED_LIMITS;
        switch (i) {
        case 0:
            WITH(magic, 0x31454252);
            why = SBE_REFUSED_MAGIC;
            break;
        case 1:
            WITH(version_min, 2), WITH(version_max, 3);
            why = SBE_REFUSED_VERSION;
            break;
        case 2:
            WITH(version_min, 0), WITH(version_max, 0);
            why = SBE_REFUSED_VERSION;
            break;
        case 3:
            WITH(version_max, 0);
            why = SBE_REFUSED_VERSION;
            break; /* 1 to 0 */
        case 4:
            WITH(role, SBE_ROLE_REMOTE);
            why = SBE_REFUSED_ROLE;
            break;
        case 5:
            WITH(role, 0);
            why = SBE_REFUSED_ROLE;
            break;
        case 6:
            WITH(role, 3);
            why = SBE_REFUSED_ROLE;
            break;
        case 7:
            WITH(cache_line, 8);
            break;
        case 8:
            WITH(cache_line, 96);
            break;
        case 9:
            WITH(cache_line, SBE_LINE_MAX * 2);
            break;
        case 10:
            WITH(cache_line, 0);
            break;
        case 11:
            WITH(address_bits, 0);
            break;
        case 12:
            WITH(address_bits, 65);
            break;
        case 13:
            WITH(limits.areas, 0);
            break;
        case 14:
            WITH(limits.channels, 0);
            break;
        case 15:
            WITH(limits.slots, 1);
            break;
        case 16:
            WITH(limits.slots, 0);
            break;
        case 17:
            WITH(limits.slot_size, 63);
            break;
        case 18:
            WITH(limits.slot_size, 0);
            break;
        default:
            WITH(magic, 0);
            why = SBE_REFUSED_MAGIC;
            break;
        }
        refuse_hello(mail, why);
    }
    struct mail mail = hello_mail();
    WITH(control.epoch, 0); /* no epoch, no answer */
    reach(SBE_SESSION_WAITING);
    CHECK_EQ(give(&mail), SBE_ENOTCONN);
    CHECK_EQ(remote.sent, 0);
    /* none of these is wrong */
    mail = hello_mail();
    WITH(features, UINT32_MAX);
    WITH(limits.contexts, 0);
    WITH(limits.areas, UINT32_MAX);
    WITH(version_max, UINT16_MAX);
    CHECK_EQ(give(&mail), SBE_OK);
    CHECK_EQ(remote.session.state, SBE_SESSION_INITIALISED);
    CHECK_EQ(remote.session.limits.areas, AREAS);
    CHECK_EQ(remote.session.version, 1);
#undef WITH
}

int main(void)
{
    test_start_orders();
    test_interleavings();
    test_agreement();
    test_agreed_once();
    test_version_agreed();
    test_version_refused();
    test_new_epoch();
    test_bad_init();
    test_lost();
    test_ping();
    test_pending_full();
    test_contexts();
    test_areas();
    test_segments();
    test_map_in_parts();
    test_pins();
    test_destroy_one_of_two();
    test_areas_of_contexts();
    test_pins_of_a_former_life();
    test_channels();
    test_services();
    test_empty_answers();
    test_event();
    test_bye();
    test_bye_crossing();
    test_everything_goes();
    test_ask_while_it_goes();
    test_start_while_it_goes();
    test_start_in_bye();
    test_no_stale_replies();
    test_lost_before_start();
    test_all_in_all_states();
    test_new_epoch_in_all_states();
    test_wrong_replies();
    test_sizes();
    test_handles();
    test_reserved();
    test_hello_replies();
    test_refusals();
    return 0;
}
