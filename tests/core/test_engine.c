/* SPDX-License-Identifier: Apache-2.0 */
/* The engine: services of its own table, served to a host that is a session and plain channels. */
#include "core/engine.h"

#include <string.h>

#include "check.h"
#include "core/status.h"
#include "pieces/pieces.h"

#define AREAS     6u
#define CONTEXTS  2u
#define CHANNELS  4u
#define CALLS     4u
#define AREA_SIZE 32768u
#define SLOTS     8u
#define SLOT_SIZE 256u
#define QUEUE     32u
#define LOG       4096u
#define POOL      40u

#define ID(generation, index) ((uint32_t)(generation) << 16 | (index))
#define DATA                  ID(1, 5) /* a global area, mapped by begin() */

struct mail {
    _Alignas(8) uint8_t bytes[SBE_CONTROL_MAX];
    uint32_t size;
};

struct queue {
    struct mail mails[QUEUE];
    uint32_t count;
};

static _Alignas(64) uint8_t memory[AREAS][AREA_SIZE];

static struct {
    struct sbe_engine engine;
    struct sbe_engine_config config;
    struct sbe_port port;
    struct sbe_area areas[AREAS];
    struct sbe_session_context contexts[CONTEXTS];
    struct sbe_session_channel session_channels[CHANNELS];
    struct sbe_session_pending pending[4];
    struct sbe_engine_channel channels[CHANNELS];
    struct sbe_call calls[CHANNELS * CALLS];
    _Alignas(8) uint8_t scratch_in[SLOT_SIZE];
    _Alignas(8) uint8_t scratch_out[SLOT_SIZE];
    _Alignas(8) uint8_t paused[CHANNELS][SBE_PAUSED_SIZE(SLOT_SIZE)];
    struct queue out;
    struct sbe_channel *opened[CHANNELS + 1]; /* by channel id */
    uint32_t rung, detached, closed;
    uint64_t now_ns;
    uint32_t cleaned, invalidated;
    const void *last_cleaned;
    uint32_t context; /* as last entered */
} remote;

static struct {
    struct sbe_session session;
    struct sbe_session_config config;
    struct sbe_session_hooks hooks;
    struct sbe_port port;
    struct sbe_area areas[AREAS];
    struct sbe_session_context contexts[CONTEXTS];
    struct sbe_session_channel session_channels[CHANNELS];
    struct sbe_session_pending pending[8];
    struct queue out;
    struct sbe_channel channels[CHANNELS + 1]; /* by id */
    struct sbe_call calls[CHANNELS + 1][64];
    uint8_t scratch[SLOT_SIZE];
    struct sbe_frame frame; /* as last received */
    uint32_t rung, replied, broken;
    int status;
} host;

static int token;

/* -- services ------------------------------------------------------------------------------ */

static uint32_t log_count;
static uint8_t log_of[LOG]; /* channel ids in the order served */

static void take_note(const struct sbe_request *request)
{
    CHECK(log_count < LOG);
    CHECK_EQ(remote.context, request->channel->context);
    log_of[log_count++] = (uint8_t)request->channel->id;
}

/* Returns the payload, and each IN or INOUT buffer's bytes plus one in the next OUT or itself. */
static int echo(struct sbe_request *request)
{
    take_note(request);
    const uint8_t *from = NULL;
    uint64_t size = 0;
    for (uint32_t i = 0; i < request->buffer_count; i++) {
        struct sbe_buffer *buffer = &request->buffers[i];
        uint8_t *to = buffer->data;
        if ((buffer->direction & SBE_DIR_IN) != 0) {
            from = to;
            size = buffer->size;
        }
        if ((buffer->direction & SBE_DIR_OUT) == 0)
            continue;
        uint64_t count = size < buffer->size ? size : buffer->size;
        for (uint64_t k = 0; k < count; k++)
            to[k] = (uint8_t)(from[k] + 1);
        request->written[i] = count;
    }
    if (request->payload_size > request->reply_room)
        return SBE_ENOSPC;
    memcpy(request->reply, request->payload, request->payload_size);
    request->reply_size = request->payload_size;
    return SBE_OK;
}

/* Replies with as many bytes as the payload says, beyond its room too. */
static int sized(struct sbe_request *request)
{
    uint32_t size;
    memcpy(&size, request->payload, sizeof size);
    if (size <= request->reply_room)
        memset(request->reply, 0x77, size);
    request->reply_size = size;
    return SBE_OK;
}

struct pooled {
    struct sbe_kept kept;
    bool used;
    bool cancelled;
    bool gone; /* the requester was, when cancelled */
    _Alignas(8) uint8_t scratch[SLOT_SIZE];
};

static struct pooled pool[POOL];
static uint32_t pooled;
static bool answer_in_cancel, answer_all;

static int keep(struct sbe_request *request)
{
    take_note(request);
    struct pooled *entry = &pool[pooled];
    CHECK(pooled < POOL);
    int status = sbe_request_keep(request, &entry->kept, entry->scratch, sizeof entry->scratch);
    if (status < 0)
        return status;
    entry->used = true;
    pooled++;
    return SBE_KEPT;
}

static void cancel(struct sbe_kept *kept)
{
    struct pooled *entry = (struct pooled *)(void *)kept;
    CHECK(entry->used && !entry->cancelled);
    entry->cancelled = true;
    entry->gone = kept->channel == NULL;
    if (answer_in_cancel)
        CHECK_EQ(sbe_kept_answer(kept, SBE_ECANCELED, NULL, 0), SBE_OK);
    if (answer_all)
        for (uint32_t i = 0; i < pooled; i++) {
            CHECK_EQ(sbe_kept_answer(&pool[i].kept, SBE_ECANCELED, NULL, 0), SBE_OK);
            memset(pool[i].kept.below, 0xee, sizeof pool[i].kept.below); /* the service's again */
        }
}

static int keep_in_little(struct sbe_request *request)
{
    return sbe_request_keep(request, &pool[0].kept, pool[0].scratch, 8);
}

static int keep_without_cancel(struct sbe_request *request)
{
    return sbe_request_keep(request, &pool[0].kept, pool[0].scratch, sizeof pool[0].scratch);
}

/* Writes part of its outputs and fails. */
static int fail(struct sbe_request *request)
{
    for (uint32_t i = 0; i < request->buffer_count; i++)
        if ((request->buffers[i].direction & SBE_DIR_OUT) != 0) {
            memset(request->buffers[i].data, 0x99, 2);
            request->written[i] = 2;
        }
    return SBE_EIO;
}

static struct sbe_outcall outcall;
static uint32_t outcalls_done;
static int outcall_status;
static bool outcall_answered;
static int call_again_status;
static bool call_again;

static void outcall_done(struct sbe_outcall *call, int status, const struct sbe_frame *response)
{
    CHECK(call == &outcall);
    outcalls_done++;
    outcall_status = status;
    outcall_answered = response != NULL;
    if (call_again) {
        struct sbe_frame frame = {.type = SBE_FRAME_REQUEST, .service = 9};
        call_again_status = sbe_engine_call(&remote.engine, remote.opened[1], &frame, &outcall);
    }
}

/* Calls the host while it is being called, and answers at once. */
static int call_back(struct sbe_request *request)
{
    struct sbe_frame frame = {.type = SBE_FRAME_REQUEST, .service = 9};
    outcall.done = outcall_done;
    return sbe_engine_call(request->engine, request->channel, &frame, &outcall);
}

/* Closes the channel that the payload names, as a port may that takes control messages here. */
static int close_other(struct sbe_request *request)
{
    struct sbe_channel_close message = {
        .control = {
            .type = SBE_CONTROL_CHANNEL_CLOSE, .size = sizeof message, .epoch = 2, .id = 1}};
    memcpy(&message.channel, request->payload, sizeof message.channel);
    return sbe_session_receive(&request->engine->session, &message, sizeof message, 0);
}

static uint64_t ask(uint32_t channel, uint16_t service);

/* Meanwhile the host asks on another channel, and its doorbell rings. */
static int ask_higher(struct sbe_request *request)
{
    (void)request;
    ask(2, 1);
    return SBE_OK;
}

#define PIECE_NS 100000u

/*
 * As many pieces of PIECE_NS as the payload says, then 16 bytes of reply, and as many in each
 * output: the count of pieces.
 */
static int in_pieces(struct sbe_request *request)
{
    uint32_t count;
    take_note(request);
    CHECK_EQ(request->payload_size, sizeof count);
    memcpy(&count, request->payload, sizeof count);
    CHECK_EQ(request->state, request->progress * 3);
    uint32_t at_work = sbe_load_relaxed(&request->channel->rx.consumer->at_work);
    CHECK_EQ(at_work & ~SBE_AT_WORK_BEATS, SBE_AT_WORK | (request->transaction & 0xffff));
    uint32_t beat = at_work & SBE_AT_WORK_BEATS;
    sbe_request_alive(request);
    CHECK((sbe_load_relaxed(&request->channel->rx.consumer->at_work) ^ at_work) ==
          (beat ^ ((beat + 0x10000) & SBE_AT_WORK_BEATS)));
    remote.now_ns += PIECE_NS;
    request->progress++;
    request->state += 3;
    for (uint32_t i = 0; i < request->buffer_count; i++)
        if ((request->buffers[i].direction & SBE_DIR_OUT) != 0) {
            ((uint8_t *)request->buffers[i].data)[request->progress - 1] = (uint8_t)count;
            request->written[i] = request->progress;
        }
    ((uint8_t *)request->reply)[request->progress - 1] = (uint8_t)count;
    request->reply_size = (uint32_t)request->progress;
    return request->progress < count ? SBE_MORE : SBE_OK;
}

enum {
    ECHO = 1,
    SIZED,
    KEEP,
    LITTLE,
    NO_CANCEL,
    FAIL,
    CALL_BACK,
    CLOSE_OTHER,
    ASK_HIGHER,
    PIECES,
    SERVICE_COUNT = 10
};

static const struct sbe_service SERVICES[] = {
    {"echo", 1, echo, NULL, NULL},
    {"sized", 2, sized, NULL, NULL},
    {"keep", 1, keep, cancel, NULL},
    {"little", 1, keep_in_little, cancel, NULL},
    {"no_cancel", 1, keep_without_cancel, NULL, NULL},
    {"fail", 1, fail, NULL, NULL},
    {"call_back", 1, call_back, NULL, NULL},
    {"close_other", 1, close_other, NULL, NULL},
    {"ask_higher", 1, ask_higher, NULL, NULL},
    {"pieces", 1, in_pieces, NULL, NULL},
};
static const struct sbe_service *const TABLE[] = {
    &SERVICES[0], &SERVICES[1], &SERVICES[2], &SERVICES[3], &SERVICES[4],
    &SERVICES[5], &SERVICES[6], &SERVICES[7], &SERVICES[8], &SERVICES[9],
};

/* -- ports and hooks ------------------------------------------------------------------------ */

static int post(void *self, const void *message, uint32_t size)
{
    struct queue *queue = self == &remote ? &remote.out : &host.out;
    CHECK(queue->count < QUEUE);
    memcpy(queue->mails[queue->count].bytes, message, size);
    queue->mails[queue->count++].size = size;
    return SBE_OK;
}

static uint64_t now_ns(void *self)
{
    (void)self;
    return remote.now_ns;
}

static int attach(void *self, struct sbe_area *area, const struct sbe_area_map *message)
{
    (void)self;
    (void)message;
    area->base = memory[SBE_AREA_INDEX(area->id)];
    return SBE_OK;
}

static void detach(void *self, struct sbe_area *area)
{
    (void)self;
    CHECK_EQ(area->pins, 0);
    remote.detached++;
}

static void ring_host(void *self, const struct sbe_channel *channel)
{
    (void)self;
    CHECK(channel == remote.opened[channel->id]);
    host.rung++;
}

static void ring_remote(void *self, const struct sbe_channel *channel)
{
    (void)self;
    remote.rung++;
    if (remote.opened[channel->id] != NULL)
        sbe_engine_doorbell(&remote.engine, remote.opened[channel->id]);
}

static void clean(void *self, const void *start, uint64_t size)
{
    (void)self;
    remote.cleaned += (uint32_t)size;
    remote.last_cleaned = start;
}

static void invalidate(void *self, void *start, uint64_t size)
{
    (void)self;
    (void)start;
    remote.invalidated += (uint32_t)size;
}

static void enter(void *self, uint32_t context)
{
    (void)self;
    remote.context = context;
}

static int opened(void *self, struct sbe_channel *channel, const struct sbe_channel_open *message)
{
    (void)self;
    remote.opened[message->channel] = channel;
    return SBE_OK;
}

static void closed(void *self, struct sbe_channel *channel)
{
    (void)self;
    remote.closed++;
    remote.opened[channel->id] = NULL;
}

static void replied(void *self, void *token_given, int status, const struct sbe_control *message)
{
    (void)self;
    (void)message;
    CHECK(token_given == &token);
    host.replied++;
    host.status = status;
}

/* The host's services, as the engine finds them. */
static int host_service(void *self, uint32_t context, const char *name, uint32_t index,
                        struct sbe_service_reply *reply)
{
    (void)self;
    (void)context;
    (void)index;
    if (name == NULL || strcmp(name, "answer") != 0)
        return SBE_ENOENT;
    reply->service = 9;
    reply->version = 1;
    memcpy(reply->name, "answer", 6);
    return SBE_OK;
}

static void event(void *self, uint32_t what, uint32_t value)
{
    (void)self;
    CHECK_EQ(what, SBE_EVENT_CHANNEL_BROKEN);
    host.broken = value;
}

/* -- the host's side ------------------------------------------------------------------------ */

static void pump(void)
{
    for (uint32_t limit = 100; host.out.count + remote.out.count > 0; limit--) {
        CHECK(limit > 0);
        bool to_host = remote.out.count > 0;
        struct queue *queue = to_host ? &remote.out : &host.out;
        struct mail mail = queue->mails[0];
        memmove(queue->mails, queue->mails + 1, sizeof mail * --queue->count);
        struct sbe_session *session = to_host ? &host.session : &remote.engine.session;
        CHECK_EQ(sbe_session_receive(session, mail.bytes, mail.size, 0), SBE_OK);
    }
}

static void request(enum sbe_control_type type, void *message, uint32_t size)
{
    CHECK_EQ(sbe_session_request(&host.session, type, message, size, &token), SBE_OK);
    pump();
}

static void map(uint32_t id, uint32_t context, uint32_t flags)
{
    struct sbe_area_map message = {
        .area = id, .context = context, .flags = flags, .size = AREA_SIZE};
    request(SBE_CONTROL_AREA_MAP, &message, sizeof message);
    CHECK_EQ(host.status, SBE_OK);
}

static void unmap(uint32_t id)
{
    struct sbe_area_unmap message = {.area = id};
    request(SBE_CONTROL_AREA_UNMAP, &message, sizeof message);
}

/* Opens channel `id` of a context with rings in area `id - 1`. */
static void open_in(uint32_t context, uint32_t id, uint32_t priority, uint32_t slots,
                    uint32_t start)
{
    struct sbe_ring_geometry geometry = {slots, SLOT_SIZE, 64};
    uint64_t half = AREA_SIZE / 2;
    uint8_t *base = memory[id - 1];
    if (sbe_area_find(&remote.engine.session.areas, ID(1, id - 1)) == NULL)
        map(ID(1, id - 1), context, SBE_AREA_RING | SBE_AREA_COHERENT);
    sbe_ring_clear(base, &geometry, start);
    sbe_ring_clear(base + half, &geometry, start);
    struct sbe_channel_config config = {
        .id = id,
        .context = context,
        .geometry = geometry,
        .send = base,
        .receive = base + half,
        .port = &host.port,
        .areas = &host.session.areas,
        .calls = host.calls[id],
        .call_count = 64,
    };
    CHECK_EQ(sbe_channel_open(&host.channels[id], &config), SBE_OK);
    struct sbe_channel_open message = {.channel = id,
                                       .context = context,
                                       .ring_area = ID(1, id - 1),
                                       .slots = slots,
                                       .slot_size = SLOT_SIZE,
                                       .line = 64,
                                       .receive_offset = half,
                                       .priority = priority};
    request(SBE_CONTROL_CHANNEL_OPEN, &message, sizeof message);
    CHECK_EQ(host.status, SBE_OK);
}

static void open_sized(uint32_t id, uint32_t priority, uint32_t slots, uint32_t start)
{
    open_in(SBE_CONTEXT_GLOBAL, id, priority, slots, start);
}

static void open_channel(uint32_t id, uint32_t priority)
{
    open_sized(id, priority, SLOTS, 0xfffffffau);
}

static void close_channel(uint32_t id)
{
    struct sbe_channel_close message = {.channel = id};
    request(SBE_CONTROL_CHANNEL_CLOSE, &message, sizeof message);
}

static uint32_t host_buffers = SBE_BUFFERS_MAX; /* that the host says it can hold */

static void begin_with(uint8_t coherent)
{
    memset(&remote, 0, sizeof remote);
    memset(&host, 0, sizeof host);
    memset(memory, 0, sizeof memory);
    memset(pool, 0, sizeof pool);
    pooled = log_count = outcalls_done = 0;
    answer_in_cancel = answer_all = call_again = false;
    const struct sbe_limits limits = {AREAS, CONTEXTS, CHANNELS, 32, SLOT_SIZE, SBE_BUFFERS_MAX};
    remote.port = (struct sbe_port){.self = &remote,
                                    .now_ns = now_ns,
                                    .control_send = post,
                                    .area_attach = attach,
                                    .area_detach = detach,
                                    .doorbell = ring_host,
                                    .cache_clean = clean,
                                    .cache_invalidate = invalidate,
                                    .context_enter = enter};
    struct sbe_session_config *session = &remote.config.session;
    remote.config = sbe_engine_defaults(&remote.port);
    remote.config.services = TABLE;
    remote.config.service_count = SERVICE_COUNT;
    remote.config.channels = remote.channels;
    remote.config.calls = remote.calls;
    remote.config.calls_per_channel = CALLS;
    remote.config.scratch_in = remote.scratch_in;
    remote.config.scratch_out = remote.scratch_out;
    remote.config.opened = opened;
    remote.config.closed = closed;
    session->name = "remote";
    session->coherent = coherent;
    session->cache_line = 64;
    session->limits = limits;
    session->areas = remote.areas;
    session->contexts = remote.contexts;
    session->channels = remote.session_channels;
    session->pending = remote.pending;
    session->pending_count = 4;
    host.port = (struct sbe_port){.self = &host,
                                  .now_ns = now_ns,
                                  .control_send = post,
                                  .area_attach = attach,
                                  .area_detach = detach,
                                  .doorbell = ring_remote};
    host.hooks =
        (struct sbe_session_hooks){.replied = replied, .event = event, .service = host_service};
    host.config = remote.config.session;
    host.config.port = &host.port;
    host.config.hooks = &host.hooks;
    host.config.limits.buffers = host_buffers;
    host.config.role = SBE_ROLE_HOST;
    host.config.coherent = 1;
    host.config.areas = host.areas;
    host.config.contexts = host.contexts;
    host.config.channels = host.session_channels;
    host.config.pending = host.pending;
    host.config.pending_count = 8;
    CHECK_EQ(sbe_engine_init(&remote.engine, &remote.config), SBE_OK);
    CHECK_EQ(sbe_session_init(&host.session, &host.config), SBE_OK);
    CHECK_EQ(sbe_session_start(&remote.engine.session, 1), SBE_OK);
    CHECK_EQ(sbe_session_start(&host.session, 2), SBE_OK);
    pump();
    CHECK_EQ(host.session.state, SBE_SESSION_CONNECTED);
    map(DATA, SBE_CONTEXT_GLOBAL, 0);
    open_channel(1, 0);
}

static void begin(void)
{
    begin_with(1);
}

static void run(void)
{
    for (uint32_t limit = 1000; sbe_engine_run(&remote.engine); limit--)
        CHECK(limit > 0);
}

static struct sbe_frame request_frame(uint16_t service, const void *payload, uint32_t size)
{
    return (struct sbe_frame){
        .type = SBE_FRAME_REQUEST, .service = service, .payload = payload, .payload_size = size};
}

static uint64_t send_frame(uint32_t channel, struct sbe_frame *frame)
{
    CHECK_EQ(sbe_channel_request(&host.channels[channel], frame, &host), SBE_OK);
    sbe_channel_flush(&host.channels[channel]);
    return frame->transaction;
}

static uint64_t ask(uint32_t channel, uint16_t service)
{
    struct sbe_frame frame = request_frame(service, "hello", 5);
    return send_frame(channel, &frame);
}

static void cancel_call(uint32_t channel, uint64_t transaction)
{
    struct sbe_frame frame = {.type = SBE_FRAME_CANCEL, .transaction = transaction};
    CHECK_EQ(sbe_channel_send(&host.channels[channel], &frame), SBE_OK);
    sbe_channel_flush(&host.channels[channel]);
}

static bool collect(uint32_t channel)
{
    int status = sbe_channel_receive(&host.channels[channel], &host.frame, host.scratch);
    CHECK(status >= 0);
    return status == 1;
}

/* The next response on this channel is to this call, with this status. */
static void expect(uint32_t channel, uint64_t transaction, int status)
{
    CHECK(collect(channel));
    CHECK_EQ(host.frame.type, SBE_FRAME_RESPONSE);
    CHECK_EQ(host.frame.transaction, transaction);
    CHECK_EQ(host.frame.status, status);
}

static void expect_nothing(uint32_t channel)
{
    CHECK(!collect(channel));
}

static struct sbe_buffer data_buffer(uint8_t direction, uint64_t offset, uint64_t size)
{
    return (struct sbe_buffer){
        .area = DATA, .direction = direction, .offset = offset, .size = size};
}

/* -- requests ------------------------------------------------------------------------------- */

static void test_echo(void)
{
    begin();
    for (uint32_t i = 0; i < 3 * SLOTS; i++) {
        uint64_t transaction = ask(1, ECHO);
        run();
        expect(1, transaction, SBE_OK);
        CHECK_EQ(host.frame.payload_size, 5);
        CHECK(memcmp(host.frame.payload, "hello", 5) == 0);
        expect_nothing(1);
    }
    CHECK_EQ(remote.context, SBE_CONTEXT_GLOBAL); /* left again */
    CHECK_EQ(remote.opened[1]->promised, 0);
}

static void test_buffers(void)
{
    begin();
    struct sbe_frame frame = request_frame(ECHO, NULL, 0);
    memcpy(memory[5], "abcd", 4);
    frame.buffer_count = 3;
    frame.buffers[0] = data_buffer(SBE_DIR_IN, 0, 4);
    frame.buffers[1] = data_buffer(SBE_DIR_OUT, 100, 8);
    frame.buffers[2] = data_buffer(SBE_DIR_INOUT, 0, 3);
    uint64_t transaction = send_frame(1, &frame);
    run();
    expect(1, transaction, SBE_OK);
    CHECK(memcmp(memory[5] + 100, "bcde\0", 5) == 0);
    CHECK(memcmp(memory[5], "bcdd", 4) == 0);
    CHECK_EQ(host.frame.buffer_count, 2);
    CHECK_EQ(host.frame.buffers[0].size, 4); /* really written */
    CHECK_EQ(host.frame.buffers[1].size, 3);
    CHECK_EQ(sbe_frame_check_response(&host.frame, frame.buffers, 3), SBE_OK);
}

static void test_inline(void)
{
    begin();
    uint8_t bytes[] = "abcd";
    struct sbe_frame frame = request_frame(ECHO, "xyz", 3);
    frame.buffer_count = 3;
    frame.buffers[0] = (struct sbe_buffer){
        .direction = SBE_DIR_IN, .flags = SBE_BUFFER_INLINE, .data = bytes, .size = 4};
    frame.buffers[1] =
        (struct sbe_buffer){.direction = SBE_DIR_OUT, .flags = SBE_BUFFER_INLINE, .size = 9};
    frame.buffers[2] = (struct sbe_buffer){
        .direction = SBE_DIR_INOUT, .flags = SBE_BUFFER_INLINE, .data = bytes, .size = 2};
    uint64_t transaction = send_frame(1, &frame);
    run();
    expect(1, transaction, SBE_OK);
    CHECK_EQ(host.frame.buffer_count, 2);
    CHECK_EQ(host.frame.buffers[0].size, 4);
    CHECK(memcmp(host.frame.buffers[0].data, "bcde", 4) == 0);
    CHECK(memcmp(host.frame.buffers[1].data, "bc", 2) == 0);
    CHECK(memcmp(host.frame.payload, "xyz", 3) == 0);
    CHECK_EQ(sbe_frame_check_response(&host.frame, frame.buffers, 3), SBE_OK);
}

static void test_refused(void)
{
    begin();
    static const uint16_t UNKNOWN[] = {0, SERVICE_COUNT + 1, UINT16_MAX};
    for (uint32_t i = 0; i < 3; i++) {
        uint64_t transaction = ask(1, UNKNOWN[i]);
        run();
        expect(1, transaction, SBE_ENOENT);
        CHECK_EQ(host.frame.payload_size, 0);
    }
    struct sbe_frame frame = request_frame(ECHO, NULL, 0);
    frame.buffer_count = 1;
    frame.buffers[0] = data_buffer(SBE_DIR_OUT, AREA_SIZE, 1);
    uint64_t transaction = send_frame(1, &frame);
    run();
    expect(1, transaction, SBE_ERANGE);
    CHECK_EQ(host.frame.buffer_count, 0);
    frame.buffers[0] = data_buffer(SBE_DIR_SHARED, 0, 1); /* DATA is not coherent by itself */
    transaction = send_frame(1, &frame);
    run();
    expect(1, transaction, SBE_ENOTSUP);
    frame.buffers[0] = data_buffer(9, 0, 1); /* malformed */
    transaction = send_frame(1, &frame);
    run();
    expect(1, transaction, SBE_EBADMSG);
    CHECK_EQ(log_count, 0); /* no handler ran */
    CHECK_EQ(remote.opened[1]->promised, 0);
}

static void test_message(void)
{
    begin();
    struct sbe_frame frame = request_frame(ECHO, "x", 1);
    frame.type = SBE_FRAME_MESSAGE;
    CHECK_EQ(sbe_channel_send(&host.channels[1], &frame), SBE_OK);
    frame.service = 99; /* nobody to tell */
    CHECK_EQ(sbe_channel_send(&host.channels[1], &frame), SBE_OK);
    sbe_channel_flush(&host.channels[1]);
    run();
    CHECK_EQ(log_count, 1);
    expect_nothing(1);
    CHECK_EQ(remote.opened[1]->promised, 0);
}

/* SYNC moves ownership and calls nothing. */
static void test_sync(void)
{
    begin_with(0);
    struct sbe_frame frame = {.type = SBE_FRAME_SYNC, .service = ECHO, .buffer_count = 3};
    frame.buffers[0] = data_buffer(SBE_DIR_IN, 0, 64);
    frame.buffers[1] = data_buffer(SBE_DIR_INOUT, 64, 128);
    frame.buffers[2] = data_buffer(SBE_DIR_OUT, 256, 256);
    uint64_t transaction = send_frame(1, &frame);
    run();
    expect(1, transaction, SBE_OK);
    CHECK_EQ(log_count, 0);
    CHECK_EQ(host.frame.buffer_count, 2);
    CHECK_EQ(host.frame.buffers[0].size, 128);
    CHECK_EQ(host.frame.buffers[1].size, 0);
    CHECK_EQ(remote.invalidated, 64 + 128 + 256);
    CHECK_EQ(remote.cleaned, 128 + 256);
    CHECK_EQ(remote.opened[1]->counters.synced, 64 + 2 * (128 + 256));
}

/* A handler that fails may have written: the lines go back, and the response says how far. */
static void test_failure_gives_back(void)
{
    begin_with(0);
    struct sbe_frame frame = request_frame(FAIL, NULL, 0);
    frame.buffer_count = 3;
    frame.buffers[0] = data_buffer(SBE_DIR_OUT, 0, 64);
    frame.buffers[1] = data_buffer(SBE_DIR_IN, 64, 64);
    frame.buffers[2] =
        (struct sbe_buffer){.direction = SBE_DIR_OUT, .flags = SBE_BUFFER_INLINE, .size = 8};
    uint64_t transaction = send_frame(1, &frame);
    run();
    expect(1, transaction, SBE_EIO);
    CHECK_EQ(remote.cleaned, 64);
    CHECK_EQ(host.frame.buffer_count, 2);
    CHECK_EQ(host.frame.buffers[0].size, 2);
    CHECK_EQ(host.frame.payload_size, 0);
    CHECK_EQ(sbe_frame_check_response(&host.frame, frame.buffers, 3), SBE_OK);

    frame.service = 99; /* no handler ran, nothing was written */
    transaction = send_frame(1, &frame);
    run();
    expect(1, transaction, SBE_ENOENT);
    CHECK_EQ(sbe_frame_check_response(&host.frame, frame.buffers, 3), SBE_OK);
}

/* So do those of a kept request whose requester has gone. */
static void test_drop_gives_back(void)
{
    begin_with(0);
    struct sbe_frame frame = request_frame(KEEP, NULL, 0);
    frame.buffer_count = 2;
    frame.buffers[0] = data_buffer(SBE_DIR_IN, 0, 64);
    frame.buffers[1] = data_buffer(SBE_DIR_OUT, 64, 128);
    send_frame(1, &frame);
    run();
    CHECK_EQ(remote.cleaned, 0);
    unmap(DATA);
    close_channel(1);
    CHECK_EQ(remote.cleaned, 128);
    CHECK(remote.last_cleaned == memory[5] + 64);
    CHECK_EQ(remote.detached, 1);
}

/* An EVENT tells a requester something; it is no way to call a service. */
static void test_event_frame(void)
{
    begin();
    struct sbe_frame frame = {.type = SBE_FRAME_EVENT, .service = ECHO};
    CHECK_EQ(sbe_channel_send(&host.channels[1], &frame), SBE_OK);
    sbe_channel_flush(&host.channels[1]);
    run();
    CHECK_EQ(log_count, 0);
    expect_nothing(1);
}

/* Inline outputs count with what is written: room for more than fits is no reason to refuse. */
static void test_inline_room(void)
{
    begin();
    uint8_t bytes[SLOT_SIZE] = {1};
    const uint32_t room = SLOT_SIZE - 40 - 24;
    for (uint32_t size = room - 24 - 1; size <= room - 24; size++) {
        struct sbe_frame frame = request_frame(ECHO, NULL, 0);
        frame.buffer_count = 2;
        frame.buffers[0] = (struct sbe_buffer){
            .direction = SBE_DIR_IN, .flags = SBE_BUFFER_INLINE, .data = bytes, .size = size};
        frame.buffers[1] = (struct sbe_buffer){
            .direction = SBE_DIR_OUT, .flags = SBE_BUFFER_INLINE, .size = SLOT_SIZE};
        uint64_t transaction = send_frame(1, &frame);
        run();
        expect(1, transaction, SBE_OK);
        CHECK_EQ(host.frame.buffers[0].size, size);
    }
    /* too much was written: said so */
    struct sbe_frame frame = request_frame(ECHO, NULL, 0);
    frame.buffer_count = 2;
    frame.buffers[0] = data_buffer(SBE_DIR_IN, 0, room + 1);
    frame.buffers[1] = (struct sbe_buffer){
        .direction = SBE_DIR_OUT, .flags = SBE_BUFFER_INLINE, .size = SLOT_SIZE};
    uint64_t transaction = send_frame(1, &frame);
    run();
    expect(1, transaction, SBE_ENOSPC);
    CHECK_EQ(host.frame.buffer_count, 0);
    frame.buffers[0].size = room; /* to the last byte */
    transaction = send_frame(1, &frame);
    run();
    expect(1, transaction, SBE_OK);
    CHECK_EQ(host.frame.buffers[0].size, room);
}

static void test_reply_room(void)
{
    begin();
    const uint32_t room = SLOT_SIZE - 40;
    for (uint32_t size = room - 1; size <= room + 1; size++) {
        struct sbe_frame frame = request_frame(SIZED, &size, sizeof size);
        uint64_t transaction = send_frame(1, &frame);
        run();
        expect(1, transaction, size > room ? SBE_ENOSPC : SBE_OK);
        CHECK_EQ(host.frame.payload_size, size > room ? 0 : size);
    }
    uint32_t size = UINT32_MAX;
    struct sbe_frame frame = request_frame(SIZED, &size, sizeof size);
    uint64_t transaction = send_frame(1, &frame);
    run();
    expect(1, transaction, SBE_ENOSPC);
    /* an inline output larger than any slot never reaches a handler */
    frame = request_frame(ECHO, NULL, 0);
    frame.buffer_count = 1;
    frame.buffers[0] = (struct sbe_buffer){
        .direction = SBE_DIR_OUT, .flags = SBE_BUFFER_INLINE, .size = SLOT_SIZE + 1};
    transaction = send_frame(1, &frame);
    run();
    expect(1, transaction, SBE_EMSGSIZE);
    frame.buffers[0].size = UINT64_MAX;
    transaction = send_frame(1, &frame);
    run();
    expect(1, transaction, SBE_EMSGSIZE);
    CHECK_EQ(log_count, 0);
}

static void test_deadline(void)
{
    begin();
    struct sbe_frame frame = request_frame(ECHO, "x", 1);
    frame.deadline_us = 5;
    /* The look that finds the frames is the first turn's; the second turn comes later. */
    remote.channels[0].budget = 1;
    remote.now_ns = 1000;
    uint64_t first = send_frame(1, &frame), second = send_frame(1, &frame);
    CHECK(sbe_engine_run(&remote.engine));
    remote.now_ns += 5000;
    CHECK(sbe_engine_run(&remote.engine));
    expect(1, first, SBE_OK);
    CHECK_EQ(host.frame.waited_ns, 0);
    expect(1, second, SBE_OK); /* just in time */
    CHECK_EQ(host.frame.waited_ns, 5000);
    first = send_frame(1, &frame);
    second = send_frame(1, &frame);
    CHECK(sbe_engine_run(&remote.engine));
    remote.now_ns += 5001;
    run();
    expect(1, first, SBE_OK);
    expect(1, second, SBE_ETIMEDOUT);
    CHECK_EQ(log_count, 3); /* not executed */
}

/* -- kept requests -------------------------------------------------------------------------- */

static bool nothing_kept(void)
{
    for (uint32_t i = 0; i < CHANNELS; i++)
        if (remote.channels[i].kept != NULL)
            return false;
    return true;
}

static void test_kept(void)
{
    begin();
    uint64_t transactions[4];
    for (uint32_t i = 0; i < 4; i++)
        transactions[i] = ask(1, KEEP);
    run();
    expect_nothing(1);
    CHECK_EQ(pooled, 4);
    CHECK_EQ(remote.opened[1]->promised, 4);
    uint64_t echoed = ask(1, ECHO); /* others go on beside them */
    run();
    expect(1, echoed, SBE_OK);
    static const uint32_t ORDER[] = {2, 0, 3, 1};
    for (uint32_t i = 0; i < 4; i++) {
        struct pooled *entry = &pool[ORDER[i]];
        CHECK(memcmp(entry->kept.payload, "hello", 5) == 0); /* a copy, not the scratch */
        CHECK_EQ(sbe_kept_answer(&entry->kept, (int)-ORDER[i], "done", 4), SBE_OK);
        CHECK(entry->kept.channel == NULL);
        expect(1, transactions[ORDER[i]], (int)-ORDER[i]);
        CHECK_EQ(host.frame.payload_size, 4);
        CHECK_EQ(sbe_kept_answer(&entry->kept, SBE_OK, NULL, 0), SBE_OK); /* twice does nothing */
        expect_nothing(1);
    }
    CHECK_EQ(remote.opened[1]->promised, 0);
    CHECK(nothing_kept());
}

/* Whatever a requester counts in, and in whatever order its requests end. */
static uint64_t strange_transaction(uint32_t pattern, uint32_t i)
{
    static const uint32_t SHIFTS[] = {0, 20, 32, 59};
    if (pattern < 4)
        return (uint64_t)(i + 1) << SHIFTS[pattern];
    return pattern == 4 ? 1ull << (63 - i) : ~0ull << i;
}

static void send_strange(uint64_t transaction)
{
    struct sbe_frame frame = request_frame(KEEP, NULL, 0);
    frame.transaction = transaction;
    CHECK_EQ(sbe_channel_send(&host.channels[2], &frame), SBE_OK);
    sbe_channel_flush(&host.channels[2]);
    run();
}

static void check_any_order(uint32_t pattern, uint32_t order)
{
    enum {
        COUNT = 31
    }; /* of 32 slots, one for what cancels */
    uint32_t state = order, left[COUNT];
    begin();
    open_sized(2, 0, 32, 0);
    for (uint32_t i = 0; i < COUNT; i++) {
        left[i] = i;
        send_strange(strange_transaction(pattern, i));
    }
    CHECK_EQ(pooled, COUNT);
    for (uint32_t count = COUNT; count > 0; count--) {
        state = state * 1664525u + 1013904223u;
        uint32_t at = order == 0 ? count - 1 : order == 1 ? 0 : (state >> 16) % count;
        uint32_t which = left[at];
        memmove(&left[at], &left[at + 1], (count - 1 - at) * sizeof *left);
        if (which % 2 == 0) {
            cancel_call(2, strange_transaction(pattern, which));
            run();
            CHECK(pool[which].cancelled);
        }
        CHECK_EQ(remote.opened[2]->promised, count);
        CHECK_EQ(sbe_kept_answer(&pool[which].kept, SBE_OK, NULL, 0), SBE_OK);
        pool[which].used = false; /* cancel() must not be told of it again */
        cancel_call(2, strange_transaction(pattern, which)); /* too late: it names nothing */
        run();
        while (sbe_channel_receive(&host.channels[2], &host.frame, host.scratch) != 0)
            CHECK_EQ(host.frame.transaction, strange_transaction(pattern, which));
        sbe_channel_idle(&host.channels[2]);
    }
    CHECK(nothing_kept());
    CHECK_EQ(remote.opened[2]->promised, 0);
    CHECK_EQ(host.channels[2].counters.late, COUNT); /* the host has no call of such numbers */
}

static void test_kept_in_any_order(void)
{
    for (uint32_t pattern = 0; pattern < 6; pattern++)
        for (uint32_t order = 0; order < 8; order++)
            check_any_order(pattern, order);
}

/* A transaction that is open is not open twice. */
static void test_kept_twice(void)
{
    begin();
    open_sized(2, 0, 32, 0);
    send_strange(7);
    send_strange(7);
    CHECK_EQ(pooled, 1);
    CHECK_EQ(remote.opened[2]->promised, 1);
    (void)sbe_channel_receive(&host.channels[2], &host.frame, host.scratch);
    CHECK_EQ(host.frame.status, SBE_ENOTSUP);
    close_channel(2);
    CHECK(pool[0].cancelled && nothing_kept());
}

static void test_kept_inline(void)
{
    begin();
    uint8_t bytes[] = "abcdefgh";
    struct sbe_frame frame = request_frame(KEEP, "xyz", 3);
    frame.buffer_count = 2;
    frame.buffers[0] = (struct sbe_buffer){
        .direction = SBE_DIR_INOUT, .flags = SBE_BUFFER_INLINE, .data = bytes, .size = 8};
    frame.buffers[1] =
        (struct sbe_buffer){.direction = SBE_DIR_OUT, .flags = SBE_BUFFER_INLINE, .size = 4};
    uint64_t transaction = send_frame(1, &frame);
    run();
    memset(remote.scratch_in, 0xee, SLOT_SIZE);
    memset(remote.scratch_out, 0xee, SLOT_SIZE);
    struct sbe_kept *kept = &pool[0].kept;
    CHECK(memcmp(kept->payload, "xyz", 3) == 0);
    CHECK(memcmp(kept->buffers[0].data, "abcdefgh", 8) == 0);
    memcpy(kept->buffers[1].data, "1234", 4);
    kept->written[1] = 3;
    CHECK_EQ(sbe_kept_answer(kept, SBE_OK, NULL, 0), SBE_OK);
    expect(1, transaction, SBE_OK);
    CHECK(memcmp(host.frame.buffers[0].data, "abcdefgh", 8) == 0);
    CHECK_EQ(host.frame.buffers[1].size, 3);
    CHECK(memcmp(host.frame.buffers[1].data, "123", 3) == 0);
}

static void test_cannot_keep(void)
{
    begin();
    uint64_t transaction = ask(1, NO_CANCEL);
    run();
    expect(1, transaction, SBE_ENOTSUP);
    struct sbe_frame frame = request_frame(LITTLE, "123456789", 9);
    transaction = send_frame(1, &frame);
    run();
    expect(1, transaction, SBE_ENOSPC);
    frame = request_frame(LITTLE, "1", 1);
    frame.buffer_count = 1;
    frame.buffers[0] =
        (struct sbe_buffer){.direction = SBE_DIR_OUT, .flags = SBE_BUFFER_INLINE, .size = 1};
    transaction = send_frame(1, &frame);
    run();
    expect(1, transaction, SBE_ENOSPC);
    frame = request_frame(KEEP, NULL, 0);
    frame.buffer_count = SBE_KEPT_BUFFERS + 1;
    for (uint32_t i = 0; i < frame.buffer_count; i++)
        frame.buffers[i] = data_buffer(SBE_DIR_IN, 0, 1);
    transaction = send_frame(1, &frame);
    run();
    expect(1, transaction, SBE_ENOTSUP);
    frame = request_frame(KEEP, NULL, 0);
    frame.type = SBE_FRAME_MESSAGE;
    CHECK_EQ(sbe_channel_send(&host.channels[1], &frame), SBE_OK);
    sbe_channel_flush(&host.channels[1]);
    run();
    CHECK(nothing_kept());
    CHECK_EQ(remote.opened[1]->promised, 0);
    CHECK_EQ(sbe_area_find(&remote.engine.session.areas, DATA)->pins, 0);
}

static void test_cancel(void)
{
    begin();
    uint64_t first = ask(1, KEEP), second = ask(1, KEEP);
    run();
    cancel_call(1, 0x123400000001u); /* names nothing */
    cancel_call(1, second);
    run();
    CHECK(pool[1].cancelled && !pool[1].gone && !pool[0].cancelled);
    expect_nothing(1); /* the service decides when */
    CHECK_EQ(sbe_kept_answer(&pool[1].kept, SBE_ECANCELED, NULL, 0), SBE_OK);
    expect(1, second, SBE_ECANCELED);
    cancel_call(1, second); /* too late */
    answer_in_cancel = true;
    cancel_call(1, first);
    run();
    expect(1, first, SBE_ECANCELED);
    expect_nothing(1);
    CHECK(nothing_kept());
}

/* A transaction number of one channel means nothing on another. */
static void test_cancel_of_others(void)
{
    begin();
    open_channel(2, 0);
    uint64_t transaction = ask(1, KEEP);
    run();
    cancel_call(2, transaction);
    run();
    CHECK(!pool[0].cancelled);
}

/* An unmap waits for the answer; the area takes nothing new meanwhile. */
static void test_kept_area(void)
{
    begin();
    struct sbe_frame frame = request_frame(KEEP, NULL, 0);
    frame.buffer_count = 2;
    frame.buffers[0] = data_buffer(SBE_DIR_IN, 0, 8);
    frame.buffers[1] = data_buffer(SBE_DIR_OUT, 8, 8);
    uint64_t transaction = send_frame(1, &frame);
    run();
    CHECK_EQ(sbe_area_find(&remote.engine.session.areas, DATA)->pins, 2);
    host.replied = 0;
    unmap(DATA);
    CHECK_EQ(host.replied, 0);
    uint64_t refused = send_frame(1, &frame);
    run();
    expect(1, refused, SBE_EFAULT);
    pool[0].kept.written[1] = 5;
    CHECK_EQ(sbe_kept_answer(&pool[0].kept, SBE_OK, NULL, 0), SBE_OK);
    expect(1, transaction, SBE_OK);
    CHECK_EQ(host.frame.buffers[0].size, 5);
    CHECK_EQ(remote.detached, 1);
    pump();
    CHECK_EQ(host.replied, 1);
    CHECK_EQ(host.status, SBE_OK);
}

/* The channel goes: what it kept is cancelled, unanswered, and holds nothing any more. */
static void test_kept_and_closed(void)
{
    for (uint32_t answering = 0; answering < 2; answering++) {
        begin();
        answer_in_cancel = answering == 1;
        open_channel(2, 0);
        struct sbe_frame frame = request_frame(KEEP, NULL, 0);
        frame.buffer_count = 1;
        frame.buffers[0] = data_buffer(SBE_DIR_INOUT, 0, 8);
        for (uint32_t i = 0; i < 3; i++)
            send_frame(1, &frame);
        uint64_t bystander = ask(2, KEEP);
        run();
        host.replied = 0;
        unmap(DATA);
        CHECK_EQ(host.replied, 0);
        uint32_t rung = host.rung;
        close_channel(1);
        CHECK_EQ(host.replied, 2);
        CHECK_EQ(host.rung, rung);
        for (uint32_t i = 0; i < 3; i++)
            CHECK(pool[i].cancelled && pool[i].gone);
        CHECK(!pool[3].cancelled);
        CHECK_EQ(remote.closed, 1);
        CHECK_EQ(remote.detached, 1);
        CHECK_EQ(sbe_kept_answer(&pool[0].kept, SBE_OK, NULL, 0), SBE_OK); /* does nothing */
        CHECK_EQ(sbe_kept_answer(&pool[3].kept, SBE_OK, NULL, 0), SBE_OK);
        expect(2, bystander, SBE_OK);
        CHECK(nothing_kept());
        open_channel(1, 0); /* and again */
        uint64_t transaction = ask(1, ECHO);
        run();
        expect(1, transaction, SBE_OK);
    }
}

/* -- turns ---------------------------------------------------------------------------------- */

static void test_priorities(void)
{
    begin();
    open_sized(2, 3, 32, 0);
    open_sized(3, 1, 32, 0);
    open_sized(4, 1, 32, 0);
    for (uint32_t i = 0; i < CHANNELS; i++)
        remote.channels[i].budget = 2;
    for (uint32_t i = 0; i < 6; i++)
        for (uint32_t id = 1; id <= CHANNELS; id++)
            ask(id, ECHO);
    for (uint32_t round = 0; round < 3; round++) {
        log_count = 0;
        sbe_engine_run(&remote.engine);
        /* two each: the highest first, equals in turn, the lowest too */
        CHECK_EQ(log_count, 8);
        CHECK(memcmp(log_of, "\2\2", 2) == 0);
        CHECK(memcmp(log_of + 2, "\3\3\4\4", 4) == 0 || memcmp(log_of + 2, "\4\4\3\3", 4) == 0);
        CHECK(memcmp(log_of + 6, "\1\1", 2) == 0);
    }
    run();
    for (uint32_t id = 1; id <= CHANNELS; id++)
        for (uint32_t i = 0; i < 6; i++)
            CHECK(collect(id));
}

/* A channel that never runs dry does not keep the others from their turn. */
static void test_none_starved(void)
{
    begin();
    open_sized(2, 3, 32, 0);
    uint32_t served = 0;
    for (uint32_t round = 0; round < 50; round++) {
        while (sbe_channel_room(&host.channels[2]) > 0)
            ask(2, ECHO);
        ask(1, ECHO);
        sbe_engine_run(&remote.engine);
        while (collect(2))
            ;
        while (collect(1))
            served++;
        CHECK_EQ(served, round + 1);
    }
}

/* An engine with nothing to do sleeps, and one doorbell wakes it. */
static void test_sleep(void)
{
    begin();
    run();
    CHECK(!sbe_engine_run(&remote.engine));
    uint32_t rung = remote.rung;
    uint64_t first = ask(1, ECHO), second = ask(1, ECHO);
    CHECK_EQ(remote.rung, rung + 1);
    run();
    expect(1, first, SBE_OK);
    expect(1, second, SBE_OK);
    for (uint32_t i = 0; i < 10; i++) { /* spurious ones do no harm */
        sbe_engine_doorbell(&remote.engine, remote.opened[1]);
        sbe_engine_doorbell(&remote.engine, remote.opened[1]);
        CHECK(!sbe_engine_run(&remote.engine));
    }
    /* nor one for a channel that has gone */
    struct sbe_channel *gone = remote.opened[1];
    close_channel(1);
    sbe_engine_doorbell(&remote.engine, gone);
    CHECK(!sbe_engine_run(&remote.engine));
}

/* Channels come and go while others have work, at every place in the list. */
static void test_lists(void)
{
    for (uint32_t victim = 1; victim <= 4; victim++) {
        begin();
        for (uint32_t id = 2; id <= 4; id++)
            open_channel(id, 0);
        uint64_t transactions[5];
        for (uint32_t id = 1; id <= 4; id++)
            transactions[id] = ask(id, ECHO);
        close_channel(victim);
        run();
        for (uint32_t id = 1; id <= 4; id++)
            if (id != victim)
                expect(id, transactions[id], SBE_OK);
        open_channel(victim, 0);
        for (uint32_t id = 1; id <= 4; id++)
            transactions[id] = ask(id, ECHO);
        run();
        for (uint32_t id = 1; id <= 4; id++)
            expect(id, transactions[id], SBE_OK);
    }
}

/* A channel closed in another's turn takes nobody's turn with it. */
static void test_close_in_turn(void)
{
    for (uint32_t victim = 2; victim <= 4; victim++) {
        begin();
        for (uint32_t id = 2; id <= 4; id++)
            open_channel(id, 0);
        run();
        struct sbe_frame frame = request_frame(CLOSE_OTHER, &victim, sizeof victim);
        uint64_t transactions[5] = {0, send_frame(1, &frame)};
        for (uint32_t id = 2; id <= 4; id++)
            transactions[id] = ask(id, ECHO);
        run();
        CHECK_EQ(remote.closed, 1);
        for (uint32_t id = 1; id <= 4; id++)
            if (id != victim)
                expect(id, transactions[id], SBE_OK);
        CHECK_EQ(log_count, 2);
    }
}

/* A channel rung in the turn of a lower one is not forgotten when the round ends. */
static void test_ring_in_turn(void)
{
    begin();
    open_channel(2, 3);
    run();
    ask(1, ASK_HIGHER);
    CHECK(sbe_engine_run(&remote.engine)); /* there is more */
    run();
    CHECK_EQ(log_count, 1);
    CHECK(collect(2));
}

/* Responses that nobody takes: the engine stops reading, sleeps, and goes on when slots come back.
 */
static void test_no_room(void)
{
    begin();
    for (uint32_t i = 0; i < SLOTS; i++)
        ask(1, ECHO);
    run();
    CHECK_EQ(log_count, SLOTS);
    for (uint32_t i = 0; i < SLOTS; i++)
        ask(1, ECHO);
    run();
    CHECK_EQ(log_count, SLOTS);
    for (uint32_t i = 0; i < SLOTS; i++)
        CHECK(collect(1));
    sbe_channel_idle(&host.channels[1]); /* returns slots, rings */
    run();
    CHECK_EQ(log_count, 2 * SLOTS);
    for (uint32_t i = 0; i < SLOTS; i++)
        CHECK(collect(1));
    expect_nothing(1);
}

/* -- the engine asks ------------------------------------------------------------------------ */

static int found_status;
static uint16_t found_service;

static void found(struct sbe_find *find, int status, uint16_t service)
{
    (void)find;
    found_status = status;
    found_service = service;
}

static void test_find(void)
{
    begin();
    struct sbe_find find = {.done = found};
    CHECK_EQ(sbe_engine_find(&remote.engine, remote.opened[1], "answer", &find), SBE_OK);
    pump();
    CHECK_EQ(found_status, SBE_OK);
    CHECK_EQ(found_service, 9);
    CHECK_EQ(sbe_engine_find(&remote.engine, remote.opened[1], "question", &find), SBE_OK);
    pump();
    CHECK_EQ(found_status, SBE_ENOENT);
    CHECK_EQ(found_service, 0);
    CHECK_EQ(sbe_engine_find(&remote.engine, remote.opened[1], "01234567890123456789012345678901",
                             &find),
             SBE_EINVAL);
    CHECK_EQ(sbe_engine_find(&remote.engine, remote.opened[1], "answer", &find), SBE_OK);
    sbe_session_lost(&remote.engine.session);
    CHECK_EQ(found_status, SBE_ECONNRESET);
}

static void test_outcall(void)
{
    begin();
    struct sbe_frame frame = {.type = SBE_FRAME_REQUEST, .service = 9};
    outcall.done = outcall_done;
    for (uint32_t i = 0; i < 2 * CALLS; i++) {
        CHECK_EQ(sbe_engine_call(&remote.engine, remote.opened[1], &frame, &outcall), SBE_OK);
        CHECK(collect(1));
        CHECK_EQ(host.frame.type, SBE_FRAME_REQUEST);
        CHECK_EQ(host.frame.service, 9);
        struct sbe_frame response = {
            .type = SBE_FRAME_RESPONSE, .transaction = host.frame.transaction, .status = SBE_EPERM};
        CHECK_EQ(sbe_channel_send(&host.channels[1], &response), SBE_OK);
        sbe_channel_flush(&host.channels[1]);
        run();
        CHECK_EQ(outcalls_done, i + 1);
        CHECK_EQ(outcall_status, SBE_EPERM);
        CHECK(outcall_answered);
    }
    for (uint32_t i = 0; i < CALLS; i++)
        CHECK_EQ(sbe_engine_call(&remote.engine, remote.opened[1], &frame, &outcall), SBE_OK);
    CHECK_EQ(sbe_engine_call(&remote.engine, remote.opened[1], &frame, &outcall), SBE_ENOMEM);
    open_sized(2, 0, 4, 0); /* half of the slots stay for answers */
    for (uint32_t i = 0; i < 2; i++)
        CHECK_EQ(sbe_engine_call(&remote.engine, remote.opened[2], &frame, &outcall), SBE_OK);
    CHECK_EQ(sbe_engine_call(&remote.engine, remote.opened[2], &frame, &outcall), SBE_ENOMEM);
    outcalls_done = 0;
    close_channel(1);
    CHECK_EQ(outcalls_done, CALLS);
    CHECK_EQ(outcall_status, SBE_ESHUTDOWN);
    CHECK(!outcall_answered);
}

/* What a request of this end names is cleaned before, what comes back invalidated before a look. */
static void test_outcall_hands_over(void)
{
    begin_with(0);
    outcall.done = outcall_done;
    struct sbe_frame frame = {.service = 9, .buffer_count = 3};
    frame.buffers[0] = data_buffer(SBE_DIR_IN, 0, 64);
    frame.buffers[1] = data_buffer(SBE_DIR_INOUT, 64, 128);
    frame.buffers[2] = (struct sbe_buffer){
        .direction = SBE_DIR_IN, .flags = SBE_BUFFER_INLINE, .data = (uint8_t *)memory, .size = 8};
    for (uint32_t i = 0; i < 2; i++)
        CHECK_EQ(sbe_area_resolve(&remote.engine.session.areas, 1, &frame.buffers[i]), SBE_OK);
    CHECK_EQ(sbe_engine_call(&remote.engine, remote.opened[1], &frame, &outcall), SBE_OK);
    CHECK_EQ(remote.cleaned, 64 + 128);
    CHECK(remote.last_cleaned == frame.buffers[1].data);
    CHECK(collect(1));
    struct sbe_frame response = {.type = SBE_FRAME_RESPONSE,
                                 .transaction = host.frame.transaction,
                                 .status = SBE_EPERM, /* it may have written all the same */
                                 .buffer_count = 2};
    response.buffers[0] = data_buffer(SBE_DIR_INOUT, 64, 100);
    response.buffers[1] = data_buffer(SBE_DIR_OUT, UINT32_MAX, 100); /* a lie */
    CHECK_EQ(sbe_channel_send(&host.channels[1], &response), SBE_OK);
    sbe_channel_flush(&host.channels[1]);
    CHECK_EQ(remote.invalidated, 0);
    run();
    CHECK_EQ(outcalls_done, 1);
    CHECK_EQ(outcall_status, SBE_EPERM);
    CHECK_EQ(remote.invalidated, 100);
    CHECK_EQ(remote.cleaned, 64 + 128);
    frame.buffer_count = SBE_BUFFERS_MAX + 1;
    CHECK_EQ(sbe_engine_call(&remote.engine, remote.opened[1], &frame, &outcall), SBE_EMSGSIZE);
}

/* The peer may take fewer buffers than this end has room for, or none. */
static void test_agreed_buffers(void)
{
    static const uint32_t AGREED[] = {0, 1, 3};
    for (uint32_t i = 0; i < sizeof AGREED / sizeof AGREED[0]; i++) {
        host_buffers = AGREED[i];
        begin();
        outcall.done = outcall_done;
        struct sbe_frame frame = {.service = 9, .buffer_count = (uint16_t)(AGREED[i] + 1)};
        for (uint32_t b = 0; b < SBE_BUFFERS_MAX; b++)
            frame.buffers[b] =
                (struct sbe_buffer){.direction = SBE_DIR_IN, .flags = SBE_BUFFER_INLINE};
        CHECK_EQ(sbe_engine_call(&remote.engine, remote.opened[1], &frame, &outcall), SBE_EMSGSIZE);
        frame.buffer_count--;
        CHECK_EQ(sbe_engine_call(&remote.engine, remote.opened[1], &frame, &outcall), SBE_OK);
        CHECK(collect(1));
        CHECK_EQ(host.frame.buffer_count, AGREED[i]);
    }
    host_buffers = SBE_BUFFERS_MAX;
}

/* On a channel that is closing, closed or broken nothing is begun that nobody would end. */
static void test_outcall_closed(void)
{
    begin();
    struct sbe_channel *channel = remote.opened[1];
    struct sbe_frame frame = {.service = 9}; /* its type is filled in */
    outcall.done = outcall_done;
    for (uint32_t i = 0; i < CALLS; i++)
        CHECK_EQ(sbe_engine_call(&remote.engine, channel, &frame, &outcall), SBE_OK);
    CHECK(collect(1));
    CHECK_EQ(host.frame.type, SBE_FRAME_REQUEST);
    call_again = true;
    close_channel(1);
    CHECK_EQ(outcalls_done, CALLS);
    CHECK_EQ(call_again_status, SBE_ESHUTDOWN);
    CHECK_EQ(sbe_engine_call(&remote.engine, channel, &frame, &outcall), SBE_ESHUTDOWN);
}

/* A service that answers all it has when one of them is cancelled. */
static void test_answer_others_in_cancel(void)
{
    begin();
    for (uint32_t i = 0; i < 4; i++)
        ask(1, KEEP);
    run();
    answer_all = true;
    close_channel(1);
    CHECK(nothing_kept());
    uint32_t cancelled = 0;
    for (uint32_t i = 0; i < 4; i++) {
        CHECK(pool[i].kept.channel == NULL);
        cancelled += pool[i].cancelled;
    }
    CHECK_EQ(cancelled, 1);
}

/* A handler that calls with the last slot free does not take the place of its own answer. */
static void test_call_in_handler(void)
{
    begin();
    for (uint32_t i = 0; i < SLOTS - 1; i++)
        ask(1, ECHO);
    run(); /* their answers are not taken: one slot is left */
    uint64_t transaction = ask(1, CALL_BACK);
    run();
    for (uint32_t i = 0; i < SLOTS - 1; i++)
        CHECK(collect(1));
    expect(1, transaction, SBE_EAGAIN);
    expect_nothing(1);
    transaction = ask(1, CALL_BACK);
    run();
    CHECK(collect(1));
    CHECK_EQ(host.frame.type, SBE_FRAME_REQUEST);
    expect(1, transaction, SBE_OK);
}

/* However many are kept, a CANCEL comes in: the last slot is not promised away. */
static void test_keep_all(void)
{
    begin();
    uint64_t transactions[SLOTS];
    for (uint32_t i = 0; i < SLOTS; i++)
        transactions[i] = ask(1, KEEP);
    run();
    CHECK_EQ(pooled, SLOTS - 1);
    expect(1, transactions[SLOTS - 1], SBE_EAGAIN);
    sbe_channel_idle(&host.channels[1]);
    answer_in_cancel = true;
    for (uint32_t i = 0; i < SLOTS - 1; i++) {
        cancel_call(1, transactions[i]);
        run();
        expect(1, transactions[i], SBE_ECANCELED);
        sbe_channel_idle(&host.channels[1]);
    }
    CHECK_EQ(remote.opened[1]->promised, 0);
}

/*
 * While the engine waits for room it has given back what it read: a host that waits for room too
 * and is rung for that goes on.
 */
static void test_both_wait(void)
{
    begin();
    struct sbe_frame message = {.type = SBE_FRAME_MESSAGE, .service = ECHO};
    for (uint32_t i = 0; i < SLOTS - 1; i++)
        ask(1, ECHO);
    run();
    CHECK_EQ(sbe_ring_free(&host.channels[1].tx, SLOTS), SLOTS);
    ask(1, ECHO);
    for (uint32_t i = 1; i < SLOTS; i++)
        CHECK_EQ(sbe_channel_send(&host.channels[1], &message), SBE_OK);
    sbe_channel_flush(&host.channels[1]);
    CHECK(sbe_channel_wait_room(&host.channels[1]));
    uint32_t rung = host.rung;
    run(); /* takes one, whose answer fills the other ring */
    CHECK_EQ(log_count, SLOTS);
    CHECK_EQ(host.rung, rung + 1);
    CHECK_EQ(sbe_channel_room(&host.channels[1]), 1);
    for (uint32_t i = 0; i < SLOTS; i++)
        CHECK(collect(1));
    sbe_channel_idle(&host.channels[1]);
    run();
    CHECK_EQ(log_count, 2 * SLOTS - 1);
}

/* -- a ring is shut ------------------------------------------------------------------------- */

static void test_broken(void)
{
    begin();
    open_channel(2, 0);
    struct sbe_ring_producer *producer = host.channels[1].tx.producer;
    run();
    sbe_store_relaxed(&producer->head, sbe_load_relaxed(&producer->head) + SLOTS + 1);
    sbe_engine_doorbell(&remote.engine, remote.opened[1]);
    uint64_t bystander = ask(2, ECHO);
    run();
    expect(2, bystander, SBE_OK);
    pump();
    CHECK_EQ(host.broken, 1);
    host.broken = 0;
    for (uint32_t i = 0; i < 3; i++) {
        sbe_engine_doorbell(&remote.engine, remote.opened[1]);
        CHECK(!sbe_engine_run(&remote.engine));
    }
    pump();
    CHECK_EQ(host.broken, 0); /* told once */
    close_channel(1);
    CHECK_EQ(host.status, SBE_OK);
    open_channel(1, 0);
    uint64_t transaction = ask(1, ECHO);
    run();
    expect(1, transaction, SBE_OK);
}

/* A ring that takes no answers: no request behind it is executed. */
static void test_broken_answers(void)
{
    begin();
    for (uint32_t i = 0; i < SLOTS; i++)
        ask(1, ECHO);
    run();
    CHECK_EQ(log_count, SLOTS);
    ask(1, ECHO);
    struct sbe_ring_consumer *consumer = host.channels[1].rx.consumer;
    sbe_store_relaxed(&consumer->tail, sbe_load_relaxed(&consumer->tail) + SLOTS + 1);
    sbe_engine_doorbell(&remote.engine, remote.opened[1]);
    run();
    CHECK_EQ(log_count, SLOTS);
    pump();
    CHECK_EQ(host.broken, 1);
}

/* -- pieces ---------------------------------------------------------------------------------- */

static void create_context(uint32_t context)
{
    struct sbe_context_message message = {.context = context};
    request(SBE_CONTROL_CONTEXT_CREATE, &message, sizeof message);
    CHECK_EQ(host.status, SBE_OK);
}

static uint64_t ask_pieces(uint32_t channel, uint32_t count)
{
    struct sbe_frame frame = request_frame(PIECES, &count, sizeof count);
    return send_frame(channel, &frame);
}

static void begin_in_pieces(void)
{
    begin();
    sbe_pieces_use(&remote.config, remote.paused);
}

static void test_pieces_follow_each_other(void)
{
    begin(); /* without memory for it */
    uint64_t transaction = ask_pieces(1, 20);
    CHECK(sbe_engine_run(&remote.engine));
    CHECK_EQ(log_count, 20);
    expect(1, transaction, SBE_OK);
    CHECK_EQ(host.frame.payload_size, 20);
    CHECK_EQ(host.frame.handled_ns, 20 * PIECE_NS);
    CHECK_EQ(sbe_load_relaxed(&host.channels[1].tx.consumer->at_work), 0);
}

/* What a paused request has is its own, whatever the engine serves meanwhile. */
static void test_paused(void)
{
    begin_in_pieces();
    create_context(7);
    create_context(8);
    open_in(7, 2, 0, SLOTS, 0);
    open_in(8, 3, 0, SLOTS, 0);
    uint32_t count = 12;
    struct sbe_frame frame = request_frame(PIECES, &count, sizeof count);
    frame.buffer_count = 3;
    frame.buffers[0] = data_buffer(SBE_DIR_OUT, 0, 16);
    frame.buffers[1] =
        (struct sbe_buffer){.direction = SBE_DIR_OUT, .flags = SBE_BUFFER_INLINE, .size = 16};
    static uint8_t inout[16] = "0123456789abcde";
    frame.buffers[2] = (struct sbe_buffer){
        .direction = SBE_DIR_INOUT, .flags = SBE_BUFFER_INLINE, .size = 16, .data = inout};
    uint64_t transactions[4];
    for (uint32_t id = 1; id <= 3; id++) {
        count = 12 + id;
        transactions[id] = send_frame(id, &frame);
    }
    uint64_t behind = ask(2, ECHO);
    CHECK(sbe_engine_run(&remote.engine));
    CHECK_EQ(log_count, 15); /* five pieces each */
    host.replied = 0;
    unmap(DATA);
    CHECK_EQ(host.replied, 0); /* it is in use */
    uint32_t rounds = 1;
    for (; sbe_engine_run(&remote.engine); rounds++)
        CHECK(rounds < 10);
    CHECK_EQ(rounds, 3);
    CHECK_EQ(host.replied, 0);
    pump();
    CHECK_EQ(host.replied, 1);
    CHECK_EQ(remote.detached, 1);
    for (uint32_t id = 1; id <= 3; id++) {
        expect(id, transactions[id], SBE_OK);
        CHECK_EQ(host.frame.payload_size, 12 + id);
        const struct sbe_buffer *buffers = host.frame.buffers;
        for (uint32_t i = 0; i < 12 + id; i++) {
            CHECK_EQ(((const uint8_t *)host.frame.payload)[i], 12 + id);
            CHECK_EQ(((const uint8_t *)buffers[1].data)[i], 12 + id);
            CHECK_EQ(((const uint8_t *)buffers[2].data)[i], 12 + id);
        }
        CHECK_EQ(buffers[0].size, 12 + id);
        CHECK_EQ(buffers[1].size, 12 + id);
    }
    expect(2, behind, SBE_OK);
    for (uint32_t id = 1; id <= 3; id++)
        CHECK_EQ(remote.opened[id]->promised, 0);
}

static void test_paused_is_late(void)
{
    begin_in_pieces();
    uint32_t count = 20;
    struct sbe_frame frame = request_frame(PIECES, &count, sizeof count);
    frame.deadline_us = 1200;
    frame.buffer_count = 1;
    frame.buffers[0] = data_buffer(SBE_DIR_OUT, 0, 32);
    uint64_t transaction = send_frame(1, &frame);
    run();
    CHECK_EQ(log_count, 15);
    expect(1, transaction, SBE_ETIMEDOUT);
    host.replied = 0;
    unmap(DATA);
    CHECK_EQ(host.replied, 1);
}

/* A CANCEL is seen between two pieces, whatever else was sent before it, and names one request. */
static void test_paused_is_cancelled(void)
{
    begin_in_pieces();
    uint32_t count = 1000;
    struct sbe_frame frame = request_frame(PIECES, &count, sizeof count);
    frame.buffer_count = 1;
    frame.buffers[0] = data_buffer(SBE_DIR_OUT, 0, 1000);
    uint64_t transaction = send_frame(1, &frame);
    CHECK(sbe_engine_run(&remote.engine));
    cancel_call(1, transaction + 1); /* of what is sent next, and is not begun */
    uint64_t behind = ask_pieces(1, 12), echo = ask(1, ECHO);
    CHECK(sbe_engine_run(&remote.engine));
    CHECK(sbe_engine_run(&remote.engine));
    CHECK_EQ(log_count, 15);
    cancel_call(1, behind); /* which is passed in the search for the next one */
    cancel_call(1, transaction);
    CHECK(sbe_engine_run(&remote.engine));
    expect(1, transaction, SBE_ECANCELED);
    CHECK_EQ(sbe_load_relaxed(&host.channels[1].tx.consumer->at_work), 0);
    run();
    CHECK_EQ(log_count, 15 + 5 + 1); /* one turn of what was begun behind it, and the echo */
    expect(1, behind, SBE_ECANCELED);
    expect(1, echo, SBE_OK);
    CHECK_EQ(remote.opened[1]->promised, 0);
    host.replied = 0;
    unmap(DATA);
    CHECK_EQ(host.replied, 1);
}

/* The channel, its context or the whole peer goes while a request is paused. */
static void test_paused_is_dropped(void)
{
    for (uint32_t way = 0; way < 3; way++) {
        begin_in_pieces();
        create_context(7);
        open_in(7, 2, 0, SLOTS, 0);
        map(ID(1, 4), 7, 0);
        uint32_t count = 100;
        struct sbe_frame frame = request_frame(PIECES, &count, sizeof count);
        frame.buffer_count = 1;
        frame.buffers[0] = (struct sbe_buffer){
            .area = ID(1, 4), .offset = 0, .size = 100, .direction = SBE_DIR_OUT};
        send_frame(2, &frame);
        uint64_t bystander = ask_pieces(1, 7);
        CHECK(sbe_engine_run(&remote.engine));
        struct sbe_context_message message = {.context = 7};
        if (way == 0)
            close_channel(2);
        else if (way == 1)
            request(SBE_CONTROL_CONTEXT_DESTROY, &message, sizeof message);
        else
            sbe_session_lost(&remote.engine.session);
        uint32_t served = log_count;
        run();
        if (way == 2) {
            CHECK_EQ(log_count, served);
            continue;
        }
        CHECK_EQ(host.status, SBE_OK);
        CHECK_EQ(log_count, served + 2); /* the bystander's */
        expect(1, bystander, SBE_OK);
        if (way == 0)
            unmap(ID(1, 4));
        CHECK_EQ(remote.detached, way == 0 ? 1u : 2u);
        if (way == 1)
            create_context(7);
        open_in(7, 2, 0, SLOTS, 0);
        uint64_t transaction = ask_pieces(2, 6);
        run();
        expect(2, transaction, SBE_OK);
    }
}

/* Whatever one context sends, on however many channels and priorities, another waits one turn. */
static void test_shares(void)
{
    begin_in_pieces();
    create_context(7);
    open_in(7, 2, 3, SLOTS, 0);
    open_in(7, 3, 3, SLOTS, 0);
    open_in(7, 4, 2, SLOTS, 0);
    for (uint32_t id = 2; id <= 4; id++)
        for (uint32_t i = 0; i < 4; i++)
            ask_pieces(id, 1 + i * 20);
    uint32_t turns[5] = {0};
    for (uint32_t round = 0; round < 24; round++) {
        log_count = 0;
        uint64_t begun_ns = remote.now_ns, transaction = ask(1, ECHO);
        CHECK(sbe_engine_run(&remote.engine));
        CHECK(remote.now_ns - begun_ns <= SBE_TURN_NS + PIECE_NS);
        expect(1, transaction, SBE_OK);
        CHECK_EQ(log_of[log_count - 1], 1);
        turns[log_of[0]]++;
    }
    /* and its own channels of a priority share what it has; a lower one has what they leave */
    CHECK(turns[2] >= 11 && turns[3] >= 11);
    CHECK_EQ(turns[2] + turns[3], 24);
    CHECK_EQ(turns[4], 0);
}

/* Handlers that take no time are not free either: there are frames to take. */
static void test_small_frames_count(void)
{
    begin_in_pieces();
    create_context(7);
    for (uint32_t id = 2; id <= 4; id++) {
        open_in(7, id, 1, 32, 0);
        for (uint32_t i = 0; i < 32; i++)
            ask(id, ECHO);
    }
    remote.channels[1].share->round = remote.engine.round + 1; /* of which little is left */
    remote.channels[1].share->left_ns = 40000;
    CHECK(sbe_engine_run(&remote.engine));
    CHECK_EQ(log_count, 64); /* two turns of 32 frames */
    CHECK_EQ(log_of[31], log_of[0]);
    CHECK_EQ(log_of[63], log_of[32]);
    uint8_t third = (uint8_t)(2 + 3 + 4 - log_of[0] - log_of[32]);
    log_count = 0;
    run();
    CHECK_EQ(log_of[0], third); /* it had none */
    CHECK_EQ(log_count, 32);
}

static void test_kept_shares(void)
{
    begin();
    remote.config.kept_per_context = 3;
    create_context(7);
    create_context(8);
    open_in(7, 2, 0, SLOTS, 0);
    open_in(7, 3, 0, SLOTS, 0);
    open_in(8, 4, 0, SLOTS, 0);
    uint64_t mine[2] = {ask(2, KEEP), ask(2, KEEP)}, beyond[2] = {ask(3, KEEP), 0};
    run();
    beyond[1] = ask(3, KEEP);
    uint64_t other = ask(4, KEEP);
    run();
    expect(3, beyond[1], SBE_EBUSY);
    expect_nothing(4);
    CHECK_EQ(sbe_kept_answer(&pool[0].kept, SBE_OK, NULL, 0), SBE_OK);
    expect(2, mine[0], SBE_OK);
    beyond[1] = ask(3, KEEP);
    run();
    expect_nothing(3);
    close_channel(3); /* which gives back what it had */
    beyond[0] = ask(2, KEEP);
    beyond[1] = ask(2, KEEP);
    run();
    expect_nothing(2);
    for (uint32_t i = 1; i < pooled; i++)
        CHECK_EQ(sbe_kept_answer(&pool[i].kept, SBE_OK, NULL, 0), SBE_OK);
    expect(2, mine[1], SBE_OK);
    expect(2, beyond[0], SBE_OK);
    expect(2, beyond[1], SBE_OK);
    expect(4, other, SBE_OK);
}

int main(void)
{
    test_echo();
    test_buffers();
    test_inline();
    test_refused();
    test_message();
    test_sync();
    test_failure_gives_back();
    test_drop_gives_back();
    test_event_frame();
    test_inline_room();
    test_reply_room();
    test_deadline();
    test_kept();
    test_kept_in_any_order();
    test_kept_twice();
    test_kept_inline();
    test_cannot_keep();
    test_cancel();
    test_cancel_of_others();
    test_kept_area();
    test_kept_and_closed();
    test_priorities();
    test_pieces_follow_each_other();
    test_paused();
    test_paused_is_late();
    test_paused_is_cancelled();
    test_paused_is_dropped();
    test_shares();
    test_small_frames_count();
    test_kept_shares();
    test_none_starved();
    test_sleep();
    test_lists();
    test_close_in_turn();
    test_ring_in_turn();
    test_no_room();
    test_find();
    test_outcall();
    test_outcall_closed();
    test_outcall_hands_over();
    test_agreed_buffers();
    test_answer_others_in_cancel();
    test_call_in_handler();
    test_both_wait();
    test_keep_all();
    test_broken();
    test_broken_answers();
    return 0;
}
