/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a service author needs. A service is one file:
 *
 *     static int echo(struct sbe_request *request) { ... return SBE_OK; }
 *     SBE_SERVICE(echo, 1, echo);
 */
#ifndef SBE_CORE_SERVICE_H
#define SBE_CORE_SERVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/channel.h"
#include "core/status.h"
#include "core/wire.h"

#ifndef SBE_KEPT_BUFFERS
#define SBE_KEPT_BUFFERS 4u /* of a request that is answered later */
#endif

struct sbe_engine;
struct sbe_kept;

/* Valid until the handler returns. The engine also sees what a struct sbe_kept has of it so. */
struct __attribute__((may_alias)) sbe_request {
    struct sbe_engine *engine;
    struct sbe_channel *channel;
    const struct sbe_service *service;
    const void *payload; /* private memory: may be read as often as you like */
    uint32_t payload_size;
    uint32_t buffer_count;
    uint64_t transaction; /* 0: a message, nobody waits for an answer */
    uint64_t begun_ns;    /* the engine's */
    uint32_t waited_ns;
    struct sbe_buffer *buffers; /* data and size; areas are shared memory, read values once */
    void *reply;                /* room for the response's payload */
    uint32_t reply_room;        /* bytes */
    uint32_t reply_size;        /* set by the handler, at most reply_room */
    uint64_t written[SBE_BUFFERS_MAX]; /* per buffer, set by the handler; INOUT starts at size */
    uint64_t progress; /* the handler's own between its pieces, zero before the first */
    uint64_t state;    /* the same */
};

/* A handler's return value: zero or a negative enum sbe_status that the caller receives, or: */
#define SBE_KEPT 1 /* sbe_request_keep() took it, sbe_kept_answer() will answer */
/*
 * A piece of it is done: the handler is called again with the same request, at once or in a later
 * turn of its context; what it needs to go on is in `progress` and `state`. So work that may take
 * long does some ten microseconds of it at a time, and nobody waits for all of it.
 */
#define SBE_MORE 2

/*
 * A handler that takes long and is not in pieces says so now and then: who waits, and a daemon that
 * would start the remote again, see that it is at work.
 */
void sbe_request_alive(const struct sbe_request *request);

struct sbe_service {
    const char *name; /* at most 31 characters */
    uint16_t version;
    int (*handle)(struct sbe_request *request);
    /*
     * The requester no longer wants the answer, or is gone (kept->channel is NULL): when this
     * returns, the buffers are not touched again. It may answer at once, and others of its kept
     * requests too, but their storage stays until this has returned. Needed if it keeps.
     */
    void (*cancel)(struct sbe_kept *kept);
    /*
     * What it keeps lasts, as streams do, and counts for nobody's share of kept requests: the
     * service has a bound of its own for each context. Nor does it keep this end from being
     * suspended unless this says so, with a status, when it is asked; `now` it has to rest: when
     * this returns, the buffers are left alone until a later request. NULL: it does not last.
     */
    int (*rest)(const struct sbe_engine *engine, bool now);
};

/* A request to be answered later; the service owns the storage until it has answered. */
struct sbe_kept {
    struct sbe_kept *below[2]; /* the engine's: others of its channel */
    struct sbe_engine *engine;
    struct sbe_channel *channel; /* NULL: the requester is gone, answering does nothing */
    const struct sbe_service *service;
    const void *payload; /* in the scratch memory given to keep */
    uint32_t payload_size;
    uint32_t buffer_count;
    uint64_t transaction;
    uint64_t begun_ns;
    uint32_t waited_ns;
    struct sbe_kept **place; /* the engine's: where it hangs */
    struct sbe_buffer buffers[SBE_KEPT_BUFFERS];
    uint64_t written[SBE_KEPT_BUFFERS];
};

/*
 * Keeps a request: areas stay mapped, payload and inline bytes are copied to scratch, 8-byte
 * aligned. SBE_ENOSPC scratch too small, SBE_ENOTSUP more than SBE_KEPT_BUFFERS, no transaction or
 * one that is kept already, SBE_EAGAIN as many are kept as the ring has slots but one, SBE_EBUSY as
 * many as one context may have. The handler then returns SBE_KEPT.
 */
int sbe_request_keep(struct sbe_request *request, struct sbe_kept *kept, void *scratch,
                     uint32_t scratch_size);

/* Answers a kept request, on the engine's thread. Zero also when the requester is gone. */
int sbe_kept_answer(struct sbe_kept *kept, int status, const void *payload, uint32_t payload_size);

/*
 * Work that a handler leaves for later, a piece at a time, so that channels are served in between:
 * run() is called once a round of the engine for as long as it returns true. The storage is the
 * service's, zeroed at first, and in use while `queued`.
 */
struct sbe_task {
    struct sbe_task *next;
    bool (*run)(struct sbe_task *task);
    bool queued;
};

/* Has it run from the next round on. Once queued it stays queued once. */
void sbe_engine_later(struct sbe_engine *engine, struct sbe_task *task);

/* What a service has for all, counted as a context asks for one more: neither it nor its user takes
 * what others need. */
struct sbe_share_count {
    uint32_t context;
    uint32_t of_context, of_owner;
};

static inline void sbe_share_count(struct sbe_share_count *count, uint32_t holder)
{
    count->of_context += holder == count->context;
    count->of_owner += holder >> SBE_CONTEXT_OWNER == count->context >> SBE_CONTEXT_OWNER;
}

/* The other direction: this end calls a service of the peer. */
struct sbe_outcall {
    /*
     * The response, or NULL and a status when the channel died. Its buffers are this end's again;
     * data is NULL where it names none of this context's.
     */
    void (*done)(struct sbe_outcall *call, int status, const struct sbe_frame *response);
};

struct sbe_find {
    void (*done)(struct sbe_find *find, int status, uint16_t service);
};

/* Finds a service of the peer by name, on behalf of a channel's context. */
int sbe_engine_find(struct sbe_engine *engine, const struct sbe_channel *channel, const char *name,
                    struct sbe_find *find);
/*
 * Sends a request frame; the caller fills service, payload and buffers, which have their data as a
 * request brought them or sbe_area_resolve() found them, and are the peer's until `done`.
 * SBE_ESHUTDOWN the channel is closed or broken, SBE_EAGAIN no room beside the answers owed,
 * SBE_ENOMEM too many calls are open, SBE_EMSGSIZE more than a frame of the peer's holds.
 */
int sbe_engine_call(struct sbe_engine *engine, struct sbe_channel *channel, struct sbe_frame *frame,
                    struct sbe_outcall *call);

/*
 * Registers a service by placing a pointer in a section that the linker collects. Names of
 * sections that are C identifiers get __start_ and __stop_ symbols from every ELF linker.
 */
#define SBE_SERVICE_ENTRY(name_, ...)                                    \
    static const struct sbe_service sbe_service_##name_ = {__VA_ARGS__}; \
    _Static_assert(sizeof(#name_) <= SBE_NAME_SIZE, "name too long");    \
    static const struct sbe_service *const sbe_service_entry_##name_     \
        __attribute__((used, section("sbe_services"))) = &sbe_service_##name_

#define SBE_SERVICE_WITH_CANCEL(name_, version_, handle_, cancel_) \
    SBE_SERVICE_ENTRY(name_, #name_, version_, handle_, cancel_, NULL)

#define SBE_SERVICE_THAT_LASTS(name_, version_, handle_, cancel_, rest_) \
    SBE_SERVICE_ENTRY(name_, #name_, version_, handle_, cancel_, rest_)

#define SBE_SERVICE(name_, version_, handle_) \
    SBE_SERVICE_WITH_CANCEL(name_, version_, handle_, NULL)

extern const struct sbe_service *const __start_sbe_services[];
extern const struct sbe_service *const __stop_sbe_services[];

#endif
