/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session of either role, in every state, with a peer that says what it likes and hooks that ask
 * and end sessions themselves. What the peer made here is accounted for to the last one.
 */
#include "control.h"
#include "core/status.h"

#define AREAS     6u
#define CONTEXTS  3u
#define CHANNELS  3u
#define PENDING   4u
#define TOKENS    256u
#define AREA_SIZE 2048u
#define DEPTH     3u
#define STEPS     200u

static struct sbe_session session;
static struct sbe_session_config config;
static struct sbe_area areas[AREAS];
static struct sbe_session_context contexts[CONTEXTS];
static struct sbe_session_channel channels[CHANNELS];
static struct sbe_session_pending pending[PENDING];
static struct control_maker maker;
static struct input input;

static uint32_t attached, depth, epochs;
static bool is_open[CHANNELS];
static struct sbe_area *held[16]; /* as kept requests hold them */
static uint32_t holds;
static uint8_t asked[TOKENS]; /* 1: waits for its reply */
static uint32_t tokens;

static void step(void);

/* What a hook does besides its work. */
static void within(void)
{
    if (!rarely(&input) || depth == DEPTH)
        return;
    depth++;
    step();
    depth--;
}

static uint64_t now_ns(void *self)
{
    (void)self;
    return 1;
}

static int control_send(void *self, const void *message, uint32_t size)
{
    const struct sbe_control *control = message;
    (void)self;
    HOLDS(size == control->size && size >= sizeof *control && size <= SBE_CONTROL_MAX);
    HOLDS(control->epoch == session.epoch && control->epoch != 0);
    within();
    return rarely(&input) ? SBE_EAGAIN : SBE_OK;
}

static int area_attach(void *self, struct sbe_area *area, const struct sbe_area_map *message)
{
    (void)self;
    HOLDS(area->id != 0 && area->size == message->size && message->handles <= 1);
    if (rarely(&input))
        return SBE_ENOMEM;
    attached++;
    area->base = area->size <= 65536 ? aligned_alloc(1024, (area->size + 1023) & ~1023ull) : NULL;
    return SBE_OK;
}

static int area_extend(void *self, struct sbe_area *area, const struct sbe_area_map *message)
{
    (void)self;
    HOLDS(message->segment_first == area->segments && area->missing != 0);
    return rarely(&input) ? SBE_ENOMEM : SBE_OK;
}

static void area_detach(void *self, struct sbe_area *area)
{
    (void)self;
    HOLDS(attached-- > 0 && area->pins == 0 && area->dying);
    free(area->base);
}

static const struct sbe_port PORT = {
    .now_ns = now_ns,
    .control_send = control_send,
    .area_attach = area_attach,
    .area_extend = area_extend,
    .area_detach = area_detach,
};

/* Both rings lie where the session says that they do. */
static int channel_open(void *self, const struct sbe_session_channel *place,
                        const struct sbe_channel_open *message, void *send, void *receive)
{
    const struct sbe_ring_geometry geometry = {message->slots, message->slot_size, message->line};
    struct sbe_ring ring;
    int64_t size = sbe_ring_size(&geometry);
    (void)self;
    HOLDS(size > 0 && !is_open[place - channels]);
    if (rarely(&input))
        return SBE_EPERM;
    memset(send, 0x11, (size_t)size);
    memset(receive, 0x22, (size_t)size);
    HOLDS(((const uint8_t *)send)[size - 1] == 0x11); /* apart from each other */
    HOLDS(sbe_ring_attach(&ring, send, &geometry) == SBE_OK);
    is_open[place - channels] = true;
    return SBE_OK;
}

static void channel_close(void *self, const struct sbe_session_channel *place)
{
    (void)self;
    HOLDS(is_open[place - channels] && place->id != 0);
    is_open[place - channels] = false;
}

static int service(void *self, uint32_t context, const char *name, uint32_t index,
                   struct sbe_service_reply *reply)
{
    (void)self, (void)context;
    if (name != NULL)
        HOLDS(strlen(name) < SBE_NAME_SIZE);
    if (name == NULL ? index > 3 : strcmp(name, "echo") != 0)
        return SBE_ENOENT;
    reply->service = 1;
    reply->version = 2;
    return SBE_OK;
}

static void replied(void *self, void *token, int status, const struct sbe_control *message)
{
    size_t which = (size_t)((uint8_t *)token - asked);
    (void)self;
    HOLDS(which < TOKENS && asked[which] == 1);
    HOLDS(message != NULL || status == SBE_ECONNRESET);
    asked[which] = 2;
    within();
}

static void state_changed(void *self, enum sbe_session_state state)
{
    (void)self;
    HOLDS(state == session.state);
}

static void on_event(void *self, uint32_t event, uint32_t value)
{
    (void)self, (void)event, (void)value;
    within();
}

static struct sbe_session_hooks HOOKS = {
    .channel_open = channel_open,
    .channel_close = channel_close,
    .service = service,
    .state_changed = state_changed,
    .replied = replied,
    .event = on_event,
};

static void set_up(void)
{
    uint8_t role = 1 + (take_u8(&input) & 1u);
    memset(is_open, 0, sizeof is_open);
    memset(asked, 0, sizeof asked);
    attached = holds = depth = tokens = epochs = 0;
    config = (struct sbe_session_config){
        .port = &PORT,
        .hooks = &HOOKS,
        .name = "victim",
        .version_min = SBE_VERSION_MIN,
        .version_max = SBE_VERSION_MAX,
        .role = role,
        .coherent = 1,
        .address_bits = role == SBE_ROLE_HOST ? 64 : 40,
        .cache_line = 64,
        .limits = {AREAS, CONTEXTS, CHANNELS, 64, 512, 16},
        .areas = areas,
        .contexts = contexts,
        .channels = channels,
        .pending = pending,
        .pending_count = PENDING,
    };
    maker = (struct control_maker){
        .victim = &session,
        .role = (uint8_t)(3u - role),
        .epoch = 7,
        .areas = AREAS,
        .contexts = CONTEXTS,
        .channels = CHANNELS,
        .addresses = 0x1000,
        .area_size = AREA_SIZE,
        .handles = 2,
        .slot_size = 64,
    };
    HOLDS(sbe_session_init(&session, &config) == SBE_OK);
}

static void receive(void)
{
    union control_message message;
    uint32_t handles, size = make_control(&input, &maker, &message, &handles);
    /* What is beyond the message is not the session's to read. */
    void *exact = aligned_alloc(8, size + (size_t)(-size & 7u));
    memcpy(exact, &message, size);
    int status = sbe_session_receive(&session, exact, size, handles);
    free(exact);
    HOLDS(status <= 0);
}

static void ask(void)
{
    static const uint8_t SIZES[] = {0,  0, sizeof(struct sbe_control), 24, 24, 24, 48, 24, 64, 24,
                                    56, 24};
    union control_message message = {.words = {0}};
    uint32_t type = SBE_CONTROL_BYE + pick(&input, 10);
    if (tokens == TOKENS)
        return;
    uint8_t *token = &asked[tokens++];
    *token = 1;
    int status = type == SBE_CONTROL_BYE
                     ? sbe_session_bye(&session, token)
                     : sbe_session_request(&session, (enum sbe_control_type)type, &message.control,
                                           SIZES[type], token);
    HOLDS(status == SBE_OK || *token == 1);
    if (status < 0)
        *token = 0;
}

static void hold_or_let_go(void)
{
    struct sbe_area *area = &areas[pick(&input, AREAS)];
    if (holds > 0 && (take_u8(&input) & 1u) != 0) {
        sbe_session_unpin(&session, held[--holds]);
    } else if (area->id != 0 && !area->dying && holds < sizeof held / sizeof held[0]) {
        area->pins++;
        held[holds++] = area;
    }
}

static void step(void)
{
    switch (pick(&input, 16)) {
    case 0:
        (void)sbe_session_start(&session, 100 + epochs++);
        break;
    case 1:
        if (rarely(&input))
            sbe_session_lost(&session);
        break;
    case 2:
        ask();
        break;
    case 3:
        hold_or_let_go();
        break;
    case 4:
        (void)sbe_session_event(&session, 1, 2);
        break;
    case 5:
        maker.epoch = number32(&input, maker.epoch + 1);
        break;
    default:
        receive();
    }
}

/* Everything ends: nothing is left, nobody waits. */
static void settle(void)
{
    depth = DEPTH;
    input.left = 0;
    while (holds > 0)
        sbe_session_unpin(&session, held[--holds]);
    sbe_session_lost(&session);
    HOLDS(attached == 0 && session.peer_epoch == 0 && session.global == NULL);
    for (uint32_t i = 0; i < AREAS; i++)
        HOLDS(areas[i].id == 0);
    for (uint32_t i = 0; i < CONTEXTS; i++)
        HOLDS(contexts[i].id == 0);
    for (uint32_t i = 0; i < CHANNELS; i++)
        HOLDS(channels[i].id == 0 && !is_open[i]);
    for (uint32_t i = 0; i < tokens; i++)
        HOLDS(asked[i] != 1);
}

/* A message with nothing unusual: all that follows this choice is zero. */
static void receive_usual(uint8_t choice)
{
    struct input rest = input;
    input = (struct input){&choice, sizeof choice};
    receive();
    input = rest;
}

static void connect(void)
{
    struct input rest = input;
    input.left = 0;
    HOLDS(sbe_session_start(&session, 99) == SBE_OK);
    input = rest;
    receive_usual(0x00);
    receive_usual(0xc0);
    HOLDS(session.state == SBE_SESSION_CONNECTED);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    input = (struct input){bytes, size};
    set_up();
    if ((take_u8(&input) & 7u) != 7)
        connect();
    for (uint32_t steps = 0; input.left > 0 && steps < STEPS; steps++)
        step();
    settle();
    return 0;
}
