/* SPDX-License-Identifier: Apache-2.0 */
#include "core/session.h"

#include <string.h>

#include "core/session_base.h"
#include "core/session_peer.h"
#include "core/status.h"

bool sbe_name_set(char *to, const char *from)
{
    char *last = to + SBE_NAME_SIZE - 1;
    while (*from != '\0' && to != last)
        *to++ = *from++;
    return *from == '\0';
}

static void set_state(struct sbe_session *session, enum sbe_session_state state)
{
    const struct sbe_session_hooks *hooks = session->config->hooks;
    if (session->state == state)
        return;
    session->state = state;
    if (hooks->state_changed != NULL)
        hooks->state_changed(hooks->self, state);
}

/* What an end is, from its role to its limits, it tells as it is. */
#define TOLD_SIZE (offsetof(struct sbe_hello, name) - offsetof(struct sbe_hello, role))
#define TOLD(field)                                                                          \
    _Static_assert(offsetof(struct sbe_session_config, field) -                              \
                           offsetof(struct sbe_session_config, role) ==                      \
                       offsetof(struct sbe_hello, field) - offsetof(struct sbe_hello, role), \
                   #field)
TOLD(coherent);
TOLD(address_bits);
TOLD(reserved);
TOLD(features);
TOLD(cache_line);
TOLD(limits);

static int send_hello(struct sbe_session *session)
{
    const struct sbe_session_config *config = session->config;
    struct sbe_hello hello = {
        .magic = SBE_MAGIC,
        .version_min = config->version_min,
        .version_max = config->version_max,
        .peer_epoch = session->peer_epoch,
    };
    memcpy((uint8_t *)&hello + offsetof(struct sbe_hello, role),
           (const uint8_t *)config + offsetof(struct sbe_session_config, role), TOLD_SIZE);
    (void)sbe_name_set(hello.name, config->name); /* cut where it is too long */
    return sbe_session_transmit(session, SBE_CONTROL_HELLO, &hello.control, sizeof hello);
}

static struct sbe_session_pending *find_pending(struct sbe_session *session, uint32_t id)
{
    const struct sbe_session_config *config = session->config;
    return sbe_table_find(config->pending, config->pending_count, sizeof *config->pending, id);
}

/* Last in its caller's work: the hook may ask again, or start the next life. */
SBE_OUT_OF_LINE static void finish(struct sbe_session *session, struct sbe_session_pending *entry,
                                   int status, const struct sbe_control *message)
{
    const struct sbe_session_hooks *hooks = session->config->hooks;
    entry->id = 0;
    if (hooks->replied != NULL)
        hooks->replied(hooks->self, entry->token, status, message);
}

static void fail_pending(struct sbe_session *session)
{
    struct sbe_session_pending *entry = session->config->pending;
    for (uint32_t left = session->config->pending_count; left > 0; left--, entry++)
        if (entry->id != 0)
            finish(session, entry, SBE_ECONNRESET, NULL);
}

/*
 * Lets go of all that is the peer's. The first line also keeps hooks, which run below, from
 * answering or asking the peer that was.
 */
static void forget_peer(struct sbe_session *session, enum sbe_session_state state)
{
    session->peer_epoch = 0;
    session->confirmed_epoch = 0;
    sbe_peer_drop(session);
    uint32_t epoch = session->epoch;
    fail_pending(session);
    if (session->epoch == epoch) /* who was told may have started the next life */
        set_state(session, state);
}

/* -- negotiation --------------------------------------------------------------------------- */

/* The highest version that both speak, if their ranges meet. */
static uint16_t common_version(const struct sbe_session_config *config,
                               const struct sbe_hello *hello)
{
    return hello->version_max < config->version_max ? hello->version_max : config->version_max;
}

static enum sbe_refusal judge(const struct sbe_session_config *config,
                              const struct sbe_hello *hello, uint16_t version)
{
    const struct sbe_limits *limits = &hello->limits;
    if (hello->magic != SBE_MAGIC)
        return SBE_REFUSED_MAGIC;
    if (version < config->version_min || version < hello->version_min)
        return SBE_REFUSED_VERSION;
    if (hello->role + config->role != SBE_ROLE_HOST + SBE_ROLE_REMOTE)
        return SBE_REFUSED_ROLE;
    if (!sbe_ring_line_is_legal(hello->cache_line) || hello->address_bits < 1 ||
        hello->address_bits > 64 || limits->areas == 0 || limits->channels == 0 ||
        limits->slots < 2 || limits->slot_size < SBE_SLOT_ALIGN)
        return SBE_REFUSED_LIMITS;
    return SBE_REFUSED_NOT;
}

_Static_assert(sizeof(struct sbe_limits) % sizeof(uint32_t) == 0, "limits are counts, no more");

/* The smaller of each. */
static void agree_limits(struct sbe_limits *agreed, const struct sbe_limits *ours,
                         const struct sbe_limits *theirs)
{
    uint32_t *to = (uint32_t *)(void *)agreed;
    const uint32_t *one = (const uint32_t *)(const void *)ours;
    const uint32_t *other = (const uint32_t *)(const void *)theirs;
    for (uint32_t i = 0; i < sizeof *agreed / sizeof *to; i++)
        to[i] = one[i] < other[i] ? one[i] : other[i];
}

static void agree(struct sbe_session *session, const struct sbe_hello *hello, uint16_t version)
{
    const struct sbe_session_config *config = session->config;
    session->peer_epoch = hello->control.epoch;
    session->version = version;
    session->line = hello->cache_line > config->cache_line ? hello->cache_line : config->cache_line;
    session->areas.coherent = hello->coherent == 1 && config->coherent == 1;
    session->peer_address_bits = hello->address_bits;
    agree_limits(&session->limits, &config->limits, &hello->limits);
}

static void meet(struct sbe_session *session)
{
    if (session->peer_epoch == 0)
        set_state(session, SBE_SESSION_WAITING);
    else if (session->confirmed_epoch == session->peer_epoch)
        set_state(session, SBE_SESSION_CONNECTED);
    else
        set_state(session, SBE_SESSION_INITIALISED);
}

static void tell_refusal(struct sbe_session *session, enum sbe_refusal why, bool theirs,
                         uint16_t peer_min, uint16_t peer_max)
{
    const struct sbe_session_hooks *hooks = session->config->hooks;
    if (hooks->refused != NULL)
        hooks->refused(hooks->self, why, theirs, peer_min, peer_max);
}

static int take_hello(struct sbe_session *session, const struct sbe_control *message)
{
    const struct sbe_session_config *config = session->config;
    const struct sbe_hello *hello = (const void *)message;
    if (session->state == SBE_SESSION_INITIALISING || hello->control.epoch == 0)
        return SBE_ENOTCONN;
    bool again = hello->control.epoch == session->peer_epoch;
    if (!again && session->peer_epoch != 0)
        forget_peer(session, SBE_SESSION_WAITING); /* the peer restarted */
    uint16_t version = common_version(config, hello);
    enum sbe_refusal why = judge(config, hello, version);
    if (why == SBE_REFUSED_NOT && !again)
        agree(session, hello, version);
    struct sbe_hello_reply
        reply; /* every field is set, the rest of control by sbe_session_transmit() */
    reply.control.id = hello->control.id;
    reply.control.status = why == SBE_REFUSED_NOT ? SBE_OK : SBE_EPROTO;
    reply.magic = SBE_MAGIC;
    reply.version = why == SBE_REFUSED_NOT ? session->version : 0;
    reply.refusal = (uint16_t)why;
    reply.version_min = config->version_min;
    reply.version_max = config->version_max;
    reply.peer_epoch = hello->control.epoch;
    int status = sbe_session_transmit(session, SBE_CONTROL_HELLO | SBE_CONTROL_REPLY,
                                      &reply.control, sizeof reply);
    if (why != SBE_REFUSED_NOT) {
        tell_refusal(session, why, false, hello->version_min, hello->version_max);
        return status; /* no HELLO of ours: two ends that refuse each other would never stop */
    }
    if (!again)
        meet(session);
    /* A peer that started later, or again, has not seen our HELLO. */
    if (status == SBE_OK && hello->peer_epoch != session->epoch)
        status = send_hello(session);
    return status;
}

static int take_hello_reply(struct sbe_session *session, const struct sbe_hello_reply *reply)
{
    if (reply->magic != SBE_MAGIC || reply->peer_epoch != session->epoch)
        return SBE_ENOTCONN; /* answers a HELLO of our former life */
    if (session->state < SBE_SESSION_WAITING || session->state > SBE_SESSION_CONNECTED)
        return SBE_ENOTCONN;
    if (session->state == SBE_SESSION_CONNECTED)
        return SBE_OK; /* HELLOs that crossed are answered twice */
    if (reply->refusal != SBE_REFUSED_NOT) {
        enum sbe_refusal why = reply->refusal <= SBE_REFUSED_LIMITS
                                   ? (enum sbe_refusal)reply->refusal
                                   : SBE_REFUSED_LIMITS;
        tell_refusal(session, why, true, reply->version_min, reply->version_max);
        return SBE_OK;
    }
    if (reply->control.status != SBE_OK || reply->version < session->config->version_min ||
        reply->version > session->config->version_max)
        return SBE_EBADMSG; /* accepted, but not what we speak */
    session->confirmed_epoch = reply->control.epoch;
    meet(session);
    return SBE_OK;
}

/* -- requests of the peer ------------------------------------------------------------------ */

static int take_bye(struct sbe_session *session, const struct sbe_control *message)
{
    sbe_session_reply(session, SBE_CONTROL_BYE, message->id, SBE_OK);
    forget_peer(session, SBE_SESSION_CLOSED);
    return SBE_REPLIED;
}

static int take_ping(struct sbe_session *session, const struct sbe_control *message)
{
    struct sbe_ping reply = *(const struct sbe_ping *)(const void *)message; /* id and cookie */
    (void)sbe_session_transmit(session, SBE_CONTROL_PING | SBE_CONTROL_REPLY, &reply.control,
                               sizeof reply);
    return SBE_REPLIED;
}

static int reply_service(struct sbe_session *session, const struct sbe_control *message,
                         uint32_t context, const char *name, uint32_t which)
{
    const struct sbe_session_hooks *hooks = session->config->hooks;
    struct sbe_service_reply reply = {.service = 0};
    /* `which` is the least version that will do for a name, else an index */
    int status = hooks->service(hooks->self, context, name, which, &reply);
    if (status == SBE_OK && name != NULL && reply.version < which)
        status = SBE_ENOTSUP; /* the reply says which version there is */
    reply.control.id = message->id;
    reply.control.status = status;
    (void)sbe_session_transmit(session, message->type | SBE_CONTROL_REPLY, &reply.control,
                               sizeof reply);
    return SBE_REPLIED;
}

static int take_service_find(struct sbe_session *session, const struct sbe_control *message)
{
    const struct sbe_service_find *find = (const void *)message;
    /* The context may be one that this end made: the floor above knows its contexts. */
    return reply_service(session, message, find->context, find->name, find->version);
}

static int take_service_list(struct sbe_session *session, const struct sbe_control *message)
{
    const struct sbe_service_list *list = (const void *)message;
    return reply_service(session, message, SBE_CONTEXT_GLOBAL, NULL, list->index);
}

static int take_event(struct sbe_session *session, const struct sbe_control *message)
{
    const struct sbe_event_message *body = (const void *)message;
    const struct sbe_session_hooks *hooks = session->config->hooks;
    if (hooks->event != NULL)
        hooks->event(hooks->self, body->event, body->value);
    return SBE_REPLIED;
}

/* -- dispatch ------------------------------------------------------------------------------ */

struct message_shape {
    uint8_t size;     /* exact; for AREA_MAP the least, it checks the rest itself */
    uint8_t reserved; /* from here to the end of the word all is zero; 0: none */
};

struct message_rule {
    struct message_shape shapes[2]; /* of the request, of its reply */
    int (*take)(struct sbe_session *session, const struct sbe_control *message);
};

/* clang-format off */
#define SIZE(type)          {sizeof(struct type), 0}
#define WITH_RESERVED(type) {sizeof(struct type), offsetof(struct type, reserved)}
/* clang-format on */

static const struct message_rule RULES[] = {
    [SBE_CONTROL_HELLO] = {{WITH_RESERVED(sbe_hello), SIZE(sbe_hello_reply)}, take_hello},
    [SBE_CONTROL_BYE] = {{SIZE(sbe_control), SIZE(sbe_plain_reply)}, take_bye},
    [SBE_CONTROL_PING] = {{SIZE(sbe_ping), SIZE(sbe_ping)}, take_ping},
    [SBE_CONTROL_CONTEXT_CREATE] = {{WITH_RESERVED(sbe_context_message), SIZE(sbe_plain_reply)},
                                    sbe_peer_context_create},
    [SBE_CONTROL_CONTEXT_DESTROY] = {{WITH_RESERVED(sbe_context_message), SIZE(sbe_plain_reply)},
                                     sbe_peer_context_destroy},
    [SBE_CONTROL_AREA_MAP] = {{SIZE(sbe_area_map), SIZE(sbe_plain_reply)}, sbe_peer_area_map},
    [SBE_CONTROL_AREA_UNMAP] = {{WITH_RESERVED(sbe_area_unmap), SIZE(sbe_plain_reply)},
                                sbe_peer_area_unmap},
    [SBE_CONTROL_CHANNEL_OPEN] = {{SIZE(sbe_channel_open), SIZE(sbe_plain_reply)},
                                  sbe_peer_channel_open},
    [SBE_CONTROL_CHANNEL_CLOSE] = {{WITH_RESERVED(sbe_channel_close), SIZE(sbe_plain_reply)},
                                   sbe_peer_channel_close},
    [SBE_CONTROL_SERVICE_FIND] = {{WITH_RESERVED(sbe_service_find),
                                   WITH_RESERVED(sbe_service_reply)},
                                  take_service_find},
    [SBE_CONTROL_SERVICE_LIST] = {{WITH_RESERVED(sbe_service_list),
                                   WITH_RESERVED(sbe_service_reply)},
                                  take_service_list},
    [SBE_CONTROL_EVENT] = {{SIZE(sbe_event_message), {0, 0}}, take_event},
};

static bool zero_to_word_end(const uint8_t *bytes, uint32_t at)
{
    uint32_t any = 0;
    if (at != 0)
        do
            any |= bytes[at];
        while (++at % sizeof(uint32_t) != 0);
    return any == 0;
}

static uint32_t declared_handles(const struct sbe_control *message)
{
    if (message->type == SBE_CONTROL_AREA_MAP)
        return ((const struct sbe_area_map *)(const void *)message)->handles;
    if (message->type == SBE_CONTROL_CHANNEL_OPEN)
        return ((const struct sbe_channel_open *)(const void *)message)->handles;
    return 0;
}

static int take_reply(struct sbe_session *session, const struct sbe_control *message)
{
    struct sbe_session_pending *entry = find_pending(session, message->id);
    if (message->id == 0 || entry == NULL || (entry->type | SBE_CONTROL_REPLY) != message->type) {
        session->dropped++;
        return SBE_ENOTCONN;
    }
    entry->id = 0;
    if (message->type == (SBE_CONTROL_BYE | SBE_CONTROL_REPLY))
        forget_peer(session, SBE_SESSION_CLOSED);
    finish(session, entry, message->status, message);
    return SBE_OK;
}

static int take_connected(struct sbe_session *session, const struct sbe_control *message,
                          const struct message_rule *rule, bool reply)
{
    bool busy = session->state == SBE_SESSION_CONNECTED || session->state == SBE_SESSION_CLOSING;
    if (!busy || message->epoch != session->peer_epoch) {
        session->dropped++;
        return SBE_ENOTCONN;
    }
    if (reply)
        return take_reply(session, message);
    int status = rule->take(session, message);
    if (status != SBE_REPLIED)
        sbe_session_reply(session, (enum sbe_control_type)message->type, message->id, status);
    return SBE_OK;
}

/* Size, reserved fields and the end of the name, as the shape demands. */
SBE_OUT_OF_LINE static bool fits(const struct sbe_control *message,
                                 const struct message_shape *shape)
{
    const uint8_t *bytes = (const void *)message;
    bool open_ended = message->type == SBE_CONTROL_AREA_MAP;
    if (open_ended ? message->size < shape->size : message->size != shape->size)
        return false;
    if (shape->size == sizeof(struct sbe_service_reply) && /* FIND has its name in the same place */
        bytes[sizeof(struct sbe_service_reply) - 1] != '\0')
        return false;
    return zero_to_word_end(bytes, shape->reserved);
}

int sbe_session_receive(struct sbe_session *session, const void *bytes, uint32_t size,
                        uint32_t handles)
{
    const struct sbe_control *message = bytes;
    if (size < sizeof *message || size > SBE_CONTROL_MAX || message->size != size)
        return SBE_EBADMSG;
    bool reply = (message->type & SBE_CONTROL_REPLY) != 0;
    uint32_t type = message->type & ~SBE_CONTROL_REPLY;
    if (type == 0 || type >= sizeof RULES / sizeof RULES[0] || message->status > 0 ||
        (!reply && message->status != 0))
        return SBE_EBADMSG;
    const struct message_rule *rule = &RULES[type];
    /* a failure may come without its body */
    bool failure =
        type != SBE_CONTROL_HELLO && message->status != 0 && size == sizeof(struct sbe_plain_reply);
    if (!failure && !fits(message, &rule->shapes[reply ? 1 : 0]))
        return SBE_EBADMSG;
    if (handles != declared_handles(message))
        return SBE_EBADMSG;
    SBE_STEP("before a control message is taken");
    if (type == SBE_CONTROL_HELLO)
        return reply ? take_hello_reply(session, bytes) : rule->take(session, message);
    return take_connected(session, message, rule, reply);
}

/* -- this end's own requests --------------------------------------------------------------- */

int sbe_session_init(struct sbe_session *session, const struct sbe_session_config *config)
{
    *session = (struct sbe_session){
        .config = config,
        .areas = {.areas = config->areas, .count = (uint16_t)config->limits.areas},
        .state = SBE_SESSION_INITIALISING,
    };
    if (config->limits.areas > UINT16_MAX || config->limits.buffers > SBE_BUFFERS_MAX ||
        config->address_bits < 1 || config->address_bits > 64)
        return SBE_EINVAL;
    sbe_table_clear(config->areas, config->limits.areas, sizeof *config->areas);
    sbe_table_clear(config->contexts, config->limits.contexts, sizeof *config->contexts);
    sbe_table_clear(config->channels, config->limits.channels, sizeof *config->channels);
    sbe_table_clear(config->pending, config->pending_count, sizeof *config->pending);
    return SBE_OK;
}

int sbe_session_start(struct sbe_session *session, uint32_t epoch)
{
    if (epoch == 0 || epoch == session->epoch)
        return SBE_EINVAL;
    session->epoch = epoch;
    forget_peer(session, SBE_SESSION_WAITING);
    return send_hello(session);
}

void sbe_session_lost(struct sbe_session *session)
{
    if (session->state == SBE_SESSION_INITIALISING)
        return; /* nothing to lose, and no epoch to wait with */
    forget_peer(session, SBE_SESSION_WAITING);
}

static bool can_ask(const struct sbe_session *session)
{
    return session->state == SBE_SESSION_CONNECTED && session->peer_epoch != 0;
}

int sbe_session_request(struct sbe_session *session, enum sbe_control_type type,
                        struct sbe_control *message, uint32_t size, void *token)
{
    if (!can_ask(session))
        return SBE_ENOTCONN;
    struct sbe_session_pending *entry = find_pending(session, 0);
    if (entry == NULL)
        return SBE_ENOMEM;
    if (++session->next_id == 0)
        session->next_id = 1;
    uint32_t id = session->next_id;
    /* Taken before it is sent: the answer may come, and other requests start, within the hook. */
    *entry = (struct sbe_session_pending){id, (uint16_t)type, token};
    message->id = id;
    message->status = SBE_OK;
    int status = sbe_session_transmit(session, type, message, size);
    if (status == SBE_OK || entry->id != id)
        return SBE_OK; /* sent, or replied already when the session ended within the hook */
    entry->id = 0;
    return status;
}

int sbe_session_bye(struct sbe_session *session, void *token)
{
    struct sbe_control bye;
    int status = sbe_session_request(session, SBE_CONTROL_BYE, &bye, sizeof bye, token);
    if (status == SBE_OK && session->state == SBE_SESSION_CONNECTED) /* not answered yet */
        set_state(session, SBE_SESSION_CLOSING);
    return status;
}

int sbe_session_event(struct sbe_session *session, uint32_t event, uint32_t value)
{
    struct sbe_event_message
        message; /* every field is set, the rest of control by sbe_session_transmit() */
    if (!can_ask(session))
        return SBE_ENOTCONN;
    message.control.id = 0;
    message.control.status = SBE_OK;
    message.event = event;
    message.value = value;
    return sbe_session_transmit(session, SBE_CONTROL_EVENT, &message.control, sizeof message);
}
