/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session: the control protocol of one link, the same for host and remote. It negotiates, keeps
 * the tables of contexts, areas and channels that the peer has made here, and matches requests with
 * replies. Not thread-safe; all storage is the caller's.
 *
 *   initialising -> waiting -> initialised -> connected -> closing -> closed
 *   (start)         HELLO      their HELLO    our HELLO    BYE        BYE
 *                   sent       accepted       accepted     sent       answered or received
 *
 * Any state goes back to waiting when the peer shows a new epoch.
 */
#ifndef SBE_CORE_SESSION_H
#define SBE_CORE_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "core/area.h"
#include "core/channel.h"
#include "core/port.h"
#include "core/wire.h"

enum sbe_session_state {
    SBE_SESSION_INITIALISING,
    SBE_SESSION_WAITING,
    SBE_SESSION_INITIALISED,
    SBE_SESSION_CONNECTED,
    SBE_SESSION_CLOSING,
    SBE_SESSION_CLOSED,
};

struct sbe_session;
struct sbe_session_channel;

/* What the floor above is told and asked. The first three are required. */
struct sbe_session_hooks {
    void *self;
    /*
     * The peer opens a channel: memory, context and limits are checked, the rings lie at send and
     * receive as this end sees them. Zero or a status. `place` is its entry in the table, from now
     * to its close.
     */
    int (*channel_open)(void *self, const struct sbe_session_channel *place,
                        const struct sbe_channel_open *message, void *send, void *receive);
    /* Close the channel now, answer nothing more on it, end the open requests that came by it. */
    void (*channel_close)(void *self, const struct sbe_session_channel *place);
    /* Fills service, version and name: of the one with this name, or (name NULL) at this index. */
    int (*service)(void *self, uint32_t context, const char *name, uint32_t index,
                   struct sbe_service_reply *reply);
    void (*state_changed)(void *self, enum sbe_session_state state);
    /* A HELLO was refused, by this end or (theirs) by the peer. */
    void (*refused)(void *self, enum sbe_refusal why, bool theirs, uint16_t peer_min,
                    uint16_t peer_max);
    /* The answer to a request; message is NULL when the session ended first. */
    void (*replied)(void *self, void *token, int status, const struct sbe_control *message);
    void (*event)(void *self, uint32_t event, uint32_t value);
};

#define SBE_CONTEXT_ALL UINT32_MAX /* not a legal context id */

struct sbe_share { /* of what the engine has, the engine's to keep */
    uint32_t round;
    uint32_t left_ns;
    uint32_t kept;
    uint32_t streams_round; /* the same for firmware/streams */
    uint32_t streams_left_ns;
};

struct sbe_session_context {
    uint32_t id; /* 0: free; the global context needs no entry */
    uint32_t destroy_id;
    bool dying;
    struct sbe_area *areas; /* the first of those in it */
    struct sbe_share share;
};

struct sbe_session_channel {
    uint32_t id; /* 0: free */
    uint32_t context;
    uint32_t ring_area;
};

struct sbe_session_pending { /* a request waiting for its reply */
    uint32_t id;             /* 0: free */
    uint16_t type;
    void *token;
};

struct sbe_session_config {
    const struct sbe_port *port;
    const struct sbe_session_hooks *hooks;
    const char *name;     /* of the implementation, for people */
    uint16_t version_min; /* usually SBE_VERSION_MIN and _MAX */
    uint16_t version_max;
    /* from here to the limits as in struct sbe_hello, which tells them */
    uint8_t role; /* enum sbe_role */
    uint8_t coherent;
    uint8_t address_bits; /* 1 to 64 */
    uint8_t reserved;     /* zero */
    uint32_t features;    /* none defined, zero */
    uint32_t cache_line;
    struct sbe_limits limits; /* areas, contexts and channels also size the tables below */
    struct sbe_area *areas;
    struct sbe_session_context *contexts;
    struct sbe_session_channel *channels;
    struct sbe_session_pending *pending;
    uint32_t pending_count;
};

struct sbe_session {
    struct sbe_area_table areas; /* coherent: agreed, both ends are */
    struct sbe_area *global;     /* the first of those that are nobody's */
    enum sbe_session_state state;
    struct sbe_limits limits; /* agreed */
    const struct sbe_session_config *config;
    uint32_t line;    /* agreed: the larger of both lines */
    uint16_t version; /* agreed */
    uint8_t peer_address_bits;
    uint32_t next_id;
    uint32_t dropped; /* messages from dead epochs or in the wrong state */
    uint32_t epoch;
    uint32_t peer_epoch;      /* whose HELLO we accepted, 0 none */
    uint32_t confirmed_epoch; /* who accepted ours, 0 nobody */
};

/* Copies a name into a zeroed field of SBE_NAME_SIZE. False: it was too long and is cut. */
bool sbe_name_set(char *to, const char *from);

/* config stays the caller's and must outlive the session. SBE_EINVAL names no table or limit. */
int sbe_session_init(struct sbe_session *session, const struct sbe_session_config *config);

/* (Re)starts with a fresh non-zero epoch: forgets the peer and sends HELLO. */
int sbe_session_start(struct sbe_session *session, uint32_t epoch);

/* Orderly goodbye; `replied` with token tells when the peer has let go. */
int sbe_session_bye(struct sbe_session *session, void *token);

/* The peer is known to be gone (its process died): everything of it goes, state is waiting. */
void sbe_session_lost(struct sbe_session *session);

/*
 * Sends a request. The caller fills the body; type, size, epoch and id are filled here. `replied`
 * comes with token. SBE_ENOTCONN, SBE_ENOMEM too many open requests, or what control_send said.
 */
int sbe_session_request(struct sbe_session *session, enum sbe_control_type type,
                        struct sbe_control *message, uint32_t size, void *token);

/* Sends an event, which has no reply. */
int sbe_session_event(struct sbe_session *session, uint32_t event, uint32_t value);

/*
 * Takes one control message: private memory, 8-byte aligned, with the number of handles that came
 * beside it. SBE_EBADMSG malformed, SBE_ENOTCONN wrong state or epoch; neither ends the session.
 */
int sbe_session_receive(struct sbe_session *session, const void *message, uint32_t size,
                        uint32_t handles);

/* Open requests hold areas: a held area is unmapped, and its unmap answered, when let go. */
void sbe_session_unpin(struct sbe_session *session, struct sbe_area *area);

#endif
