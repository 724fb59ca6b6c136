/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine: a session plus the channels the peer opened, serving requests. Every firmware and the
 * embedded remote run it; a port feeds it control messages and doorbells.
 *
 *     on a control message:  sbe_session_receive(&engine.session, ...)
 *     on a doorbell:         sbe_engine_doorbell(&engine, channel)
 *     then:                  while (sbe_engine_run(&engine)) ;  and sleep
 *
 * Not thread-safe: one thread, or the main loop of a bare-metal program.
 */
#ifndef SBE_CORE_ENGINE_H
#define SBE_CORE_ENGINE_H

#include "core/service.h"
#include "core/session.h"

#define SBE_PRIORITIES 4u
/*
 * What the handlers of one context may take in a round; beyond it go only the piece at hand and
 * handlers that are not in pieces. So whoever rings waits for one turn of each other context.
 */
#define SBE_TURN_NS 500000u

struct sbe_engine_channel {
    struct sbe_channel channel; /* first, so that a channel leads to its entry */
    struct sbe_engine_channel *next;
    struct sbe_kept *kept;   /* the first of those that came by it */
    struct sbe_share *share; /* its context's */
    uint32_t budget;         /* frames per turn */
    uint8_t priority;
    bool active; /* in the list of its priority: it may have work */
    bool used;
    bool paused; /* a request of it goes on in its next turn, and those behind it wait */
};

/* How a request goes on in a later turn: firmware/pieces. */
struct sbe_engine_pieces {
    void (*pause)(struct sbe_engine *engine, struct sbe_engine_channel *entry);
    void (*go_on)(struct sbe_engine *engine, struct sbe_engine_channel *entry);
    void (*drop)(struct sbe_engine *engine, struct sbe_engine_channel *entry);
};

struct sbe_engine_config {
    const struct sbe_service *const *services; /* usually __start_sbe_services to __stop_ */
    uint32_t service_count;
    struct sbe_engine_channel *channels;    /* session.limits.channels of them */
    struct sbe_call *calls;                 /* calls_per_channel for each channel, may be NULL */
    uint32_t calls_per_channel;             /* at most half of a channel's slots are used */
    void *scratch_in;                       /* session.limits.slot_size bytes, 8-byte aligned */
    void *scratch_out;                      /* the same */
    const struct sbe_engine_pieces *pieces; /* NULL: handlers end within their turn */
    void *paused;                           /* theirs */
    uint32_t kept_per_context; /* requests that a context may have kept at a time, 0: any number */
    const struct sbe_port *port;
    /* A channel was opened or is about to close: the port keeps its doorbells. self: the port's. */
    int (*opened)(void *self, struct sbe_channel *channel, const struct sbe_channel_open *message);
    void (*closed)(void *self, struct sbe_channel *channel);
    struct sbe_session_config session; /* port and hooks are filled by sbe_engine_init() */
};

/*
 * What nearly every remote begins with: the services that the linker collected, what this code
 * speaks, coherent memory as wide as a pointer, frames of SBE_BUFFERS_MAX buffers. The rest is its
 * own: tables and the limits that say how large they are, a name, the cache line.
 */
static inline struct sbe_engine_config sbe_engine_defaults(const struct sbe_port *port)
{
    return (struct sbe_engine_config){
        .services = __start_sbe_services,
        .service_count = (uint32_t)(__stop_sbe_services - __start_sbe_services),
        .port = port,
        .session =
            {
                .role = SBE_ROLE_REMOTE,
                .coherent = 1,
                .address_bits = (uint8_t)(sizeof(void *) * 8),
                .version_min = SBE_VERSION_MIN,
                .version_max = SBE_VERSION_MAX,
                .limits.buffers = SBE_BUFFERS_MAX,
            },
    };
}

/* Small fields first: Thumb's short instructions reach 124 bytes. */
struct sbe_engine {
    const struct sbe_port *port;
    struct sbe_engine_config *config;
    struct sbe_engine_channel *last[SBE_PRIORITIES]; /* of those with work; its next is the first */
    struct sbe_task *tasks;                          /* for the next round */
    uint32_t served; /* frames taken so far, for the port to see whether there is traffic */
    uint32_t round;
    uint32_t beats;         /* of its heart: sbe_request_alive() */
    struct sbe_share share; /* of channels that belong to no context */
    bool busy;              /* set by a port that looks again soon: no doorbell is asked for */
    struct sbe_request request;
    struct sbe_frame frame;    /* the request at hand */
    struct sbe_frame response; /* the answer under way */
    struct sbe_session session;
    struct sbe_session_hooks hooks;
};

/*
 * config must outlive the engine. After this a port may fill those of the engine's hooks that are
 * NULL; their self is the engine.
 */
int sbe_engine_init(struct sbe_engine *engine, struct sbe_engine_config *config);

/* A doorbell of this channel rang, or may have. */
void sbe_engine_doorbell(struct sbe_engine *engine, struct sbe_channel *channel);

/*
 * One round: every channel with work gets its budget, higher priorities first, as long as its
 * context has time left in this round (SBE_TURN_NS). True: more work is waiting, call again, but
 * look at control messages before; false: every channel has asked for a doorbell, the port may
 * sleep.
 */
bool sbe_engine_run(struct sbe_engine *engine);

#endif
