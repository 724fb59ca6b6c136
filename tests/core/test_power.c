/* SPDX-License-Identifier: Apache-2.0 */
/* Suspend, resume and frequency: an engine with one channel, and a host that is a bare session. */
#include "power/power.h"

#include <string.h>

#include "check.h"
#include "core/status.h"
#include "no_offer.h"

#define AREAS     4u
#define AREA_SIZE 16384u
#define SLOTS     8u
#define SLOT_SIZE 256u
#define QUEUE     64u
#define RINGS     ((1u << 16) | 0u)
#define DATA      ((1u << 16) | 1u)

struct mail {
    _Alignas(8) uint8_t bytes[SBE_CONTROL_MAX];
    uint32_t size;
};

struct end {
    struct sbe_port port;
    struct sbe_area areas[AREAS];
    struct sbe_session_context contexts[1];
    struct sbe_session_channel session_channels[1];
    struct sbe_session_pending pending[4];
    struct mail out[QUEUE];
    uint32_t count;
    bool deaf; /* what it sends is refused */
};

static struct {
    struct end end;
    struct sbe_engine engine;
    struct sbe_engine_config config;
    struct sbe_engine_channel channels[1];
    _Alignas(8) uint8_t scratch_in[SLOT_SIZE], scratch_out[SLOT_SIZE];
    struct sbe_channel *opened;
    struct sbe_power power;
    struct sbe_power_hooks hooks;
    uint32_t suspends, resumes, khz;
    int answer; /* of the hooks */
    uint32_t handled, ended;
    int status; /* with which it ended */
} remote;

static struct {
    struct end end;
    struct sbe_session session;
    struct sbe_session_config config;
    struct sbe_session_hooks hooks;
    struct sbe_channel channel;
    struct sbe_call calls[SLOTS];
    uint8_t scratch[SLOT_SIZE];
    uint32_t replied, events, event, value;
    int status;
} host;

static _Alignas(64) uint8_t memory[AREAS][AREA_SIZE];
static uint32_t last_epoch;
static struct sbe_kept kept;
static uint8_t kept_scratch[SLOT_SIZE];

/* -- both ends ----------------------------------------------------------------------------- */

static int post(void *self, const void *message, uint32_t size)
{
    struct end *end = self;
    if (end->deaf)
        return SBE_EAGAIN;
    CHECK(end->count < QUEUE);
    memcpy(end->out[end->count].bytes, message, size);
    end->out[end->count++].size = size;
    return SBE_OK;
}

static uint64_t now_ns(void *self)
{
    (void)self;
    return 0;
}

static int attach(void *self, struct sbe_area *area, const struct sbe_area_map *message)
{
    (void)self, (void)message;
    area->base = memory[SBE_AREA_INDEX(area->id)];
    return SBE_OK;
}

static void detach(void *self, struct sbe_area *area)
{
    (void)self;
    CHECK_EQ(area->pins, 0);
}

static void ring_host(void *self, const struct sbe_channel *channel)
{
    (void)self, (void)channel;
}

static void ring_remote(void *self, const struct sbe_channel *channel)
{
    (void)self, (void)channel;
    if (remote.opened != NULL)
        sbe_engine_doorbell(&remote.engine, remote.opened);
}

static int opened(void *self, struct sbe_channel *channel, const struct sbe_channel_open *message)
{
    (void)self, (void)message;
    remote.opened = channel;
    return SBE_OK;
}

static void closed(void *self, struct sbe_channel *channel)
{
    (void)self, (void)channel;
    remote.opened = NULL;
}

static void replied(void *self, void *token, int status, const struct sbe_control *message)
{
    (void)self, (void)token, (void)message;
    host.replied++;
    host.status = status;
}

static void heard(void *self, uint32_t event, uint32_t value)
{
    (void)self;
    host.events++;
    host.event = event;
    host.value = value;
}

static void pump(void)
{
    while (host.end.count + remote.end.count > 0) {
        struct end *from = remote.end.count > 0 ? &remote.end : &host.end;
        struct mail mail = from->out[0];
        memmove(from->out, from->out + 1, sizeof mail * --from->count);
        struct sbe_session *to = from == &remote.end ? &host.session : &remote.engine.session;
        (void)sbe_session_receive(to, mail.bytes, mail.size, 0);
    }
}

/* -- the remote ---------------------------------------------------------------------------- */

static int handle(struct sbe_request *request)
{
    (void)request;
    CHECK(!sbe_power_suspended(&remote.power));
    remote.handled++;
    return SBE_OK;
}

static int keep(struct sbe_request *request)
{
    int status = sbe_request_keep(request, &kept, kept_scratch, sizeof kept_scratch);
    return status < 0 ? status : SBE_KEPT;
}

static void cancel(struct sbe_kept *of)
{
    (void)of;
}

/* What lasts: asked whether it can rest, then told, each time by both of its services. */
static struct {
    int answer;
    uint32_t asked, told, told_after; /* the board's hook */
} lasting;

static int rest(const struct sbe_engine *engine, bool now)
{
    CHECK(engine == &remote.engine);
    lasting.asked += !now;
    lasting.told += now;
    if (now)
        lasting.told_after = remote.suspends;
    return lasting.answer;
}

static const struct sbe_service HANDLE = {"handle", 1, handle, NULL, NULL};
static const struct sbe_service KEEP = {"keep", 1, keep, cancel, NULL};
static const struct sbe_service LAST = {"last", 1, keep, cancel, rest};
static const struct sbe_service *const TABLE[] = {&HANDLE, &KEEP, &LAST};

static int board_suspend(void *self)
{
    CHECK(self == &remote);
    remote.suspends++;
    return remote.answer;
}

static int board_resume(void *self)
{
    CHECK(self == &remote);
    remote.resumes++;
    return remote.answer;
}

static int board_frequency(void *self, uint32_t khz)
{
    CHECK(self == &remote);
    remote.khz = khz;
    return remote.answer;
}

static void take_event(void *self, uint32_t event, uint32_t value)
{
    CHECK(self == &remote.engine);
    sbe_power_event(&remote.power, event, value);
}

static void asked(void *self, int status)
{
    CHECK(self == &remote.ended);
    remote.ended++;
    remote.status = status;
}

static int ask_host(enum sbe_event event, uint32_t value)
{
    return sbe_power_ask(&remote.power, event, value, asked, &remote.ended);
}

static void run(void)
{
    uint32_t rounds = 0;
    while (sbe_power_run(&remote.power))
        CHECK(++rounds < 1000);
}

/* -- the host ------------------------------------------------------------------------------ */

static struct sbe_session_config session_of(struct end *end, uint8_t role)
{
    end->port = (struct sbe_port){.self = end,
                                  .now_ns = now_ns,
                                  .control_send = post,
                                  .area_attach = attach,
                                  .area_detach = detach,
                                  .doorbell = role == SBE_ROLE_HOST ? ring_remote : ring_host};
    return (struct sbe_session_config){.port = &end->port,
                                       .name = "power",
                                       .role = role,
                                       .coherent = 1,
                                       .address_bits = 64,
                                       .version_min = SBE_VERSION_MIN,
                                       .version_max = SBE_VERSION_MAX,
                                       .cache_line = 64,
                                       .limits = {AREAS, 1, 1, SLOTS, SLOT_SIZE, SBE_BUFFERS_MAX},
                                       .areas = end->areas,
                                       .contexts = end->contexts,
                                       .channels = end->session_channels,
                                       .pending = end->pending,
                                       .pending_count = 4};
}

static int request(enum sbe_control_type type, void *message, uint32_t size)
{
    uint32_t before = host.replied;
    CHECK_EQ(sbe_session_request(&host.session, type, message, size, NULL), SBE_OK);
    pump();
    CHECK_EQ(host.replied, before + 1);
    return host.status;
}

static int map(uint32_t area, uint32_t flags)
{
    struct sbe_area_map message = {.area = area, .flags = flags, .size = AREA_SIZE};
    return request(SBE_CONTROL_AREA_MAP, &message, sizeof message);
}

static void start_host(void)
{
    CHECK_EQ(sbe_session_start(&host.session, ++last_epoch), SBE_OK);
    pump();
    CHECK_EQ(host.session.state, SBE_SESSION_CONNECTED);
    CHECK_EQ(remote.engine.session.state, SBE_SESSION_CONNECTED);
}

static void open_channel(void)
{
    struct sbe_ring_geometry geometry = {SLOTS, SLOT_SIZE, 64};
    uint8_t *rings = memory[0];
    CHECK_EQ(map(RINGS, SBE_AREA_RING | SBE_AREA_COHERENT), SBE_OK);
    CHECK_EQ(map(DATA, SBE_AREA_COHERENT), SBE_OK);
    sbe_ring_clear(rings, &geometry, 0);
    sbe_ring_clear(rings + AREA_SIZE / 2, &geometry, 0);
    struct sbe_channel_config config = {.id = 1,
                                        .geometry = geometry,
                                        .send = rings,
                                        .receive = rings + AREA_SIZE / 2,
                                        .port = &host.end.port,
                                        .areas = &host.session.areas,
                                        .calls = host.calls,
                                        .call_count = SLOTS};
    CHECK_EQ(sbe_channel_open(&host.channel, &config), SBE_OK);
    struct sbe_channel_open message = {.channel = 1,
                                       .ring_area = RINGS,
                                       .slots = SLOTS,
                                       .slot_size = SLOT_SIZE,
                                       .line = 64,
                                       .receive_offset = AREA_SIZE / 2};
    CHECK_EQ(request(SBE_CONTROL_CHANNEL_OPEN, &message, sizeof message), SBE_OK);
    run(); /* it asks for a doorbell */
}

static void begin(bool board)
{
    memset(&remote, 0, sizeof remote);
    memset(&host, 0, sizeof host);
    memset(&lasting, 0, sizeof lasting);
    memset(memory, 0, sizeof memory);
    remote.config = (struct sbe_engine_config){.services = TABLE,
                                               .service_count = 3,
                                               .channels = remote.channels,
                                               .scratch_in = remote.scratch_in,
                                               .scratch_out = remote.scratch_out,
                                               .port = &remote.end.port,
                                               .opened = opened,
                                               .closed = closed,
                                               .session = session_of(&remote.end, SBE_ROLE_REMOTE)};
    CHECK_EQ(sbe_engine_init(&remote.engine, &remote.config), SBE_OK);
    remote.hooks = (struct sbe_power_hooks){&remote, board_suspend, board_resume, board_frequency};
    sbe_power_init(&remote.power, &remote.engine, board ? &remote.hooks : NULL);
    remote.engine.hooks.event = take_event;
    host.config = session_of(&host.end, SBE_ROLE_HOST);
    host.hooks = (struct sbe_session_hooks){.channel_open = no_channel,
                                            .channel_close = no_close,
                                            .service = no_service,
                                            .replied = replied,
                                            .event = heard};
    host.config.hooks = &host.hooks;
    CHECK_EQ(sbe_session_init(&host.session, &host.config), SBE_OK);
    CHECK_EQ(sbe_session_start(&remote.engine.session, ++last_epoch), SBE_OK);
    start_host();
    open_channel();
}

static void send(uint16_t service)
{
    static struct sbe_outcall calls[SLOTS];
    static uint32_t next;
    struct sbe_frame frame = {.type = SBE_FRAME_REQUEST, .service = service};
    CHECK_EQ(sbe_channel_request(&host.channel, &frame, &calls[next++ % SLOTS]), SBE_OK);
    sbe_channel_flush(&host.channel);
}

/* Takes the responses that are there; how many. */
static uint32_t take(void)
{
    struct sbe_frame frame;
    uint32_t count = 0;
    while (sbe_channel_receive(&host.channel, &frame, host.scratch) == 1) {
        CHECK_EQ(frame.status, SBE_OK);
        count++;
    }
    return count;
}

/* The remote's answer: a positive errno. */
static uint32_t ask(enum sbe_event event, uint32_t value)
{
    uint32_t before = host.events;
    CHECK_EQ(sbe_session_event(&host.session, event, value), SBE_OK);
    pump();
    CHECK_EQ(host.events, before + 1);
    CHECK_EQ(host.event, SBE_EVENT_ANSWERED);
    CHECK_EQ(host.value >> SBE_ANSWERED_SHIFT, event);
    return host.value & 0xffffu;
}

static void tell(uint32_t event, uint32_t value)
{
    CHECK_EQ(sbe_session_event(&host.session, event, value), SBE_OK);
    pump();
}

/* -- tests --------------------------------------------------------------------------------- */

static void calls_wait_in_the_rings(bool board)
{
    begin(board);
    CHECK_EQ(ask(SBE_EVENT_SUSPEND, 0), 0);
    CHECK(sbe_power_suspended(&remote.power));
    for (uint32_t i = 0; i < 5; i++)
        send(1);
    run();
    CHECK_EQ(remote.handled, 0);
    CHECK_EQ(take(), 0);
    CHECK_EQ(ask(SBE_EVENT_SUSPEND, 7), 0); /* asking twice is fine */
    CHECK_EQ(ask(SBE_EVENT_RESUME, 0), 0);
    run(); /* nothing rings, and all is done */
    CHECK_EQ(remote.handled, 5);
    CHECK_EQ(take(), 5);
    CHECK_EQ(ask(SBE_EVENT_RESUME, 0), 0);
    CHECK_EQ(remote.suspends, board ? 1 : 0);
    CHECK_EQ(remote.resumes, board ? 1 : 0);
}

/* Frames that the engine knew of before, and none that rang. */
static void work_at_hand_waits_too(void)
{
    begin(true);
    send(1);
    CHECK_EQ(ask(SBE_EVENT_SUSPEND, 0), 0);
    run();
    CHECK_EQ(remote.handled, 0);
    CHECK_EQ(ask(SBE_EVENT_RESUME, 0), 0);
    run();
    CHECK_EQ(remote.handled, 1);
    send(1);
    run();
    CHECK_EQ(remote.handled, 2);
}

static void what_lasts_can_rest(void)
{
    begin(true);
    send(3);
    run();
    lasting.answer = SBE_EBUSY;
    CHECK_EQ(ask(SBE_EVENT_SUSPEND, 0), 16);
    CHECK_EQ(remote.suspends, 0); /* the board is not even asked */
    CHECK(!sbe_power_suspended(&remote.power));
    lasting.answer = SBE_OK;
    remote.answer = SBE_EIO; /* the board refuses: nothing was brought to rest */
    CHECK_EQ(ask(SBE_EVENT_SUSPEND, 0), 5);
    CHECK_EQ(lasting.asked, 2);
    CHECK_EQ(lasting.told, 0);
    remote.answer = SBE_OK;
    CHECK_EQ(ask(SBE_EVENT_SUSPEND, 0), 0);
    CHECK_EQ(lasting.told, 1);
    CHECK_EQ(lasting.told_after, 2);
    CHECK_EQ(ask(SBE_EVENT_SUSPEND, 0), 0); /* twice is once */
    CHECK_EQ(lasting.told, 1);
    CHECK_EQ(sbe_kept_answer(&kept, SBE_OK, NULL, 0), SBE_OK);
}

static void a_board_decides(void)
{
    begin(true);
    remote.answer = SBE_EBUSY;
    CHECK_EQ(ask(SBE_EVENT_SUSPEND, 0), 16);
    CHECK(!sbe_power_suspended(&remote.power));
    CHECK_EQ(ask(SBE_EVENT_FREQUENCY, 48000), 16);
    remote.answer = SBE_OK;
    CHECK_EQ(ask(SBE_EVENT_FREQUENCY, 96000), 0);
    CHECK_EQ(remote.khz, 96000);
    CHECK_EQ(ask(SBE_EVENT_SUSPEND, 0), 0);
    remote.answer = SBE_EIO;
    CHECK_EQ(ask(SBE_EVENT_RESUME, 0), 5);
    CHECK(sbe_power_suspended(&remote.power)); /* it could not */
    CHECK_EQ(ask(SBE_EVENT_FREQUENCY, 0), 5);
    CHECK_EQ(remote.khz, 0);
    begin(false);
    CHECK_EQ(ask(SBE_EVENT_FREQUENCY, 48000), 95);
}

static void a_kept_request_is_in_the_way(void)
{
    begin(true);
    send(2);
    run();
    CHECK_EQ(ask(SBE_EVENT_SUSPEND, 0), 16);
    CHECK_EQ(remote.suspends, 0);
    CHECK_EQ(sbe_kept_answer(&kept, SBE_OK, NULL, 0), SBE_OK);
    CHECK_EQ(ask(SBE_EVENT_SUSPEND, 0), 0);
}

static void control_goes_on(void)
{
    struct sbe_ping ping = {.cookie = 5};
    struct sbe_area_unmap unmap = {.area = DATA};
    struct sbe_channel_close close = {.channel = 1};
    begin(true);
    CHECK_EQ(ask(SBE_EVENT_SUSPEND, 0), 0);
    send(1);
    CHECK_EQ(request(SBE_CONTROL_PING, &ping, sizeof ping), SBE_OK);
    CHECK_EQ(request(SBE_CONTROL_AREA_UNMAP, &unmap, sizeof unmap), SBE_OK);
    CHECK_EQ(request(SBE_CONTROL_CHANNEL_CLOSE, &close, sizeof close), SBE_OK);
    unmap.area = RINGS;
    CHECK_EQ(request(SBE_CONTROL_AREA_UNMAP, &unmap, sizeof unmap), SBE_OK);
    CHECK(sbe_power_suspended(&remote.power));
    CHECK_EQ(ask(SBE_EVENT_RESUME, 0), 0);
    run();
    CHECK_EQ(remote.handled, 0);
}

static void the_loss_of_the_host_resumes(void)
{
    begin(true);
    CHECK_EQ(ask(SBE_EVENT_SUSPEND, 0), 0);
    start_host(); /* a new epoch */
    CHECK(!sbe_power_suspended(&remote.power));
    open_channel();
    CHECK_EQ(remote.resumes, 1);
    send(1);
    run();
    CHECK_EQ(remote.handled, 1);
    CHECK_EQ(ask(SBE_EVENT_SUSPEND, 0), 0);
    remote.answer = SBE_EIO; /* nobody hears that */
    sbe_session_lost(&remote.engine.session);
    CHECK(!sbe_power_suspended(&remote.power));
    run();
    CHECK_EQ(remote.resumes, 2);
    run();
    CHECK_EQ(remote.resumes, 2);
    begin(true);
    CHECK_EQ(ask(SBE_EVENT_SUSPEND, 0), 0);
    CHECK_EQ(sbe_session_bye(&host.session, NULL), SBE_OK);
    pump();
    run();
    CHECK_EQ(remote.resumes, 1);
}

static void this_end_asks(void)
{
    begin(true);
    CHECK_EQ(ask_host(SBE_EVENT_CHANNEL_BROKEN, 1), SBE_EINVAL);
    CHECK_EQ(ask_host(SBE_EVENT_ANSWERED, 1), SBE_EINVAL);
    tell(SBE_EVENT_ANSWERED, SBE_EVENT_RESUME << SBE_ANSWERED_SHIFT); /* to nothing */
    CHECK_EQ(ask_host(SBE_EVENT_FREQUENCY, 1200000), SBE_OK);
    CHECK_EQ(ask_host(SBE_EVENT_RESUME, 0), SBE_EBUSY);
    pump();
    CHECK_EQ(host.event, SBE_EVENT_FREQUENCY);
    CHECK_EQ(host.value, 1200000);
    tell(SBE_EVENT_ANSWERED, SBE_EVENT_RESUME << SBE_ANSWERED_SHIFT); /* to something else */
    tell(SBE_EVENT_ANSWERED, UINT32_MAX);
    tell(77, 0);
    CHECK_EQ(remote.ended, 0);
    tell(SBE_EVENT_ANSWERED, SBE_EVENT_FREQUENCY << SBE_ANSWERED_SHIFT | 95u);
    CHECK_EQ(remote.ended, 1);
    CHECK_EQ(remote.status, SBE_ENOTSUP);
    tell(SBE_EVENT_ANSWERED, SBE_EVENT_FREQUENCY << SBE_ANSWERED_SHIFT); /* twice */
    CHECK_EQ(remote.ended, 1);
    CHECK_EQ(ask_host(SBE_EVENT_SUSPEND, 0), SBE_OK);
    tell(SBE_EVENT_SUSPEND, 0); /* they cross */
    CHECK_EQ(host.event, SBE_EVENT_ANSWERED);
    CHECK_EQ(host.value, SBE_EVENT_SUSPEND << SBE_ANSWERED_SHIFT);
    CHECK(sbe_power_suspended(&remote.power));
    tell(SBE_EVENT_ANSWERED, SBE_EVENT_SUSPEND << SBE_ANSWERED_SHIFT);
    CHECK_EQ(remote.ended, 2);
    CHECK_EQ(remote.status, SBE_OK);
    CHECK_EQ(ask_host(SBE_EVENT_RESUME, 0), SBE_OK); /* while suspended itself */
    sbe_session_lost(&remote.engine.session);
    CHECK_EQ(ask_host(SBE_EVENT_RESUME, 0), SBE_ENOTCONN);
    CHECK_EQ(remote.ended, 3);
    CHECK_EQ(remote.status, SBE_ECONNRESET);
}

static void what_can_not_be_sent(void)
{
    begin(true);
    remote.end.deaf = true;
    CHECK_EQ(ask_host(SBE_EVENT_SUSPEND, 0), SBE_EAGAIN);
    tell(SBE_EVENT_SUSPEND, 0); /* the answer is lost, what it says is not */
    CHECK(sbe_power_suspended(&remote.power));
    remote.end.deaf = false;
    CHECK_EQ(ask(SBE_EVENT_RESUME, 0), 0);
    CHECK_EQ(ask_host(SBE_EVENT_SUSPEND, 0), SBE_OK);
}

int main(void)
{
    calls_wait_in_the_rings(true);
    calls_wait_in_the_rings(false);
    work_at_hand_waits_too();
    what_lasts_can_rest();
    a_board_decides();
    a_kept_request_is_in_the_way();
    control_goes_on();
    the_loss_of_the_host_resumes();
    this_end_asks();
    what_can_not_be_sent();
    return 0;
}
