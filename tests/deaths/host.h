/* SPDX-License-Identifier: Apache-2.0 */
/* The host: what host_end.c has, and host_script.c does with it. */
#ifndef SBE_TESTS_DEATHS_HOST_H
#define SBE_TESTS_DEATHS_HOST_H

#include "carveout/bootstrap.h"
#include "core/channel.h"
#include "core/session.h"
#include "core/status.h"
#include "ends.h"

#define CHANNELS 2u
#define AREAS    5u
#define CALLS    16u
#define PENDING  16u
#define DOUBLE   7u /* the id of the host's own service */

/* Where in an area of data: what nobody writes, samples, what they are encoded to, what is filled.
 */
#define PATTERN      0u
#define PATTERN_SIZE 256u
#define SAMPLES      256u
#define ENCODED      512u
#define SAMPLES_SIZE 128u
#define FILLED       1024u
#define FILLED_SIZE  200u
#define PARTED       2048u
#define PARTED_SIZE  320u

enum service {
    ECHO,
    CRC32,
    FILL,
    COPY,
    MULAW,
    RELAY,
    PARTS,
    SERVICES
};

struct host_area {
    uint8_t *block; /* NULL: none */
    uint32_t id;
    uint32_t context;
    bool rings;
    bool mapped; /* in this epoch */
    bool ending; /* the remote was asked to let go */
};

struct host_call { /* a transaction or a control request, until it ends */
    bool open;
    bool control;
    uint32_t record;
    uint8_t service; /* enum service; of a control request its type */
    uint8_t area;    /* index, 0 none */
    uint32_t area_id;
    uint8_t channel;
    uint8_t value;
    uint64_t transaction;
};

struct host {
    enum binding binding;
    struct sbe_session session;
    struct sbe_session_config config;
    struct sbe_session_hooks hooks;
    struct sbe_port port;
    struct sbe_area areas_of_peer[4];
    struct sbe_session_context contexts_of_peer[2];
    struct sbe_session_channel channels_of_peer[2];
    struct sbe_session_pending pending[PENDING];
    struct sbe_bootstrap bootstrap;
    bool look; /* at the control side */
    bool met;  /* a session was connected, so that there is something to lose */

    struct host_area areas[AREAS];
    uint32_t generation; /* of area ids */
    struct sbe_channel channels[CHANNELS];
    struct sbe_call calls_of[CHANNELS][CALLS];
    bool open[CHANNELS];
    bool rung[CHANNELS];
    uint32_t next_channel;
    uint32_t channel_ids[CHANNELS];
    struct host_call calls[2 * CALLS];
    uint16_t services[SERVICES];
    uint32_t power_answers;              /* of SUSPEND and RESUME that are still to come */
    uint8_t *quarantine[AREAS + BLOCKS]; /* blocks that a remote which lives may still write */
    uint32_t quarantined;
    bool resetting;       /* this end has begun a new epoch: the remote has not heard of it */
    uint64_t sums[AREAS]; /* of areas of data, when the session was connected */
    uint32_t at;          /* in the script */
    uint32_t rests;       /* turns before the next step */
    bool done;
    uint8_t value;
    uint64_t scratch[SLOT_SIZE / 8];
    struct sbe_frame frame;
};

extern struct host host;

/* host_end.c */
struct host_call *host_new_call(enum kind kind);
bool host_ask(enum sbe_control_type type, struct sbe_control *message, uint32_t size, uint8_t area);
/* False: there is no room now. */
bool host_send(uint32_t channel, struct sbe_frame *frame, struct host_call *call);
void host_open(uint32_t channel, const struct host_area *rings);
void host_end_calls(uint32_t channel, int status);
uint32_t host_open_calls(bool control);

/* host_script.c */
void host_answered(struct host_call *call, int status, const struct sbe_frame *response);
void host_replied(struct host_call *call, int status, const struct sbe_control *message);
/* A session is connected; it is gone, and the remote lets go of all that it had of us. */
void host_peer_met(void);
void host_peer_lost(void);
/* True: something was done. */
bool host_go_on(void);
bool host_at_end(void);

#endif
